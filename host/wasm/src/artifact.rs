//! A component that was read, compiled, linked and found to be a controller.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use wasmtime::component::{Component, InstancePre};

use super::bindings::ControllerPre;
use super::bindings::default_batch_size::WithDefaultBatchSizeIndices;
use super::bindings::min_batch_size::WithMinBatchSizeIndices;
use super::compiler::Compiler;
use super::host_state::{HostState, linker};
use super::instance::Live;
use super::limits::Limits;
use super::log::{Discard, Log};
use super::{contract, engine, fault};
use tidegate::controller::{Callback, Fault, FaultKind};
use tidegate::signal::NoSignals;

/// How a component is to be loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The SHA-256 digest that the file must have.
    pub sha256: Option<[u8; 32]>,
    /// What its instances may use.
    pub limits: Limits,
    /// Where compiled components are kept from one start of the host to the next. What lies there is run as it is: only
    /// the host may be able to write to it.
    pub cache_directory: Option<PathBuf>,
    /// Who compiles, under limits of time and memory. Without it this process does, and what it needs is bounded by nothing.
    pub compiler: Option<Compiler>,
}

/// A component that this host can run as a controller.
#[derive(Clone)]
pub struct Artifact {
    digest: String,
    size: usize,
    compile_time: Duration,
    contract_version: String,
    imports: Vec<String>,
    exports: Vec<String>,
    limits: Limits,
    /// False where fuel is not counted.
    metered: bool,
    program: Program,
}

/// What is needed to start instances.
#[derive(Clone)]
pub(super) struct Program {
    pub(super) pre: ControllerPre<HostState>,
    pub(super) default_batch_size: Option<WithDefaultBatchSizeIndices>,
    pub(super) min_batch_size: Option<WithMinBatchSizeIndices>,
}

impl Artifact {
    /// Loads a file.
    ///
    /// # Errors
    /// [`FaultKind::Unreadable`], [`FaultKind::Incompatible`] where the file is not a controller for this host,
    /// [`FaultKind::WrongDigest`] where it is another one than the one pinned, and whatever goes wrong in the instance
    /// that is started to see whether it starts.
    pub async fn load(path: &Path, options: &LoadOptions) -> Result<Arc<Artifact>, Fault> {
        Artifact::from_bytes(read(path).await?, options).await
    }

    /// Loads a file without the counting of fuel, so that the benchmark can tell what that costs. Never for production.
    ///
    /// # Errors
    /// As [`Artifact::load`].
    #[cfg(feature = "test-switches")]
    #[doc(hidden)]
    pub async fn load_unmetered(path: &Path, options: &LoadOptions) -> Result<Arc<Artifact>, Fault> {
        Artifact::make(read(path).await?, options, false).await
    }

    /// Loads what was read already.
    ///
    /// # Errors
    /// As [`Artifact::load`].
    pub async fn from_bytes(bytes: Vec<u8>, options: &LoadOptions) -> Result<Arc<Artifact>, Fault> {
        Artifact::make(bytes, options, true).await
    }

    async fn make(bytes: Vec<u8>, options: &LoadOptions, metered: bool) -> Result<Arc<Artifact>, Fault> {
        let digest = Sha256::digest(&bytes).into();
        check_digest(&digest, options.sha256.as_ref())?;
        check_preamble(&bytes)?;
        let size = bytes.len();
        let started = Instant::now();
        let component = compile(bytes, options, metered).await?;
        let compile_time = started.elapsed();
        let names = contract::Names::of(&component);
        let contract_version = names.check()?;
        let artifact = Artifact {
            digest: hex(&digest),
            size,
            compile_time,
            contract_version,
            program: link(&component)?,
            imports: names.imports,
            exports: names.exports,
            limits: options.limits.clone(),
            metered,
        };
        artifact.probe().await?;
        Ok(Arc::new(artifact))
    }

    /// The same component, whose instances may use something else. The stack stays as it is: it was compiled in.
    pub fn with_limits(&self, limits: Limits) -> Arc<Artifact> {
        let limits = Limits { stack_bytes: self.limits.stack_bytes, ..limits };
        Arc::new(Artifact { limits, ..self.clone() })
    }

    /// The file's SHA-256 digest, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The file's size in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How long it took to compile, or to find it compiled in the cache.
    pub fn compile_time(&self) -> Duration {
        self.compile_time
    }

    /// The version of the contract that the component was built for, e.g. `0.1.0`.
    pub fn contract_version(&self) -> &str {
        &self.contract_version
    }

    /// True where it sets the size of an update's first batch.
    pub fn exports_default_batch_size(&self) -> bool {
        self.program.default_batch_size.is_some()
    }

    /// True where it sets the least size of later batches.
    pub fn exports_min_batch_size(&self) -> bool {
        self.program.min_batch_size.is_some()
    }

    /// Everything that it imports, by full name.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Everything that it exports, by full name.
    pub fn exports(&self) -> &[String] {
        &self.exports
    }

    /// What its instances may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// False where fuel is not counted.
    pub(super) fn is_metered(&self) -> bool {
        self.metered
    }

    pub(super) fn program(&self) -> &Program {
        &self.program
    }

