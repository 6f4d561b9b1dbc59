//! Jobs: rows that are queued together when somebody asks for them by the job's name.

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Diagnostic;
use super::model::{Config, Job};
use super::raw;
use super::resolve::{one_of, required, text, twice};
use super::section::{Reader, Table, list, suggest};
use tidegate_admin::jobs::{JobRow, Parameter, ParameterKind};

const TITLE: &str = "[[job]]";
const UPDATE_TITLE: &str = "[[job.update]]";
const PARAMETER_TITLE: &str = "[[job.parameter]]";

/// Reads the jobs.
pub(super) fn jobs<'a>(reader: &mut Reader<'a>, value: Option<Spanned<DeValue<'a>>>, databases: &[&str]) -> Vec<Job> {
    let Some(value) = value else { return Vec::new() };
    let mut jobs: Vec<Job> = Vec::new();
    for table in reader.tables(TITLE, value) {
        let Some(job) = job(reader, table, databases) else { continue };
        let name = &job.definition.name;
        if let Some(earlier) = jobs.iter().find(|earlier| earlier.definition.name == *name) {
            let message = twice("job", name, &earlier.places);
            reader.error(job.places.of("name"), message, Some("give one of them another name".to_owned()));
        }
        jobs.push(job);
    }
    jobs
}

fn job<'a>(reader: &mut Reader<'a>, mut table: Table<'a>, databases: &[&str]) -> Option<Job> {
    let updates = table.get_mut().remove("update");
    let parameters = table.get_mut().remove("parameter");
    let section = reader.section::<raw::Job>(TITLE, table);
    let name = required(reader, &section, "name", section.values.name.as_ref());
    let database = section.values.database.as_ref().and_then(|database| known(reader, database, databases));
    let is_empty = |updates: &Spanned<DeValue<'_>>| updates.get_ref().as_array().is_some_and(|list| list.is_empty());
    if updates.as_ref().is_none_or(is_empty) {
        let message = format!("{} queues nothing", section.title);
        let hint = format!("name each update that it queues with {UPDATE_TITLE}, below it");
        reader.error(section.places.header, message, Some(hint));
    }
    let mut rows = Vec::new();
    for table in updates.map(|updates| reader.tables(UPDATE_TITLE, updates)).unwrap_or_default() {
        let row = row(reader, table, &rows);
        rows.extend(row);
    }
    let mut declared = Vec::new();
    for table in parameters.map(|parameters| reader.tables(PARAMETER_TITLE, parameters)).unwrap_or_default() {
        let parameter = parameter(reader, table, &rows, &declared);
        declared.extend(parameter);
    }
    let definition = tidegate_admin::Job { name: name?, database, rows, parameters: declared };
    Some(Job { definition, places: section.places })
}

fn known(reader: &mut Reader<'_>, database: &Spanned<String>, databases: &[&str]) -> Option<String> {
    if !databases.contains(&database.get_ref().as_str()) {
        let message = format!("there is no [[database]] named {}", reader.written(database));
        reader.error(reader.at(database), message, Some(suggest(database.get_ref(), databases)));
        return None;
    }
    Some(database.get_ref().clone())
}

/// A row, which must not be among `earlier`, and may depend on one that is: so that no two wait for each other.
fn row<'a>(reader: &mut Reader<'a>, table: Table<'a>, earlier: &[JobRow]) -> Option<JobRow> {
    let section = reader.section::<raw::JobUpdate>(UPDATE_TITLE, table);
    let raw = &section.values;
    let update = required(reader, &section, "update", raw.update.as_ref());
    let progress = progress(reader, raw.progress.as_ref());
    let depends_on = text(reader, "depends_on", raw.depends_on.as_ref());
    let names: Vec<&str> = earlier.iter().map(|row| row.update.as_str()).collect();
    if let (Some(update), Some(written)) = (&update, &raw.update)
        && names.contains(&update.as_str())
    {
        let message = format!("{} is queued by this job already", reader.written(written));
        reader.error(reader.at(written), message, Some("a queue holds an update once".to_owned()));
    }
    if let (Some(depends_on), Some(written)) = (&depends_on, &raw.depends_on)
        && !names.contains(&depends_on.as_str())
    {
        let message = format!("\"depends_on\": {} is not a row before this one in the job", reader.written(written));
        let hint = match names.is_empty() {
            true => "the first row of a job depends on none".to_owned(),
            false => format!("it can be {}", list(&names)),
        };
        reader.error(reader.at(written), message, Some(hint));
    }
    Some(JobRow { update: update?, progress, depends_on })
}

