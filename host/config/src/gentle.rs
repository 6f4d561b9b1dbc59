//! The gentle pace of the built-in policy.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::model::{Gentle, Places, SignalSettings};
use super::raw;
use super::resolve::{narrow, one_of};
use super::section::{Reader, Section};
use tidegate::controller::GentleSettings;

const GENTLE: &str = "gentle";

/// The probe's interval where nothing is said.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// The bounds where the pace is gentle: the section, and what `pace` says in the section that it stands in. The longest
/// batch, in milliseconds, is that of the steady pace.
pub(super) fn gentle<'a>(
    reader: &mut Reader<'a>,
    title: &'static str,
    section: Option<Spanned<DeValue<'a>>>,
    pace: Option<&Spanned<String>>,
    longest_batch_ms: u64,
) -> Option<Gentle> {
    let is_gentle = pace.and_then(|word| one_of(reader, "pace", word, &["steady", GENTLE])) == Some(GENTLE);
    let table = section.and_then(|value| reader.table(title, value));
    let is_written = table.is_some();
    // Of an empty table nothing is missing.
    let table = table.unwrap_or_else(|| Spanned::new(0..0, DeTable::new()));
    let section = reader.section::<raw::Gentle>(title, table);
    if is_written && !is_gentle {
        let message = format!("{title} is about a pace that is not in force");
        let hint = "write `pace = \"gentle\"` in [background_updates], or leave the section out".to_owned();
        reader.error(section.places.header, message, Some(hint));
    }
    check(reader, &section, longest_batch_ms);
    let raw = &section.values;
    let excess = raw.allowed_excess_ms.map(|ms| Duration::try_from_secs_f64(ms.0 / 1e3).unwrap_or(Duration::MAX));
    let defaults = GentleSettings::default();
    is_gentle.then(|| Gentle {
        settings: GentleSettings {
            least_duty_percent: narrow(raw.least_duty_percent.0),
            most_duty_percent: narrow(raw.most_duty_percent.0),
            shortest_batch: Duration::from_millis(raw.shortest_batch_ms.0.min(longest_batch_ms)),
            longest_sleep: Duration::from_millis(raw.longest_sleep_ms.0),
            allowed_excess_percent: narrow(raw.allowed_excess_percent.0),
            allowed_excess: excess.unwrap_or(defaults.allowed_excess),
        },
        usual_excess: excess.is_none(),
    })
}

fn check(reader: &mut Reader<'_>, section: &Section<raw::Gentle>, longest_batch_ms: u64) {
    let raw = &section.values;
    let (least, most) = (raw.least_duty_percent.0, raw.most_duty_percent.0);
    if least > most {
        let place = if section.has("least_duty_percent") { "least_duty_percent" } else { "most_duty_percent" };
        let message = format!("\"least_duty_percent\" is {least}, more than \"most_duty_percent\", which is {most}");
        reader.error(section.places.of(place), message, Some("raise the one or lower the other".to_owned()));
    }
    let shortest = raw.shortest_batch_ms.0;
    if shortest > longest_batch_ms && section.has("shortest_batch_ms") {
        let message = format!(
            "\"shortest_batch_ms\" is {shortest}, more than \"background_update_duration_ms\", which is {longest_batch_ms}"
        );
        let hint = "raise the one or lower the other: a batch is never longer than the second".to_owned();
        reader.error(section.places.of("shortest_batch_ms"), message, Some(hint));
    }
}

/// Has the foreground probed where the pace goes by it, and refuses a pace that could go by nothing.
pub(super) fn probe(reader: &mut Reader<'_>, places: &Places, gentle: Option<&Gentle>, signals: &mut SignalSettings) {
    if gentle.is_none() {
        return;
    }
    if !signals.enabled {
        let message =
            "\"pace\" is \"gentle\", and \"enabled\" in [signals] is false: nothing is measured that it could go by";
        let hint = "write `enabled = true` in [signals], or `pace = \"steady\"`".to_owned();
        reader.error(places.of("pace"), message, Some(hint));
    }
    signals.probe_interval.get_or_insert(PROBE_INTERVAL);
}
