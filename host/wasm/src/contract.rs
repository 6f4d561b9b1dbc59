//! The contract's names: whether a component speaks the version that this host speaks.

use wasmtime::component::Component;

use super::fault;
use tidegate::controller::Fault;

/// The version that this host speaks. By the rules of semantic versioning, components of any 0.1.x fit.
const VERSION: &str = "0.1.0";
const PACKAGE: &str = "tidegate:controller/";
const PACING: &str = "tidegate:controller/pacing@0.1.0";
pub(super) const DEFAULT_BATCH_SIZE: &str = "tidegate:controller/default-batch-size@0.1.0";
pub(super) const MIN_BATCH_SIZE: &str = "tidegate:controller/min-batch-size@0.1.0";

/// What a component imports and exports, by full name.
pub(super) struct Names {
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
}

impl Names {
    pub(super) fn of(component: &Component) -> Names {
        let (engine, ty) = (component.engine(), component.component_type());
        Names {
            imports: ty.imports(engine).map(|(name, _)| name.to_owned()).collect(),
            exports: ty.exports(engine).map(|(name, _)| name.to_owned()).collect(),
        }
    }

    /// The version of the contract that the component was built for.
    pub(super) fn check(&self) -> Result<String, Fault> {
        for (interface, version) in self.imports.iter().chain(&self.exports).filter_map(|name| of_contract(name)) {
            if !is_spoken(version) {
                return Err(fault::incompatible(&format!(
                    "it is built for version {version} of the contract (`{PACKAGE}{interface}`), this host speaks {VERSION}"
                )));
            }
        }
        if let Some(name) = self.imports.iter().find(|name| !is_offered(name)) {
            return Err(fault::incompatible(&format!("it imports `{name}`, which this host does not offer")));
        }
        let exported: Vec<_> = self.exports.iter().filter_map(|name| of_contract(name)).collect();
        match exported.iter().find(|(interface, _)| *interface == "pacing") {
            Some((_, version)) => Ok((*version).to_owned()),
            None => Err(without_pacing(&exported)),
        }
    }
}

/// The message names what is there: who exports only batch sizes believes to have written a controller.
fn without_pacing(exported: &[(&str, &str)]) -> Fault {
    let there: Vec<&str> = exported.iter().map(|(interface, _)| *interface).collect();
    let only = if there.is_empty() { String::new() } else { format!("; it exports only {}", there.join(" and ")) };
    fault::incompatible(&format!("it does not export `{PACING}` (on-update), which every controller must{only}"))
}

/// Interface and version, where the name is one of the contract's.
fn of_contract(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_prefix(PACKAGE)?;
    Some(name.split_once('@').unwrap_or((name, "(none)")))
}

/// False where this host has no such interface in any version; where it has one, only the linker knows whether it fits.
fn is_offered(import: &str) -> bool {
    const OFFERED: [&str; 7] =
        [PACKAGE, "wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];
    OFFERED.iter().any(|package| import.starts_with(package))
}

fn is_spoken(version: &str) -> bool {
    version.strip_prefix("0.1.").is_some_and(|patch| patch.parse::<u64>().is_ok())
}
