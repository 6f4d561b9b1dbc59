//! `tidegate handler check`.

use serde::Serialize;
use tidegate::update::Transformer as _;
use tidegate_wasm::{TransformArtifact, handler_hint};

use super::super::controller::check::granted;
use super::super::error::CliError;
use super::super::output;
use super::load::{Component, told};

/// Load a handler as a host would, and tell what it is
///
/// It is compiled and linked under the limits that hold where a definition sets none, started, and handed no row at all. The
/// exit code is 2 where something is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    component: Component,

    /// Print JSON: an object with `version` (1), `file`, `sha256`, `size_bytes`, `compile_ms`, `contract_version`, `exports`,
    /// `imports`, and `fuel` and `memory_bytes` of a call without rows
    #[arg(long)]
    pub(super) json: bool,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct Report {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    file: String,
    /// What to pin with `sha256`.
    sha256: String,
    size_bytes: usize,
    compile_ms: u64,
    contract_version: String,
    exports: Vec<String>,
    imports: Vec<Import>,
    fuel: u64,
    memory_bytes: u64,
}

#[derive(Serialize)]
struct Import {
    name: String,
    /// What the guest gets by it.
    granted: &'static str,
}

impl Check {
    pub(super) async fn execute(self) -> Result<(), CliError> {
        let artifact = self.component.artifact().await;
        let artifact = artifact
            .map_err(|fault| CliError::usage(output::inline(&fault.to_string())).hint(handler_hint(fault.kind)))?;
        let transformer = self.component.transformer(artifact.clone());
        transformer.transform(Vec::new()).await.map_err(|fault| told(&fault))?;
        let used = transformer.used();
        let report = Report {
            version: 1,
            file: self.component.file.display().to_string(),
            sha256: artifact.digest().to_owned(),
            size_bytes: artifact.size(),
            compile_ms: artifact.compile_time().as_millis().try_into().unwrap_or(u64::MAX),
            contract_version: artifact.contract_version().to_owned(),
            exports: artifact.exports().to_vec(),
            imports: imports(&artifact, self.component.impure),
            fuel: used.fuel,
            memory_bytes: used.memory_bytes,
        };
        match self.json {
            true => output::print_json(&report),
            false => output::print(report.to_string().trim_end()),
        }
    }
}

fn imports(artifact: &TransformArtifact, impure: bool) -> Vec<Import> {
    let granted = |name: &String| match name {
        name if name.starts_with("wasi:clocks/") && !impure => "granted: it stands still, unless `impure = true`",
        name if name.starts_with("wasi:random/") && !impure => "granted: the same each time, unless `impure = true`",
        name => granted(name),
    };
    artifact.imports().iter().map(|name| Import { granted: granted(name), name: name.clone() }).collect()
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.file)?;
        writeln!(
            f,
            "  {} bytes, compiled in {} ms, for version {} of the contract",
            output::count(self.size_bytes as u64),
            self.compile_ms,
            self.contract_version
        )?;
        writeln!(f, "  sha256 = \"{}\"", self.sha256)?;
        writeln!(
            f,
            "  a call without rows: {} of fuel, {} bytes of memory",
            output::count(self.fuel),
            output::count(self.memory_bytes)
        )?;
        f.write_str("\nExports\n")?;
        for name in &self.exports {
            writeln!(f, "  {}", output::inline(name))?;
        }
        f.write_str("\nImports\n")?;
        for Import { name, granted } in &self.imports {
            writeln!(f, "  {}: {granted}", output::inline(name))?;
        }
        if self.imports.is_empty() {
            f.write_str("  none\n")?;
        }
        Ok(())
    }
}
