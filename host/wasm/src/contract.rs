//! The contract's names: whether a component speaks the version that this host speaks.

use wasmtime::component::Component;

use super::fault;
use tidegate::controller::Fault;

/// The version that this host speaks. By the rules of semantic versioning, components of any 0.1.x fit.
const VERSION: &str = "0.1.0";
const PACKAGE: &str = "tidegate:controller/";
const HANDLER_PACKAGE: &str = "tidegate:handler/";
const TRANSFORMER: &str = "tidegate:handler/transformer@0.1.0";
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

    /// The version of the contract that a controller was built for.
    pub(super) fn check(&self) -> Result<String, Fault> {
        if self.exports.iter().any(|name| name.starts_with(HANDLER_PACKAGE)) {
            return Err(fault::incompatible("it is a handler, which does the work of an update, and no controller"));
        }
        self.check_versions(PACKAGE)?;
        let exported: Vec<_> = self.exports.iter().filter_map(|name| of_contract(PACKAGE, name)).collect();
        match exported.iter().find(|(interface, _)| *interface == "pacing") {
            Some((_, version)) => Ok((*version).to_owned()),
            None => Err(without_pacing(&exported)),
        }
    }
}

impl Names {
    /// The version of the contract that a transform was built for.
    pub(super) fn check_handler(&self) -> Result<String, Fault> {
        if self.exports.iter().any(|name| name.starts_with(PACKAGE)) {
            return Err(fault::incompatible("it is a controller, which sets the pace of updates, and no handler"));
        }
        self.check_versions(HANDLER_PACKAGE)?;
        let mut exported = self.exports.iter().filter_map(|name| of_contract(HANDLER_PACKAGE, name));
        match exported.find(|(interface, _)| *interface == "transformer") {
            Some((_, version)) => Ok(version.to_owned()),
            None => Err(fault::incompatible(&format!(
                "it does not export `{TRANSFORMER}` (transform), which every transform must"
            ))),
        }
    }

    fn check_versions(&self, package: &str) -> Result<(), Fault> {
        for (interface, version) in
            self.imports.iter().chain(&self.exports).filter_map(|name| of_contract(package, name))
        {
            if !is_spoken(version) {
                return Err(fault::incompatible(&format!(
                    "it is built for version {version} of the contract (`{package}{interface}`), this host speaks {VERSION}"
                )));
            }
        }
        match self.imports.iter().find(|name| !is_offered(package, name)) {
            Some(name) => Err(fault::incompatible(&format!("it imports `{name}`, which this host does not offer"))),
            None => Ok(()),
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
fn of_contract<'a>(package: &str, name: &'a str) -> Option<(&'a str, &'a str)> {
    let name = name.strip_prefix(package)?;
    Some(name.split_once('@').unwrap_or((name, "(none)")))
}

/// False where this host has no such interface in any version; where it has one, only the linker knows whether it fits.
fn is_offered(contract: &str, import: &str) -> bool {
    const WASI: [&str; 6] =
        ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];
    import.starts_with(contract) || WASI.iter().any(|package| import.starts_with(package))
}

fn is_spoken(version: &str) -> bool {
    version.strip_prefix("0.1.").is_some_and(|patch| patch.parse::<u64>().is_ok())
}
