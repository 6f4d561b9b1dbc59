//! Holds updates while replicas lag behind, or sessions wait for locks.
//!
//! What is no business of WebAssembly is in a module of its own, so that `cargo test` tests it on any machine.

#[cfg(target_arch = "wasm32")]
mod component;
pub mod policy;
