//! What a recipe has to know of a table.

use tidegate::update::cells::text;
use tidegate::update::scan;
use tidegate::update::sql::{Column, Sql, System, Table, TableKind, TableName, Value};

use super::{ColumnName, Refusal};

/// The names in a text that points part: quoted as in SQL, or not.
pub(super) fn names(text: &str, system: System) -> Vec<String> {
    let code = scan::code(text, system);
    let parts = code.chunks(2).map(|part| match part {
        [name] => name.name(system),
        [name, point] if point.is_symbol(".") => name.name(system),
        _ => None,
    });
    // A point at the end parts nothing.
    parts.collect::<Option<Vec<_>>>().filter(|_| code.len() % 2 == 1).unwrap_or_default()
}

/// A name for an update, made of others.
pub(super) fn update_name(parts: &[&str]) -> String {
    let plain = |c: char| if c.is_alphanumeric() { c } else { '_' };
    parts.join("_").chars().map(plain).collect::<String>().to_lowercase()
}

/// A table that is one.
pub(super) async fn table(sql: &mut dyn Sql, name: &TableName) -> Result<Table, Refusal> {
    let dialect = sql.dialect();
    let Some(table) = dialect.describe(sql, name).await? else {
        return Err(Refusal::new(format!("there is no table \"{name}\""), "mend the name, or write SCHEMA before it"));
    };
    match table.kind {
        TableKind::Plain => Ok(table),
        kind => Err(Refusal::new(
            format!("\"{name}\" is {}, for which there is no recipe", kind.words()),
            "take the recipe of a table of the same shape, and change it",
        )),
    }
}

/// A column of a table.
pub(super) fn column<'a>(table: &'a Table, name: &ColumnName, system: System) -> Result<&'a Column, Refusal> {
    find(table, &name.column, system).ok_or_else(|| {
        let known: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        Refusal::new(
            format!("table \"{}\" has no column \"{}\"", name.table, name.column),
            format!("its columns are {}", known.join(", ")),
        )
    })
}

pub(super) fn find<'a>(table: &'a Table, name: &str, system: System) -> Option<&'a Column> {
    let same = |column: &&Column| match system {
        System::Sqlite => column.name.eq_ignore_ascii_case(name),
        System::Postgres => column.name == name,
    };
    table.columns.iter().find(same)
}

/// Refuses a name that a column bears already.
pub(super) fn must_be_free(table: &Table, of: &TableName, name: &str, system: System) -> Result<(), Refusal> {
    match find(table, name, system) {
        Some(_) => {
            Err(Refusal::new(format!("table \"{of}\" has a column \"{name}\" already"), "drop or rename that first"))
        }
        None => Ok(()),
    }
}

/// The columns of the primary key, or of another key all of whose columns are NOT NULL.
pub(super) fn key(table: &Table, name: &TableName, system: System) -> Result<Vec<String>, Refusal> {
    let mut unique: Vec<_> =
        table.indexes.iter().filter(|index| index.unique && index.valid && !index.partial).collect();
    unique.sort_by_key(|index| !(index.name.ends_with("_pkey") || index.name == "rowid"));
    let key = unique.into_iter().find_map(|index| {
        let columns =
            index.columns.iter().map(|name| find(table, name.as_ref()?, system).filter(|column| column.not_null));
        columns.map(|column| column.map(|column| column.name.clone())).collect::<Option<Vec<_>>>()
    });
    key.ok_or_else(|| {
        Refusal::new(
            format!("table \"{name}\" has no unique index on columns that are NOT NULL"),
            "make one, to walk along",
        )
    })
}

/// What stands in the first row of a query, as texts.
pub(super) async fn row(sql: &mut dyn Sql, query: &str, values: &[Value]) -> Result<Vec<String>, Refusal> {
    let rows = sql.query(query, values).await?;
    Ok(rows.first().map(|row| (0..row.len()).map(|at| text(row, at).to_owned()).collect()).unwrap_or_default())
}

/// What stands in the first column of a query.
pub(super) async fn list(sql: &mut dyn Sql, query: &str, values: &[Value]) -> Result<Vec<String>, Refusal> {
    Ok(sql.query(query, values).await?.iter().map(|row| text(row, 0).to_owned()).collect())
}
