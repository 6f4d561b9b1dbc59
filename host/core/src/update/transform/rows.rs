//! The rows of a slice, read so that they can be written: where each stands, and what the definition reads of it.

use super::Failing;
use super::cell::{Cell, Cells};
use crate::update::UpdateError;
use crate::update::field::{Class, Field};
use crate::update::names::{Names, ROWID_NAMES};
use crate::update::sql::{Dialect, Row, Sql, System, Table, Value};
use crate::update::walk::{Batch, Key};

impl Field {
    /// The number by which SQLite knows a row.
    pub(super) fn of_rowid(name: &str) -> Self {
        Self { name: name.to_owned(), class: Class::Integer, type_name: "INTEGER".to_owned() }
    }
}

/// How the rows of a table are read and written.
pub(super) struct Shape {
    pub(super) system: System,
    /// SQLite: the name of the rowid, where the rows have one.
    rowid: Option<&'static str>,
    pub(super) read: Vec<Field>,
    pub(super) write: Vec<Field>,
}

/// Where a row stands: on PostgreSQL its table and its place in that, on SQLite its rowid, or its key as it is stored.
pub(super) type Place = Vec<Value>;

/// Rows that were read.
pub(super) struct Read {
    pub(super) places: Vec<Place>,
    pub(super) rows: Vec<Cells>,
}

impl Shape {
    pub(super) fn new(system: System, table: &Table, read: Vec<Field>, write: Vec<Field>) -> Self {
        let names = Names(system);
        let free = ROWID_NAMES.into_iter().find(|name| names.column(table, name).is_none());
        Self { system, rowid: free.filter(|_| table.rowid), read, write }
    }

    /// The columns that say where a row stands.
    fn place(&self, dialect: &dyn Dialect, key: &Key) -> Vec<String> {
        match (self.system, self.rowid) {
            (System::Postgres, _) => vec!["tableoid".to_owned(), "ctid::text".to_owned()],
            (System::Sqlite, Some(rowid)) => vec![rowid.to_owned()],
            (System::Sqlite, None) => key.iter().map(|column| dialect.quote(&column.name)).collect(),
        }
    }

    /// How many values say where a row stands, for such a key.
    pub(super) fn width(&self, key: &[String]) -> usize {
        match (self.system, self.rowid) {
            (System::Postgres, _) => 2,
            (System::Sqlite, Some(_)) => 1,
            (System::Sqlite, None) => key.len(),
        }
    }

    /// The statement that reads the rows that a clause is about, in the key's order, and locks them where others could write
    /// them meanwhile: against changes, and not against rows that come to refer to them.
    pub(super) fn select(&self, dialect: &dyn Dialect, source: &str, key: &Key, clause: &str) -> String {
        let place = self.place(dialect, key).into_iter();
        let read = self.read.iter().map(|field| read_column(dialect, field));
        // Under names of their own: ORDER BY would take a column of the result for the table's.
        let columns: Vec<String> =
            place.chain(read).enumerate().map(|(number, column)| format!("{column} AS tidegate_{number}")).collect();
        let order: Vec<String> = key.iter().map(|column| dialect.quote(&column.name)).collect();
        let lock = match self.system {
            System::Postgres => " FOR NO KEY UPDATE",
            System::Sqlite => "",
        };
        format!("SELECT {} FROM {source}{clause}\nORDER BY {}{lock}", columns.join(", "), order.join(", "))
    }

    /// The rows of a batch that meet the filter.
    pub(super) async fn read(
        &self,
        sql: &mut dyn Sql,
        source: &str,
        batch: &Batch,
        filter: Option<&str>,
    ) -> Result<Read, UpdateError> {
        let dialect = sql.dialect();
        let width = self.place(&*dialect, &batch.key).len();
        let select = self.select(&*dialect, source, &batch.key, &batch.clause(filter));
        let found = sql.query(&select, batch.parameters()).await?;
        let mut read = Read { places: Vec::with_capacity(found.len()), rows: Vec::with_capacity(found.len()) };
        for mut row in found {
            let values = row.split_off(width.min(row.len()));
            read.places.push(row);
            read.rows.push(cells(values, &self.read));
        }
        Ok(read)
    }

