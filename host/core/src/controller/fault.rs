//! What can go wrong with a controller, in types, each with a hint for its author.

use std::fmt;

/// A controller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}{}: {message}", callback.place())]
pub struct Fault {
    /// What kind of fault.
    pub kind: FaultKind,
    /// Where it happened.
    pub callback: Callback,
    /// What happened, with the limit in question where there is one.
    pub message: String,
}

/// Where a fault happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Callback {
    /// Reading, compiling and linking the component.
    Load,
    /// Starting an instance of it.
    Start,
    /// `on-update`.
    OnUpdate,
    /// `iteration.enter`.
    Enter,
    /// `iteration.exit`.
    Exit,
    /// The destructor of an iteration.
    Drop,
    /// `default-batch-size`.
    DefaultBatchSize,
    /// `min-batch-size`.
    MinBatchSize,
}

/// The kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A call used up its fuel.
    OutOfFuel,
    /// A call took longer than its deadline, time asleep included.
    Deadline,
    /// The instance wanted more linear memory, table elements or core instances than it may have.
    Memory,
    /// The wasm stack overflowed.
    Stack,
    /// A call passed more data across the boundary than it may.
    DataSize,
    /// The instance wanted more live handles than it may have.
    Handles,
    /// The guest trapped (unreachable, out of bounds, division by zero, a panic).
    Trap,
    /// A callback returned an error.
    ErrorReturned,
    /// A callback returned a number out of range; it was replaced by the nearest in range.
    OutOfRange,
    /// The file cannot be read.
    Unreadable,
    /// The file is not a controller that this host can run.
    Incompatible,
    /// Compiling the file took more time or memory than it may.
    Compilation,
    /// The file's digest is not the one that the configuration pins.
    WrongDigest,
}

impl Callback {
    /// Where, as a part of a sentence; that a file was at fault when it was loaded goes without saying.
    fn place(self) -> String {
        if self == Callback::Load { String::new() } else { format!(" in {self}") }
    }
}

impl FaultKind {
    /// True where the instance cannot be called again.
    pub fn loses_instance(self) -> bool {
        !matches!(self, FaultKind::ErrorReturned | FaultKind::OutOfRange)
    }

    /// What the controller's author can do about it.
    pub fn hint(self) -> &'static str {
        match self {
            FaultKind::OutOfFuel => {
                "look for a loop that does not end; where the work is honest, raise `fuel_per_call` in [controller.limits]"
            }
            FaultKind::Deadline => {
                "do not sleep inside a callback: answer `wait` from enter, and the host waits; or raise `deadline_ms` in [controller.limits]"
            }
            FaultKind::Memory => {
                "free what is no longer used, or raise `memory_bytes`, `table_elements` or `instances` in [controller.limits]"
            }
            FaultKind::Stack => "look for a recursion that does not end, or raise `stack_bytes` in [controller.limits]",
            FaultKind::DataSize => "pass shorter strings and lists, or raise `data_bytes` in [controller.limits]",
            FaultKind::Handles => "make one iteration per on-update, or raise `handles` in [controller.limits]",
            FaultKind::Trap => {
                "the guest's own code failed: a panic, an assertion, an access out of bounds; run it in a debugger or log what leads to it"
            }
            FaultKind::ErrorReturned => "the controller itself said so; its message tells why",
            FaultKind::OutOfRange => {
                "batch sizes are 1 to 2147483647, the least at most `max_min_batch_size`, target durations at most `max_target_duration_ms`"
            }
            FaultKind::Unreadable => "correct `path` in [[controller]], or let this user read the file",
            FaultKind::Incompatible => {
                "build a component (not a core module) for the world `tidegate:controller/controller@0.1.0` of wit/controller.wit, with no import beyond it and WASI 0.2"
            }
            FaultKind::Compilation => {
                "mend what the message names; or make the component smaller, above all its largest function: optimise it (`wasm-opt -O`), and leave out what the controller does not use"
            }
            FaultKind::WrongDigest => {
                "if the file is the one that you mean, put its digest into `sha256`; if not, find out who replaced it"
            }
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::OutOfFuel => "out of fuel",
            FaultKind::Deadline => "deadline passed",
            FaultKind::Memory => "memory limit",
            FaultKind::Stack => "stack overflow",
            FaultKind::DataSize => "too much data",
            FaultKind::Handles => "too many handles",
            FaultKind::Trap => "trap",
            FaultKind::ErrorReturned => "error returned",
            FaultKind::OutOfRange => "value out of range",
            FaultKind::Unreadable => "unreadable",
            FaultKind::Incompatible => "incompatible",
            FaultKind::Compilation => "compilation",
            FaultKind::WrongDigest => "wrong digest",
        })
    }
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Callback::Load => "load",
            Callback::Start => "start",
            Callback::OnUpdate => "on-update",
            Callback::Enter => "enter",
            Callback::Exit => "exit",
            Callback::Drop => "the destructor",
            Callback::DefaultBatchSize => "default-batch-size",
            Callback::MinBatchSize => "min-batch-size",
        })
    }
}
