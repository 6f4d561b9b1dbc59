//! A place in the midst of a walk, found without walking there, and what a batch is about that begins there.

use super::progress::Position;
use super::range::{Key, quoted};
use super::{Walk, key_of};
use crate::update::sql::{Sample, Sql};
use crate::update::trial::{Ahead, Look};
use crate::update::{Budget, Progress, UpdateError};

/// The pages of the table that are looked at.
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
        let look = Look::new(&*dialect, self.table.to_string(), &key, columns, &source, batch.parameters().to_vec());
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
        if let Some(Sample { from, .. }) = dialect.sample(sql, &self.table, &source, PAGES).await? {
            let sampled = quoted(&*dialect, key, Some("sampled"));
            let texts: Vec<String> = sampled.iter().map(|column| dialect.key_as_text(column)).collect();
            // The place is a number of the host's own.
            let statement = format!(
                "WITH sampled AS (SELECT {columns} FROM {from}) SELECT {} FROM sampled ORDER BY {} LIMIT 1 \
                 OFFSET (SELECT CAST(count(*) * {part:.6} AS INTEGER) FROM sampled)",
                texts.join(", "),
                sampled.join(", "),
            );
            if let Some(found) = sql.query(&statement, &[]).await?.into_iter().next() {
                return Ok((Some(key_of(found, key.len())?), true));
            }
        }
        Ok((self.outermost(sql, key, "").await?, false))
    }
}
