//! Controllers: their files, what they may use, and which of them is for which database.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Diagnostic;
use super::model::{Config, Controller, Settings};
use super::raw;
use super::resolve::{named_databases, narrow, one_of, relative_to_file, required, twice};
use super::section::{Reader, Table};
use tidegate::controller::Fallback;
use tidegate_wasm::Limits;

/// Reads the controllers.
pub(super) fn controllers<'a>(
    reader: &mut Reader<'a>,
    value: Option<Spanned<DeValue<'a>>>,
    known: &[&str],
) -> Vec<Controller> {
    let Some(value) = value else { return Vec::new() };
    let mut controllers: Vec<Controller> = Vec::new();
    for table in reader.tables("[[controller]]", value) {
        let Some(controller) = controller(reader, table, known) else { continue };
        if let Some(earlier) = controllers.iter().find(|earlier| earlier.name == controller.name) {
            let message = twice("controller", &controller.name, &earlier.places);
            let hint = "give one of them another name".to_owned();
            reader.error(controller.places.of("name"), message, Some(hint));
        }
        controllers.push(controller);
    }
    controllers
}

fn controller<'a>(reader: &mut Reader<'a>, mut table: Table<'a>, known: &[&str]) -> Option<Controller> {
    let limits = table.get_mut().remove("limits");
    let settings = table.get_mut().remove("settings");
    let section = reader.section::<raw::Controller>("[[controller]]", table);
    let limits = limits.and_then(|value| reader.table("[controller.limits]", value));
    let limits = limits.map(|table| reader.section::<raw::Limits>("[controller.limits]", table).values);
    let settings = settings.and_then(|value| reader.table("[controller.settings]", value));
    let settings = settings.map(|table| reader.texts("[controller.settings]", table)).unwrap_or_default();
    let raw = &section.values;
    let fallback = raw.fallback.as_ref().and_then(|text| one_of(reader, "fallback", text, &["default", "hold"]));
    let sha256 = raw.sha256.as_ref().and_then(|text| digest(reader, text, "`sha256sum` on the file prints it"));
    let databases = named_databases(reader, raw.databases.as_ref(), known);
    let name = required(reader, &section, "name", raw.name.as_ref());
    let path = required(reader, &section, "path", raw.path.as_ref());
    Some(Controller {
        name: name?,
        path: relative_to_file(reader.source.path, &path?),
        sha256,
        databases,
        fallback: if fallback == Some("hold") { Fallback::Hold } else { Fallback::Default },
        max_faults: narrow(raw.max_faults.0),
        shadow: raw.shadow.unwrap_or(false),
        settings: Settings(settings),
        limits: resolve_limits(&limits.unwrap_or_default()),
        places: section.places,
    })
}

pub(super) fn resolve_limits(raw: &raw::Limits) -> Limits {
    Limits {
        fuel_per_call: raw.fuel_per_call.0,
        deadline: Duration::from_millis(raw.deadline_ms.0),
        memory_bytes: size(raw.memory_bytes.0),
        table_elements: size(raw.table_elements.0),
        instances: size(raw.instances.0),
        stack_bytes: size(raw.stack_bytes.0),
        data_bytes: size(raw.data_bytes.0),
        handles: size(raw.handles.0),
        log_lines_per_second: narrow(raw.log_lines_per_second.0),
        log_line_bytes: size(raw.log_line_bytes.0),
    }
}

/// A number of things in memory; the ranges of the limits are far below any machine's.
pub(super) fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A SHA-256 digest.
pub(super) fn digest(reader: &mut Reader<'_>, text: &Spanned<String>, hint: &str) -> Option<[u8; 32]> {
    let digest = sha256_of(text.get_ref());
    if digest.is_none() {
        let message = format!("\"sha256\": {} is not a digest of 64 hexadecimal digits", reader.written(text));
        reader.error(reader.at(text), message, Some(hint.to_owned()));
    }
    digest
}

/// The digest that 64 hexadecimal digits stand for.
pub(super) fn sha256_of(digits: &str) -> Option<[u8; 32]> {
    let is_hex = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let bytes = (0..32).map(|byte| u8::from_str_radix(digits.get(2 * byte..2 * byte + 2)?, 16).ok());
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok().filter(|_| is_hex)
}

/// Warns of controllers that another one before them leaves without work for some database.
pub(super) fn ignored_controllers(config: &Config) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    for controller in config.controllers.iter().filter(|controller| !controller.shadow) {
        for database in config.databases.iter().filter(|database| controller.databases.include(&database.name)) {
            let used = config.controller_of(&database.name).filter(|used| used.name != controller.name);
            if let Some(used) = used {
                let message = format!(
                    "controller \"{}\" is ignored for database \"{}\": \"{}\" comes first",
                    controller.name, database.name, used.name
                );
                let hint = "say with `databases` which controller is for which database".to_owned();
                warnings.push(config.diagnostic(controller.places.header, message, Some(hint)));
            }
        }
    }
    warnings
}
