//! Controllers that are WebAssembly components. Nothing else in the host knows wasmtime.
//!
//! [`Artifact`] is a component that was found fit to run, [`ComponentSource`] starts instances of it, and an instance is
//! a [`Controller`](tidegate::controller::Controller) like any other. A guest gets what [`Limits`] allow and what the
//! contract imports: signals, settings, a log, and WASI 0.2 with nothing granted. An instance that faults in any other
//! way than by answering is never called again.

mod artifact;
mod bindings;
mod compiler;
mod contract;
mod engine;
mod fault;
mod handler;
mod host_state;
mod instance;
mod limits;
mod log;
mod source;
mod stdio;
mod surroundings;
mod target;
mod text;

use std::time::Duration;

pub use artifact::{Artifact, LoadOptions};
pub use compiler::{Compiler, compile_from_stdin};
pub use handler::{ComponentTransformer, HandlerLimits, HandlerOptions, TransformArtifact, Used, handler_hint};
pub use limits::Limits;
pub use log::{LogLine, LogSink, LogSource, TracingSink};
pub use source::{ComponentSource, REASON_BYTES};
pub use surroundings::{Chance, Clock, Surroundings};

pub use tidegate::signal::{NoSignals, Reading, SignalReader};

/// A count for a guest. Integers stay below 2^31, for JavaScript engines pass larger ones wrongly.
fn count(number: u64) -> u32 {
    number.min(i32::MAX as u64) as u32
}

/// A length of time for a guest, in milliseconds, with the same bound.
fn millis(duration: Duration) -> u32 {
    count(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
