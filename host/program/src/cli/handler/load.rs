//! What the commands on handlers have in common: the file, and what it is given.

use std::path::PathBuf;
use std::sync::Arc;

use tidegate::controller::Fault;
use tidegate::update::TransformFault;
use tidegate_wasm::{ComponentTransformer, HandlerLimits, HandlerOptions, LoadOptions, TransformArtifact};

use super::super::controller::load::setting;
use super::super::error::CliError;
use super::super::{output, wiring};

/// A handler's file, its settings, and what it is told of itself.
#[derive(Debug, clap::Args)]
pub(super) struct Component {
    /// The component
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,

    /// A setting that the handler reads, as in [update.settings]; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub(super) settings: Vec<(String, String)>,

    /// The name of the update that it works for
    #[arg(long, value_name = "NAME", default_value = "update")]
    pub(super) update: String,

    /// Let it meet the machine's own clock and chance, as a definition with `impure = true` does
    #[arg(long)]
    pub(super) impure: bool,
}

impl Component {
    /// Reads, compiles and links the file, under the limits that hold where a definition sets none.
    pub(super) async fn artifact(&self) -> Result<Arc<TransformArtifact>, Fault> {
        let load = LoadOptions { limits: HandlerLimits::default().call, ..wiring::handler_load(None) };
        TransformArtifact::load(&self.file, &load).await
    }

    /// What hands rows to the component.
    pub(super) fn transformer(&self, artifact: Arc<TransformArtifact>) -> ComponentTransformer {
        let options = HandlerOptions {
            update_name: self.update.clone(),
            database_name: "master".to_owned(),
            settings: self.settings.clone(),
            impure: self.impure,
            load: LoadOptions::default(),
            limits: HandlerLimits::default(),
            log: None,
        };
        ComponentTransformer::of_artifact(artifact, options)
    }
}

/// A fault with all that is known of it: whoever runs the command gave the rows.
pub(super) fn told(fault: &TransformFault) -> CliError {
    let words = match &fault.detail {
        Some(detail) => format!("{}; {detail}", fault.message),
        None => fault.message.clone(),
    };
    CliError::usage(output::inline(&words)).hint(fault.hint.clone())
}
