//! What is wrong with the rows of a queue, and with those that are not there.

use std::collections::{BTreeSet, HashSet};

use tidegate::scheduler::choice::{Standing, assess};
use tidegate::scheduler::database::{Database, IterationOutcome, Queue, QueueRow, Record};
use tidegate::update::keep::{Keep, told};
use tidegate::update::{Progress, SqlError, UpdateError};
use tidegate_config::UpdateKind;

use super::super::{output, wiring};
use super::finding::{Finding, Scene, Severity};

/// A queue that was looked through.
#[derive(Default)]
pub(super) struct Looked {
    pub findings: Vec<Finding>,
    /// That the file is damaged, as an update has found.
    pub malformed: Option<Finding>,
    pub rows: Vec<QueueRow>,
    /// The definitions that are not queued, because their updates have finished.
    pub finished: HashSet<String>,
}

/// Looks through the queue.
pub(super) async fn look(scene: Scene<'_>, opened: &dyn Database) -> Result<Looked, SqlError> {
    let Queue { rows, kept, .. } = opened.look().await?.unwrap_or_default();
    let queued: HashSet<&str> = rows.iter().map(|row| row.update_name.as_str()).collect();
    let mut findings = standings(scene, &rows);
    findings.extend(rows.iter().filter_map(|row| progress(scene, row)));
    for row in &rows {
        let dependency =
            row.depends_on.as_deref().filter(|name| !queued.contains(name) && scene.defined(name).is_none());
        if let Some(name) = dependency
            && last(opened, name).await?.is_none()
        {
            findings.push(depends_on_nothing(scene, row, name, &queued));
        }
    }
    let mut finished = HashSet::new();
    let definitions = scene.config.updates_of(&scene.database.name);
    for update in definitions.filter(|update| !queued.contains(update.name.as_str())) {
        match last(opened, &update.name).await? {
            Some(record) if record.outcome == IterationOutcome::Finished => {
                finished.insert(update.name.clone());
            }
            Some(_) => {}
            // What is refused is not to be queued.
            None if matches!(update.kind, UpdateKind::Refuse(_)) => {}
            None => {
                let message = "it is not queued, and the history knows of no run";
                let hint = "the application's migration is to queue it, or `tidegate enqueue` does";
                findings.push(scene.about_definition(update, "name", Severity::Note, message, hint));
            }
        }
    }
    findings.extend(kept.iter().filter_map(|keep| kept_by(scene, keep, queued.contains(keep.update.as_str()))));
    let malformed = rows.iter().find_map(|row| malformed(scene, row));
    Ok(Looked { findings, malformed, rows, finished })
}

/// The last iteration of an update that the history knows.
async fn last(opened: &dyn Database, name: &str) -> Result<Option<Record>, SqlError> {
    Ok(opened.history(Some(name), 1).await?.into_iter().next())
}

/// The rows that do not run, whosever turn it is.
fn standings(scene: Scene<'_>, rows: &[QueueRow]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut cycles: HashSet<BTreeSet<String>> = HashSet::new();
    for (row, standing) in rows.iter().zip(assess(rows, &|name| scene.defined(name).is_some())) {
        let name = &row.update_name;
        match &standing {
            Standing::Ready | Standing::DependsOn(_) => {}
            Standing::Skipped(other, _) => {
                let message = standing.explain(row).unwrap_or_default();
                let hint = format!("`tidegate history {other} --skipped` names them");
                findings.push(scene.about_row(name, Severity::Warning, message, hint));
            }
            Standing::Quarantined => {
                let message = standing.explain(row).unwrap_or_default();
                let hint = format!("mend the cause, then `tidegate retry {name}`");
                findings.push(scene.about_row(name, Severity::Warning, message, hint));
            }
            Standing::AwaitsApproval(_) => {
                let message = standing.explain(row).unwrap_or_default();
                let hint = format!("look at what it did or would do, then `tidegate approve {name}`");
                findings.push(scene.about_row(name, Severity::Warning, message, hint));
            }
            Standing::Undefined => {
                let message = "it is queued, and nothing defines it: a host skips it, and what depends on it waits";
                let known = scene.config.updates_of(&scene.database.name).map(|update| update.name.as_str());
                let hint = match output::nearest(name, known) {
                    Some(near) => format!("was \"{near}\" meant? `tidegate cancel {name}` takes the row out"),
                    None => format!("define it (an old one with kind \"noop\"), or `tidegate cancel {name}`"),
                };
                findings.push(scene.about_row(name, Severity::Warning, message, hint));
            }
            Standing::Unreadable(problem) => {
                let hint = "write what it was, as text, into the row; or delete the row, and queue the update anew";
                findings.push(scene.about_row(name, Severity::Error, problem.as_str(), hint));
            }
            // Each of its members knows of it; it is told once.
            Standing::Cycle(members) => {
                if cycles.insert(members.iter().cloned().collect()) {
                    let message = standing.explain(row).unwrap_or_default();
                    let hint = format!("break it: {}", set(scene, "depends_on = NULL", name));
                    findings.push(scene.about_row(name, Severity::Error, message, hint));
                }
            }
        }
    }
    findings
}

