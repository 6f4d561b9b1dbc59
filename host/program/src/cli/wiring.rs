//! Where the parts meet: from what a configuration says to what does it. The only place that names drivers, kinds of
//! update and the sandbox.

use std::path::PathBuf;
use std::sync::Arc;

use tidegate::controller::Fault;
use tidegate::scheduler::database::{Database, Holder};
use tidegate::scheduler::ledger::Actor;
use tidegate::scheduler::{Handlers, Lanes};
use tidegate::signal::SignalReader;
use tidegate::update::{
    Backfill, Batch, Copy, CreateIndex, Delete, Gate, Gated, Handler, Noop, Refuse, Script, Tolerant, Transform,
    TransformDefinition, Unkeep, ValidateAndDelete, ValidateConstraint,
};
use tidegate_config::{Config, Diagnostic, Target, UpdateKind};
use tidegate_database::{OpenError, Options};
use tidegate_wasm::{Artifact, Compiler, ComponentSource, ComponentTransformer, HandlerOptions, LoadOptions};

use super::error::CliError;

/// A database as the scheduler knows it. It connects when it is first used.
pub(super) fn open(database: &tidegate_config::Database) -> Result<Arc<dyn Database>, CliError> {
    open_lazily(database).map_err(|error| unusable(database, error))
}

/// The same for what the user of this command does there: the ledger names them.
pub(super) fn acting(database: &tidegate_config::Database) -> Result<Arc<dyn Database>, CliError> {
    Ok(open(database)?.known_as(user()))
}

/// Who runs this command, by what the system says: variables of the environment may say anything.
fn user() -> Actor {
    let uid = rustix::process::getuid().as_raw().to_string();
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = known.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let name = fields.filter(|fields| fields.get(2) == Some(&uid.as_str())).find_map(|fields| fields.first().copied());
    // A directory service may know the name.
    let name = name.map_or_else(|| format!("number {uid}"), str::to_owned);
    Actor::user(&name, &Holder::this_process().host)
}

/// A database that cannot be used, and why.
pub(super) fn unusable(database: &tidegate_config::Database, error: OpenError) -> CliError {
    CliError::usage(format!("cannot use database \"{}\"", database.name)).because(error)
}

/// What no driver understands of a database's settings, with its place.
pub(super) fn refused_url(config: &Config, database: &tidegate_config::Database) -> Option<Diagnostic> {
    let error = open_lazily(database).err()?;
    let (keys, hint): (&[&str], _) = match error {
        OpenError::Option(_) => (&["queue_table"], "give the table's plain name"),
        _ => (&["url_file", "url"], "write it as postgres://user:password@host:5432/name?sslmode=verify-full"),
    };
    let mut places = keys.iter().map(|key| database.places.of(key));
    let place = places.find(|place| *place != database.places.header).unwrap_or(database.places.header);
    Some(config.diagnostic(place, format!("database \"{}\": {error}", database.name), Some(hint.to_owned())))
}

/// As [`open`], with the driver's own error.
pub(super) fn open_lazily(database: &tidegate_config::Database) -> Result<Arc<dyn Database>, OpenError> {
    let (url, options) = access(database);
    tidegate_database::open(&url, options)
}

/// Where a database is, and how it is spoken to.
pub(super) fn access(database: &tidegate_config::Database) -> (String, Options) {
    let mut options = Options::new(Holder::this_process());
    options.queue_table.clone_from(&database.queue_table);
    let url = match &database.target {
        Target::Sqlite { path, busy_timeout } => {
            options.sqlite.busy_timeout = *busy_timeout;
            format!("sqlite:{}", path.display())
        }
        Target::Postgres { url, lock_timeout, statement_timeout, idle_in_transaction_timeout } => {
            options.postgres.lock_timeout = *lock_timeout;
            options.postgres.statement_timeout = *statement_timeout;
            options.postgres.idle_in_transaction_timeout = *idle_in_transaction_timeout;
            url.reveal().to_owned()
        }
    };
    (url, options)
}

