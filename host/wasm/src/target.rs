//! Log targets with a controller's name in them, so that `--log` can tell controllers apart.
//!
//! tracing wants what describes a line to live for ever. What is made here is made once for each controller and level,
//! and kept: as many as there are names in the configurations that this process has read.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use tracing::callsite::{self, Callsite, Identifier};
use tracing::field::{FieldSet, Value};
use tracing::metadata::Kind;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, dispatcher};

use super::log::{LogLine, LogSink};

const FIELDS: &[&str] = &["message", "database", "source"];

/// A place that lines come from, as tracing knows it.
struct Site(OnceLock<Metadata<'static>>);

impl Callsite for Site {
    // Every line asks anew whether it is wanted: they are few.
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.0.get_or_init(|| Metadata::new("line", "", Level::TRACE, None, None, None, fields(&EMPTY), Kind::EVENT))
    }
}

static EMPTY: Site = Site(OnceLock::new());

fn fields(site: &'static Site) -> FieldSet {
    FieldSet::new(FIELDS, Identifier(site))
}

/// Every site that was made, by target and level.
type Sites = HashMap<(String, Level), &'static Site>;

fn site(target: String, level: Level) -> &'static Site {
    static SITES: LazyLock<Mutex<Sites>> = LazyLock::new(Mutex::default);
    let mut sites = SITES.lock().unwrap_or_else(PoisonError::into_inner);
    sites.entry((target.clone(), level)).or_insert_with(|| {
        let target = String::leak(target);
        let site: &'static Site = Box::leak(Box::new(Site(OnceLock::new())));
        site.0.get_or_init(|| Metadata::new("line", target, level, None, None, None, fields(site), Kind::EVENT));
        callsite::register(site);
        site
    })
}

/// Hands a handler's lines on to tracing, with the target `tidegate::handler::` and the update's name.
pub(super) struct HandlerSink;

impl LogSink for HandlerSink {
    fn line(&self, line: LogLine) {
        trace(&line, "handler");
    }
}

/// Hands a line on to tracing, with a target of what wrote it and its name, `tidegate::controller::polite` say.
pub(super) fn trace(line: &LogLine, what: &str) {
    let metadata = site(format!("tidegate::{what}::{}", line.controller), line.level).metadata();
    dispatcher::get_default(|dispatch| {
        if !dispatch.enabled(metadata) {
            return;
        }
        let fields = metadata.fields();
        let values: [&dyn Value; 3] =
            [&format_args!("{}", line.text), &line.database, &format_args!("{}", line.source)];
        let mut names = fields.iter();
        let mut next = |value| names.next().map(|field| (field, value));
        if let [Some(message), Some(database), Some(source)] = values.map(&mut next) {
            let pairs = [message, database, source];
            let values = pairs.each_ref().map(|(field, value)| (field, Some(*value)));
            dispatch.event(&Event::new(metadata, &fields.value_set(&values)));
        }
    });
}
