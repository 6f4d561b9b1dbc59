//! Samplers of a database's load: each on a connection of its own, with its own short time limits, so that none shares a
//! connection or a lock with the work on the queue, or waits for another.

use std::sync::Arc;
use std::time::Duration;

use tidegate::signal::Probing;
use tidegate::update::sql::{Row, TableName, Value};

/// The table that the update in hand works on, at any moment; `None` where there is none, or it is not known.
pub type TableInHand = Arc<dyn Fn() -> Option<TableName> + Send + Sync>;

/// How a database's load is measured.
#[derive(Clone)]
pub struct SamplerOptions {
    /// How long a statement may take, waiting for locks included; the server, or SQLite, gives it up then. Default: 1 s.
    pub timeout: Duration,
    /// Whether the probe writes, too: one row of a table of its own, `tidegate_probe`, which it makes where it is
    /// missing. Default: false.
    pub probe_writes: bool,
    /// What `autovacuum` is about. Default: no table.
    pub table_in_hand: TableInHand,
    /// Whether the probe tells what the foreground feels, too, and how: `foreground-latency` and `foreground-undisturbed`.
    /// Its sampler is to be asked as often as that says. Default: it does not.
    pub foreground: Option<Probing>,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(1),
            probe_writes: false,
            table_in_hand: Arc::new(|| None),
            foreground: None,
        }
    }
}

/// The number that a query's result is.
///
/// # Errors
/// In words, what came in place of a number.
pub fn number(rows: &[Row]) -> Result<f64, String> {
    let value = match rows {
        [row] => row.first(),
        [] => return Err("the query gives no row".to_owned()),
        _ => return Err("the query gives more than one row, and one is wanted".to_owned()),
    };
    match value {
        Some(Value::Integer(number)) => Ok(*number as f64),
        Some(Value::Real(number)) => Ok(*number),
        // The text is not told: whoever may look at a host sees the error, and values of rows are not for them.
        Some(Value::Text(text)) => text.trim().parse().map_err(|_| "the query gives a text, not a number".to_owned()),
        Some(Value::Null) => Err("the query gives NULL".to_owned()),
        Some(Value::Blob(_)) | None => Err("the query gives no number".to_owned()),
    }
}

/// A duration in milliseconds, with what is behind the point.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