    /// The condition that a row stands at the place bound from parameter `first` on.
    pub(super) fn at(&self, dialect: &dyn Dialect, key: &[String], first: usize) -> String {
        match (self.system, self.rowid) {
            (System::Postgres, _) => {
                format!("tableoid = ${first}::text::oid AND ctid = ${}::text::tid", first + 1)
            }
            (System::Sqlite, Some(rowid)) => format!("{rowid} = ?{first}"),
            (System::Sqlite, None) => {
                let same = key.iter().zip(first..).map(|(name, number)| format!("{} = ?{number}", dialect.quote(name)));
                same.collect::<Vec<_>>().join(" AND ")
            }
        }
    }

    /// The key of the row at a place, as texts.
    pub(super) async fn key_of(
        &self,
        sql: &mut dyn Sql,
        source: &str,
        key: &Key,
        place: &Place,
    ) -> Result<Vec<String>, UpdateError> {
        let dialect = sql.dialect();
        let names: Vec<String> = key.iter().map(|column| column.name.clone()).collect();
        let texts: Vec<String> = names.iter().map(|name| dialect.key_as_text(&dialect.quote(name))).collect();
        let select = format!("SELECT {} FROM {source} WHERE {}", texts.join(", "), self.at(&*dialect, &names, 1));
        let rows = sql.query(&select, place).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        Ok(row.iter().map(|value| value.as_text().unwrap_or("NULL").to_owned()).collect())
    }

    /// What is to be written of a row; how it fails where the columns do not take that.
    pub(super) fn values(&self, cells: Cells, system: System) -> Result<Row, (Failing, String)> {
        if cells.len() != self.write.len() {
            let (given, wanted) = (super::number(cells.len(), "value"), super::number(self.write.len(), "column"));
            return Err((Failing::Answer, format!("{given} for {wanted}")));
        }
        let values = cells.into_iter().zip(&self.write);
        values
            .map(|(cell, field)| cell.into_value(field, system))
            .collect::<Result<Row, String>>()
            .map_err(|words| (Failing::Answer, words))
    }
}

/// A column as it is read.
fn read_column(dialect: &dyn Dialect, field: &Field) -> String {
    let name = dialect.quote(&field.name);
    match (dialect.system(), field.class) {
        (System::Sqlite, _) => name,
        (System::Postgres, Class::Boolean) => format!("{name}::boolean"),
        (System::Postgres, Class::Integer) => format!("{name}::bigint"),
        (System::Postgres, Class::Float) => format!("{name}::double precision"),
        (System::Postgres, Class::Bytes) => format!("{name}::bytea"),
        (System::Postgres, Class::Numeric | Class::Text | Class::Other | Class::Any) => format!("{name}::text"),
    }
}

fn cells(values: Row, fields: &[Field]) -> Cells {
    values.into_iter().zip(fields).map(|(value, field)| Cell::of(value, field)).collect()
}

/// The first rows of a table that meet a condition, so many at most, as a [`Transformer`](super::Transformer) is given them:
/// to look at, without a lock and in no order.
///
/// # Errors
/// Whatever the database says, and that a column is not there.
pub async fn cells_of(
    sql: &mut dyn Sql,
    table: &crate::update::sql::TableName,
    columns: &[String],
    filter: Option<&str>,
    limit: u32,
) -> Result<Vec<Cells>, UpdateError> {
    let dialect = sql.dialect();
    let names = Names(dialect.system());
    let known = dialect.fields(sql, table).await?;
    if known.is_empty() {
        return Err(UpdateError::Failed(format!("there is no table \"{table}\"")));
    }
    let field = |column: &String| {
        let found = known.iter().find(|field| names.equal(&field.name, column)).cloned();
        found.ok_or_else(|| UpdateError::Failed(format!("table \"{table}\" has no column \"{column}\"")))
    };
    let fields = columns.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    let read: Vec<String> = fields.iter().map(|field| read_column(&*dialect, field)).collect();
    let clause = filter.map(crate::update::walk::filter_clause).unwrap_or_default();
    let select = format!("SELECT {} FROM {}{clause} LIMIT {limit}", read.join(", "), dialect.table(table));
    Ok(sql.query(&select, &[]).await?.into_iter().map(|row| cells(row, &fields)).collect())
}
