//! `tidegate init`.

mod template;
mod url;

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;
use tidegate::scheduler::database::QueueRow;
use tidegate_config::{Config, Diagnostic};

use super::error::CliError;
use super::{Context, output, wiring};
use template::Template;
use url::Url;

/// Write a configuration to start from
///
/// With `--database` it is grown from that database's queue: for each row a definition to be filled in, as a comment. It
/// only reads there. The file's name is that of `--config`.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// The database whose queue to look at: "sqlite:PATH" or "postgres://…". `${NAME}` in it stands for that environment
    /// variable, in the file too
    #[arg(long, value_name = "URL")]
    database: Option<String>,

    /// The table with the queue
    #[arg(long, value_name = "TABLE", requires = "database")]
    queue_table: Option<String>,

    /// Overwrite the file where it is there
    #[arg(long)]
    force: bool,

    /// Print JSON: an object with `version` (1), `path`, `to_fill_in` (names of updates) and `variables` to be set
    #[arg(long)]
    pub(super) json: bool,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct InitReport {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    /// The file that was written.
    path: String,
    /// The queued updates whose definitions stand in it as comments.
    to_fill_in: Vec<String>,
    /// Environment variables that it takes a secret from, which stood in the URL.
    variables: Vec<String>,
}

impl Init {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let path = &context.config;
        if !self.force && path.exists() {
            return Err(exists(path));
        }
        let url = match &self.database {
            Some(written) => Url::new(written, path)?,
            None => Url::example(),
        };
        let mut template = Template { url: &url, queue_table: self.queue_table.as_deref(), rows: None };
        if self.database.is_some() {
            template.rows = Some(look(&template.text(), path, &url).await?);
        }
        let text = template.text();
        // Whatever stands in a queue: what is written is a configuration.
        parse(&text, path, &url)?;
        write(path, &text, self.force)?;
        let to_fill_in = template.rows.unwrap_or_default().into_iter().map(|row| row.update_name).collect();
        let variables = url.variable().map(str::to_owned).into_iter().collect();
        self.tell(InitReport { version: 1, path: path.display().to_string(), to_fill_in, variables })
    }

    fn tell(&self, report: InitReport) -> Result<(), CliError> {
        if self.json {
            return output::print_json(&report);
        }
        let mut lines = vec![format!("{} is written", report.path)];
        let names: Vec<String> = report.to_fill_in.iter().map(|name| output::inline(name)).collect();
        match (&names[..], &self.database) {
            ([], Some(_)) => lines.push("  nothing is queued there: define updates under [[update]]".to_owned()),
            ([], None) => lines.push("  set `url` in it, and define updates under [[update]]".to_owned()),
            ([one], _) => lines.push(format!("  left to fill in: the definition of {one}")),
            (names, _) => lines.push(format!("  left to fill in: the definitions of {}", names.join(", "))),
        }
        for variable in &report.variables {
            lines.push(format!("  the password is not in it: set {variable} to it, written as in the URL"));
        }
        lines.push("  then `tidegate check` says whether everything fits".to_owned());
        output::print(&lines.join("\n"))
    }
}

/// The rows that are queued in the database that a configuration names.
async fn look(text: &str, path: &Path, url: &Url) -> Result<Vec<QueueRow>, CliError> {
    let config = parse(text, path, url)?;
    let Some(database) = config.databases.first() else { return Ok(Vec::new()) };
    let opened = wiring::open(database)?;
    let queue = opened.look().await;
    opened.close().await;
    let queue = queue.map_err(|error| CliError::failure("cannot look at the database").because_of_database(error))?;
    Ok(queue.map(|queue| queue.rows).unwrap_or_default())
}

fn parse(text: &str, path: &Path, url: &Url) -> Result<Config, CliError> {
    let environment = |name: &str| url.secret(name).or_else(|| env::var(name).ok());
    Config::parse(text, path, &environment).map_err(|problems| refused(&problems))
}

/// The only parts of the file that somebody else wrote are the URL and the queue's table.
fn refused(problems: &[Diagnostic]) -> CliError {
    let Some(first) = problems.first() else { return CliError::failure("the configuration cannot be read back") };
    let error = CliError::usage(format!("cannot use that database: {}", first.message));
    match &first.hint {
        Some(hint) => error.hint(hint.clone()),
        None => error,
    }
}

fn write(path: &Path, text: &str, force: bool) -> Result<(), CliError> {
    let written = match force {
        true => fs::write(path, text),
        false => OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes())),
    };
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => CliError::failure(format!("cannot write {}", path.display())).because(error),
    })
}

fn exists(path: &Path) -> CliError {
    CliError::failure(format!("{} is there already, and was left as it is", path.display()))
        .hint("write another with `--config`, or overwrite it with `--force`")
}
