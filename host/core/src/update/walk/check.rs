//! What is wrong with the table and the key of a walk.

use super::Walk;
use crate::update::explain::{no_column, no_table};
use crate::update::names::Names;
use crate::update::sql::{Column, ErrorClass, Operation, Sql, System, Table, TableKind, TableName, Value};
use crate::update::{Problem, UpdateError, reach};

impl Walk {
    /// Empty where the walk can be made, made without a sort, and its rows changed by `operation`.
    pub(in crate::update) async fn check(
        &self,
        sql: &mut dyn Sql,
        operation: Option<Operation>,
    ) -> Result<Vec<Problem>, UpdateError> {
        let dialect = sql.dialect();
        let Some(table) = dialect.describe(sql, &self.table).await? else {
            return Ok(vec![no_table("table", "schema", &self.table)]);
        };
        let around = match operation {
            Some(operation) => reach::check(sql, &self.table, table.kind, operation, self.reach, "table").await?,
            None => reach::no_rows_of_its_own(&self.table, table.kind, "table").into_iter().collect(),
        };
        if around.iter().any(Problem::is_error) {
            return Ok(around);
        }
        let names = Names(dialect.system());
        let mut problems: Vec<Problem> =
            self.key.iter().filter_map(|name| self.check_key_column(&table, names, name)).collect();
        if self.key.is_empty() {
            problems.push(key_problem("the key has no columns", "name the columns of the table's primary key"));
        } else if problems.is_empty() && !self.is_ordered(&table, names) {
            problems.push(self.not_ordered());
        }
        if problems.is_empty() {
            let key: Option<Vec<Column>> = self.key.iter().map(|name| names.key_column(&table, name)).collect();
            let key = key.unwrap_or_default();
            match names.unique_by(&table, &key) {
                None => problems.push(not_unique(&self.table, &self.key)),
                Some(more) => {
                    let key = [key, more].concat();
                    problems.extend(self.check_kind(&table, names, &key));
                    problems.extend(self.check_values(sql, &key).await?);
                }
            }
        }
        problems.extend(around);
        problems.extend(self.check_workers(sql).await?);
        Ok(problems)
    }

    /// What is to be known where several work on it: their batches see what is committed by the time of each statement.
    async fn check_workers(&self, sql: &mut dyn Sql) -> Result<Option<Problem>, UpdateError> {
        match sql.dialect().system() {
            _ if self.workers() == 1 => return Ok(None),
            System::Sqlite => {
                return Ok(Some(Problem::error(
                    "workers",
                    "an SQLite file has one writer at a time, and a second worker would only wait for the first",
                    "leave \"workers\" out",
                )));
            }
            System::Postgres => {}
        }
        let rows = sql.query("SELECT current_setting('default_transaction_isolation')", &[]).await?;
        let isolation = rows.first().and_then(|row| row.first()).and_then(Value::as_text).unwrap_or_default();
        Ok((isolation != "read committed").then(|| {
            Problem::warning(
                "workers",
                format!(
                    "transactions here are {isolation} by default, and those of several workers are read committed"
                ),
                "leave \"workers\" out where the update must be serialized with the application's transactions",
            )
        }))
    }

    /// Looks for values that a key column of SQLite's can hold beside its type, and that their text does not give back. Those
    /// of the first column come first or last, where the walk itself meets them before it begins; those of a later one may
    /// stand anywhere. Beyond the first million rows the walk meets them when it comes there, before it changes a row.
    async fn check_values(&self, sql: &mut dyn Sql, key: &[Column]) -> Result<Option<Problem>, UpdateError> {
        const LOOKED_AT: u32 = 1_000_000;
        let dialect = sql.dialect();
        let parameter = dialect.parameter(1);
        let later = key.iter().skip(1).filter(|column| column.name != "rowid" && !column.sql_type.is_empty());
        for column in later.filter(|_| dialect.system() == System::Sqlite) {
            let quoted = dialect.quote(&column.name);
            let back =
                dialect.key_from_text(1, column).replace(&parameter, &format!("({})", dialect.key_as_text(&quoted)));
            let order: Vec<String> = key.iter().map(|column| dialect.quote(&column.name)).collect();
            let statement = format!(
                "SELECT 1 FROM (SELECT {quoted} IS NOT {back} AS odd FROM {} ORDER BY {} LIMIT {LOOKED_AT}) WHERE odd LIMIT 1",
                self.source(&*dialect),
                order.join(", ")
            );
            let odd = match sql.query(&statement, &[]).await {
                Ok(rows) => !rows.is_empty(),
                // A column of blobs in which something else is.
                Err(error) if error.class == ErrorClass::Permanent => true,
                Err(error) => return Err(error.into()),
            };
            if odd {
                return Ok(Some(key_problem(
                    &format!("key column \"{}\" holds a value that is not of the type that it declares", column.name),
                    "give such rows values of that type (typeof() tells which they are), or walk along another key",
                )));
            }
        }
        Ok(None)
    }

