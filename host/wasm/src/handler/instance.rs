//! A running instance of a transform: every call goes through here, and none goes unmetered.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::{Error, Store};

use super::{HandlerLimits, TransformArtifact, handler_hint};
use crate::bindings::handler::Transform as Guest;
use crate::bindings::handler::exports::tidegate::handler::transformer::Outcome;
use crate::bindings::handler::tidegate::handler::values::{OtherValue, Value};
use crate::fault;
use crate::host_state::HostState;
use crate::instance::{allow, new_store, within};
use crate::limits::Limits;
use crate::log::Log;
use crate::surroundings::Surroundings;
use crate::text::printable;
use tidegate::controller::FaultKind;
use tidegate::signal::NoSignals;
use tidegate::update::{Cell, Cells, RowOutcome, TransformFault};

/// Bytes of a reason that are kept.
const REASON_BYTES: usize = 1 << 10;

/// One instance of a component and the store it lives in. Once a call has failed it must not be called again.
pub(super) struct LiveTransform {
    store: Store<HostState>,
    guest: Guest,
    limits: HandlerLimits,
    /// What the last call used.
    pub(super) used: Used,
}

/// What a call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Units of fuel.
    pub fuel: u64,
    /// Bytes of linear memory that the instance holds.
    pub memory_bytes: u64,
}

impl LiveTransform {
    /// Starts an instance.
    pub(super) async fn start(
        artifact: &TransformArtifact,
        limits: &HandlerLimits,
        settings: Arc<[(String, String)]>,
        log: Log,
        update_name: &str,
        impure: bool,
    ) -> Result<Self, TransformFault> {
        let surroundings = (!impure).then(|| Arc::new(Surroundings::still()));
        let state = HostState::new(&limits.call, settings, Arc::new(NoSignals), log, surroundings);
        let pre = artifact.pre.clone();
        let mut store = new_store(pre.engine(), &limits.call, state.of_update(update_name));
        let failed = |error: &Error, words: &str| of_error(error, &limits.call, words, "when it was started", false);
        allow(&mut store, &limits.call, true, Instant::now()).map_err(|error| failed(&error, ""))?;
        let started = within(limits.call.deadline, pre.instantiate_async(&mut store)).await;
        store.data_mut().end_call();
        let guest = started.map_err(|error| failed(&error, &store.data().last_words()))?;
        Ok(Self { store, guest, limits: limits.clone(), used: Used::default() })
    }

    /// Hands rows over.
    pub(super) async fn transform(&mut self, rows: Vec<Cells>) -> Result<Vec<RowOutcome>, TransformFault> {
        let count = rows.len();
        let fuel = self.limits.fuel_per_row.saturating_mul(count as u64);
        let call = &self.limits.call;
        let limits = Limits { fuel_per_call: call.fuel_per_call.saturating_add(fuel), ..call.clone() };
        let failed = |error: &Error, words: &str| of_error(error, &limits, words, "in transform", true);
        allow(&mut self.store, &limits, true, Instant::now()).map_err(|error| failed(&error, ""))?;
        let rows: Vec<Vec<Value>> = rows.into_iter().map(|row| row.into_iter().map(to_guest).collect()).collect();
        let transformer = self.guest.tidegate_handler_transformer();
        let answer = within(limits.deadline, transformer.call_transform(&mut self.store, &rows)).await;
        self.store.data_mut().end_call();
        let fuel = limits.fuel_per_call.saturating_sub(self.store.get_fuel().unwrap_or_default());
        self.used = Used { fuel, memory_bytes: self.store.data().accountant.memory_bytes() };
        let outcomes = answer.map_err(|error| failed(&error, &self.store.data().last_words()))?;
        if outcomes.len() != count {
            let message = format!("the component answered {} outcomes for {count} rows", outcomes.len());
            return Err(TransformFault::of_rows(message, None, handler_hint(FaultKind::OutOfRange)));
        }
        Ok(outcomes.into_iter().map(from_guest).collect())
    }
}

/// What the guest wrote may hold values of rows: the log alone is told it.
fn of_error(error: &Error, limits: &Limits, last_words: &str, place: &str, of_rows: bool) -> TransformFault {
    let (kind, message) = fault::of_error(error, limits);
    let message = printable(&format!("the component failed {place}: {kind}: {message}"), fault::MESSAGE_BYTES);
    let detail = (!last_words.is_empty()).then(|| format!("it wrote: {last_words}"));
    TransformFault { message, detail, hint: handler_hint(kind).to_owned(), of_rows }
}

fn to_guest(cell: Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Boolean(flag) => Value::Boolean(flag),
        Cell::Integer(number) => Value::Integer(number),
        Cell::Float(number) => Value::Float(number),
        Cell::Text(text) => Value::Text(text),
        Cell::Bytes(bytes) => Value::Bytes(bytes),
        Cell::Other { type_name, text } => Value::Other(OtherValue { type_name, text }),
    }
}

fn from_guest(outcome: Outcome) -> RowOutcome {
    match outcome {
        Outcome::Keep => RowOutcome::Keep,
        Outcome::Write(values) => RowOutcome::Write(values.into_iter().map(to_cell).collect()),
        Outcome::Fail(reason) => RowOutcome::Fail(printable(&reason, REASON_BYTES)),
    }
}

fn to_cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Boolean(flag) => Cell::Boolean(flag),
        Value::Integer(number) => Cell::Integer(number),
        Value::Float(number) => Cell::Float(number),
        Value::Text(text) => Cell::Text(text),
        Value::Bytes(bytes) => Cell::Bytes(bytes),
        Value::Other(OtherValue { type_name, text }) => Cell::Other { type_name, text },
    }
}
