//! From wasmtime's errors to faults: by type where there is a type, by text only where there is none.

use std::path::Path;

use wasmtime::{Error, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::limits::{Exceeded, Limits};
use super::text::printable;
use tidegate::controller::{Callback, Fault, FaultKind};

/// Bytes of a message that came from a guest, or quotes one.
pub(super) const MESSAGE_BYTES: usize = 4 << 10;

/// Functions named in a trap's message, the innermost first.
const FRAMES: usize = 4;

/// Bytes of such a name. A compiler's may be long, and a file may name a function with a book.
const NAME_BYTES: usize = 120;

/// What wasmtime says, and gives no type to, when a store has too many handles.
const HANDLES_TEXT: &str = "store handle limit exceeded";
/// The same for one crossing of the boundary with too much data.
const DATA_TEXT: &str = "too much data is being copied between the host and the guest";
/// The same for too many core instances, memories or tables.
const INSTANCES_TEXT: &str = "resource limit exceeded";

/// What went wrong in a call, or while an instance was started. A guest that traps may have said why: `last_words` are what
/// it wrote to standard error.
pub(super) fn of_call(error: &Error, callback: Callback, limits: &Limits, last_words: &str) -> Fault {
    let (kind, message) = of_error(error, limits);
    let message = match kind {
        FaultKind::Trap if !last_words.is_empty() => format!("{message}; it wrote: {last_words}"),
        _ => message,
    };
    Fault { kind, callback, message: printable(&message, MESSAGE_BYTES) }
}

/// The same without where it was, and without what the guest wrote.
pub(super) fn of_error(error: &Error, limits: &Limits) -> (FaultKind, String) {
    by_type(error, limits)
        .or_else(|| by_text(error, limits))
        .unwrap_or_else(|| (FaultKind::Trap, with_frames(error, &error.root_cause().to_string())))
}

/// The callback answered with an error.
pub(super) fn returned(message: &str, callback: Callback) -> Fault {
    Fault { kind: FaultKind::ErrorReturned, callback, message: printable(message, MESSAGE_BYTES) }
}

/// The file cannot be read.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    let message = printable(&format!("cannot read `{}`: {error}", path.display()), MESSAGE_BYTES);
    Fault { kind: FaultKind::Unreadable, callback: Callback::Load, message }
}

/// The component does not fit this host.
pub(super) fn incompatible(message: &str) -> Fault {
    Fault { kind: FaultKind::Incompatible, callback: Callback::Load, message: printable(message, MESSAGE_BYTES) }
}

/// The same, with wasmtime's words on why.
pub(super) fn incompatible_because(message: &str, cause: &Error) -> Fault {
    incompatible(&format!("{message}: {cause:#}"))
}

/// The instance was lost in an earlier call.
pub(super) fn lost(first: &Fault, callback: Callback) -> Fault {
    let message = format!("the instance was lost in {}: {}", first.callback, first.message);
    Fault { kind: first.kind, callback, message: printable(&message, MESSAGE_BYTES) }
}

fn by_type(error: &Error, limits: &Limits) -> Option<(FaultKind, String)> {
    if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        let kind = match exceeded {
            Exceeded::Memory { .. } | Exceeded::TableElements { .. } => FaultKind::Memory,
            Exceeded::Data { .. } => FaultKind::DataSize,
            Exceeded::Deadline { .. } => FaultKind::Deadline,
        };
        return Some((kind, exceeded.to_string()));
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return Some(of_trap(*trap, error, limits));
    }
    if let Some(I32Exit(status)) = error.downcast_ref() {
        return Some((FaultKind::Trap, with_frames(error, &format!("the guest exited with status {status}"))));
    }
    None
}

fn of_trap(trap: Trap, error: &Error, limits: &Limits) -> (FaultKind, String) {
    match trap {
        Trap::OutOfFuel => (FaultKind::OutOfFuel, format!("used up its {} units of fuel", limits.fuel_per_call)),
        Trap::StackOverflow => (FaultKind::Stack, format!("used up its {} bytes of stack", limits.stack_bytes)),
        other => {
            let text = other.to_string();
            (FaultKind::Trap, with_frames(error, text.strip_prefix("wasm trap: ").unwrap_or(&text)))
        }
    }
}

fn by_text(error: &Error, limits: &Limits) -> Option<(FaultKind, String)> {
    let says = |text: &str| error.chain().any(|cause| cause.to_string().contains(text));
    if says(HANDLES_TEXT) {
        Some((FaultKind::Handles, format!("wanted more than {} live handles", limits.handles)))
    } else if says(DATA_TEXT) {
        Some((FaultKind::DataSize, Exceeded::Data { limit: limits.data_bytes }.to_string()))
    } else if says(INSTANCES_TEXT) {
        let message = format!("wanted more than {} core instances, memories or tables", limits.instances);
        Some((FaultKind::Memory, message))
    } else {
        None
    }
}

/// Adds the names of the guest's functions that were running, where its file tells them.
fn with_frames(error: &Error, message: &str) -> String {
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    let names = frames.iter().filter_map(|frame| frame.func_name()).take(FRAMES);
    let names: Vec<String> = names.map(|name| format!("`{}`", printable(name, NAME_BYTES))).collect();
    if names.is_empty() { message.to_owned() } else { format!("{message}, in {}", names.join(" called from ")) }
}
