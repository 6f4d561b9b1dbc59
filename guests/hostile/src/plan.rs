//! What the settings ask for, and whether it is due.

use std::cell::Cell;

use crate::bindings::tidegate::controller::settings;

/// For ever, or until something gives way.
pub const ENDLESS: u64 = u64::MAX;

/// What can be done wrong, each with an amount.
#[derive(Clone, Copy, PartialEq)]
pub enum Deed {
    Loop,
    HostCalls,
    Recursion,
    Memory,
    Leak,
    Log,
    LogLine,
    Handles,
    Sleep,
    Trap,
    Exit,
    BadPointer,
    BadText,
    BadHandle,
    BadAnswer,
    Outside,
    Error,
    Reason,
    Target,
    Wait,
    BatchSize,
}

/// Where it can be done.
#[derive(Clone, Copy, PartialEq)]
pub enum Callback {
    OnUpdate,
    Enter,
    Exit,
    Drop,
    DefaultBatchSize,
    MinBatchSize,
}

/// Each deed: its name in the settings, its amount where none is given.
const DEEDS: [(&str, Deed, u64); 21] = [
    ("loop", Deed::Loop, ENDLESS),
    ("host-calls", Deed::HostCalls, ENDLESS),
    ("recursion", Deed::Recursion, ENDLESS),
    ("memory", Deed::Memory, ENDLESS),
    ("leak", Deed::Leak, 1_024),
    ("log", Deed::Log, 10_000),
    ("log-line", Deed::LogLine, 1 << 20),
    ("handles", Deed::Handles, 2_000),
    ("sleep", Deed::Sleep, 3_600_000),
    ("trap", Deed::Trap, 0),
    ("exit", Deed::Exit, 1),
    ("bad-pointer", Deed::BadPointer, 0),
    ("bad-text", Deed::BadText, 0),
    ("bad-handle", Deed::BadHandle, 0),
    ("bad-answer", Deed::BadAnswer, 0),
    ("outside", Deed::Outside, 0),
    ("error", Deed::Error, 7),
    ("reason", Deed::Reason, 1 << 20),
    ("target", Deed::Target, 0),
    ("wait", Deed::Wait, 24 * 24 * 3_600 * 1_000),
    ("batch-size", Deed::BatchSize, 0),
];

const CALLBACKS: [(&str, Callback); 6] = [
    ("on-update", Callback::OnUpdate),
    ("enter", Callback::Enter),
    ("exit", Callback::Exit),
    ("drop", Callback::Drop),
    ("default-batch-size", Callback::DefaultBatchSize),
    ("min-batch-size", Callback::MinBatchSize),
];

thread_local! {
    /// Calls so far of the callback that the settings name.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// What is to be done wrong in this call, and how much of it. Settings that make no sense panic.
pub fn due(callback: Callback, update_name: &str) -> Option<(Deed, u64)> {
    let name = settings::get("misbehave")?;
    let (_, deed, amount) = *DEEDS.iter().find(|(known, ..)| *known == name).expect("`misbehave` is a deed");
    let place = settings::get("in").unwrap_or_else(|| "enter".to_owned());
    let (_, place) = *CALLBACKS.iter().find(|(known, _)| *known == place).expect("`in` is a callback");
    if place != callback || settings::get("update").is_some_and(|update| update != update_name) {
        return None;
    }
    let call = CALLS.get() + 1;
    CALLS.set(call);
    let is_due = setting("call").is_none_or(|wanted| wanted == call);
    is_due.then(|| (deed, setting("amount").unwrap_or(amount)))
}

/// A setting that is a number.
pub fn setting(key: &str) -> Option<u64> {
    settings::get(key).map(|value| value.parse().expect("`amount`, `call` and `target_ms` are numbers"))
}
