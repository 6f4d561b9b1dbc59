//! `tidegate signals`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidegate::scheduler::database::Activity;
use tidegate::signal::{Sampling, Signals as Readings, readable};
use tidegate_admin::api::view::Signal;
use tidegate_config::Config;

use super::enqueue::selected;
use super::error::CliError;
use super::remote::Address;
use super::sampling::{self, InHand};
use super::{Context, output, wiring};

/// How far the two samples of a look are apart: what is measured over time is measured over this.
const PAUSE: Duration = Duration::from_millis(500);
/// How long connecting may take, beside the time for an answer.
const CONNECTING: Duration = Duration::from_secs(6);

/// Show the signals, the measures of load that controllers can read: values, ages, and why there is none
///
/// Without `--address` it measures by itself, twice in half a second, as a host would.
#[derive(Debug, clap::Args)]
pub(super) struct Signals {
    /// Those of this database alone, and of the machine
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,

    /// Print JSON: an object with `version` (1) and `signals`
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    address: Address,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct SignalsReport {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    /// Those of the machine first, then by database and name, each as the API tells it.
    signals: Vec<Signal>,
}

impl Signals {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let signals = match self.address.host()? {
            Some(host) => host.signals(self.database.as_deref()).await?,
            None => self.measure(&context.config()?).await?,
        };
        if self.json {
            return output::print_json(&SignalsReport { version: 1, signals });
        }
        if signals.is_empty() {
            return output::print("no signal is sampled: `enabled` in [signals] is false, or nobody could read one");
        }
        output::print(&render(&signals))
    }

    async fn measure(&self, config: &Config) -> Result<Vec<Signal>, CliError> {
        let databases = selected(config, self.database.as_deref())?;
        let mut in_hand = HashMap::new();
        for database in &databases {
            let opened = wiring::open(database)?;
            // Where it does not answer, the signals say so.
            if let Ok(Some(queue)) = opened.look().await {
                let doing = queue.activity.iter().flat_map(Activity::works);
                let in_hand_there = doing.filter_map(|(_, work)| work.update_name.clone()).next();
                in_hand.extend(in_hand_there.map(|update_name| (database.name.clone(), update_name)));
            }
            opened.close().await;
        }
        let in_hand: InHand = Arc::new(move |database| in_hand.get(database).cloned());
        let tasks = sampling::tasks(config, &databases, &in_hand, None)?;
        let longest = tasks.iter().map(|task| task.schedule.timeout).max().unwrap_or_default();
        let sampling = Sampling::new(Readings::default());
        sampling.look(tasks, PAUSE, CONNECTING + PAUSE + 2 * longest).await;
        Ok(sampling.signals().all().into_iter().map(Signal::from).collect())
    }
}

fn render(signals: &[Signal]) -> String {
    let mut table = output::table(&["DATABASE", "SIGNAL", "VALUE", "AGE", "NO NEWER ONE BECAUSE"]);
    for signal in signals {
        table.add_row([
            signal.database.as_deref().map(output::inline).unwrap_or_default(),
            output::inline(&signal.name),
            signal.value.map(|value| measure(value, &signal.unit)).unwrap_or_default(),
            signal.age_ms.map(|age| output::duration(Duration::from_millis(age))).unwrap_or_default(),
            signal.error.as_deref().map(output::inline).unwrap_or_default(),
        ]);
    }
    table.trim_fmt()
}

/// A value with its unit, as precise as people read it.
pub(super) fn measure(value: f64, unit: &str) -> String {
    let number = readable(value, output::count);
    match unit {
        "" => number,
        unit => format!("{number} {}", output::inline(unit)),
    }
}

#[cfg(test)]
mod tests {
    use super::measure;

    #[test]
    fn a_value_has_its_unit_where_there_is_one() {
        for (value, unit, expected) in [(1_234_567.8, "bytes", "1,234,568 bytes"), (-2.5, "", "-2.50")] {
            assert_eq!(measure(value, unit), expected);
        }
    }
}