    pub(super) fn not_ordered(&self) -> Problem {
        let columns = self.key.join(", ");
        key_problem(
            &format!("no index of table \"{}\" gives its rows in the order of the key ({columns})", self.table),
            &format!(
                "take the primary key's columns in its order, or make an index on ({columns}): a b-tree, not partial, of the \
                 columns' own collation, all ascending or all descending"
            ),
        )
    }

    /// True where an index, or the table itself, gives the rows in the order of the key.
    fn is_ordered(&self, table: &Table, names: Names) -> bool {
        let rowid = || match self.key.as_slice() {
            [only] => names.key_column(table, only).is_some_and(|column| names.is_rowid(table, &column)),
            _ => false,
        };
        table.indexes.iter().any(|index| names.orders_by(index, &self.key)) || rowid()
    }

    /// What is to be known of a table that is more, or less, than a plain one.
    fn check_kind(&self, table: &Table, names: Names, key: &[Column]) -> Vec<Problem> {
        let name = &self.table;
        let mut problems = Vec::new();
        let rowid = key.iter().any(|column| names.is_rowid(table, column));
        let ordered: Vec<String> = key.iter().map(|column| column.name.clone()).collect();
        if !rowid && !table.indexes.iter().any(|index| names.orders_by(index, &ordered)) {
            let (columns, ordered) = (self.key.join(", "), ordered.join(", "));
            problems.push(Problem::warning(
                "key",
                format!("the key ({columns}) is not unique, and each batch sorts the rows that have the same key"),
                format!(
                    "take the primary key's columns, or make an index on ({ordered}) where many rows have the same key"
                ),
            ));
        }
        if table.children > 0 && table.kind != TableKind::Partitioned && !self.is_alone() {
            problems.push(Problem::warning(
                "table",
                format!(
                    "{} inherit from table \"{name}\", and the update reaches their rows too",
                    tables(table.children)
                ),
                "say only = true if the rows of this table alone are meant",
            ));
        }
        if rowid && table.renumbered {
            problems.push(Problem::warning(
                "key",
                format!(
                    "the walk goes by the rowids of table \"{name}\", and VACUUM may change them, because no column is the rowid"
                ),
                "do not run VACUUM between the update's first batch and its last: the walk would leave rows out",
            ));
        }
        problems
    }

    fn check_key_column(&self, table: &Table, names: Names, name: &str) -> Option<Problem> {
        let Some(column) = names.key_column(table, name) else {
            return Some(no_column("key", &self.table, table, name));
        };
        if self.key.iter().filter(|other| names.equal(other, name)).count() > 1 {
            return Some(key_problem(&format!("column \"{name}\" stands in the key twice"), "name it once"));
        }
        (!column.not_null).then(|| {
            key_problem(
                &format!("key column \"{name}\" may be NULL, and rows where it is would be left out"),
                "walk along columns that are NOT NULL, such as the primary key's",
            )
        })
    }
}

/// The problem of a key that several rows can have.
pub(super) fn not_unique(table: &TableName, key: &[String]) -> Problem {
    let columns = key.join(", ");
    key_problem(
        &format!(
            "the key ({columns}) of table \"{table}\" is not unique, and no unique index tells rows with the same key apart"
        ),
        "walk along the columns of a unique index, all NOT NULL, or make such an index",
    )
}

/// A number of tables.
fn tables(count: u64) -> String {
    if count == 1 { "1 table".to_owned() } else { format!("{count} tables") }
}

fn key_problem(message: &str, hint: &str) -> Problem {
    Problem::error("key", message, hint)
}
