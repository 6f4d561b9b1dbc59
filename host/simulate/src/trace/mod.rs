//! Traces: every call of controllers written down while a host runs, and asked again of another controller afterwards.
//!
//! A trace is a file of JSON lines, which [`format`](mod@format) describes. [`Recorder`] writes one, as a
//! [`Witness`](tidegate::controller::Witness) of the calls; [`Reader`] reads it, and [`Replay`] asks a controller the same
//! questions in the same order and keeps what it answers otherwise. What a guest read while it was recorded (signals,
//! clocks, random numbers) it reads again through [`Playback`].

pub mod format;
mod number;
mod playback;
mod reader;
mod recorder;
mod replay;

pub use playback::Playback;
pub use reader::{Reader, TraceError};
pub use recorder::{CreateError, Finished, Recorder};
pub use replay::{Change, Difference, Replay, ReplayReport};
