//! Whether a connection has a session of the server's to itself, or shares some with others through a pooler.
//!
//! A lease is a lock of a session, and so are settings and temporary tables a session's. A pooler in transaction or
//! statement mode (PgBouncer's `pool_mode`) runs each transaction in whatever session is free: the lock would stay
//! there, to be met as their own by whoever comes next, and the settings would reach the application.
//!
//! A session that says by which option it was begun was begun for us: no pooler hands on options that it does not know.
//! Where one is refused or dropped on the way, two connections ask which process of the server answers them. Nothing is
//! set before that is known, so that nothing is left behind.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;

use super::connection::Connection;
use super::url::Target;
use crate::update::sql::{ErrorClass, SqlError};

/// How long a pooler may take to find a session for a second connection, and to answer.
const LIMIT: Duration = Duration::from_secs(8);

/// Which of the two connections asks, in turn: after each other and once more, in no regular order, lest each always meets
/// the same of several sessions that take turns.
const TURNS: [usize; 12] = [0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0];

/// The code of the error of a connection that shares sessions.
pub(super) const SHARED: &str = "TIDEGATE_SHARED_SESSION";

/// The setting that a session is begun with.
pub(super) const MARK: &str = "tidegate.session";

/// A value of [`MARK`] that no other session has.
pub(super) fn mark() -> Result<String, SqlError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| SqlError::new(ErrorClass::Connection, format!("the system gives no random bytes: {error}")))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// Whether what refused a connection may have done so for the options of its session: anything but a server that knows the
/// user or the database and refuses those, or has no room or no time for anybody.
pub(super) fn may_refuse_options(error: &SqlError) -> bool {
    let code = error.code.as_deref().and_then(|code| code.get(..2));
    code.is_some_and(|class| !matches!(class, "28" | "3D" | "53" | "57"))
}

/// Fails where the sessions behind a connection are not its own. `peer` is the name of the connection that is opened
/// beside it meanwhile.
pub(super) async fn refuse_shared(ours: &Connection, target: &Target, peer: &str) -> Result<(), SqlError> {
    let looked = timeout(LIMIT, async {
        let other = Connection::line(target, peer, None).await?;
        look([ours, &other], target).await
    });
    looked.await.unwrap_or_else(|_| {
        let message = format!(
            "{} is a connection pooler, and gave no second session of the server's within {} s: a host needs three, \
             three more for signals, and one for a moment whenever it connects",
            target.server(),
            LIMIT.as_secs()
        );
        Err(SqlError::new(ErrorClass::Connection, message))
    })
}

async fn look(both: [&Connection; 2], target: &Target) -> Result<(), SqlError> {
    let mut processes = [process(both[0]).await?, process(both[1]).await?];
    let mut shared = processes[0] == processes[1];
    for turn in TURNS {
        if shared {
            break;
        }
        let process = process(both[turn]).await?;
        shared = process != processes[turn] || process == processes[1 - turn];
        processes[turn] = process;
    }
    // In statement mode this is refused.
    let is_refused = both[1].script("begin").await.is_err();
    if !shared && !is_refused {
        // While one is kept busy, the other one still has its own.
        let kept = (process(both[1]).await?, process(both[0]).await?);
        shared = kept != (processes[1], processes[0]);
    }
    if !is_refused {
        both[1].script("rollback").await?;
    }
    match (is_refused, shared) {
        (true, _) => Err(refusal(target, "statement")),
        (false, true) => Err(refusal(target, "transaction")),
        (false, false) => Ok(()),
    }
}

fn refusal(target: &Target, mode: &str) -> SqlError {
    let message = format!(
        "{} is a connection pooler in {mode} mode: it runs each {mode} in whatever session of the server's is free, and \
         the lease of a host and its settings need one of its own",
        target.server()
    );
    SqlError::new(ErrorClass::Connection, message).with_code(SHARED)
}

/// A connection that had a session of its own, and has not any more.
pub(super) fn strayed(what: &str) -> SqlError {
    let message = format!("{what}: a connection pooler runs what is sent in sessions of others");
    SqlError::new(ErrorClass::Connection, message).with_code(SHARED)
}

/// The server's process that answers, in a transaction of its own, and by no prepared statement.
async fn process(connection: &Connection) -> Result<i64, SqlError> {
    let row = row(connection, "select pg_backend_pid()").await?;
    let process = row.first().and_then(|pid| pid.as_deref()?.parse().ok());
    process.ok_or_else(|| SqlError::new(ErrorClass::Connection, "the server does not say which process answers"))
}

/// The texts of the one row of a query.
pub(super) async fn row(connection: &Connection, sql: &str) -> Result<Vec<Option<String>>, SqlError> {
    let messages = connection.client().simple_query(sql).await.map_err(|error| connection.error(&error))?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(row.unwrap_or_default())
}
