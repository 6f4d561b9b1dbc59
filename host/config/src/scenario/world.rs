//! What there is to do and what happens meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::diagnostic::Position;
use super::super::resolve::{narrow, one_of, required, text};
use super::super::section::{Reader, Section, Table};
use super::{Taken, present, raw, required_word, sections, span};
use tidegate::update::ErrorClass;
use tidegate_simulate::scenario::{Action, ClockJump, Deed, Failure, Load, Loss, Signal, Span, Step, Update};

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn real(value: Option<raw::Real>, otherwise: f64) -> f64 {
    value.map_or(otherwise, |raw::Real(number)| number)
}

pub(super) fn clock<'a>(reader: &mut Reader<'a>, value: Taken<'a>) -> Vec<ClockJump> {
    let jumps = sections::<raw::Clock>(reader, "[[clock]]", value);
    let jump = |Section { values: raw, .. }| {
        let raw::Clock { at_ms, by_ms } = raw;
        ClockJump { at: millis(at_ms.0), by_ms }
    };
    jumps.into_iter().map(jump).collect()
}

pub(super) fn stalls<'a>(reader: &mut Reader<'a>, value: Taken<'a>) -> Vec<Span> {
    let stalls = sections::<raw::Stall>(reader, "[[stall]]", value);
    stalls.iter().filter_map(|stall| span(reader, stall, stall.values.from_ms.0, stall.values.until_ms.0)).collect()
}

pub(super) fn load<'a>(reader: &mut Reader<'a>, value: Taken<'a>) -> Load {
    const TITLE: &str = "[load]";
    let Some(mut table) = value.and_then(|value| reader.table(TITLE, value)) else { return Load::default() };
    let steps = table.get_mut().remove("step");
    let Section { values: raw, places, .. } = reader.section::<raw::Load>(TITLE, table);
    let steps = steps_of(reader, "[[load.step]]", steps);
    let share = real(raw.batch_share, Load::default().batch_share);
    for (key, part) in steps.iter().map(|step| ("step", step.value)).chain([("batch_share", share)]) {
        if part > 1.0 {
            let hint = "write the part of the server that is in use, from 0 to 1".to_owned();
            reader.error(places.of(key), format!("\"{key}\" in {TITLE} is {part}"), Some(hint));
        }
    }
    Load { latency_ms: real(raw.latency_ms, Load::default().latency_ms), batch_share: share, steps }
}

/// Values that change in steps, in order of time.
fn steps_of<'a>(reader: &mut Reader<'a>, title: &'static str, value: Taken<'a>) -> Vec<Step> {
    let steps = sections::<raw::Step>(reader, title, value);
    let step = |step: &Section<raw::Step>| {
        let value = present(reader, step, "value", step.values.value)?;
        Some(Step { at: millis(step.values.at_ms.0), value: value.0 })
    };
    in_order(steps.iter().filter_map(step).collect())
}

fn in_order(mut steps: Vec<Step>) -> Vec<Step> {
    steps.sort_by_key(|step| step.at);
    steps
}

pub(super) fn updates<'a>(reader: &mut Reader<'a>, value: Taken<'a>, header: Position) -> Vec<Update> {
    let Some(value) = value else {
        let hint = "add an [[update]] with its \"name\" and its \"items\"".to_owned();
        reader.error(header, "there is no [[update]] in the scenario", Some(hint));
        return Vec::new();
    };
    let mut names = BTreeSet::new();
    let mut updates = Vec::new();
    for table in reader.tables("[[update]]", value) {
        let at = reader.source.position(table.span().start);
        let Some(update) = update(reader, table) else { continue };
        if !names.insert(update.name.clone()) {
            let hint = "give one of them another name, or say with \"count\" how many there are".to_owned();
            reader.error(at, format!("there are two updates named \"{}\"", update.name), Some(hint));
        }
        updates.push(update);
    }
    updates
}

