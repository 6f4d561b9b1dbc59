//! The definitions of transforms: which component, what it reads as its settings, and what it may use.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::controller::{digest, size};
use super::diagnostic::Position;
use super::model::{Settings, TransformUpdate};
use super::raw;
use super::resolve::{narrow, relative_to_file, text};
use super::section::{Reader, Section, Table};
use super::update::key;
use tidegate::update::TransformDefinition;
use tidegate::update::sql::TableName;
use tidegate_wasm::{HandlerLimits, Limits};

pub(super) const KIND: &str = "transform";

/// What stands below an update, in sections of its own.
pub(super) struct Below<'a> {
    settings: Option<(Position, Spanned<DeValue<'a>>)>,
    limits: Option<(Position, Spanned<DeValue<'a>>)>,
}

impl<'a> Below<'a> {
    /// Takes it out of the update's table.
    pub(super) fn take(reader: &Reader<'a>, table: &mut Table<'a>) -> Self {
        let mut take = |name: &str| {
            let value = table.get_mut().remove(name)?;
            Some((reader.at(&value), value))
        };
        Self { settings: take("settings"), limits: take("limits") }
    }

    /// Refuses it below an update of another kind.
    pub(super) fn refuse_in(&self, reader: &mut Reader<'a>, section: &Section<raw::Update>, kind: &str) {
        for (name, found) in [("settings", &self.settings), ("limits", &self.limits)] {
            if let Some((position, _)) = found.as_ref().filter(|_| kind != KIND) {
                let message =
                    format!("[update.{name}] does not belong to {}, which is of kind \"{kind}\"", section.title);
                let hint = format!("a component has {name}, and an update of kind \"{KIND}\" has a component");
                reader.error(*position, message, Some(hint));
            }
        }
    }
}

/// Reads the definition of a transform.
pub(super) fn transform<'a>(
    reader: &mut Reader<'a>,
    section: &Section<raw::Update>,
    below: Below<'a>,
) -> Option<TransformUpdate> {
    let raw = &section.values;
    let schema = text(reader, "schema", raw.schema.as_ref());
    let table = text(reader, "table", raw.table.as_ref()).map(|name| TableName { schema, name });
    let filter = text(reader, "where", raw.condition.as_ref());
    let [walked, read, write] = [("key", &raw.key), ("read", &raw.read), ("write", &raw.write)]
        .map(|(name, columns)| key(reader, name, columns.as_ref()));
    let component = text(reader, "component", raw.component.as_ref());
    let sha256 = raw.sha256.as_ref().and_then(|text| digest(reader, text, "`sha256sum` on the file prints it"));
    let settings = below.settings.and_then(|(_, value)| reader.table("[update.settings]", value));
    let settings = settings.map(|table| reader.texts("[update.settings]", table)).unwrap_or_default();
    let limits = below.limits.and_then(|(_, value)| reader.table("[update.limits]", value));
    let limits = limits.map(|table| reader.section::<raw::HandlerLimits>("[update.limits]", table).values);
    let definition =
        TransformDefinition { table: table?, key: walked?, read: read?, write: write?, filter, settings: Vec::new() };
    Some(TransformUpdate {
        definition,
        component: relative_to_file(reader.source.path, &component?),
        sha256,
        settings: Settings(settings),
        limits: resolve_limits(&limits.unwrap_or_default()),
        impure: raw.impure.unwrap_or(false),
    })
}

fn resolve_limits(raw: &raw::HandlerLimits) -> HandlerLimits {
    let call = Limits {
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
    };
    HandlerLimits { call, fuel_per_row: raw.fuel_per_row.0 }
}
