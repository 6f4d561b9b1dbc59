//! Handlers that are WebAssembly components: they make new values of rows, in the same sandbox as controllers.
//!
//! A handler's answers are to depend on the rows alone, so that an update that was interrupted comes out the same: where its
//! definition does not say otherwise, its clock stands still and its chance is the same each time.

mod artifact;
mod instance;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

pub use self::artifact::TransformArtifact;
use self::instance::LiveTransform;
pub use self::instance::Used;
use super::artifact::{LoadOptions, check_digest, hex, read_now};
use super::limits::Limits;
use super::log::{Log, LogSink};
use super::target::HandlerSink;
use tidegate::controller::{Fault, FaultKind};
use tidegate::update::{Cell, Cells, RowOutcome, TransformFault, Transformer};

/// Instances that are kept for the next call: as many as work on one update at once have one each.
const MOST_IDLE: usize = 64;

/// What one instance of a handler may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerLimits {
    /// What a call may use, whatever the number of its rows.
    pub call: Limits,
    /// Units of fuel that a call may use besides for each of its rows. Default: 1,000,000.
    pub fuel_per_row: u64,
}

impl Default for HandlerLimits {
    fn default() -> Self {
        let call = Limits {
            deadline: Duration::from_secs(1),
            memory_bytes: 128 << 20,
            data_bytes: 32 << 20,
            ..Limits::default()
        };
        Self { call, fuel_per_row: 1_000_000 }
    }
}

/// How a handler is to be loaded and run.
#[derive(Clone)]
pub struct HandlerOptions {
    /// The update that it works for.
    pub update_name: String,
    /// The database that it works on.
    pub database_name: String,
    /// What it reads through `settings`.
    pub settings: Vec<(String, String)>,
    /// True where it meets the machine's own clock and chance.
    pub impure: bool,
    /// The digest that the file must have, and how it is compiled. The limits of [`HandlerOptions::limits`] count.
    pub load: LoadOptions,
    /// What it may use.
    pub limits: HandlerLimits,
    /// Where its lines go; where nothing is said, to `tracing`.
    pub log: Option<Arc<dyn LogSink>>,
}

/// A component that transforms rows.
pub struct ComponentTransformer {
    /// The file, read once: what its digest is of is what runs.
    bytes: Result<Arc<[u8]>, TransformFault>,
    identity: Result<String, TransformFault>,
    options: HandlerOptions,
    settings: Arc<[(String, String)]>,
    artifact: OnceCell<Arc<TransformArtifact>>,
    idle: Mutex<Vec<LiveTransform>>,
    used: Mutex<Used>,
}

impl ComponentTransformer {
    /// The component in a file, which is read at once and compiled when it is first needed.
    pub fn new(path: &Path, options: HandlerOptions) -> Self {
        let told = |fault: &Fault| TransformFault::of_all(fault.to_string(), handler_hint(fault.kind));
        let bytes = read_now(path).and_then(|bytes| {
            check_digest(&Sha256::digest(&bytes).into(), options.load.sha256.as_ref())?;
            Ok(Arc::from(bytes))
        });
        Self::of(bytes.map_err(|fault| told(&fault)), options)
    }

    /// A component that was loaded already.
    pub fn of_artifact(artifact: Arc<TransformArtifact>, options: HandlerOptions) -> Self {
        let made = Self::of(Ok(Arc::default()), options);
        let identity = Ok(artifact.digest().to_owned());
        Self { identity, artifact: OnceCell::new_with(Some(artifact)), ..made }
    }

    fn of(bytes: Result<Arc<[u8]>, TransformFault>, options: HandlerOptions) -> Self {
        let purity = if options.impure { " impure" } else { "" };
        let identity = bytes.as_ref().map(|bytes| format!("{}{purity}", hex(&Sha256::digest(bytes))));
        let identity = identity.map_err(Clone::clone);
        let settings = options.settings.clone().into();
        Self {
            bytes,
            identity,
            options,
            settings,
            artifact: OnceCell::new(),
            idle: Mutex::default(),
            used: Mutex::default(),
        }
    }