/// What does an update's work on a database.
pub(super) fn handler(update: &tidegate_config::Update, database: &tidegate_config::Database) -> Arc<dyn Handler> {
    let (system, reach, workers) = (database.target.system(), update.reach, update.workers);
    let (verify, gate) = (update.verify, update.gate);
    let handler: Arc<dyn Handler> = match update.kind.clone() {
        UpdateKind::Backfill(definition) => {
            let backfill = Backfill::new(definition).reaching(reach).with_workers(workers);
            match update.keep {
                true => gated(backfill.kept(&update.name, verify), gate),
                false => gated(backfill.verified(verify), gate),
            }
        }
        UpdateKind::Delete(definition) => {
            gated(Delete::new(definition).reaching(reach).with_workers(workers).verified(verify), gate)
        }
        UpdateKind::Copy(definition) => {
            let copy = Copy::new(definition).reaching(reach).with_workers(workers);
            if update.keep { gated(copy.kept(&update.name), gate) } else { gated(copy, gate) }
        }
        UpdateKind::Batch(definition) => {
            let batch = Batch::new(definition, system).reaching(reach).with_workers(workers);
            gated(batch.with_settings(update.settings.clone()), gate)
        }
        UpdateKind::CreateIndex(definition) => Arc::new(CreateIndex::new(definition, system)),
        UpdateKind::ValidateConstraint(definition) => Arc::new(ValidateConstraint::new(definition)),
        UpdateKind::ValidateAndDelete(definition) => Arc::new(ValidateAndDelete::new(definition).with_workers(workers)),
        UpdateKind::Transform(transform) => {
            let settings: Vec<(String, String)> = transform.settings.0.into_iter().collect();
            let options = HandlerOptions {
                update_name: update.name.clone(),
                database_name: database.name.clone(),
                settings: settings.clone(),
                impure: transform.impure,
                load: handler_load(transform.sha256),
                limits: transform.limits,
                log: None,
            };
            let component = ComponentTransformer::new(&transform.component, options);
            let definition = TransformDefinition { settings, ..transform.definition };
            gated(Transform::new(definition, Arc::new(component)).reaching(reach).with_workers(workers), gate)
        }
        UpdateKind::Script(definition) => {
            Arc::new(Script::new(definition, system).with_settings(update.settings.clone()))
        }
        UpdateKind::Unkeep(definition) => Arc::new(Unkeep::new(definition)),
        UpdateKind::Noop => Arc::new(Noop),
        UpdateKind::Refuse(reason) => Arc::new(Refuse::new(reason)),
    };
    Arc::new(Tolerant::new(handler, update.tolerance).accepting(update.skipped_ok))
}

fn gated(handler: impl Handler + 'static, gate: Gate) -> Arc<dyn Handler> {
    Arc::new(Gated::new(handler, gate))
}

/// How a handler's component is compiled.
pub(super) fn handler_load(sha256: Option<[u8; 32]>) -> LoadOptions {
    let (cache_directory, compiler) = (cache_directory(), Some(compiler()));
    LoadOptions { sha256, cache_directory, compiler, ..LoadOptions::default() }
}

/// What does the work of all updates that are defined for a database.
pub(super) fn handlers(config: &Config, database: &tidegate_config::Database) -> Handlers {
    let updates = config.updates_of(&database.name);
    updates.map(|update| (update.name.clone(), handler(update, database))).collect()
}

/// In which lane each of them is worked on.
pub(super) fn lanes(config: &Config, database: &tidegate_config::Database) -> Lanes {
    let mut lanes = Lanes::default();
    config.updates_of(&database.name).for_each(|update| lanes.put(&update.name, &update.lane));
    lanes
}

/// A controller's component, read, compiled and linked, which is to read these signals.
pub(super) async fn controller(
    controller: &tidegate_config::Controller,
    signals: Arc<dyn SignalReader>,
) -> Result<Arc<ComponentSource>, Fault> {
    let options = LoadOptions {
        sha256: controller.sha256,
        limits: controller.limits.clone(),
        cache_directory: cache_directory(),
        compiler: Some(compiler()),
    };
    let artifact = Artifact::load(&controller.path, &options).await?;
    let settings = controller.settings.0.clone().into_iter().collect();
    let source = ComponentSource::new(controller.name.clone(), artifact);
    Ok(Arc::new(source.with_settings(settings).with_signals(signals)))
}

/// Who compiles controllers: this program, as [`super::Command::Compile`].
pub(super) fn compiler() -> Compiler {
    // What runs is meant, also where a newer program has taken its place.
    let own = PathBuf::from("/proc/self/exe");
    let program = if own.exists() { own } else { std::env::current_exe().unwrap_or_else(|_| "tidegate".into()) };
    Compiler::new(program, ["compile-component".into()])
}

/// Where compiled controllers are kept: what systemd gives a service, or else the user's own cache.
pub(super) fn cache_directory() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    folder("CACHE_DIRECTORY").or_else(|| Some(user()?.join("tidegate")))
}
