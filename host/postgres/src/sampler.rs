//! What a PostgreSQL server's load is measured by.
//!
//! Every statement is a transaction of its own, ended by the server's own limits where it lasts: none stays open that an
//! index's concurrent build would wait for. tidegate's own sessions, known by their `application_name`, count nowhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::time::{sleep, timeout};

use super::PostgresOptions;
use super::connection::Connection;
use super::lag::Positions;
use super::name::{self, Role};
use super::settings::Settings;
use super::url::Target;
use tidegate::scheduler::database::Holder;
use tidegate::scheduler::database::OpenError;
use tidegate::signal::{BuiltIn, Definition, Foreground, Sample, Sampler};
use tidegate::update::sql::{Row, SqlError, Value};
use tidegate_driver::sampler::{TableInHand, ms, number};
use tidegate_driver::{Options, SamplerOptions};

/// How long connecting may take, where the limit of a statement is less.
const CONNECTING: Duration = Duration::from_secs(5);
/// How much longer than its limit a statement is waited for: then the server does not answer at all.
const SLACK: Duration = Duration::from_millis(500);

/// Why nothing is known of what others do.
const NOT_ALLOWED: &str = "this role may not see what other roles do: grant it pg_monitor";

/// Client sessions of this database but tidegate's own. What a role may not see of others' is null.
const SESSIONS: &str = "\
    select count(*) filter (where state = 'active'), \
    count(*) filter (where state = 'active' and wait_event_type = 'Lock'), \
    coalesce(extract(epoch from clock_timestamp() - min(xact_start)) * 1000, 0)::float8, \
    count(*) filter (where state is null and backend_type is null) \
    from pg_catalog.pg_stat_activity \
    where datname = current_database() and usesysid is not null and pid <> pg_backend_pid() \
    and (backend_type = 'client backend' or backend_type is null) and application_name not like 'tidegate/%'";

/// Where the write-ahead log is, in bytes since its beginning; null on a standby.
const POSITION: &str = "select case when not pg_is_in_recovery() \
    then pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint end";

/// The standby that has replayed the least, how many there are, and how many may not be seen. A standby that is being
/// made, or that only receives, replays nothing.
const STANDBYS: &str = "\
    select pg_wal_lsn_diff(min(replay_lsn), '0/0')::bigint, \
    (extract(epoch from max(replay_lag)) * 1000)::float8, count(*) filter (where state is null) \
    from pg_catalog.pg_stat_replication \
    where state is null or state in ('streaming', 'catchup') and replay_lsn is not null";

/// What was written since the last checkpoint began, as a part of what makes the server begin another: see
/// CalculateCheckpointSegments() in PostgreSQL's xlog.c.
const CHECKPOINT: &str = "\
    select case when not pg_is_in_recovery() then \
    pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn)::float8 \
    * (1 + current_setting('checkpoint_completion_target')::float8) \
    / pg_size_bytes(current_setting('max_wal_size')) end from pg_control_checkpoint()";

/// Whether an autovacuum worker is at a table; null where there is no such table, and whether this role would see it.
const AUTOVACUUM: &str = "\
    select case when to_regclass($1::text) is not null then exists (select 1 from pg_catalog.pg_stat_progress_vacuum v \
    join pg_catalog.pg_stat_activity a on a.pid = v.pid \
    where v.relid = to_regclass($1::text) and a.backend_type = 'autovacuum worker') end, \
    pg_has_role('pg_read_all_stats', 'usage')";

/// How a sampler reaches a server.
#[derive(Clone)]
pub(crate) struct Access {
    target: Target,
    holder: Holder,
    limit: Duration,
}

impl Access {
    pub(crate) fn new(
        url: &str,
        options: &Options,
        postgres: &PostgresOptions,
        limit: Duration,
    ) -> Result<Self, OpenError> {
        Ok(Self { target: Target::parse(url, postgres)?, holder: options.holder.clone(), limit })
    }

