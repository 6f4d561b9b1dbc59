//! The configuration: one TOML file, `tidegate.toml`, read into plain data.
//!
//! Any string in it may hold `${NAME}`, which is replaced by that variable's value; `$${` stands for a plain `${`.
//! Relative paths are relative to the file's folder. Everything that is wrong is reported at once, each with its place
//! and what to do about it; what a person wrote may appear there, what a variable or a secret file holds never does.

mod admin;
mod controller;
mod database;
mod diagnostic;
mod gentle;
mod job;
mod lane;
mod model;
mod raw;
mod resolve;
mod scenario;
mod secret;
mod section;
mod setting;
mod signal;
mod stopping;
mod transform;
mod update;

use std::fs;
use std::path::Path;

use toml::de::DeTable;

pub use admin::{Admin, DEFAULT_ADDRESS};
pub use diagnostic::{Diagnostic, Position};
pub use model::{
    BackgroundUpdates, Config, Controller, Database, Databases, Gentle, Job, OwnSignal, Places, Settings,
    SignalSettings, SignalSource, Target, TransformUpdate, Update, UpdateKind,
};
pub use scenario::{STANDARD, load_scenario, parse_scenario, standard};
pub use secret::{Environment, Secret};
pub use section::nearest;

use diagnostic::Source;
use section::Reader;

impl Config {
    /// Reads a configuration file, and the secret files that it names.
    ///
    /// # Errors
    /// Everything that is wrong with it, in order of appearance.
    pub fn load(path: &Path, environment: Environment<'_>) -> Result<Self, Vec<Diagnostic>> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path, environment),
            Err(error) => Err(vec![Diagnostic {
                file: path.to_owned(),
                position: None,
                message: format!("cannot read the configuration: {error}"),
                hint: None,
            }]),
        }
    }

    /// Reads a configuration from a text that stands for the file at `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path, environment: Environment<'_>) -> Result<Self, Vec<Diagnostic>> {
        let source = Source::new(path, text);
        let document = match DeTable::parse_recoverable(text) {
            (document, errors) if errors.is_empty() => document.into_inner(),
            (_, errors) => return Err(errors.iter().map(|error| syntax_error(&source, error)).collect()),
        };
        let mut reader = Reader { source, environment, errors: Vec::new() };
        let mut config = resolve::config(&mut reader, document);
        let mut errors = reader.errors;
        let in_order = |list: &mut Vec<Diagnostic>| list.sort_by_key(|diagnostic| diagnostic.position);
        in_order(&mut errors);
        in_order(&mut config.warnings);
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }
}

fn syntax_error(source: &Source<'_>, error: &toml::de::Error) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let message = match source.written(span.clone()) {
        "" => error.message().to_owned(),
        written if written.contains('\n') => error.message().to_owned(),
        written => format!("{}: `{written}`", error.message()),
    };
    source.diagnostic(span.start, message, None)
}
