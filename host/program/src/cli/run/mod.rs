//! `tidegate run`.

mod api;
mod bars;
mod display;
mod keys;
mod late;
mod load;
mod news;
mod pace;
mod plain;
mod plan;
mod record;
mod reload;
mod service;
mod trace;
mod words;

use std::io;
use std::sync::Arc;

use indicatif::MultiProgress;
use serde::Serialize;
use tidegate::controller::Witness;
use tidegate::embed::DatabaseSpec;
use tidegate::scheduler::{End, Host, Replacement, Summary};
use tidegate::signal::{Sampling, Signals};
use tidegate::update::approval::AWAITING;
use tidegate_config::Config;
use tidegate_simulate::trace::Recorder;
use tokio::signal::unix::{SignalKind, signal};

use self::keys::Unechoed;
use self::late::Late;
use self::load::Loading;
use super::error::CliError;
use super::{Context, output, sampling, wiring};
use plan::{Loaded, RunPlan};
use record::Record;
use reload::Reloader;

/// Work on the queues of all databases until told to stop
///
/// SIGINT and SIGTERM stop it: the batches that run get `shutdown_grace_ms`, then are rolled back. A second signal ends
/// the process at once, which is as safe, and may leave a statement running on a server for a while.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// Stop when nothing can run any more: exit code 0 where the queues are empty, 3 where rows remain
    #[arg(long)]
    until_done: bool,

    #[command(flatten)]
    record: Record,

    /// Print JSON when it ends: an object with `version` (1) and `databases`, each with how its work ended
    #[arg(long)]
    pub(super) json: bool,
}

impl Run {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let config = context.config()?;
        // First of all: until it is listened for, SIGHUP ends a process.
        let hangups = api::hangups()?;
        let listeners = api::listen(&config).await?;
        let signals = Signals::default();
        let mut loading = Loading::begin(&config, &signals, Loaded::new());
        match self.record.is_wanted() {
            // A trace says first what each of them is.
            true => while loading.next().await.is_some() {},
            false => loading.until_one_can_start(&config).await,
        }
        let planned = plan::with(&config, self.until_done, &signals, loading.loaded());
        let RunPlan { databases, live, recorded, loaded, .. } = planned;
        let recorder = self.record.begin(recorded)?;
        let mut host = host(&config, databases, recorder.as_ref(), self.until_done)?;
        host.control().tell_signals(signals.clone());
        let sampling = Arc::new(Sampling::new(signals));
        sampling.replace(sampling::of_host(&config, &sampling::on(host.board()))?);
        let keys = Arc::new(Unechoed::new());
        let shutdown = shutdown(context.bars.clone(), keys.clone())
            .map_err(|error| CliError::failure("cannot listen for signals").because(error))?;
        host.events().observe(Arc::new(trace::Trace));
        let display = (!output::is_logged()).then(|| display::show(host.events().subscribe(), context.bars.clone()));
        let reloader = Reloader::new(config.clone(), &host, sampling, recorder.clone(), loaded);
        let late = Late::of(&config, &mut host, loading, &reloader);
        let state = api::state(&config, &host, live, reloader)?;
        let late = tokio::spawn(late.arrive(state.clone(), self.until_done));
        let control = host.control();
        let reloads = tokio::spawn(api::reload_at(hangups, state.clone()));
        let serving = api::serve(&config, state, api::count(&host)?, listeners);
        let service = service::start(host.control());
        let summaries = host.run(shutdown).await;
        // The host may have ended by itself.
        control.stop();
        late.abort();
        reloads.abort();
        let _ = reloads.await;
        let _ = service.await;
        let _ = serving.await;
        // The host is gone and with it the stream of events, so that the display ends after the last one.
        if let Some(display) = display {
            let _ = display.await;
        }
        keys.restore();
        if let Some(recorder) = &recorder {
            self.record.end(recorder).await;
        }
        if self.json {
            output::print_json(&RunReport::new(&summaries))?;
        }
        conclude(&summaries)
    }
}