    async fn connect(&self, role: Role, writes: bool) -> Result<Connection, String> {
        let limit = self.limit.as_millis().max(1);
        let limits = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"];
        let values = limits.map(|name| (name, limit.to_string())).into();
        let settings = Settings { values, besides: "".into(), writes: Some(writes) };
        let name = name::of(&self.holder, role, None);
        let limit = CONNECTING.max(self.limit);
        let opened = timeout(limit, Connection::open(&self.target, &name, &settings)).await;
        let silent = |_| format!("cannot connect to {} within {} ms", self.target.server(), limit.as_millis());
        opened.map_err(silent)?.map_err(|error| error.to_string())
    }
}

/// A sampler's connection.
struct Line {
    access: Access,
    role: Role,
    writes: bool,
    /// Out of here while it is used: one whose statement was given up half-way is never used again.
    connection: Option<Connection>,
}

/// A statement that failed.
enum Trouble {
    /// The server says why.
    Refused(SqlError),
    /// Nobody answers.
    Silent(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Refused(error) => error.fmt(f),
            Trouble::Silent(words) => f.write_str(words),
        }
    }
}

impl Line {
    fn new(access: Access, role: Role, writes: bool) -> Self {
        Self { access, role, writes, connection: None }
    }

    /// Connects where there is no connection.
    async fn ready(&mut self) -> Result<(), String> {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.connection = None;
            self.connection = Some(self.access.connect(self.role, self.writes).await?);
        }
        Ok(())
    }

    async fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Trouble> {
        self.ready().await.map_err(Trouble::Silent)?;
        let Some(connection) = self.connection.take() else { return Ok(Vec::new()) };
        let limit = self.access.limit;
        match timeout(limit + SLACK, connection.query(sql, values, false)).await {
            Ok(result) => {
                self.connection = Some(connection);
                result.map_err(Trouble::Refused)
            }
            Err(_) => Err(Trouble::Silent(format!("the server does not answer within {} ms", limit.as_millis()))),
        }
    }

    /// The one row of a query that always has one.
    async fn row(&mut self, sql: &str, values: &[Value]) -> Result<Row, String> {
        let rows = self.query(sql, values).await.map_err(|trouble| trouble.to_string())?;
        rows.into_iter().next().ok_or_else(|| "the server answers nothing".to_owned())
    }
}

/// What the server's own statistics tell.
pub(crate) struct Statistics {
    line: Line,
    table_in_hand: TableInHand,
    positions: Positions,
    /// Where the log was at the last sample, and when.
    last: Option<(i64, Instant)>,
}

impl Statistics {
    pub(crate) fn new(access: Access, options: &SamplerOptions) -> Self {
        Self {
            line: Line::new(access, Role::Signals, false),
            table_in_hand: Arc::clone(&options.table_in_hand),
            positions: Positions::default(),
            last: None,
        }
    }

    async fn sessions(&mut self) -> Vec<Sample> {
        const NAMES: [&str; 3] = ["active-sessions", "waiting-sessions", "oldest-transaction"];
        let row = self.line.row(SESSIONS, &[]).await;
        let row = row.and_then(|row| match row.get(3) {
            Some(Value::Integer(0)) => Ok(row),
            _ => Err(NOT_ALLOWED.to_owned()),
        });
        let value = |at: usize| row.as_ref().map_err(Clone::clone).and_then(|row| real(row, at));
        NAMES.iter().enumerate().map(|(at, name)| Sample::new(name, value(at))).collect()
    }

    async fn log(&mut self) -> Vec<Sample> {
        const NAMES: [&str; 3] = ["wal-rate", "replication-lag", "replication-lag-bytes"];
        let position = self.line.row(POSITION, &[]).await.and_then(|row| match row.first() {
            Some(Value::Integer(position)) => Ok(*position),
            _ => Err("the server is a standby itself".to_owned()),
        });
        let position = match position {
            Ok(position) => position,
            Err(error) => return NAMES.iter().map(|name| Sample::new(name, Err(&error))).collect(),
        };
        let now = Instant::now();
        self.positions.note(position, now);
        let mut samples = Vec::new();
        match self.line.row(STANDBYS, &[]).await.and_then(|row| self.lag(&row, position, now)) {
            Ok((lag, bytes)) => {
                samples.push(Sample::new(NAMES[2], Ok::<_, String>(bytes)));
                samples.extend(lag.map(|lag| Sample::new(NAMES[1], Ok::<_, String>(lag))));
            }
            Err(error) => samples.extend(NAMES[1..].iter().map(|name| Sample::new(name, Err(&error)))),
        }
        // Of the first sample there is no rate yet, which is no error.
        if let Some((before, at)) = self.last.replace((position, now)) {
            let rate = (position - before) as f64 / now.saturating_duration_since(at).as_secs_f64().max(1e-3);
            samples.push(Sample::new(NAMES[0], Ok::<_, String>(rate.max(0.0))));
        }
        samples
    }