fn update<'a>(reader: &mut Reader<'a>, mut table: Table<'a>) -> Option<Update> {
    let costs = table.get_mut().remove("cost");
    let failures = table.get_mut().remove("failure");
    let section = reader.section::<raw::Update>("[[update]]", table);
    let costs = sections::<raw::Cost>(reader, "[[update.cost]]", costs);
    let factor = |cost: &Section<raw::Cost>| {
        let factor = present(reader, cost, "factor", cost.values.factor)?;
        Some(Step { at: millis(cost.values.at_ms.0), value: factor.0 })
    };
    let steps = in_order(costs.iter().filter_map(factor).collect());
    let failures = sections::<raw::Failure>(reader, "[[update.failure]]", failures);
    let failures = failures.iter().filter_map(|section| failure(reader, section)).collect();
    let raw = &section.values;
    let name = required(reader, &section, "name", raw.name.as_ref());
    Some(Update {
        name: name?,
        items: raw.items.0,
        one_shot: raw.one_shot.unwrap_or(false),
        count: narrow(raw.count.0),
        queued_at: millis(raw.queued_at_ms.0),
        every: millis(raw.every_ms.0),
        depends_on: text(reader, "depends_on", raw.depends_on.as_ref()).unwrap_or_default(),
        ordering: raw.ordering,
        cost_ms: real(raw.cost_ms, 1.0),
        batch_ms: real(raw.batch_ms, 1.0),
        noise: real(raw.noise, 0.0),
        steps,
        empty_every: raw.empty_every.0,
        failures,
    })
}

fn failure(reader: &mut Reader<'_>, section: &Section<raw::Failure>) -> Option<Failure> {
    let raw = &section.values;
    let words = ["transient", "permanent", "connection"];
    let span = span(reader, section, raw.from_ms.0, raw.until_ms.0);
    let class = raw.class.as_ref().map(|class| one_of(reader, "class", class, &words));
    let (class, message) = match class.unwrap_or(Some("transient"))? {
        "permanent" => (ErrorClass::Permanent, "violates a constraint"),
        "connection" => (ErrorClass::Connection, "the server closed the connection"),
        _ => (ErrorClass::Transient, "deadlock detected"),
    };
    let said = text(reader, "message", raw.message.as_ref());
    Some(Failure { span: span?, times: raw.times.0, class, message: said.unwrap_or_else(|| message.to_owned()) })
}

pub(super) fn signals<'a>(reader: &mut Reader<'a>, value: Taken<'a>) -> Vec<Signal> {
    let tables = value.map(|value| reader.tables("[[signal]]", value)).unwrap_or_default();
    let mut signals: Vec<Signal> = Vec::new();
    for mut table in tables {
        let steps = table.get_mut().remove("step");
        let losses = table.get_mut().remove("loss");
        let section = reader.section::<raw::Signal>("[[signal]]", table);
        let raw = &section.values;
        let losses = sections::<raw::Loss>(reader, "[[signal.loss]]", losses);
        let losses = losses.iter().filter_map(|loss| {
            let span = span(reader, loss, loss.values.from_ms.0, loss.values.until_ms.0)?;
            Some(Loss { span, gone: loss.values.gone.unwrap_or(false) })
        });
        let losses = losses.collect();
        let steps = steps_of(reader, "[[signal.step]]", steps);
        let Some(name) = required(reader, &section, "name", raw.name.as_ref()) else { continue };
        if signals.iter().any(|known| known.name == name) {
            let message = format!("there are two signals named \"{name}\"");
            reader.error(section.places.of("name"), message, Some("give one of them another name".to_owned()));
        }
        signals.push(Signal {
            name,
            every: millis(raw.every_ms.0),
            steps,
            noise: real(raw.noise, 0.0),
            per_item: real(raw.per_item, 0.0),
            drain_per_s: real(raw.drain_per_s, 0.0),
            foreground: raw.foreground.unwrap_or(false),
            losses,
        });
    }
    signals
}

pub(super) fn actions<'a>(reader: &mut Reader<'a>, value: Taken<'a>) -> Vec<Action> {
    let actions = sections::<raw::Action>(reader, "[[action]]", value);
    actions.iter().filter_map(|section| action(reader, section)).collect()
}

fn action(reader: &mut Reader<'_>, section: &Section<raw::Action>) -> Option<Action> {
    let raw = &section.values;
    let words = ["pause", "resume", "reload", "restart", "retry"];
    let deed = match required_word(reader, section, "do", raw.deed.as_ref(), &words)? {
        "pause" => Deed::Pause,
        "resume" => Deed::Resume,
        "reload" => Deed::Reload,
        "restart" => Deed::Restart,
        _ => Deed::Retry(required(reader, section, "update", raw.update.as_ref())?),
    };
    Some(Action { at: millis(raw.at_ms.0), deed })
}