fn progress(reader: &mut Reader<'_>, written: Option<&Spanned<raw::Progress>>) -> Map<String, Value> {
    let Some(written) = written else { return Map::new() };
    let found = match written.get_ref() {
        raw::Progress::Table(table) => Some(table.clone()).filter(|table| table.values().all(has_no_date)),
        raw::Progress::Json(json) => serde_json::from_str(json).ok(),
    };
    found.unwrap_or_else(|| {
        let message = "\"progress\" is not a JSON object";
        let hint = "write progress = { after = 3 } or progress = '{\"after\": 3}'; left out it is {}";
        reader.error(reader.at(written), message, Some(hint.to_owned()));
        Map::new()
    })
}

/// JSON has no dates: what TOML's become is nothing that anybody means.
fn has_no_date(value: &Value) -> bool {
    match value {
        Value::Array(elements) => elements.iter().all(has_no_date),
        Value::Object(fields) => fields.iter().all(|(key, value)| !key.starts_with("$__toml") && has_no_date(value)),
        _ => true,
    }
}

fn parameter<'a>(
    reader: &mut Reader<'a>,
    table: Table<'a>,
    rows: &[JobRow],
    earlier: &[Parameter],
) -> Option<Parameter> {
    /// The key of a request that names the job.
    const JOB_NAME: &str = "job_name";
    let section = reader.section::<raw::JobParameter>(PARAMETER_TITLE, table);
    let raw = &section.values;
    let name = required(reader, &section, "name", raw.name.as_ref());
    required(reader, &section, "type", raw.kind.as_ref());
    let words = ParameterKind::ALL.map(ParameterKind::as_str);
    let kind = raw.kind.as_ref().and_then(|kind| one_of(reader, "type", kind, &words));
    let kind = ParameterKind::ALL.into_iter().find(|known| Some(known.as_str()) == kind);
    if let (Some(name), Some(written)) = (&name, &raw.name) {
        let problem = match name {
            name if name == JOB_NAME => Some("is what names the job in a request"),
            name if earlier.iter().any(|other| other.name == *name) => Some("is declared by this job already"),
            name if rows.iter().any(|row| row.progress.contains_key(name)) => {
                Some("stands in a row's \"progress\" too")
            }
            _ => None,
        };
        if let Some(problem) = problem {
            let message = format!("parameter {} {problem}", reader.written(written));
            reader.error(reader.at(written), message, Some("give it another name".to_owned()));
        }
    }
    Some(Parameter { name: name?, kind: kind?, required: raw.required.unwrap_or(false) })
}

/// Warns of jobs that cannot start.
pub(super) fn jobs_of_undefined_updates(config: &Config) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    for Job { definition, places } in &config.jobs {
        let first = config.databases.first().map(|database| database.name.as_str());
        let Some(database) = definition.database.as_deref().or(first) else { continue };
        let is_defined = |row: &JobRow| config.updates_of(database).any(|update| update.name == row.update);
        for row in definition.rows.iter().filter(|row| !is_defined(row)) {
            let (job, update) = (&definition.name, &row.update);
            let message =
                format!("job \"{job}\" cannot start: update \"{update}\" is not defined for database \"{database}\"");
            let hint = "define it in [[update]], or name the job's database with `database`".to_owned();
            warnings.push(config.diagnostic(places.header, message, Some(hint)));
        }
    }
    warnings
}
