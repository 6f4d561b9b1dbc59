//! What a command did to databases: told line by line to people, and as one object to programs.

use serde::Serialize;

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
struct Report<'a> {
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
    /// "queued", "already-queued", "cancelled", "retried", "not-failed", "paused" or "resumed".
    result: &'static str,
}

impl Results {
    pub(super) fn new(json: &Json) -> Self {
        Self { json: json.json, done: Vec::new() }
    }

    /// Tells of one thing that is done, `line` to people.
    pub(super) fn tell(
        &mut self,
        database: &str,
        update: Option<&str>,
        result: &'static str,
        line: &str,
    ) -> Result<(), CliError> {
        self.done.push(Done { database: database.to_owned(), update: update.map(str::to_owned), result });
        if self.json { Ok(()) } else { output::print(&output::inline(line)) }
    }

    /// Says to people that there was nothing to do.
    pub(super) fn remark(&self, line: &str) -> Result<(), CliError> {
        if self.json { Ok(()) } else { output::print(line) }
    }

    /// Ends what is told; `outcome` is the command's. What was done before a failure is told all the same.
    pub(super) fn end(self, outcome: Result<(), CliError>) -> Result<(), CliError> {
        if self.json {
            output::print_json(&Report { version: 1, results: &self.done })?;
        }
        outcome
    }
}
