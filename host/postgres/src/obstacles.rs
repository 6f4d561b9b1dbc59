//! Who keeps a batch waiting: sessions that hold locks, prepared transactions, a standby that does not confirm.

use tidegate::update::cells::text;
use tidegate::update::sql::{Row, Sql, SqlError, Value};

/// Obstacles told at most: behind one, others wait.
const MOST_TOLD: usize = 5;

/// The sessions that a process ($1) waits for and that wait for nobody themselves. What a session of another role does is
/// known to that role alone; which one it is everybody may know.
const SESSIONS: &str = "\
with recursive behind (pid) as (
    select unnest(pg_blocking_pids($1::int))
    union select unnest(pg_blocking_pids(b.pid)) from behind b where b.pid > 0
)
select b.pid, coalesce(nullif(a.application_name, ''), 'unnamed'), coalesce(a.usename::text, '?'), coalesce(a.state, ''),
       coalesce(to_char(a.xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC', '')
from behind b left join pg_stat_activity a on a.pid = b.pid
where b.pid > 0 and coalesce(cardinality(pg_blocking_pids(b.pid)), 0) = 0
order by a.xact_start nulls last, b.pid";

/// Prepared transactions, where one of them is what a process ($1) waits for: they have no process.
const PREPARED: &str = "\
select gid, owner::text, to_char(prepared at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'
from pg_prepared_xacts
where database = current_database() and 0 = any (pg_blocking_pids($1::int))
order by prepared";

/// True where a process ($1) has written its commit and a synchronous standby has not confirmed it.
const UNCONFIRMED: &str = "select 1 from pg_stat_activity where pid = $1::int and wait_event = 'SyncRep'";

/// The process that runs a transaction of this name, and is none of these; 0 where none does.
pub(super) async fn process(control: &mut dyn Sql, application_name: &str, others: &[i64]) -> Result<i64, SqlError> {
    let select = "select pid::bigint from pg_stat_activity where datname = current_database() and application_name = $1 \
                  and pid <> all ($2::text::int[])";
    let others: Vec<String> = others.iter().map(ToString::to_string).collect();
    let others = format!("{{{}}}", others.join(","));
    let rows = control.query(select, &[application_name.into(), others.into()]).await?;
    Ok(rows.first().and_then(|row| row.first()).and_then(Value::as_integer).unwrap_or(0))
}

/// Who keeps a process waiting, in words.
pub(super) async fn of(control: &mut dyn Sql, process: i64) -> Result<Vec<String>, SqlError> {
    let process = [Value::Integer(process)];
    let mut told: Vec<String> = control.query(SESSIONS, &process).await?.iter().map(session).collect();
    told.extend(control.query(PREPARED, &process).await?.iter().map(prepared));
    if !control.query(UNCONFIRMED, &process).await?.is_empty() {
        told.push("a synchronous standby that has not confirmed the commit (synchronous_standby_names)".to_owned());
    }
    told.truncate(MOST_TOLD);
    Ok(told)
}

fn session(row: &Row) -> String {
    let process = row.first().and_then(Value::as_integer).unwrap_or(0);
    let (application, user, state, since) = (text(row, 1), text(row, 2), text(row, 3), text(row, 4));
    let state = if state.is_empty() { String::new() } else { format!(", {state}") };
    let since = if since.is_empty() { String::new() } else { format!(", in a transaction since {since}") };
    format!("process {process} ({application}, user {user}{state}{since})")
}

fn prepared(row: &Row) -> String {
    format!("prepared transaction \"{}\" (user {}, since {})", text(row, 0), text(row, 1), text(row, 2))
}
