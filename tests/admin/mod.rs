//! The API of a running host, over HTTP.

mod health;
mod metrics;
mod service;