    /// How far the worst standby is behind, in milliseconds, where that is known yet, and in bytes.
    fn lag(&self, row: &Row, position: i64, now: Instant) -> Result<(Option<f64>, f64), String> {
        if row.get(2).and_then(Value::as_integer) != Some(0) {
            return Err(NOT_ALLOWED.to_owned());
        }
        let replayed = row.first().and_then(Value::as_integer).ok_or("no standby is connected")?;
        let bytes = (position - replayed).max(0) as f64;
        let lag = match self.positions.lag(replayed, now) {
            Some(lag) => Some(ms(lag)),
            None => {
                let (reported, least) = (real(row, 1).ok(), ms(self.positions.lag_at_least(now)));
                reported.map(|reported| reported.max(least)).or((least > 0.0).then_some(least))
            }
        };
        Ok((lag, bytes))
    }

    async fn checkpoint(&mut self) -> Sample {
        let row = self.line.row(CHECKPOINT, &[]).await;
        Sample::new(
            "checkpoint-pressure",
            row.and_then(|row| match row.first() {
                Some(Value::Null) => Err("the server is a standby itself".to_owned()),
                _ => real(&row, 0),
            }),
        )
    }

    async fn autovacuum(&mut self) -> Sample {
        Sample::new("autovacuum", self.autovacuum_on(&Arc::clone(&self.table_in_hand)).await)
    }

    async fn autovacuum_on(&mut self, table_in_hand: &TableInHand) -> Result<f64, String> {
        let table = table_in_hand().ok_or("no update is in hand whose table is known")?;
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let name = match &table.schema {
            Some(schema) => format!("{}.{}", quote(schema), quote(&table.name)),
            None => quote(&table.name),
        };
        let row = self.line.row(AUTOVACUUM, &[name.into()]).await?;
        match (row.first(), row.get(1)) {
            (Some(Value::Null), _) => Err(format!("there is no table {table}")),
            (_, Some(Value::Integer(0))) => Err(NOT_ALLOWED.to_owned()),
            _ => real(&row, 0),
        }
    }
}

#[async_trait]
impl Sampler for Statistics {
    fn definitions(&self) -> Vec<Definition> {
        BuiltIn::definitions(&[
            "active-sessions",
            "waiting-sessions",
            "oldest-transaction",
            "wal-rate",
            "replication-lag",
            "replication-lag-bytes",
            "checkpoint-pressure",
            "autovacuum",
        ])
    }

    async fn sample(&mut self) -> Vec<Sample> {
        if let Err(error) = self.line.ready().await {
            return self.definitions().iter().map(|signal| Sample::new(&signal.name, Err(&error))).collect();
        }
        let mut samples = self.sessions().await;
        samples.extend(self.log().await);
        samples.push(self.checkpoint().await);
        samples.push(self.autovacuum().await);
        samples
    }
}

/// A number of a row.
fn real(row: &Row, at: usize) -> Result<f64, String> {
    match row.get(at) {
        Some(Value::Integer(number)) => Ok(*number as f64),
        Some(Value::Real(number)) => Ok(*number),
        _ => Err("the server answers nothing that is a number".to_owned()),
    }
}

/// A tiny read: one row of the catalogue by its index.
const PROBE_READ: &str = "select relname from pg_catalog.pg_class where oid = 1259";
/// A tiny write: the one row of a table of its own.
const PROBE_WRITE: &str = "insert into tidegate_probe (id, probed_at) values (1, now()) \
    on conflict (id) do update set probed_at = excluded.probed_at";
/// That table.
const PROBE_TABLE: &str =
    "create table if not exists tidegate_probe (id bigint primary key, probed_at timestamptz not null)";

