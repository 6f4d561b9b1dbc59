//! What a command did to databases: told line by line to people, and as one object to programs.

use serde::Serialize;
use tidegate_admin::api::view::{self, Did};

use super::error::CliError;
use super::output;

/// The `--json` of commands that tell what they did.
#[derive(Debug, clap::Args)]
pub(super) struct Json {
    /// Print JSON: an object with `version` (1) and `results`, one for each thing done
    #[arg(long)]
    pub(super) json: bool,
}

/// What was done, in order.
pub(super) struct Results {
    json: bool,
    done: Vec<Done>,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct ResultsReport<'a> {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    results: &'a [Done],
}

/// One thing done.
#[derive(Serialize)]
struct Done {
    database: String,
    /// The update that it was done to; `None` where it was done to the database.
    update: Option<String>,
    result: Did,
}

impl Results {
    pub(super) fn new(json: &Json) -> Self {
        Self { json: json.json, done: Vec::new() }
    }

    /// Tells of one thing that is done, in the words for it.
    pub(super) fn tell(&mut self, done: &view::Done) -> Result<(), CliError> {
        self.tell_as(done, &words(done))
    }

    /// The same to an update of a database.
    pub(super) fn done(&mut self, database: &str, update: &str, result: Did) -> Result<(), CliError> {
        self.tell(&done(database, Some(update), result))
    }

    /// Tells of one thing that is done, `line` to people.
    pub(super) fn tell_as(&mut self, done: &view::Done, line: &str) -> Result<(), CliError> {
        let view::Done { database, update, result, .. } = done;
        self.done.push(Done { database: database.clone(), update: update.clone(), result: *result });
        if self.json { Ok(()) } else { output::print(&output::inline(line)) }
    }

    /// Says to people that there was nothing to do.
    pub(super) fn remark(&self, line: &str) -> Result<(), CliError> {
        if self.json { Ok(()) } else { output::print(line) }
    }

    /// Ends what is told; `outcome` is the command's. What was done before a failure is told all the same.
    pub(super) fn end(self, outcome: Result<(), CliError>) -> Result<(), CliError> {
        if self.json {
            output::print_json(&ResultsReport { version: 1, results: &self.done })?;
        }
        outcome
    }
}

/// One thing done, without more to say of it.
pub(super) fn done(database: &str, update: Option<&str>, result: Did) -> view::Done {
    view::Done {
        database: database.to_owned(),
        update: update.map(str::to_owned),
        result,
        changes: None,
        goes_on: Vec::new(),
    }
}

/// The same where only the rows that an update skipped were to be tried again.
pub(super) fn of_skipped(done: &view::Done) -> String {
    let view::Done { database, update, result, .. } = done;
    let name = update.as_deref().unwrap_or_default();
    match result {
        Did::Queued => format!("{name}: queued, to try again the rows that it skipped, on {database}"),
        Did::AlreadyQueued => format!("{name}: still at work, and left as it is, on {database}"),
        _ => words(done),
    }
}

/// What was done, for a person.
fn words(view::Done { database, update, result, changes, goes_on }: &view::Done) -> String {
    let name = update.as_deref().unwrap_or_default();
    match result {
        Did::Queued => format!("{name}: queued on {database}"),
        Did::AlreadyQueued => format!("{name}: already queued on {database}, and left as it is"),
        Did::Cancelled => format!("{name}: cancelled on {database}"),
        Did::Unkept => format!("{name}: its trigger dropped on {database}"),
        Did::Retried => format!("{name}: will be tried again on {database}"),
        Did::NotFailed => format!("{name}: has not failed on {database}"),
        Did::Accepted => {
            let changes = changes.as_deref().unwrap_or_default();
            format!("{name}: goes on under the definition of now: {changes} on {database}")
        }
        Did::Unchanged => format!("{name}: its definition is the one that it began with on {database}"),
        Did::Approved => format!("{name}: approved on {database}, and goes on"),
        Did::NotAwaiting => format!("{name}: does not await approval on {database}"),
        Did::RunNow => format!("{name}: runs now on {database}"),
        Did::Running => format!("{name}: is running on {database}"),
        Did::NothingSkipped => format!("{name}: has skipped no row on {database}"),
        Did::Paused => {
            let goes_on = goes_on.iter().map(|name| {
                format!(
                    "; update {name} runs in one go and goes on to its end, unless `tidegate cancel {name}` ends it"
                )
            });
            format!("{database}: paused{}", goes_on.collect::<String>())
        }
        Did::Resumed => format!("{database}: resumed"),
    }
}
