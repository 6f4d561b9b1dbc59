//! What verification asks of rows. Nothing is changed.

use std::sync::Arc;

use super::range::{quoted, same, texts};
use super::{Batch, Walk, key_of};
use crate::update::UpdateError;
use crate::update::sql::{Column, Sql, Table};

impl Walk {
    /// The columns that tell each row from the others.
    pub(in crate::update) async fn key_columns(&self, sql: &mut dyn Sql) -> Result<Vec<Column>, UpdateError> {
        Ok(self.key(sql).await?.to_vec())
    }

    /// True where the rows of inheriting tables are left alone.
    pub(in crate::update) fn is_only(&self) -> bool {
        self.is_alone()
    }

    /// True where policies say which rows it is about.
    pub(in crate::update) fn asks_policies(&self) -> bool {
        self.reach.row_security
    }

    /// The table as it is known.
    pub(in crate::update) async fn table(&self, sql: &mut dyn Sql) -> Result<Arc<Table>, UpdateError> {
        Ok(Arc::clone(&self.known(sql).await?.table))
    }

    /// Whether the row with a key meets `filter`.
    pub(in crate::update) async fn has(
        &self,
        sql: &mut dyn Sql,
        key: &[String],
        filter: &str,
    ) -> Result<bool, UpdateError> {
        self.reach.enter(sql).await?;
        let (known, dialect) = (self.known(sql).await?, sql.dialect());
        let clause = super::range::clause(&same(&*dialect, &known.key), Some(filter));
        let statement = format!("SELECT 1 FROM {}{clause} LIMIT 1", self.source(&*dialect));
        let parameters: Vec<_> = texts(Some(key)).collect();
        Ok(!sql.query(&statement, &parameters).await?.is_empty())
    }

    /// The keys of the batch's rows that meet `filter`, as texts, so many at most, in no order.
    pub(in crate::update) async fn keys_of(
        &self,
        sql: &mut dyn Sql,
        batch: &Batch,
        filter: &str,
        most: usize,
    ) -> Result<Vec<Vec<String>>, UpdateError> {
        let dialect = sql.dialect();
        let columns = quoted(&*dialect, &batch.key, None);
        let texts: Vec<String> = columns.iter().map(|column| dialect.key_as_text(column)).collect();
        let (texts, source) = (texts.join(", "), self.source(&*dialect));
        let statement = format!("SELECT {texts} FROM {source}{} LIMIT {most}", batch.clause(Some(filter)));
        let rows = sql.query(&statement, batch.parameters()).await?;
        rows.into_iter().map(|row| key_of(row, columns.len())).collect()
    }
}
