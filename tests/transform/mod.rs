//! Updates whose rows a program transforms: values of every type there and back, users who write meanwhile, components that
//! misbehave, hosts that are killed. What came of it is looked at by SQL of the tests' own.

mod commands;
mod faults;
mod killed;
mod meanwhile;
mod types;

use std::path::Path;
use std::sync::Arc;

use tidegate::update::{Transform, TransformDefinition, Transformer};
use tidegate_wasm::{ComponentTransformer, HandlerLimits, HandlerOptions, LoadOptions};

use crate::guests::built;
use crate::kinds::subject::{names, table};

/// A component of the guests', with these settings.
pub fn component(guest: &str, settings: &[(&str, &str)], limits: HandlerLimits) -> Arc<dyn Transformer> {
    component_that(guest, settings, limits, false)
}

/// The same, which may meet the machine's clock and chance.
pub fn component_that(
    guest: &str,
    settings: &[(&str, &str)],
    limits: HandlerLimits,
    impure: bool,
) -> Arc<dyn Transformer> {
    // Compiled once, and not for each handler.
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
    let options = HandlerOptions {
        update_name: "u".to_owned(),
        database_name: "master".to_owned(),
        settings: owned(settings),
        impure,
        load: LoadOptions { cache_directory: Some(shared), ..LoadOptions::default() },
        limits,
        log: None,
    };
    Arc::new(ComponentTransformer::new(&built(guest), options))
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A transform of table `items` along `id`.
pub fn transform(read: &[&str], write: &[&str], settings: &[(&str, &str)], by: Arc<dyn Transformer>) -> Transform {
    let definition = TransformDefinition {
        table: table("items"),
        key: names(&["id"]),
        read: names(read),
        write: names(write),
        filter: None,
        settings: owned(settings),
    };
    Transform::new(definition, by)
}
