//! Gives updates as much of the time as the foreground's latency allows: a little more while it is fine, half as much as
//! soon as it is not.
//!
//! What is no business of WebAssembly is in a module of its own, so that `cargo test` tests it on any machine.

#[cfg(target_arch = "wasm32")]
mod component;
pub mod policy;
