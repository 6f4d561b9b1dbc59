//! Gives updates as much of the time as the foreground bears: more while its latency is near what it is by itself, less
//! as soon as it is not.
//!
//! What is no business of WebAssembly is in modules of its own, so that `cargo test` tests it on any machine.

#[cfg(target_arch = "wasm32")]
mod component;
/// The rule, which is the host's own for `pace = "gentle"`: a copy of its `host/core/src/pace/gentle.rs`.
pub mod gentle;
pub mod policy;
