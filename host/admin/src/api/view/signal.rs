//! Signals, as the host read them last.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ms;
use tidegate::scheduler::database::unix_ms;
use tidegate::signal::SignalStatus;

/// The signals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Signals {
    /// The latest reading of each: those of the machine first, then by database and name.
    pub signals: Vec<Signal>,
}

/// The latest reading of a signal: a measure of load that controllers can read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Signal {
    /// What it is called.
    #[schema(example = "replication-lag")]
    pub name: String,
    /// The database that it is of; `null` where it is the machine's or the host's, and can be read for any.
    #[schema(example = "master")]
    pub database: Option<String>,
    /// The unit of the value; empty where it has none.
    #[schema(example = "ms")]
    pub unit: String,
    /// Where its values come from.
    #[schema(example = "pg_stat_replication, the worst standby")]
    pub source: String,
    /// What was read; `null` until something was.
    #[schema(example = 12.5)]
    pub value: Option<f64>,
    /// How old that is.
    #[schema(example = 250)]
    pub age_ms: Option<u64>,
    /// Why there is no newer reading, where the last attempt failed.
    #[schema(example = "no standby is connected")]
    pub error: Option<String>,
    /// Since when attempts have failed for that reason.
    #[schema(example = 1_700_000_000_000_i64)]
    pub error_since_ms: Option<i64>,
}

impl Signals {
    /// These, as the API tells them.
    pub fn of(signals: Vec<SignalStatus>) -> Self {
        Self { signals: signals.into_iter().map(Signal::from).collect() }
    }
}

impl From<SignalStatus> for Signal {
    fn from(SignalStatus { database, definition, reading, error }: SignalStatus) -> Self {
        let (error, since) = error.unzip();
        Self {
            name: definition.name,
            database,
            unit: definition.unit,
            source: definition.source,
            value: reading.map(|reading| reading.value),
            age_ms: reading.map(|reading| ms(reading.age)),
            error,
            error_since_ms: since.map(unix_ms),
        }
    }
}
