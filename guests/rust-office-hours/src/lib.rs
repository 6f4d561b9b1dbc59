//! Lets updates run within weekly hours of a time zone, and makes them wait outside of those.
//!
//! What is no business of WebAssembly is in modules of its own, so that `cargo test` tests it on any machine.

#[cfg(target_arch = "wasm32")]
mod component;
pub mod hours;
pub mod policy;
pub mod window;
