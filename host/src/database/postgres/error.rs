//! PostgreSQL's errors, in classes.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::{DbError, SqlState};

use crate::update::sql::{ErrorClass, SqlError};

/// What tokio-postgres says, and gives no type to, when the server asks for a password and there is none.
const PASSWORD_TEXT: &str = "password missing";

/// An error of a statement.
pub(super) fn sql_error(error: &tokio_postgres::Error) -> SqlError {
    if let Some(answer) = error.as_db_error() {
        return server_error(answer);
    }
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let class = match io.map(io::Error::kind) {
        // Not the network, but a text that cannot be sent, such as one with a zero byte in it.
        Some(io::ErrorKind::InvalidInput) => ErrorClass::Permanent,
        Some(_) => ErrorClass::Connection,
        None if error.is_closed() => ErrorClass::Connection,
        None => ErrorClass::Permanent,
    };
    SqlError::new(class, chain(error))
}

/// An error on the way to a connection to `server`: without an answer from there, another attempt may succeed.
pub(super) fn connect_error(error: &tokio_postgres::Error, server: &str) -> SqlError {
    if let Some(answer) = error.as_db_error() {
        return server_error(answer);
    }
    if error.source().is_some_and(|source| source.to_string() == PASSWORD_TEXT) {
        return SqlError::permanent(format!("the server at {server} asks for a password, and the url has none"))
            .with_code(SqlState::INVALID_PASSWORD.code());
    }
    let cause = error.source().map_or_else(|| chain(error), ToString::to_string);
    lost(format!("cannot connect to {server}: {cause}"))
}

/// A connection that is gone or cannot be made.
pub(super) fn lost(message: impl Into<String>) -> SqlError {
    SqlError::new(ErrorClass::Connection, message)
}

/// True where a statement that was prepared earlier has to be prepared anew: what it refers to was changed, or the
/// session forgot it.
pub(super) fn is_outdated_statement(error: &tokio_postgres::Error) -> bool {
    let code = error.code();
    code == Some(&SqlState::FEATURE_NOT_SUPPORTED) || code == Some(&SqlState::INVALID_SQL_STATEMENT_NAME)
}

/// True where a statement waited for somebody's lock until a limit of ours, or a deadlock, ended that.
pub(super) fn is_wait_given_up(error: &SqlError) -> bool {
    let waits = [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED, SqlState::T_R_DEADLOCK_DETECTED];
    let code = error.code.as_deref();
    error.class == ErrorClass::Transient && waits.iter().any(|wait| code == Some(wait.code()))
}

fn server_error(answer: &DbError) -> SqlError {
    let mut message = answer.message().to_owned();
    // A hint speaks of the statement and of settings, never of rows.
    if let Some(hint) = answer.hint() {
        message += &format!("; hint: {hint}");
    }
    let code = answer.code().code();
    SqlError { detail: answer.detail().map(str::to_owned), ..SqlError::new(class(code), message).with_code(code) }
}

fn class(code: &str) -> ErrorClass {
    match code {
        // Serialization failure, deadlock, lock not available, object in use, query cancelled (by a timeout; whether
        // we cancelled it ourselves, only the caller knows), a server that is a standby now.
        "40001" | "40P01" | "55P03" | "55006" | "57014" | "25006" => ErrorClass::Transient,
        // The server ended the session: for standing idle in a transaction, for a transaction that took too long.
        "25P03" | "25P04" | "40003" => ErrorClass::Connection,
        _ => match code.get(..2) {
            Some("08") => ErrorClass::Connection,
            // Shutdown, crash, start-up, a dropped database.
            Some("57") if code.starts_with("57P") => ErrorClass::Connection,
            // Insufficient resources and errors of the system beneath.
            Some("53" | "58") => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        },
    }
}

/// The error with its causes.
fn chain(error: &tokio_postgres::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.ends_with(&text) {
            message += &format!(": {text}");
        }
        source = cause.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::class;
    use crate::update::sql::ErrorClass::{Connection, Permanent, Transient};

    #[test]
    fn states_fall_into_classes() {
        let cases = [
            (Transient, &["40001", "40P01", "55P03", "57014", "53100", "53300", "58030", "25006"][..]),
            (Connection, &["57P01", "57P02", "57P03", "57P04", "57P05", "08006", "25P03", "25P04"]),
            (Permanent, &["23505", "42P01", "28P01", "42501", "22012", "25P02", "XX000", "0A000"]),
        ];
        for (expected, codes) in cases {
            for code in codes {
                assert_eq!(class(code), expected, "{code}");
            }
        }
    }
}