/// How the work ended: the shape of the JSON.
#[derive(Serialize)]
struct RunReport<'a> {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    /// In the configuration's order.
    databases: Vec<DatabaseEnd<'a>>,
}

#[derive(Serialize)]
struct DatabaseEnd<'a> {
    name: &'a str,
    /// "done" where nothing can run any more, "stopped" where the host was told to stop, "failed".
    end: &'static str,
    /// What remains in the queue and cannot run, where nothing can.
    remaining: Vec<Remaining<'a>>,
    /// Why the database could not be worked on.
    error: Option<String>,
}

#[derive(Serialize)]
struct Remaining<'a> {
    name: &'a str,
    /// Why it cannot run.
    reason: &'a str,
}

impl<'a> RunReport<'a> {
    fn new(summaries: &'a [Summary]) -> Self {
        let databases = summaries.iter().map(|Summary { database, end }| {
            let (end, remaining, error) = match end {
                End::Stopped => ("stopped", &[][..], None),
                End::Done { remaining } => ("done", &remaining[..], None),
                End::Failed(error) => ("failed", &[][..], Some(error.to_string())),
            };
            let remaining = remaining.iter().map(|(name, reason)| Remaining { name, reason }).collect();
            DatabaseEnd { name: database, end, remaining, error }
        });
        Self { version: 1, databases: databases.collect() }
    }
}

/// A host as the configuration describes it.
fn host(
    config: &Config,
    databases: Vec<(String, Replacement)>,
    recorder: Option<&Recorder>,
    until_done: bool,
) -> Result<Host, CliError> {
    let background = &config.background_updates;
    let mut builder = Host::builder()
        .poll_interval(background.poll_interval)
        .max_batch_size(background.max_batch_size.into())
        .estimator(background.estimator)
        .cut_off(background.cut_off)
        .max_attempts(background.max_attempts)
        .shutdown_grace(background.shutdown_grace)
        .end_when_done(until_done);
    for (database, (name, planned)) in config.databases.iter().zip(databases) {
        let Replacement { handlers, lanes, policy, supervision, shadows, .. } = planned;
        let witness = recorder.map(|recorder| Arc::new(recorder.clone()) as Arc<dyn Witness>);
        builder = builder.database(
            DatabaseSpec::new(name, wiring::open(database)?)
                .updates(handlers)
                .lanes(lanes)
                .policy(policy)
                .supervision(supervision)
                .shadows(shadows)
                .witnesses(witness),
        );
    }
    builder.build().map_err(|error| CliError::usage("cannot set the host up").because(error))
}

/// Resolves at the first signal to stop; at the second the process ends.
fn shutdown(bars: MultiProgress, keys: Arc<Unechoed>) -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        let first = tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "told to terminate",
        };
        output::line_beside(&bars, &format!("{first}: ending the batches that run; once more to end at once"));
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            /// What a shell reports of a process that SIGINT ended.
            const INTERRUPTED: i32 = 130;
            keys.restore();
            std::process::exit(INTERRUPTED);
        });
    })
}

/// What the process ends with.
fn conclude(summaries: &[Summary]) -> Result<(), CliError> {
    let mut remaining = Vec::new();
    for Summary { database, end } in summaries {
        match end {
            End::Failed(error) => {
                return Err(CliError::failure(format!("cannot work on database \"{database}\""))
                    .because_of_database(error.clone()));
            }
            End::Done { remaining: rows } => {
                remaining.extend(rows.iter().map(|(name, reason)| format!("{name} on {database}: {reason}")));
            }
            End::Stopped => {}
        }
    }
    match remaining.len() {
        0 => Ok(()),
        count => {
            let rows = if count == 1 { "1 row remains".to_owned() } else { format!("{count} rows remain") };
            let hint = match remaining.iter().all(|row| row.contains(AWAITING)) {
                true => "look at them, then `tidegate approve`",
                false => "mend what the reasons name; what is quarantined then waits for `tidegate retry`",
            };
            Err(CliError::rows_remain(format!("{rows} that cannot run"), remaining).hint(hint))
        }
    }
}
