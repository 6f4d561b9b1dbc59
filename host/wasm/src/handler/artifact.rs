//! A component that was read, compiled, linked and found to be a transform.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::artifact::{LoadOptions, check_digest, check_preamble, compile, hex, read};
use crate::bindings::handler::TransformPre;
use crate::host_state::{HostState, handler_linker};
use crate::limits::Limits;
use crate::{contract, fault};
use tidegate::controller::Fault;

/// A component that this host can run as a transform.
#[derive(Clone)]
pub struct TransformArtifact {
    digest: String,
    size: usize,
    compile_time: Duration,
    contract_version: String,
    imports: Vec<String>,
    exports: Vec<String>,
    limits: Limits,
    pub(super) pre: TransformPre<HostState>,
}

impl TransformArtifact {
    /// Loads a file.
    ///
    /// # Errors
    /// [`FaultKind::Unreadable`](tidegate::controller::FaultKind::Unreadable), `Incompatible` where the file is not a transform
    /// for this host, `WrongDigest` where it is another one than the one pinned, and `Compilation`.
    pub async fn load(path: &Path, options: &LoadOptions) -> Result<Arc<Self>, Fault> {
        Self::from_bytes(read(path).await?, options).await
    }

    /// Loads what was read already.
    ///
    /// # Errors
    /// As [`TransformArtifact::load`].
    pub async fn from_bytes(bytes: Vec<u8>, options: &LoadOptions) -> Result<Arc<Self>, Fault> {
        let digest = Sha256::digest(&bytes).into();
        check_digest(&digest, options.sha256.as_ref())?;
        check_preamble(&bytes)?;
        let size = bytes.len();
        let started = Instant::now();
        let component = compile(bytes, options, true).await?;
        let compile_time = started.elapsed();
        let names = contract::Names::of(&component);
        let contract_version = names.check_handler()?;
        let linker = handler_linker(component.engine())
            .map_err(|error| fault::incompatible_because("the host's own functions cannot be linked", &error))?;
        let pre = linker
            .instantiate_pre(&component)
            .map_err(|error| fault::incompatible_because("its imports are not what this host offers", &error))?;
        let pre = TransformPre::new(pre)
            .map_err(|error| fault::incompatible_because("its exports are not what the contract asks for", &error))?;
        Ok(Arc::new(Self {
            digest: hex(&digest),
            size,
            compile_time,
            contract_version,
            imports: names.imports,
            exports: names.exports,
            limits: options.limits.clone(),
            pre,
        }))
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
}
