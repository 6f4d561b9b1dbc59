//! What is left of a walk, cut into ranges that several workers do at once.
//!
//! The cuts are keys of rows from a sample of the table, in the key's own order: so the ranges have about the same number of
//! rows, whatever the keys are and wherever they lie, and no statistics are needed that somebody may not have gathered.

use super::progress::{Position, Shared, Span};
use super::range::{Ends, Lower, Range, Side, quoted};
use super::{Walk, key_of};
use crate::update::reach::within_reach;
use crate::update::sql::{Sample, Sql};
use crate::update::{Progress, UpdateError};

/// The pages of the table that are looked at.
const PAGES: f64 = 300.0;
/// Fewer rows than this are not worth a range of their own.
const LEAST: f64 = 1_000.0;

impl Walk {
    /// The same walk, on which so many may work at once.
    pub(in crate::update) fn with_workers(self, workers: usize) -> Self {
        Self { workers: workers.max(1), ..self }
    }

    /// How many may work on it at once.
    pub(in crate::update) fn workers(&self) -> usize {
        self.workers
    }

    /// The same progress with what is left cut into so many ranges, or fewer where there is little; `None` where it stays in
    /// one, or has not begun.
    pub(in crate::update) async fn cut(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
        parts: usize,
    ) -> Result<Option<Progress>, UpdateError> {
        let Some(Position { after, items, left_out, walk: Some(mut course), ranges }) = self.position(progress)? else {
            return Ok(None);
        };
        if !ranges.is_empty() || after.len() != course.end.len() {
            return Ok(None);
        }
        let mut places = vec![after];
        for place in self.places(sql, &places[0], &course.end, parts).await? {
            // Rows of several tables may have the same key.
            if places.last() != Some(&place) && place != course.end {
                places.push(place);
            }
        }
        if places.len() < 2 {
            return Ok(None);
        }
        places.push(course.end.clone());
        let span = |ends: &[Vec<String>]| Span { from: ends[0].clone(), after: ends[0].clone(), to: ends[1].clone() };
        let ranges: Vec<Span> = places.windows(2).map(span).collect();
        course.shared = Some(Shared { from: places[0].clone(), to: course.end.clone(), own: Vec::new() });
        let position = Position { after: Vec::new(), items, left_out, walk: Some(course), ranges };
        Ok(Some(position.into_progress()))
    }

    /// Keys between two others that part the rows there into so many ranges of about the same size, or fewer.
    async fn places(
        &self,
        sql: &mut dyn Sql,
        after: &[String],
        end: &[String],
        most: usize,
    ) -> Result<Vec<Vec<String>>, UpdateError> {
        within_reach!(self.reach, sql, async {
            let dialect = sql.dialect();
            let key = self.key(sql).await?;
            let source = self.source(&*dialect);
            let Some(Sample { from, part: Some(part) }) = dialect.sample(sql, &self.table, &source, PAGES).await?
            else {
                return Ok(Vec::new());
            };
            let ends = Ends { lower: Some(Lower::after(Side::At(after))), upper: Side::At(end) };
            let range = Range::unshaped(&*dialect, &key, ends, Some("walked"));
            let columns = quoted(&*dialect, &key, Some("walked")).join(", ");
            let parts: Vec<String> = (1..=key.len()).map(|part| format!("part_{part}")).collect();
            let texts: Vec<String> = parts.iter().map(|part| dialect.key_as_text(part)).collect();
            let named = parts.join(", ");
            // As many parts as the rows are worth, by how many the sample stands for.
            let worth = format!("least({most}, (many / ({} * {LEAST}))::bigint)", part.max(f64::MIN_POSITIVE));
            let statement = format!(
                "WITH sampled ({named}) AS (SELECT {columns} FROM {from}\nWHERE {}),\n\
                 numbered AS (SELECT {named}, row_number() OVER (ORDER BY {named}) AS place, count(*) OVER () AS many \
                 FROM sampled)\n\
                 SELECT {} FROM numbered WHERE place < many \
                 AND place * {worth} / many <> (place - 1) * {worth} / many ORDER BY place",
                range.condition,
                texts.join(", "),
            );
            sql.query(&statement, &range.parameters).await?.into_iter().map(|row| key_of(row, usize::MAX)).collect()
        })
    }
}
