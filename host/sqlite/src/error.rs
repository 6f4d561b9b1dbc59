//! SQLite's errors, in classes.

use rusqlite::ffi;

use tidegate::update::sql::{ErrorClass, SqlError};
use tidegate_driver::words::{WITHHELD, masked};

/// The names of the result codes that a host can meet.
const NAMES: &[(i32, &str)] = &[
    (ffi::SQLITE_ERROR, "SQLITE_ERROR"),
    (ffi::SQLITE_PERM, "SQLITE_PERM"),
    (ffi::SQLITE_ABORT, "SQLITE_ABORT"),
    (ffi::SQLITE_ABORT_ROLLBACK, "SQLITE_ABORT_ROLLBACK"),
    (ffi::SQLITE_BUSY, "SQLITE_BUSY"),
    (ffi::SQLITE_BUSY_RECOVERY, "SQLITE_BUSY_RECOVERY"),
    (ffi::SQLITE_BUSY_SNAPSHOT, "SQLITE_BUSY_SNAPSHOT"),
    (ffi::SQLITE_BUSY_TIMEOUT, "SQLITE_BUSY_TIMEOUT"),
    (ffi::SQLITE_LOCKED, "SQLITE_LOCKED"),
    (ffi::SQLITE_LOCKED_SHAREDCACHE, "SQLITE_LOCKED_SHAREDCACHE"),
    (ffi::SQLITE_NOMEM, "SQLITE_NOMEM"),
    (ffi::SQLITE_READONLY, "SQLITE_READONLY"),
    (ffi::SQLITE_READONLY_CANTLOCK, "SQLITE_READONLY_CANTLOCK"),
    (ffi::SQLITE_READONLY_DBMOVED, "SQLITE_READONLY_DBMOVED"),
    (ffi::SQLITE_READONLY_DIRECTORY, "SQLITE_READONLY_DIRECTORY"),
    (ffi::SQLITE_INTERRUPT, "SQLITE_INTERRUPT"),
    (ffi::SQLITE_IOERR, "SQLITE_IOERR"),
    (ffi::SQLITE_IOERR_READ, "SQLITE_IOERR_READ"),
    (ffi::SQLITE_IOERR_SHORT_READ, "SQLITE_IOERR_SHORT_READ"),
    (ffi::SQLITE_IOERR_WRITE, "SQLITE_IOERR_WRITE"),
    (ffi::SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"),
    (ffi::SQLITE_IOERR_TRUNCATE, "SQLITE_IOERR_TRUNCATE"),
    (ffi::SQLITE_IOERR_LOCK, "SQLITE_IOERR_LOCK"),
    (ffi::SQLITE_IOERR_SHMMAP, "SQLITE_IOERR_SHMMAP"),
    (ffi::SQLITE_CORRUPT, "SQLITE_CORRUPT"),
    (ffi::SQLITE_CORRUPT_INDEX, "SQLITE_CORRUPT_INDEX"),
    (ffi::SQLITE_FULL, "SQLITE_FULL"),
    (ffi::SQLITE_CANTOPEN, "SQLITE_CANTOPEN"),
    (ffi::SQLITE_CANTOPEN_ISDIR, "SQLITE_CANTOPEN_ISDIR"),
    (ffi::SQLITE_PROTOCOL, "SQLITE_PROTOCOL"),
    (ffi::SQLITE_SCHEMA, "SQLITE_SCHEMA"),
    (ffi::SQLITE_TOOBIG, "SQLITE_TOOBIG"),
    (ffi::SQLITE_CONSTRAINT, "SQLITE_CONSTRAINT"),
    (ffi::SQLITE_CONSTRAINT_CHECK, "SQLITE_CONSTRAINT_CHECK"),
    (ffi::SQLITE_CONSTRAINT_FOREIGNKEY, "SQLITE_CONSTRAINT_FOREIGNKEY"),
    (ffi::SQLITE_CONSTRAINT_NOTNULL, "SQLITE_CONSTRAINT_NOTNULL"),
    (ffi::SQLITE_CONSTRAINT_PRIMARYKEY, "SQLITE_CONSTRAINT_PRIMARYKEY"),
    (ffi::SQLITE_CONSTRAINT_ROWID, "SQLITE_CONSTRAINT_ROWID"),
    (ffi::SQLITE_CONSTRAINT_TRIGGER, "SQLITE_CONSTRAINT_TRIGGER"),
    (ffi::SQLITE_CONSTRAINT_UNIQUE, "SQLITE_CONSTRAINT_UNIQUE"),
    (ffi::SQLITE_CONSTRAINT_DATATYPE, "SQLITE_CONSTRAINT_DATATYPE"),
    (ffi::SQLITE_MISMATCH, "SQLITE_MISMATCH"),
    (ffi::SQLITE_MISUSE, "SQLITE_MISUSE"),
    (ffi::SQLITE_AUTH, "SQLITE_AUTH"),
    (ffi::SQLITE_RANGE, "SQLITE_RANGE"),
    (ffi::SQLITE_NOTADB, "SQLITE_NOTADB"),
];

/// An error of SQLite's or of its driver's.
pub(super) fn sql_error(error: rusqlite::Error) -> SqlError {
    let (code, message) = match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            (failure.extended_code, message.unwrap_or_else(|| failure.to_string()))
        }
        rusqlite::Error::SqlInputError { error, msg, sql, offset } => {
            (error.extended_code, format!("{msg}, at \"{}\"", excerpt(&sql, offset)))
        }
        other => return SqlError::permanent(other.to_string()),
    };
    let name = name(code);
    let of_rows = matches!(code & 0xff, ffi::SQLITE_CONSTRAINT | ffi::SQLITE_MISMATCH | ffi::SQLITE_TOOBIG);
    SqlError { of_rows, ..SqlError::new(class(code), message).with_code(name) }
}