    /// What the last call that went through used.
    pub fn used(&self) -> Used {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn artifact(&self) -> Result<Arc<TransformArtifact>, TransformFault> {
        let loaded = self.artifact.get_or_try_init(|| async {
            let bytes = self.bytes.clone()?;
            let load = LoadOptions { limits: self.options.limits.call.clone(), ..self.options.load.clone() };
            TransformArtifact::from_bytes(bytes.to_vec(), &load)
                .await
                .map_err(|fault| TransformFault::of_all(fault.to_string(), handler_hint(fault.kind)))
        });
        loaded.await.cloned()
    }

    /// An instance to call, one that was called before where there is one.
    async fn instance(&self) -> Result<LiveTransform, TransformFault> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(live) = idle {
            return Ok(live);
        }
        let artifact = self.artifact().await?;
        let HandlerOptions { update_name, database_name, impure, limits, log, .. } = &self.options;
        let sink = log.clone().unwrap_or_else(|| Arc::new(HandlerSink));
        let log = Log::new(sink, update_name, database_name, &limits.call);
        LiveTransform::start(&artifact, limits, self.settings.clone(), log, update_name, *impure).await
    }

    async fn call(&self, live: &mut LiveTransform, rows: Vec<Cells>) -> Result<Vec<RowOutcome>, TransformFault> {
        // In one call, as a rule; in several where the rows would leave no room for answers.
        let most = self.options.limits.call.data_bytes / 4;
        let mut outcomes = Vec::with_capacity(rows.len());
        let (mut chunk, mut bytes) = (Vec::with_capacity(rows.len()), 0_usize);
        for row in rows {
            let size = row.iter().map(size).sum();
            if !chunk.is_empty() && bytes.saturating_add(size) > most {
                outcomes.extend(live.transform(std::mem::take(&mut chunk)).await?);
                bytes = 0;
            }
            bytes = bytes.saturating_add(size);
            chunk.push(row);
        }
        outcomes.extend(live.transform(chunk).await?);
        Ok(outcomes)
    }
}

#[async_trait]
impl Transformer for ComponentTransformer {
    fn identity(&self) -> Result<String, TransformFault> {
        self.identity.clone()
    }

    async fn prepare(&self) -> Result<(), TransformFault> {
        let live = self.instance().await?;
        self.keep(live);
        Ok(())
    }

    async fn transform(&self, rows: Vec<Cells>) -> Result<Vec<RowOutcome>, TransformFault> {
        let mut live = self.instance().await?;
        // One that faulted, or that nobody waits for any more, is never called again.
        let outcomes = self.call(&mut live, rows).await?;
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = live.used;
        self.keep(live);
        Ok(outcomes)
    }
}

impl ComponentTransformer {
    fn keep(&self, live: LiveTransform) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(live);
        }
    }
}

/// Bytes that a value takes on its way, about.
fn size(cell: &Cell) -> usize {
    24 + match cell {
        Cell::Null | Cell::Boolean(_) | Cell::Integer(_) | Cell::Float(_) => 0,
        Cell::Text(text) => text.len(),
        Cell::Bytes(bytes) => bytes.len(),
        Cell::Other { type_name, text } => type_name.len() + text.len(),
    }
}

/// What a handler's author, or whoever configures it, can do about a kind of fault.
pub fn handler_hint(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::OutOfFuel => {
            "look for a loop that does not end; where the work is honest, raise `fuel_per_row` or `fuel_per_call` in [update.limits]"
        }
        FaultKind::Deadline => "do less for a row, and never sleep; or raise `deadline_ms` in [update.limits]",
        FaultKind::Memory => {
            "free what is no longer used, or raise `memory_bytes`, `table_elements` or `instances` in [update.limits]"
        }
        FaultKind::Stack => "look for a recursion that does not end, or raise `stack_bytes` in [update.limits]",
        FaultKind::DataSize => "answer with less data, or raise `data_bytes` in [update.limits]",
        FaultKind::Handles => {
            "drop the resources of WASI that are not used any more, or raise `handles` in [update.limits]"
        }
        FaultKind::Trap => {
            "the component's own code failed: a panic, an assertion, an access out of bounds; `tidegate handler test` runs it on rows of yours"
        }
        FaultKind::ErrorReturned | FaultKind::OutOfRange => "answer one outcome for each row, in the same order",
        FaultKind::Unreadable => "correct `component` in [[update]], or let this user read the file",
        FaultKind::Incompatible => {
            "build a component (not a core module) for the world `tidegate:handler/transform@0.1.0` of wit/handler.wit, with no import beyond it and WASI 0.2"
        }
        FaultKind::Compilation => {
            "mend what the message names; or make the component smaller, above all its largest function: optimise it (`wasm-opt -O`), and leave out what it does not use"
        }
        FaultKind::WrongDigest => {
            "if the file is the one that you mean, put its digest into `sha256`; if not, find out who replaced it"
        }
    }
}