    /// Starts an instance and throws it away: only then are types checked and start functions run.
    async fn probe(&self) -> Result<(), Fault> {
        let log = Log::new(Arc::new(Discard), "", "", &self.limits);
        let state = HostState::new(&self.limits, Arc::default(), Arc::new(NoSignals), log, None);
        Live::start(self, state, None).await.map(drop)
    }
}

/// The most bytes of a component's file: several times what the largest tools make of a small controller.
const MOST_BYTES: u64 = 128 << 20;

/// What is no file might never end, or never begin.
pub(super) async fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let own = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_now(&own)).await;
    read.unwrap_or_else(|error| Err(fault::unreadable(path, &io::Error::other(error))))
}

/// The same, where it may block.
pub(super) fn read_now(path: &Path) -> Result<Vec<u8>, Fault> {
    let unreadable = |error: io::Error| fault::unreadable(path, &error);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(unreadable(io::Error::other("it is not a regular file")));
    }
    if metadata.len() > MOST_BYTES {
        let problem = format!("it has {} bytes, and more than {MOST_BYTES} are not read", metadata.len());
        return Err(unreadable(io::Error::other(problem)));
    }
    std::fs::read(path).map_err(unreadable)
}

/// Compiles on a thread that may block: this can take seconds.
pub(super) async fn compile(bytes: Vec<u8>, options: &LoadOptions, metered: bool) -> Result<Component, Fault> {
    let failed = |message| Fault { kind: FaultKind::Compilation, callback: Callback::Load, message };
    let LoadOptions { limits, mut cache_directory, compiler, .. } = options.clone();
    let mut passing = None;
    if let Some(compiler) = compiler {
        let found = tokio::task::spawn_blocking(move || place(cache_directory)).await;
        let (directory, made) = found
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| failed(format!("no directory can be made for what is compiled: {error}")))?;
        passing = made;
        compiler.compile(&bytes, &limits, metered, &directory).await?;
        cache_directory = Some(directory);
    }
    let work = move || {
        let _passing = passing;
        let engine = engine::new(&limits, metered, cache_directory.as_deref())
            .map_err(|error| fault::incompatible_because("no engine can be made with these limits", &error))?;
        Component::from_binary(&engine, &bytes)
            .map_err(|error| fault::incompatible_because("the component cannot be compiled", &error))
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(format!("the compiler failed: {error}"))))
}

/// Where what is compiled apart is handed over: in the cache, or where nothing can be written there in a directory made for
/// that alone, which comes along. It may block.
fn place(cache: Option<PathBuf>) -> io::Result<(PathBuf, Option<TempDir>)> {
    match cache.filter(|directory| is_writable(directory)) {
        Some(directory) => Ok((directory, None)),
        None => {
            let made = tempfile::tempdir()?;
            Ok((made.path().to_owned(), Some(made)))
        }
    }
}

/// Whether files can be made in a directory, which is made where it is missing.
fn is_writable(directory: &Path) -> bool {
    std::fs::create_dir_all(directory).is_ok() && tempfile::tempfile_in(directory).is_ok()
}

/// Finds a counterpart for each import and each export.
fn link(component: &Component) -> Result<Program, Fault> {
    let imports = |error| fault::incompatible_because("its imports are not what this host offers", &error);
    let exports = |error| fault::incompatible_because("its exports are not what the contract asks for", &error);
    let linker = linker(component.engine())
        .map_err(|error| fault::incompatible_because("the host's own functions cannot be linked", &error))?;
    let pre = linker.instantiate_pre(component).map_err(imports)?;
    Ok(Program {
        default_batch_size: if_exported(&pre, contract::DEFAULT_BATCH_SIZE, WithDefaultBatchSizeIndices::new)
            .map_err(exports)?,
        min_batch_size: if_exported(&pre, contract::MIN_BATCH_SIZE, WithMinBatchSizeIndices::new).map_err(exports)?,
        pre: ControllerPre::new(pre).map_err(exports)?,
    })
}

/// Only what is absent is `None`; what is there and wrong is an error.
fn if_exported<I>(
    pre: &InstancePre<HostState>,
    name: &str,
    find: impl FnOnce(&InstancePre<HostState>) -> wasmtime::Result<I>,
) -> wasmtime::Result<Option<I>> {
    pre.component().get_export_index(None, name).map(|_| find(pre)).transpose()
}

pub(super) fn check_digest(digest: &[u8; 32], pinned: Option<&[u8; 32]>) -> Result<(), Fault> {
    match pinned {
        Some(pinned) if pinned != digest => Err(Fault {
            kind: FaultKind::WrongDigest,
            callback: Callback::Load,
            message: format!("the file's SHA-256 digest is {}, the configuration pins {}", hex(digest), hex(pinned)),
        }),
        _ => Ok(()),
    }
}

/// Says in plain words what the compiler would say in its own.
pub(super) fn check_preamble(bytes: &[u8]) -> Result<(), Fault> {
    const MAGIC: &[u8] = b"\0asm";
    const LAYER_COMPONENT: &[u8] = &[1, 0];
    match (bytes.get(..4), bytes.get(6..8)) {
        (Some(MAGIC), Some(LAYER_COMPONENT)) => Ok(()),
        (Some(MAGIC), _) => Err(fault::incompatible("the file is a core WebAssembly module, not a component")),
        _ => Err(fault::incompatible("the file is not WebAssembly")),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
