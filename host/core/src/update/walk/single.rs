//! A batch of one key, wherever the walk is.

use serde_json::Map;

use super::advance::{Change, Outcome};
use super::range::{Ends, Lower, Range, Side, compared, quoted};
use super::{Batch, Walk, key_of};
use crate::update::sql::{Sql, Value};
use crate::update::{Next, Progress, UpdateError};

impl Walk {
    /// The batch of the rows with a key; none of them need be there any more.
    async fn single(&self, sql: &mut dyn Sql, key: &[String]) -> Result<Batch, UpdateError> {
        self.reach.enter(sql).await?;
        let (known, dialect) = (self.known(sql).await?, sql.dialect());
        if key.len() != known.key.len() {
            return Err(UpdateError::Failed(format!(
                "the key of a row that was skipped has {} parts, and the key of table \"{}\" has {}: what was skipped under \
                 another key cannot be found under this one",
                key.len(),
                self.table,
                known.key.len()
            )));
        }
        let ends = Ends { lower: Some(Lower::from(key)), upper: Side::At(key) };
        let range = Range::new(&*dialect, &known.key, ends);
        let items = self.count(sql, &range).await?;
        Ok(Batch {
            key: known.key.clone(),
            after: None,
            first: Some(key.to_vec()),
            upto: Some(key.to_vec()),
            range,
            end: None,
            shared: None,
            items,
            next: Next::Continue(Progress(Map::new())),
            left_out: 0,
            guarded: known.table.guarded,
            followed: known.table.followed,
            ties: items > 1,
            notes: Vec::new(),
        })
    }

    /// Has `change` done to the rows with a key.
    pub(in crate::update) async fn change_key(
        &self,
        sql: &mut dyn Sql,
        key: &[String],
        change: &Change<'_>,
    ) -> Result<(Batch, Outcome), UpdateError> {
        let batch = self.single(sql, key).await?;
        let outcome = match batch.items {
            0 => Outcome::default(),
            _ => self.carry_out(sql, &batch, change).await?,
        };
        Ok((batch, outcome))
    }

    /// The same batch for statements that somebody wrote: with the key before it, by which they may find its rows.
    pub(in crate::update) async fn single_behind(
        &self,
        sql: &mut dyn Sql,
        key: &[String],
    ) -> Result<Batch, UpdateError> {
        let batch = self.single(sql, key).await?;
        let dialect = sql.dialect();
        let values = (1..).zip(batch.key.iter());
        let before = compared(
            &quoted(&*dialect, &batch.key, Some("walked")),
            "<",
            values.map(|(number, column)| dialect.key_from_text(number, column)),
        );
        let statement = self.in_order(&*dialect, &batch.key, &format!("\nWHERE {before}"), " DESC", "LIMIT 1");
        let parameters: Vec<Value> =
            key.iter().zip(batch.key.iter()).map(|(text, column)| dialect.key_bound(text, column)).collect();
        let row = sql.query(&statement, &parameters).await?.into_iter().next();
        let after = row.map(|row| key_of(row, batch.key.len())).transpose()?;
        Ok(Batch { after, ..batch })
    }
}
