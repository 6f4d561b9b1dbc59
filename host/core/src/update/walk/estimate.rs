//! How far a walk has come, from statistics.

use super::{Key, Walk};
use crate::update::reach::within_reach;
use crate::update::sql::{Dialect, Estimate, Sql};
use crate::update::{Progress, UpdateError};

impl Walk {
    /// How far the walk has come.
    pub(in crate::update) async fn estimate(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
    ) -> Result<Option<Estimate>, UpdateError> {
        within_reach!(self.reach, sql, async {
            let position = self.position(progress)?;
            let key = self.key(sql).await?;
            let dialect = sql.dialect();
            let ranges = position.as_ref().map(|position| position.ranges.as_slice()).unwrap_or_default();
            let after = position.as_ref().map(|position| position.after.as_slice()).filter(|_| ranges.is_empty());
            let Some(Estimate { mut done, rows }) = dialect.estimate(sql, &self.table, &key, after).await? else {
                return Ok(None);
            };
            let Some(course) = position.as_ref().and_then(|position| position.walk.as_ref()) else {
                return Ok(Some(Estimate { done, rows }));
            };
            // Rows beyond the end are not part of the walk.
            let whole = self.place_of(sql, &*dialect, &key, &course.end, 1.0).await?;
            if !ranges.is_empty() {
                let mut left = 0.0;
                for range in ranges {
                    let begin = self.place_of(sql, &*dialect, &key, &range.after, 0.0).await?;
                    let end = self.place_of(sql, &*dialect, &key, &range.to, 0.0).await?;
                    left += (end - begin).max(0.0);
                }
                done = (whole - left).max(0.0);
            }
            let done = if whole > 0.0 { (done / whole).min(1.0) } else { done };
            Ok(Some(Estimate { done, rows: rows * whole }))
        })
    }

    /// The part of the table's rows at or before a key, or `otherwise`.
    async fn place_of(
        &self,
        sql: &mut dyn Sql,
        dialect: &dyn Dialect,
        key: &Key,
        at: &[String],
        otherwise: f64,
    ) -> Result<f64, UpdateError> {
        let estimate = dialect.estimate(sql, &self.table, key, Some(at)).await?;
        Ok(estimate.map_or(otherwise, |estimate| estimate.done))
    }
}
