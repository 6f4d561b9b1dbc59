//! What a trigger that keeps rows is called, and what it says of itself: which update it was made for, and when.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::cells::text;
use super::super::sql::{Row, Sql, SqlError, System};

/// What the names of such triggers begin with. PostgreSQL fires triggers in the order of their names, and this one is to see
/// what the others have made of a row.
pub(super) const PREFIX: &str = "zz_tidegate_keep_";

/// What stands before a marker.
const SIGN: &str = "-- tidegate keep ";

/// The bytes of a name that PostgreSQL takes.
const LONGEST_NAME: usize = 63;

/// The name of the trigger, and on PostgreSQL of its function too, of an update. One that is too long ends with a digest.
pub(super) fn name(update: &str, system: System) -> String {
    let name = format!("{PREFIX}{update}");
    if system == System::Sqlite || name.len() <= LONGEST_NAME {
        return name;
    }
    let digest = digest(update);
    let room = LONGEST_NAME - digest.len() - 1;
    let end = (0..=room).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    format!("{}_{digest}", &name[..end])
}

/// What tells one text from another.
pub(super) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// What a trigger says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// The update that it was made for.
    pub(super) update: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub(super) made_ms: i64,
    /// What it does, as a digest.
    pub(super) does: String,
}

impl Marker {
    /// The line of SQL that says it.
    pub(super) fn line(&self) -> String {
        // A struct of texts and numbers is an object: there is nothing to fail.
        format!("{SIGN}{}\n", serde_json::to_string(self).unwrap_or_default())
    }

    /// What a text of SQL says; `None` where it is none of tidegate's.
    pub(super) fn of(sql: &str) -> Option<Self> {
        let line = sql.lines().find_map(|line| line.trim_start().strip_prefix(SIGN))?;
        serde_json::from_str(line.trim_end()).ok()
    }
}

/// The triggers of a table that keep an update's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The update that they were made for.
    pub update: String,
    /// The table, with its schema where the search path does not find it.
    pub table: String,
    /// Their names.
    pub triggers: Vec<String>,
    /// When they were made, in milliseconds since the Unix epoch.
    pub made_ms: i64,
    /// False where somebody has disabled one (PostgreSQL).
    pub enabled: bool,
    /// What they do, as a digest.
    pub(super) does: String,
    /// The function that they execute (PostgreSQL), ready for DROP FUNCTION.
    pub(super) function: String,
}

/// The triggers of a database, a row each: its name, its table, what says what it is, whether it is enabled, its function.
const POSTGRES: &str = "\
SELECT t.tgname::text, t.tgrelid::pg_catalog.regclass::text, p.prosrc, (t.tgenabled IN ('O', 'A'))::int,
       pg_catalog.format('%I.%I()', n.nspname, p.proname)
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE NOT t.tgisinternal AND t.tgname LIKE 'zz\\_tidegate\\_keep\\_%'
  AND coalesce(pg_catalog.to_jsonb(t) ->> 'tgparentid', '0') = '0'
ORDER BY 2, 1";
const SQLITE: &str = "\
SELECT name, tbl_name, sql, 1, '' FROM main.sqlite_schema
WHERE type = 'trigger' AND name LIKE 'zz\\_tidegate\\_keep\\_%' ESCAPE '\\' ORDER BY 2, 1";

/// The triggers of a database that keep rows.
///
/// # Errors
/// Whatever the database says.
pub async fn kept(sql: &mut dyn Sql) -> Result<Vec<Keep>, SqlError> {
    let statement = match sql.dialect().system() {
        System::Sqlite => SQLITE,
        System::Postgres => POSTGRES,
    };
    let mut found: Vec<Keep> = Vec::new();
    for row in sql.query(statement, &[]).await? {
        let Some(keep) = keep(&row) else { continue };
        match found.last_mut() {
            Some(last) if last.update == keep.update && last.table == keep.table => {
                last.triggers.extend(keep.triggers);
                last.enabled &= keep.enabled;
            }
            _ => found.push(keep),
        }
    }
    Ok(found)
}

fn keep(row: &Row) -> Option<Keep> {
    let Marker { update, made_ms, does } = Marker::of(text(row, 2))?;
    let enabled = row.get(3).and_then(super::super::sql::Value::as_integer) == Some(1);
    let (table, function) = (text(row, 1).to_owned(), text(row, 4).to_owned());
    Some(Keep { update, table, triggers: vec![text(row, 0).to_owned()], made_ms, enabled, does, function })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_is_cut_and_stays_the_update_s_own() {
        let long = |end: &str| format!("{}{end}", "é".repeat(40));
        let (one, other) = (name(&long("a"), System::Postgres), name(&long("b"), System::Postgres));
        assert!(one.len() <= LONGEST_NAME && other.len() <= LONGEST_NAME && one != other, "{one} {other}");
        assert_eq!(name("fill", System::Postgres), "zz_tidegate_keep_fill");
        assert_eq!(name(&long("a"), System::Sqlite), format!("{PREFIX}{}", long("a")));
    }

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        let marker = Marker { update: "a \"b\"\n*/ 'c'".to_owned(), made_ms: 7, does: "0f".to_owned() };
        assert_eq!(Marker::of(&format!("CREATE …\n  {}BEGIN", marker.line())), Some(marker));
        assert_eq!(Marker::of("-- tidegate keeps\nBEGIN"), None);
    }
}
