//! SQLite: a trigger for each operation, which runs after it and does to the row what a batch would.

use super::super::UpdateError;
use super::super::cells::text;
use super::super::sql::{Sql, SqlError, Value};
use super::marker::{Keep, Marker, name};
use super::wanted::{Does, Wanted};

/// What stands between the table's name and the trigger's name in `sqlite_schema`.
const TRIGGER: &str =
    "SELECT tbl_name, sql FROM main.sqlite_schema WHERE type = 'trigger' AND name = ?1 COLLATE NOCASE";

/// The names of the triggers, each with what it is to be: what stands before ON, and what it does.
fn named<'a>(update: &str, wanted: &'a Wanted) -> Vec<(String, &'a str, &'a str)> {
    let Does::Statements(statements) = &wanted.does else { return Vec::new() };
    let name = name(update, super::super::sql::System::Sqlite);
    let named = statements.iter().map(|(at, does)| {
        let operation = at.split(' ').nth(1).unwrap_or_default().to_lowercase();
        (format!("{name}_{operation}"), at.as_str(), does.as_str())
    });
    named.collect()
}

/// Makes the triggers that are wanted; those that are there and do the same stay. True where any was made.
pub(super) async fn make(sql: &mut dyn Sql, update: &str, wanted: &Wanted, made_ms: i64) -> Result<bool, UpdateError> {
    let dialect = sql.dialect();
    let marker = Marker { update: update.to_owned(), made_ms, does: wanted.digest() };
    let (line, mut made) = (marker.line(), false);
    for (name, at, does) in named(update, wanted) {
        let trigger = dialect.quote(&name);
        match found(sql, &name, update, &wanted.table.name).await? {
            Some(does) if does == marker.does => continue,
            Some(_) => sql.execute(&format!("DROP TRIGGER main.{trigger}"), &[]).await.map(std::mem::drop)?,
            None => {}
        }
        let table = dialect.quote(&wanted.table.name);
        let statement = format!("CREATE TRIGGER main.{trigger} {at} ON {table}\n{line}BEGIN\n{does}\nEND");
        sql.execute(&statement, &[]).await?;
        made = true;
    }
    Ok(made)
}

/// True where all that are wanted are there, and do what they are to do.
pub(super) async fn stands(sql: &mut dyn Sql, update: &str, wanted: &Wanted) -> Result<bool, UpdateError> {
    let does = wanted.digest();
    for (name, ..) in named(update, wanted) {
        if found(sql, &name, update, &wanted.table.name).await?.as_ref() != Some(&does) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a trigger of the update's does; `None` where there is no such trigger.
async fn found(sql: &mut dyn Sql, name: &str, update: &str, table: &str) -> Result<Option<String>, UpdateError> {
    let rows = sql.query(TRIGGER, &[Value::from(name)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    match Marker::of(text(row, 1)).filter(|marker| marker.update == update) {
        // After the table was dropped and renamed there may be one on another table.
        Some(marker) if text(row, 0).eq_ignore_ascii_case(table) => Ok(Some(marker.does)),
        Some(_) => Ok(Some(String::new())),
        None => Err(UpdateError::Failed(format!(
            "there is a trigger \"{name}\" already, which is none of this update's: give the update another name, or drop the \
             trigger"
        ))),
    }
}

/// Drops triggers.
pub(super) async fn drop(sql: &mut dyn Sql, keeps: &[Keep]) -> Result<(), SqlError> {
    let dialect = sql.dialect();
    for trigger in keeps.iter().flat_map(|keep| &keep.triggers) {
        sql.execute(&format!("DROP TRIGGER IF EXISTS main.{}", dialect.quote(trigger)), &[]).await?;
    }
    Ok(())
}
