//! Names as a system tells them apart, and what they are to a table: columns, rowids, the keys of indexes.

use super::sql::{Column, Index, System, Table};

/// The names by which SQLite calls the number of a row, where no column bears them.
pub(super) const ROWID_NAMES: [&str; 3] = ["rowid", "_rowid_", "oid"];

/// How a system tells names apart: SQLite does not look at the case of ASCII letters.
#[derive(Clone, Copy)]
pub(super) struct Names(pub(super) System);

impl Names {
    pub(super) fn equal(self, one: &str, other: &str) -> bool {
        match self.0 {
            System::Sqlite => one.eq_ignore_ascii_case(other),
            System::Postgres => one == other,
        }
    }

    pub(super) fn column<'a>(self, table: &'a Table, name: &str) -> Option<&'a Column> {
        table.columns.iter().find(|column| self.equal(&column.name, name))
    }

    /// A column that a walk can go along: one of the table's, or SQLite's rowid under one of its names.
    pub(super) fn key_column(self, table: &Table, name: &str) -> Option<Column> {
        let rowid = || table.rowid && ROWID_NAMES.iter().any(|known| self.equal(known, name));
        self.column(table, name).cloned().or_else(|| {
            rowid().then(|| Column {
                name: name.to_owned(),
                sql_type: "INTEGER".to_owned(),
                not_null: true,
                collation: None,
            })
        })
    }

    pub(super) fn is_rowid(self, table: &Table, column: &Column) -> bool {
        table.rowid && self.column(table, &column.name).is_none()
    }

    /// The columns that make a key unique, none where it is so by itself; `None` where nothing does that the table could be
    /// walked along.
    pub(super) fn unique_by(self, table: &Table, key: &[Column]) -> Option<Vec<Column>> {
        let among = |name: &String| key.iter().any(|column| self.equal(&column.name, name));
        let sole = |index: &&Index| index.unique && index.valid && !index.partial;
        let by_itself = |index: &Index| index.columns.iter().all(|name| name.as_ref().is_some_and(among));
        if key.iter().any(|column| self.is_rowid(table, column)) || table.indexes.iter().filter(sole).any(by_itself) {
            return Some(Vec::new());
        }
        if table.rowid {
            return self.key_column(table, "rowid").map(|rowid| vec![rowid]);
        }
        table.indexes.iter().filter(sole).find_map(|index| {
            let more = index.columns.iter().map(|name| self.column(table, name.as_ref()?).cloned());
            let more: Vec<Column> = more.collect::<Option<_>>()?;
            let more: Vec<Column> = more.into_iter().filter(|column| !among(&column.name)).collect();
            more.iter().all(|column| column.not_null).then_some(more)
        })
    }

    /// True where the index yields the rows in the key's order.
    pub(super) fn orders_by(self, index: &Index, key: &[String]) -> bool {
        let leading = index.columns.get(..key.len()).unwrap_or_default();
        let same = |(name, part): (&Option<String>, &String)| name.as_ref().is_some_and(|name| self.equal(name, part));
        // All descending will do: such an index is read backwards.
        let directions = index.directions.get(..key.len()).unwrap_or_default();
        let in_order = directions.first().is_some_and(|first| first.is_some() && directions.iter().all(|d| d == first));
        index.valid && !index.partial && in_order && leading.len() == key.len() && leading.iter().zip(key).all(same)
    }
}
