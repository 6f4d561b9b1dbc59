//! A trace beside a host that runs.

use std::path::PathBuf;
use std::time::Duration;

use tidegate_simulate::trace::format::ControllerFacts;
use tidegate_simulate::trace::{CreateError, Recorder};

use crate::cli::error::CliError;
use crate::cli::output;

/// How long a host that ends waits for a disk to take the end of its trace.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether there is to be a trace, and where.
#[derive(Debug, clap::Args)]
pub(super) struct Record {
    /// Write every call of the controllers to this file, with what they read and answered, for `tidegate controller
    /// replay`. Only this user can read it: the controllers' settings are in it
    #[arg(long = "record", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Replace that file where there is one
    #[arg(long = "record-overwrite", requires = "file")]
    overwrite: bool,
}

impl Record {
    /// True where there is to be one.
    pub(super) fn is_wanted(&self) -> bool {
        self.file.is_some()
    }

    /// Begins the trace, where one is wanted.
    ///
    /// # Errors
    /// A file that is there already, or cannot be made.
    pub(super) fn begin(&self, controllers: Vec<ControllerFacts>) -> Result<Option<Recorder>, CliError> {
        let Some(path) = &self.file else { return Ok(None) };
        let recorder = Recorder::create(path, self.overwrite, controllers).map_err(|error| {
            let failed = CliError::failure(format!("cannot record to {}", path.display()));
            match error {
                CreateError::Exists(_) => {
                    failed.because(error).hint("name another file, or replace it with `--record-overwrite`")
                }
                CreateError::Io(error) => failed.because(error),
            }
        })?;
        output::line(&format!("recording the controllers' calls to {}", path.display()));
        Ok(Some(recorder))
    }

    /// Ends the trace, and tells where it is not complete.
    pub(super) async fn end(&self, recorder: &Recorder) {
        let finished = recorder.finish(PATIENCE).await;
        let path = self.file.clone().unwrap_or_default();
        let path = path.display();
        if let Some(error) = finished.error {
            output::warn(&format!("the trace {path} could not be written to its end: {}", output::inline(&error)));
        } else if finished.lost > 0 {
            let lost = output::count(finished.lost);
            output::warn(&format!("the trace {path} lacks {lost} calls that could not be written in time"));
        }
    }
}