/// What the foreground feels.
pub(crate) struct Probe {
    line: Line,
    /// True once the table is there.
    made: bool,
    /// True where it only writes where it may.
    may_only_read: bool,
    foreground: Option<Foreground>,
}

impl Probe {
    pub(crate) fn new(access: Access, options: &SamplerOptions) -> Self {
        let waits = options.foreground.as_ref().is_some_and(|probing| probing.waits_as_writers);
        Self {
            line: Line::new(access, Role::Probe, options.probe_writes || waits),
            made: false,
            may_only_read: waits && !options.probe_writes,
            foreground: options.foreground.clone().map(Foreground::new),
        }
    }

    async fn latency(&mut self) -> Result<(tokio::time::Instant, f64), String> {
        self.line.ready().await?;
        if self.line.writes && !self.made {
            match self.make_table().await {
                Err(error) if self.may_only_read => {
                    tracing::info!("the probe only reads, and does not know how long commits wait: {error}");
                    self.line = Line::new(self.line.access.clone(), Role::Probe, false);
                    self.line.ready().await?;
                }
                made => made?,
            }
        }
        let began = tokio::time::Instant::now();
        let statements = if self.line.writes { &[PROBE_READ, PROBE_WRITE][..] } else { &[PROBE_READ] };
        for statement in statements {
            match self.line.query(statement, &[]).await {
                // Given up by the server at the limit: it took as long at least.
                Err(Trouble::Refused(error)) if is_timeout(&error) => break,
                Err(trouble) => return Err(trouble.to_string()),
                Ok(_) => {}
            }
        }
        Ok((began, ms(began.elapsed())))
    }

    async fn make_table(&mut self) -> Result<(), String> {
        let there = self.line.row("select to_regclass('tidegate_probe') is not null", &[]).await?;
        if there.first().and_then(Value::as_integer) != Some(1) {
            self.line.query(PROBE_TABLE, &[]).await.map_err(|trouble| format!("tidegate_probe: {trouble}"))?;
        }
        self.made = true;
        Ok(())
    }
}

/// Lock and statement timeouts.
fn is_timeout(error: &SqlError) -> bool {
    matches!(error.code.as_deref(), Some("55P03" | "57014"))
}

#[async_trait]
impl Sampler for Probe {
    fn definitions(&self) -> Vec<Definition> {
        let foreground = self.foreground.iter().flat_map(|_| Foreground::definitions());
        BuiltIn::definitions(&["probe-latency"]).into_iter().chain(foreground).collect()
    }

    async fn sample(&mut self) -> Vec<Sample> {
        if let Some(foreground) = &mut self.foreground {
            if !foreground.is_due() {
                return Vec::new();
            }
            sleep(foreground.stagger()).await;
        }
        let latency = self.latency().await;
        if latency.is_err() {
            // Somebody may have dropped it.
            self.made = false;
        }
        let felt = self.foreground.as_mut().map(|foreground| match &latency {
            Ok((began, ms)) => foreground.note(*began, *ms),
            Err(error) => foreground.fail(error),
        });
        let latency = Sample::new("probe-latency", latency.map(|(_, ms)| ms));
        std::iter::once(latency).chain(felt.into_iter().flatten()).collect()
    }
}

/// What a query of somebody's own says.
pub(crate) struct Own {
    line: Line,
    definition: Definition,
    query: String,
}

impl Own {
    pub(crate) fn new(access: Access, definition: Definition, query: &str) -> Self {
        // Within a query of ours it can be but a query, and a comment at its end swallows nothing. Numbers of any type
        // become one that is read. Of rows beyond the first nobody wants more than that there are some.
        let query = query.trim().trim_end_matches(';');
        let query = format!("select value::float8 from (\n{query}\n) as signal (value) limit 2");
        Self { line: Line::new(access, Role::Signal, false), definition, query }
    }
}

#[async_trait]
impl Sampler for Own {
    fn definitions(&self) -> Vec<Definition> {
        vec![self.definition.clone()]
    }

    async fn sample(&mut self) -> Vec<Sample> {
        let rows = self.line.query(&self.query, &[]).await.map_err(|trouble| trouble.to_string());
        vec![Sample::new(&self.definition.name, rows.and_then(|rows| number(&rows)))]
    }
}
