//! Whether a connection has a session of the server's to itself, or shares some with others through a pooler.
//!
//! A pooler in transaction or statement mode (PgBouncer's `pool_mode`) runs each transaction, or each statement, in whatever
//! session is free. In transaction mode a host keeps nothing in a session: each of its transactions brings its settings along
//! (`settings.rs`), no statement is prepared for the next, and the lease is a row without a lock beside it. In statement mode
//! nothing can be done.
//!
//! A session that says by which option it was begun was begun for us: no pooler hands on options that it does not know.
//! Where one is refused or dropped on the way, two connections ask which process of the server answers them. Nothing is
//! set before that is known, so that nothing is left behind.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;

use super::connection::Connection;
use super::url::Target;
use tidegate::update::sql::{ErrorClass, SqlError};

/// How long a pooler may take to find a session for a second connection, and to answer.
const LIMIT: Duration = Duration::from_secs(8);

/// Which of the two connections asks, in turn: after each other and once more, in no regular order, lest each always meets
/// the same of several sessions that take turns.
const TURNS: [usize; 12] = [0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0];

/// The code of the error of a connection that shares sessions.
pub(super) const SHARED: &str = "TIDEGATE_SHARED_SESSION";

/// The code of the error of a pooler that has too few sessions.
const FEW: &str = "TIDEGATE_FEW_SESSIONS";

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

/// What is behind a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sessions {
    /// A session of its own.
    Own,
    /// Another session for each transaction.
    Shared,
}

/// What is behind a connection; fails where that is nothing to work with. `peer` is the name of the connection that is opened
/// beside it meanwhile.
pub(super) async fn sessions(ours: &Connection, target: &Target, peer: &str) -> Result<Sessions, SqlError> {
    let looked = timeout(LIMIT, async {
        let other = Connection::line(target, peer, None).await?;
        look([ours, &other], target).await
    });
    looked.await.unwrap_or_else(|_| {
        let message = format!(
            "{} is a connection pooler, and gave no second session of the server's within {} s: a host needs one for each \
             lane, for as long as a batch takes, and in transaction mode one more; in session mode three more, three for \
             signals, and one for a moment whenever it connects",
            target.server(),
            LIMIT.as_secs()
        );
        Err(SqlError::new(ErrorClass::Connection, message).with_code(FEW))
    })
}

async fn look(both: [&Connection; 2], target: &Target) -> Result<Sessions, SqlError> {
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
    if both[1].script("begin").await.is_err() {
        return Err(refusal(target));
    }
    // While one is kept busy, the other one still has its own; or there is another one for it.
    let kept = (process(both[1]).await?, process(both[0]).await?);
    shared |= kept != (processes[1], processes[0]);
    both[1].script("rollback").await?;
    Ok(if shared { Sessions::Shared } else { Sessions::Own })
}

fn refusal(target: &Target) -> SqlError {
    let message = format!(
        "{} is a connection pooler in statement mode: it runs each statement in whatever session of the server's is free, \
         and a batch is a transaction of several",
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

/// The texts of the first row of a query.
pub(super) async fn row(connection: &Connection, sql: &str) -> Result<Vec<Option<String>>, SqlError> {
    Ok(rows(connection, sql).await?.into_iter().next().unwrap_or_default())
}

/// The texts of all rows that a script's queries give.
pub(super) async fn rows(connection: &Connection, sql: &str) -> Result<Vec<Vec<Option<String>>>, SqlError> {
    let messages = connection.client().simple_query(sql).await.map_err(|error| connection.error(&error))?;
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    };
    Ok(messages.iter().filter_map(row).collect())
}
