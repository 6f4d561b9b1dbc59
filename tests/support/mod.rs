//! What tests of several topics use.

pub mod components;