/// Triggers that keep the rows of an update which nobody knows any more, or that do not fire.
fn kept_by(scene: Scene<'_>, keep: &Keep, queued: bool) -> Option<Finding> {
    let (update, triggers) = (&keep.update, told(std::slice::from_ref(keep)));
    let defined = scene.defined(update);
    if !keep.enabled {
        let message =
            format!("{triggers} is disabled, and rows that are written are not kept as the update makes them");
        let hint =
            "ALTER TABLE … ENABLE TRIGGER …, and look at the rows that were written meanwhile: `tidegate verify`";
        return Some(scene.about_row(update, Severity::Warning, message, hint));
    }
    let hint = format!("`tidegate unkeep {update}` drops it, once the application writes such rows itself");
    match defined {
        None if !queued => {
            let message = format!("{triggers} keeps rows for an update that is neither queued nor defined");
            Some(scene.about_row(update, Severity::Warning, message, hint))
        }
        Some(definition) if !definition.keep => {
            let message = format!("{triggers} keeps its rows, and its definition does not say \"keep\"");
            Some(scene.about_row(update, Severity::Warning, message, hint))
        }
        _ => None,
    }
}

/// A file that an update has found to be damaged: a look at the whole of it may have ended before it got there.
fn malformed(scene: Scene<'_>, row: &QueueRow) -> Option<Finding> {
    let failure = row.failure.as_ref()?;
    let found = SqlError::permanent(&failure.error).with_code(failure.code.as_deref()?);
    let hint = found.malformed_hint()?;
    let message = format!("the file is malformed, as update \"{}\" has found: {}", row.update_name, failure.error);
    Some(scene.about_database(Severity::Error, message, Some(hint.to_owned())))
}

/// Progress that a host could not go on from.
fn progress(scene: Scene<'_>, row: &QueueRow) -> Option<Finding> {
    if row.problem.is_some() {
        // What can be read of such a row is no more than something to show.
        return None;
    }
    let update = scene.defined(&row.update_name)?;
    let handler = wiring::handler(update, scene.database);
    let error = Progress::parse(&row.progress).and_then(|progress| handler.mode(&progress)).err()?;
    let hint = match error {
        UpdateError::Redefined { .. } => format!(
            "put the definition back; or `tidegate accept {}`, and the rows that are left are done under the new one",
            row.update_name
        ),
        _ => format!(
            "write what it was, or let the update start anew: {}",
            set(scene, "progress_json = '{}'", &row.update_name)
        ),
    };
    Some(scene.about_row(&row.update_name, Severity::Error, error.in_full(), hint))
}

fn depends_on_nothing(scene: Scene<'_>, row: &QueueRow, on: &str, queued: &HashSet<&str>) -> Finding {
    let message = format!(
        "it depends on \"{on}\", which is neither queued nor defined: a host takes that for done, and does not wait"
    );
    let known = scene.config.updates_of(&scene.database.name).map(|update| update.name.as_str());
    let known: Vec<&str> = known.chain(queued.iter().copied()).filter(|name| *name != row.update_name).collect();
    let hint = match output::nearest(on, known.into_iter()) {
        Some(near) => format!(
            "was \"{near}\" meant? {}",
            set(scene, &format!("depends_on = {}", literal(near)), &row.update_name)
        ),
        None => format!(
            "all is well if that was done long ago; if not, queue it, or do without: {}",
            set(scene, "depends_on = NULL", &row.update_name)
        ),
    };
    scene.about_row(&row.update_name, Severity::Warning, message, hint)
}

/// The statement that changes a row of the queue.
fn set(scene: Scene<'_>, what: &str, name: &str) -> String {
    let table = scene.database.queue_table.replace('"', "\"\"");
    format!("UPDATE \"{table}\" SET {what} WHERE update_name = {}", literal(name))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
