//! PostgreSQL's errors, in classes.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use tokio_postgres::error::{DbError, ErrorPosition, SqlState};

use tidegate::update::sql::{ErrorClass, SqlError};
use tidegate_driver::words::{WITHHELD, masked};

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

/// A server that does not answer.
pub(super) fn silent(limit: Duration) -> SqlError {
    lost(format!("the server has not answered for {} s", limit.as_secs()))
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

/// What of a server's message may be told to everybody.
#[derive(Debug, PartialEq, Eq)]
enum Words {
    /// All of it: it speaks of names, statements and the server.
    Whole,
    /// All but what stands in quotation marks, and numbers: these may be values of rows.
    Masked,
    /// Nothing: somebody else than the server wrote it.
    Withheld,
}

fn server_error(answer: &DbError) -> SqlError {
    let code = answer.code().code();
    let message = answer.message();
    let in_statement = matches!(answer.position(), Some(ErrorPosition::Original(_)));
    let words = words(code, answer.file().unwrap_or_default(), in_statement);
    let told = match words {
        Words::Whole => match answer.hint() {
            Some(hint) => format!("{message}; hint: {hint}"),
            None => message.to_owned(),
        },
        Words::Masked => masked(message),
        Words::Withheld => WITHHELD.to_owned(),
    };
    // What is not told, for the operator's log.
    let hint = answer.hint().filter(|_| words != Words::Whole);
    let whole = (words != Words::Whole && told != message).then_some(message);
    let parts: Vec<&str> = whole.into_iter().chain(answer.detail()).chain(hint).collect();
    let detail = (!parts.is_empty()).then(|| parts.join("; "));
    SqlError { detail, of_rows: is_of_rows(code), ..SqlError::new(class(code), told).with_code(code) }
}

/// True where values of rows are to blame: a value that cannot be what it is to be (22), a subquery that gives several rows
/// for one (21), a constraint (23) or a view's check (44), a row too large for its index (54000), and what functions and
/// triggers raise, with the SQLSTATE of PL/pgSQL (P0), of other languages (38), or one of their own.
fn is_of_rows(code: &str) -> bool {
    /// The classes of the server itself, and of its foreign data wrappers.
    const SERVER: [&str; 40] = [
        "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "24", "25", "26", "27", "28",
        "2B", "2D", "2F", "34", "39", "3B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "72", "F0", "HV",
        "XX", "10", "0N", "2C",
    ];
    let whose = code.get(..2).unwrap_or_default();
    code == "54000" || code.len() == 5 && !SERVER.contains(&whose)
}

/// What may be told of a message with this SQLSTATE, from this file of the server's source. A message about a place in the
/// statement itself speaks of that, and values never stand in the statement.
fn words(code: &str, file: &str, in_statement: bool) -> Words {
    /// Where procedural languages raise what functions and triggers tell them to, with any SQLSTATE.
    const RAISED: [&str; 4] = ["pl_exec.c", "plpy_elog.c", "plperl.c", "pltcl.c"];
    /// A name that is not there, or a wrong syntax: also of a value that is taken for a name, or for a query, at run time.
    const NAMES: [&str; 8] = ["42601", "42602", "42703", "42704", "42725", "42883", "42P01", "3F000"];
    if RAISED.contains(&file) && !matches!(code, "P0002" | "P0003") {
        return Words::Withheld;
    }
    // What makes, changes and drops tables, indexes and the like speaks of what its statement names.
    if NAMES.contains(&code) && !in_statement && !file.ends_with("cmds.c") {
        return Words::Masked;
    }
    match (code.get(..2).unwrap_or_default(), code) {
        (_, "XX001" | "XX002" | "P0002" | "P0003") => Words::Whole,
        // Data exceptions, and what the server, or an extension of it, did not expect.
        ("22" | "XX", _) => Words::Masked,
        (
            "01" | "02" | "03" | "08" | "09" | "0A" | "0B" | "0F" | "0L" | "0P" | "0Z" | "20" | "21" | "23" | "24"
            | "25" | "26" | "27" | "28" | "2B" | "2D" | "2F" | "34" | "3B" | "3D" | "3F" | "40" | "42" | "44" | "53"
            | "54" | "55" | "57" | "58" | "72" | "F0",
            _,
        ) => Words::Whole,
        // Raised by functions, told by other servers, or of no class that is known.
        _ => Words::Withheld,
    }
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
    use super::{Words, class, words};
    use tidegate::update::sql::ErrorClass::{Connection, Permanent, Transient};

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

    #[test]
    fn rows_are_to_blame_for_what_depends_on_their_values_and_for_nothing_else() {
        for code in ["22012", "22P02", "23505", "23514", "23503", "21000", "44000", "54000", "P0001", "38000", "MY001"]
        {
            assert!(super::is_of_rows(code), "{code}");
        }
        for code in [
            "40001", "40P01", "55P03", "57014", "42P01", "42501", "42601", "25P02", "08006", "53100", "54001", "57P01",
            "XX000", "0A000", "25006", "58030", "HV000", "",
        ] {
            assert!(!super::is_of_rows(code), "{code}");
        }
    }

    #[test]
    fn messages_that_may_hold_values_are_told_in_part_or_not_at_all() {
        let cases = [
            (Words::Whole, "23505", "nbtinsert.c", false),
            (Words::Whole, "40P01", "deadlock.c", false),
            (Words::Whole, "42501", "aclchk.c", false),
            (Words::Whole, "42703", "parse_relation.c", true),
            (Words::Whole, "42P07", "heap.c", false),
            (Words::Whole, "42704", "indexcmds.c", false),
            (Words::Whole, "P0002", "pl_exec.c", false),
            (Words::Whole, "XX001", "bufmgr.c", false),
            // select 'a value'::regclass, to_tsquery('a value'), and a statement that a function put together.
            (Words::Masked, "42P01", "namespace.c", false),
            (Words::Masked, "42601", "to_tsany.c", false),
            (Words::Masked, "22P02", "numutils.c", false),
            (Words::Masked, "XX000", "lwgeom_pg.c", false),
            (Words::Withheld, "P0001", "pl_exec.c", false),
            (Words::Withheld, "23505", "pl_exec.c", false),
            (Words::Withheld, "23505", "plpy_elog.c", false),
            (Words::Withheld, "38000", "extension.c", false),
            (Words::Withheld, "HV000", "extension.c", false),
            (Words::Withheld, "AB123", "", false),
            (Words::Withheld, "", "", false),
        ];
        for (expected, code, file, in_statement) in cases {
            assert_eq!(words(code, file, in_statement), expected, "{code} {file}");
        }
    }
}
