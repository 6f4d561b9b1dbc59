//! What the commands on controllers have in common: the file, and what it is given.

use std::path::PathBuf;
use std::sync::Arc;

use tidegate::controller::Fault;
use tidegate_wasm::{Artifact, ComponentSource, Limits, LoadOptions};

/// A controller's file and its settings.
#[derive(Debug, clap::Args)]
pub(super) struct Component {
    /// The component
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,

    /// A setting that the controller reads, as in [controller.settings]; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub(super) settings: Vec<(String, String)>,
}

impl Component {
    /// What the file is called: the controller's name.
    pub(super) fn name(&self) -> String {
        self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Reads, compiles and links the file, under these limits.
    pub(super) async fn artifact(&self, limits: Limits) -> Result<Arc<Artifact>, Fault> {
        let options = LoadOptions {
            sha256: None,
            limits,
            cache_directory: super::super::wiring::cache_directory(),
            compiler: Some(super::super::wiring::compiler()),
        };
        Artifact::load(&self.file, &options).await
    }

    /// Where instances of an artifact come from.
    pub(super) fn source(&self, artifact: Arc<Artifact>) -> ComponentSource {
        ComponentSource::new(self.name(), artifact).with_settings(self.settings.clone())
    }
}

/// A setting, from the command line.
pub(in crate::cli) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}
