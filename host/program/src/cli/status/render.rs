//! What `status` tells, for people.

use std::time::{Duration, SystemTime};

use tidegate::scheduler::database::unix_ms;
use tidegate_admin::api::view::{KeptRows, Shadow, ShadowDifference, SkippedRows};

use super::report::{
    ActivityReport, DatabaseReport, FaultReport, LaneReport, RetryReport, SignalReport, StatusReport, UpdateReport,
};
use crate::cli::output;
use crate::cli::signals::measure;

/// The whole report.
pub(super) fn report(report: &StatusReport) -> String {
    report.databases.iter().map(database).collect::<Vec<_>>().join("\n\n")
}

fn database(database: &DatabaseReport) -> String {
    let mut lines = vec![headline(database)];
    if let Some(activity) = &database.activity {
        lines.extend(controller(activity));
    }
    for LaneReport { lane, activity } in &database.lanes {
        let state = match &activity.reason {
            Some(reason) if database.pause.is_none() => format!("{}: {reason}", activity.state),
            _ => activity.state.to_string(),
        };
        let update = activity.update.as_ref().map(|update| format!(", {update}")).unwrap_or_default();
        lines.push(output::inline(&format!("  lane {lane}: {state}{update}")));
        lines.extend(controller(activity).into_iter().map(|line| format!("  {}", line.replace('\n', "\n  "))));
    }
    if let Some(FaultReport { controller, fault, .. }) = &database.last_fault {
        let (controller, fault) = (output::inline(controller), output::inline(fault));
        lines.push(format!("  controller, when a host last ran: {controller}\n  its last fault: {fault}"));
    }
    lines.extend(signals(&database.signals));
    lines.extend(database.kept.iter().map(kept));
    if database.error.is_none() && database.updates.is_empty() {
        lines.push(match database.queue_table_exists {
            true => "  the queue is empty".to_owned(),
            false => {
                let table = &database.queue_table;
                format!("  there is no table \"{table}\" yet: `tidegate enqueue` and `tidegate run` make it")
            }
        });
    }
    if !database.updates.is_empty() {
        lines.push(updates(&database.updates));
    }
    lines.extend(database.skipped.iter().map(skipped));
    lines.join("\n")
}

/// The rows that an update has skipped.
fn skipped(SkippedRows { name, rows }: &SkippedRows) -> String {
    let counted = if *rows == 1 { "1 row".to_owned() } else { format!("{} rows", output::count(*rows)) };
    output::inline(&format!("  {name} has skipped {counted}: `tidegate history {name} --skipped`"))
}

/// Who sets the pace, and how that goes.
fn controller(activity: &ActivityReport) -> Vec<String> {
    let mut lines = vec![format!("  controller: {}", output::inline(&activity.controller))];
    lines.extend(retry(activity));
    lines.extend(activity.fault.iter().map(|fault| format!("  its last fault: {}", output::inline(fault))));
    lines.extend(activity.shadows.iter().map(shadow));
    lines
}

/// While a controller's fallback is in force, when the controller is tried again.
fn retry(activity: &ActivityReport) -> Option<String> {
    let RetryReport { update, in_ms, .. } = activity.controller_retry.as_ref()?;
    let when = match in_ms {
        0 => "now".to_owned(),
        left => format!("in {}", output::duration(Duration::from_millis(*left))),
    };
    Some(format!("  the controller is tried again for {} {when}", output::inline(update)))
}

/// What was measured, in a line; of a reading that is not fresh, how old it is.
fn signals(signals: &[SignalReport]) -> Option<String> {
    const FRESH: Duration = Duration::from_secs(5);
    let told = signals.iter().map(|SignalReport { name, value, unit, age_ms }| {
        let (told, age) =
            (format!("{} {}", output::inline(name), measure(*value, unit)), Duration::from_millis(*age_ms));
        if age < FRESH { told } else { format!("{told} ({} ago)", output::duration(age)) }
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| format!("  signals: {}", told.join(", ")))
}

/// What keeps an update's rows, and since when.
fn kept(kept: &KeptRows) -> String {
    let since = unix_ms(SystemTime::now()).saturating_sub(kept.made_at_ms).try_into().unwrap_or(0);
    output::inline(&format!(
        "  rows of {} are kept as {} makes them, by {} for {}{}",
        kept.table,
        kept.update,
        kept.triggers.join(" and "),
        output::duration(Duration::from_millis(since)),
        if kept.enabled { "" } else { ", which somebody has disabled" }
    ))
}

/// A controller that is asked beside the one that sets the pace.
fn shadow(shadow: &Shadow) -> String {
    let counted = |number, what: &str| (number > 0).then(|| format!(", {} {what}", output::count(number)));
    let mut line = format!(
        "  shadow {}: otherwise in {} of {} decisions{}{}",
        output::inline(&shadow.name),
        output::count(shadow.different),
        output::count(shadow.decisions),
        counted(shadow.faults, if shadow.faults == 1 { "fault" } else { "faults" }).unwrap_or_default(),
        counted(shadow.dropped, "calls not asked, for it was behind").unwrap_or_default(),
    );
    let mut detail = |what: &str, text: &str| {
        line.push_str(&format!("\n    {what}: {}", output::inline(text)));
    };
    if let Some(ShadowDifference { update, callback, live, shadow }) = &shadow.last_difference {
        detail("last, where they differed", &format!("{update}, {callback}: {shadow} in place of {live}"));
    }
    if let Some(fault) = &shadow.last_fault {
        detail("its last fault", fault);
    }
    if let Some(reason) = &shadow.given_up {
        detail("not asked for now", reason);
    }
    line
}

fn headline(database: &DatabaseReport) -> String {
    let mut parts = vec![format!("{} ({})", database.name, database.system)];
    match (&database.error, &database.runner) {
        (Some(error), _) => parts.push(error.clone()),
        (None, Some(runner)) => parts.push(format!("worked on by process {} on {}", runner.pid, runner.host)),
        (None, None) => parts.push("no host works on it".to_owned()),
    }
    if let Some(activity) = database.activity.as_ref().filter(|_| database.pause.is_none()) {
        parts.push(activity.state.to_string());
    }
    if let Some(obstacle) = &database.obstacle {
        parts.push(format!("cannot be written to: {obstacle}"));
    }
    if let Some(pause) = &database.pause {
        parts.push(match &pause.reason {
            Some(reason) => format!("paused: {reason}"),
            None => "paused".to_owned(),
        });
    }
    output::inline(&parts.join(", "))
}

fn updates(updates: &[UpdateReport]) -> String {
    let mut table = output::table(&["UPDATE", "STATE", "DONE", "RATE", "LEFT", "LAST ERROR"]);
    for update in updates {
        table.add_row([
            output::inline(&update.name),
            output::inline(&update.state.told(update.reason.as_deref())),
            update.done.map(output::percent).unwrap_or_default(),
            update.items_per_s.map(|rate| output::rate(rate / 1_000.0)).unwrap_or_default(),
            update.time_left_ms.map(|left| output::duration(Duration::from_millis(left))).unwrap_or_default(),
            update.last_error.as_ref().map(|error| last_error(update.attempts, error)).unwrap_or_default(),
        ]);
    }
    table.trim_fmt()
}

fn last_error(attempts: u32, error: &str) -> String {
    let error = output::inline(error);
    match attempts {
        0 => error,
        1 => format!("{error} (once)"),
        _ => format!("{error} ({attempts} times)"),
    }
}

#[cfg(test)]
mod tests;