/// An error of a statement that runs: SQLite's own words may hold values of rows by then.
pub(super) fn run_error(sqlite: &rusqlite::Connection, error: rusqlite::Error) -> SqlError {
    let raised = matches!(&error, rusqlite::Error::SqliteFailure(failure, _)
        if failure.extended_code == ffi::SQLITE_CONSTRAINT_TRIGGER);
    let unexpected = matches!(&error, rusqlite::Error::SqliteFailure(failure, _)
        if matches!(failure.extended_code & 0xff, ffi::SQLITE_ERROR | ffi::SQLITE_CORRUPT));
    let error = sql_error(error);
    let told = match (raised, unexpected) {
        (true, _) if !stands_in_trigger(sqlite, &error.message) => WITHHELD.to_owned(),
        (_, true) => masked_from_colon(&error.message),
        _ => return error,
    };
    let detail = (told != error.message).then_some(error.message);
    // What a function says of a value that it was given has no code of its own.
    let of_rows = error.of_rows || error.code.as_deref() == Some("SQLITE_ERROR");
    SqlError { message: told, detail, of_rows, ..error }
}

/// Whether the words are written down as they are in a trigger, and so were there before any row.
fn stands_in_trigger(sqlite: &rusqlite::Connection, words: &str) -> bool {
    let literal = format!("'{}'", words.replace('\'', "''"));
    let find = "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND instr(sql, ?1) > 0)";
    // Where that cannot be found out, they are not told.
    sqlite.query_row(find, [literal], |row| row.get(0)).unwrap_or(false)
}

/// As [`masked`], and what follows a colon is masked too: SQLite, and its modules, quote only some of the values that they
/// name.
fn masked_from_colon(message: &str) -> String {
    match message.split_once(": ") {
        Some((before, _)) => format!("{}: …", masked(before)),
        None => masked(message),
    }
}

/// The thread of the connection is gone, and with it the connection.
pub(super) fn closed() -> SqlError {
    SqlError::new(ErrorClass::Connection, "the connection to the SQLite database is closed")
}

fn class(extended: i32) -> ErrorClass {
    // The primary code is the lowest byte.
    match extended & 0xff {
        ffi::SQLITE_BUSY
        | ffi::SQLITE_LOCKED
        | ffi::SQLITE_NOMEM
        | ffi::SQLITE_IOERR
        | ffi::SQLITE_FULL
        // The disk's or the folder's doing, and no update's. A file that is read-only from the start is refused before.
        | ffi::SQLITE_READONLY
        | ffi::SQLITE_PROTOCOL
        | ffi::SQLITE_SCHEMA
        | ffi::SQLITE_ABORT => ErrorClass::Transient,
        ffi::SQLITE_CANTOPEN => ErrorClass::Connection,
        ffi::SQLITE_INTERRUPT => ErrorClass::Interrupted,
        _ => ErrorClass::Permanent,
    }
}

fn name(extended: i32) -> String {
    let find = |code| NAMES.iter().find(|(known, _)| *known == code).map(|(_, name)| *name);
    match (find(extended), find(extended & 0xff)) {
        (Some(name), _) => name.to_owned(),
        (None, Some(primary)) => format!("{primary} ({extended})"),
        (None, None) => format!("SQLITE_{extended}"),
    }
}

/// The part of a statement that an error is about.
fn excerpt(sql: &str, offset: i32) -> String {
    let start = usize::try_from(offset).ok().filter(|start| sql.is_char_boundary(*start)).unwrap_or(0);
    sql.get(start..).unwrap_or(sql).chars().take(60).collect()
}
