//! A place in the midst of a walk, found without walking there, and what a batch is about that begins there.

use super::progress::Position;
use super::range::{Key, quoted};
use super::{Walk, key_of};
use crate::update::names::{Names, ROWID_NAMES};
use crate::update::sql::{Dialect, Sample, Sql, System, Table, Value};
use crate::update::trial::{Ahead, Look};
use crate::update::{Budget, Progress, UpdateError};

/// The pages of the table that are looked at, or on SQLite the rows.
const PAGES: f64 = 300.0;

impl Walk {
    /// The batch that begins so far into the walk.
    pub(in crate::update) async fn ahead(
        &self,
        sql: &mut dyn Sql,
        place: f64,
        budget: Budget,
    ) -> Result<(Ahead, super::Batch), UpdateError> {
        self.reach.enter(sql).await?;
        let known = self.known(sql).await?;
        let (mut progress, mut notes) = (Progress::default(), Vec::new());
        if place > 0.0 {
            match (self.place(sql, &known.key, place).await?, self.set_out(sql, &known).await?) {
                ((Some(after), true), Some(way)) => {
                    let (items, left_out, ranges) = (0, 0, Vec::new());
                    let position = Position { after, items, left_out, walk: Some(way.course), ranges };
                    progress = position.into_progress();
                }
                _ => notes.push(format!(
                    "a place in the midst of table \"{}\" cannot be found without reading it: this is from the beginning",
                    self.table
                )),
            }
        }
        let batch = self.batch(sql, &progress, budget).await?;
        let dialect = sql.dialect();
        let columns = known.table.columns.iter().map(|column| column.name.clone()).collect();
        let key: Vec<String> = known.key.iter().map(|column| column.name.clone()).collect();
        let source = format!("{}{}", self.source(&*dialect), batch.clause(None));
        let look =
            Look::new(&*dialect, self.table.to_string(), &key, columns, &source, batch.parameters().to_vec());
        Ok((Ahead { progress, look: Some(look), notes }, batch))
    }

    /// A key so far into the table, found by looking at few rows: of some that lie anywhere, or as near to that as the
    /// database can tell. False with the first key of the table where it cannot be told; `None` where there is no row.
    pub(super) async fn place(
        &self,
        sql: &mut dyn Sql,
        key: &Key,
        part: f64,
    ) -> Result<(Option<Vec<String>>, bool), UpdateError> {
        let dialect = sql.dialect();
        let source = self.source(&*dialect);
        let columns = quoted(&*dialect, key, Some("walked")).join(", ");
        let sampled = match dialect.sample(sql, &self.table, &source, PAGES).await? {
            // The same rows at each look, so that the same place can be found again.
            Some(Sample { from, .. }) => Some((format!("SELECT {columns} FROM {from} REPEATABLE (1)"), Vec::new())),
            None if dialect.system() == System::Sqlite => match dialect.describe(sql, &self.table).await? {
                Some(table) => self.spread(sql, &*dialect, key, &table).await?,
                None => None,
            },
            None => None,
        };
        if let Some((sampled, parameters)) = sampled {
            let columns = quoted(&*dialect, key, Some("sampled"));
            let texts: Vec<String> = columns.iter().map(|column| dialect.key_as_text(column)).collect();
            // The place is a number of the host's own.
            let statement = format!(
                "WITH sampled AS ({sampled}) SELECT {} FROM sampled ORDER BY {} LIMIT 1 \
                 OFFSET (SELECT CAST(count(*) * {part:.6} AS INTEGER) FROM sampled)",
                texts.join(", "),
                columns.join(", "),
            );
            if let Some(found) = sql.query(&statement, &parameters).await?.into_iter().next() {
                return Ok((Some(key_of(found, key.len())?), true));
            }
        }
        Ok((self.outermost(sql, key, "").await?, false))
    }

    /// SQLite: a query for rows of the table that lie at equal distances along its numbers; `None` where it has none.
    async fn spread(
        &self,
        sql: &mut dyn Sql,
        dialect: &dyn Dialect,
        key: &Key,
        table: &Table,
    ) -> Result<Option<(String, Vec<Value>)>, UpdateError> {
        let names = Names(System::Sqlite);
        let number = match table.rowid {
            true => ROWID_NAMES.iter().find(|name| names.column(table, name).is_none()).map(|name| (*name).to_owned()),
            // Its rows are in the order of its key.
            false => key.first().filter(|column| column.sql_type.to_ascii_uppercase().contains("INT")).map(|column| {
                dialect.quote(&column.name)
            }),
        };
        let Some(number) = number else { return Ok(None) };
        let source = self.source(dialect);
        let ends = format!("SELECT (SELECT min({number}) FROM {source}), (SELECT max({number}) FROM {source})");
        let found = sql.query(&ends, &[]).await?.into_iter().next().unwrap_or_default();
        let [Value::Integer(least), Value::Integer(greatest)] = found.as_slice() else { return Ok(None) };
        let columns = quoted(dialect, key, Some("walked")).join(", ");
        let sampled = format!(
            "WITH RECURSIVE step(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM step WHERE n < {PAGES}), \
             found AS (SELECT (SELECT s.{number} FROM {source} AS s WHERE s.{number} >= \
             CAST(?1 + (?2 - ?1) * (n / {PAGES:.1}) AS INTEGER) ORDER BY s.{number} LIMIT 1) AS number FROM step) \
             SELECT {columns} FROM {source} AS walked WHERE walked.{number} IN (SELECT number FROM found)"
        );
        // As floating point numbers: their difference may be greater than a whole number can be.
        let bound = [least, greatest].map(|end| Value::Real(*end as f64));
        Ok(Some((sampled, bound.to_vec())))
    }
}
