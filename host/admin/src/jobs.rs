//! Jobs: updates that are queued together, under one name.

use serde_json::{Map, Value};

use tidegate::scheduler::database::NewRow;

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// The database on whose queue its rows go; the first where `None`.
    pub database: Option<String>,
    /// Its rows, in order.
    pub rows: Vec<JobRow>,
    /// What whoever starts it may or must say besides its name. All of it lands in the progress of every row: a row
    /// knows nothing of the others.
    pub parameters: Vec<Parameter>,
}

/// A row of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// The update.
    pub update: String,
    /// The progress that it starts from.
    pub progress: Map<String, Value>,
    /// The row that has to be done before.
    pub depends_on: Option<String>,
}

/// Something that is said when a job is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, in the request and in the progress.
    pub name: String,
    /// What it can be.
    pub kind: ParameterKind,
    /// True where the job does not start without it.
    pub required: bool,
}

/// What a parameter can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// True or false.
    Boolean,
}

impl ParameterKind {
    /// All of them.
    pub const ALL: [ParameterKind; 4] =
        [ParameterKind::String, ParameterKind::Integer, ParameterKind::Number, ParameterKind::Boolean];

    /// The word for it in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            ParameterKind::String => "string",
            ParameterKind::Integer => "integer",
            ParameterKind::Number => "number",
            ParameterKind::Boolean => "boolean",
        }
    }

    fn fits(self, value: &Value) -> bool {
        match self {
            ParameterKind::String => value.is_string(),
            ParameterKind::Integer => value.is_i64() || value.is_u64(),
            ParameterKind::Number => value.is_number(),
            ParameterKind::Boolean => value.is_boolean(),
        }
    }
}

/// Why a job cannot start with what was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterError {
    /// These are required.
    Missing(Vec<String>),
    /// This one is something else.
    WrongType(Parameter),
}

impl Job {
    /// What is to be queued, with what was said in it. What is null was not said.
    ///
    /// # Errors
    /// A parameter that is missing or is something else than it should be.
    pub fn new_rows(&self, said: &Map<String, Value>) -> Result<Vec<NewRow>, ParameterError> {
        let said = |name: &str| said.get(name).filter(|value| !value.is_null());
        let required = self.parameters.iter().filter(|parameter| parameter.required);
        let missing = required.map(|parameter| &parameter.name).filter(|name| said(name).is_none());
        let missing: Vec<String> = missing.cloned().collect();
        if !missing.is_empty() {
            return Err(ParameterError::Missing(missing));
        }
        let mut parameters = Map::new();
        for parameter in &self.parameters {
            match said(&parameter.name) {
                Some(value) if parameter.kind.fits(value) => {
                    parameters.insert(parameter.name.clone(), value.clone());
                }
                Some(_) => return Err(ParameterError::WrongType(parameter.clone())),
                None => {}
            }
        }
        Ok(self.rows.iter().map(|row| row.new_row(&parameters)).collect())
    }
}

impl JobRow {
    fn new_row(&self, parameters: &Map<String, Value>) -> NewRow {
        let mut progress = self.progress.clone();
        progress.extend(parameters.clone());
        NewRow {
            update_name: self.update.clone(),
            progress: Value::Object(progress).to_string(),
            depends_on: self.depends_on.clone(),
            ordering: 0,
        }
    }
}

/// The jobs that there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Jobs(Vec<Job>);

impl Jobs {
    /// Those of a configuration, and of Synapse's three those that it does not define itself.
    pub fn new(configured: Vec<Job>) -> Self {
        let own: Vec<Job> = predefined().filter(|job| configured.iter().all(|other| other.name != job.name)).collect();
        Self(configured.into_iter().chain(own).collect())
    }

    /// The job of that name.
    pub fn get(&self, name: &str) -> Option<&Job> {
        self.0.iter().find(|job| job.name == name)
    }
}

impl Default for Jobs {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// Synapse's jobs: <https://element-hq.github.io/synapse/latest/usage/administration/admin_api/background_updates.html>.
fn predefined() -> impl Iterator<Item = Job> {
    /// A job, its updates, each after the one before, and its parameters, all optional.
    type Facts = (&'static str, &'static [&'static str], &'static [(&'static str, ParameterKind)]);
    const JOBS: [Facts; 3] = [
        ("populate_stats_process_rooms", &["populate_stats_process_rooms"], &[]),
        (
            "regenerate_directory",
            &[
                "populate_user_directory_createtables",
                "populate_user_directory_process_rooms",
                "populate_user_directory_process_users",
                "populate_user_directory_cleanup",
            ],
            &[],
        ),
        (
            "event_resign",
            &["event_resign"],
            &[("old_key", ParameterKind::String), ("before_ts", ParameterKind::Integer)],
        ),
    ];
    JOBS.into_iter().map(|(name, updates, parameters)| {
        let before = std::iter::once(None).chain(updates.iter().map(Some));
        let row = |(update, before): (&&str, Option<&&str>)| JobRow {
            update: (*update).to_owned(),
            progress: Map::new(),
            depends_on: before.map(|name| (*name).to_owned()),
        };
        let rows = updates.iter().zip(before).map(row).collect();
        let parameter =
            |(name, kind): &(&str, ParameterKind)| Parameter { name: (*name).to_owned(), kind: *kind, required: false };
        let parameters = parameters.iter().map(parameter).collect();
        Job { name: name.to_owned(), database: None, rows, parameters }
    })
}
