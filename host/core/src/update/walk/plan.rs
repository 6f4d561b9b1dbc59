//! A walk looked at before it is made: whether its statements prepare, and how the database would go about them.

use super::progress::Position;
use super::range::{Ends, Key, Lower, Range, Side};
use super::{Batch, Walk, key_of};
use crate::update::explain::explain_with;
use crate::update::plan::{Draft, Plan, Planned};
use crate::update::reach::within_reach;
use crate::update::sql::{Dialect, Operation, Right, Sql, System, TableName};
use crate::update::{Budget, Next, Problem, Progress, UpdateError};

impl Draft {
    /// A statement of a walk, which holds the clause of the batch and no other parameter.
    pub(in crate::update) fn of(field: &'static str, sql: String, batch: &Batch) -> Self {
        Self { field, sql, parameters: batch.parameters().to_vec(), explained: true }
    }
}

impl Walk {
    /// What is wrong with the table, the key, the user's rights and the statements of a batch; the first of the
    /// statements that is refused, since the others are likely to be refused for the same reason.
    pub(in crate::update) async fn check_with(
        &self,
        sql: &mut dyn Sql,
        operation: Option<Operation>,
        rights: &[Right],
        statements: impl FnOnce(&dyn Dialect, &Batch) -> Vec<Draft> + Send,
    ) -> Result<Vec<Problem>, UpdateError> {
        let problems = self.check(sql, operation).await?;
        self.check_on(sql, problems, rights, statements).await
    }

    /// As [`Walk::check_with`], where the walk itself was looked at already, with these problems.
    pub(in crate::update) async fn check_on(
        &self,
        sql: &mut dyn Sql,
        mut problems: Vec<Problem>,
        rights: &[Right],
        statements: impl FnOnce(&dyn Dialect, &Batch) -> Vec<Draft> + Send,
    ) -> Result<Vec<Problem>, UpdateError> {
        within_reach!(self.reach, sql, async {
            if !problems.iter().any(Problem::is_error) {
                problems.extend(self.check_rights_to_hold(sql, rights).await?);
            }
            if problems.iter().any(Problem::is_error) {
                return Ok(problems);
            }
            let dialect = sql.dialect();
            let key = self.key(sql).await?;
            let batch = Batch::between(&*dialect, key, None, None, 0);
            let mut drafts = vec![self.bounding(&*dialect, &batch.key, None, None, 0)];
            drafts.extend(statements(&*dialect, &batch));
            for draft in drafts.iter().filter(|draft| draft.explained) {
                if let Some(problem) = explain_with(sql, draft.field, &draft.sql, &draft.parameters).await? {
                    problems.push(problem);
                    return Ok(problems);
                }
            }
            if dialect.system() == System::Sqlite && sorts_all(sql, &drafts).await? {
                problems.push(self.not_ordered());
            }
            Ok(problems)
        })
    }

    /// The rights that an update lacks. Where a trigger may skip rows the batch locks them first, for which PostgreSQL wants
    /// the right to change them, also where they are only deleted.
    async fn check_rights_to_hold(&self, sql: &mut dyn Sql, rights: &[Right]) -> Result<Option<Problem>, UpdateError> {
        let dialect = sql.dialect();
        let guarded = dialect.describe(sql, &self.table).await?.is_some_and(|table| table.guarded);
        let holds = guarded && rights.contains(&Right::Delete);
        let rights = if holds { [rights, &[Right::Update]].concat() } else { rights.to_vec() };
        check_rights(sql, &self.table, &rights).await
    }

    /// What a batch from `progress` on executes: the statement that finds its end, and those that `statements` makes.
    pub(in crate::update) async fn plan(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
        budget: Budget,
        statements: impl FnOnce(&dyn Dialect, &Batch) -> Vec<Draft> + Send,
    ) -> Result<Plan, UpdateError> {
        within_reach!(self.reach, sql, async {
            let estimate = self.estimate(sql, progress).await?;
            let dialect = sql.dialect();
            let key = self.key(sql).await?;
            let position = self.position(progress)?;
            // Of several parts the first stands for all.
            let left = position.as_ref().map(Position::left).unwrap_or_default();
            let end = match left.first() {
                Some((_, end)) => Some(end.to_vec()),
                None => self.outermost(sql, &key, " DESC").await?,
            };
            let after = match (left.first(), &position) {
                (Some((after, _)), _) => Some(after.to_vec()),
                (None, Some(position)) => Some(position.after.clone()),
                // A typical batch has both ends, and begins far from the table's first row.
                (None, None) => self.place(sql, &key, 0.5).await?.0,
            };
            let upto = match &end {
                Some(end) => {
                    let ends = Ends { lower: Some(behind(after.as_deref())), upper: Side::At(end) };
                    let (statement, parameters) = self.bound_statement(&*dialect, &key, ends, budget.items);
                    let found = sql.query(&statement, &parameters).await?.into_iter().next();
                    let found = found.map(|row| key_of(row, key.len())).transpose()?;
                    found.or_else(|| Some(end.clone()))
                }
                None => None,
            };
            let bounding = self.bounding(&*dialect, &key, after.as_deref(), end.as_deref(), budget.items);
            let batch = Batch::between(&*dialect, key, after, upto, budget.items);
            let mut drafts = vec![bounding];
            drafts.extend(statements(&*dialect, &batch));
            let mut plan = Plan { estimate, ..Plan::default() };
            for draft in drafts {
                match &batch.upto {
                    Some(_) => plan.add(sql, draft, &self.table, &self.key).await?,
                    // There is no row: what the database says of NULL would mislead.
                    None => plan.statements.push(Planned::unexplained(draft.sql)),
                }
            }
            Ok(plan)
        })
    }

    /// The statement that finds the end of a batch.
    fn bounding(
        &self,
        dialect: &dyn Dialect,
        key: &Key,
        after: Option<&[String]>,
        end: Option<&[String]>,
        items: u64,
    ) -> Draft {
        let ends = Ends { lower: Some(behind(after)), upper: side(end) };
        let (sql, parameters) = self.bound_statement(dialect, key, ends, items);
        Draft { field: "key", sql, parameters, explained: true }
    }
}

/// Where a batch begins that is only looked at.
fn behind(after: Option<&[String]>) -> Lower<'_> {
    Lower::after(side(after))
}

fn side(key: Option<&[String]>) -> Side<'_> {
    key.map_or(Side::Unknown, Side::At)
}

impl Batch {
    /// A batch with both ends, as most are; ends that are not known are NULL.
    fn between(
        dialect: &dyn Dialect,
        key: Key,
        after: Option<Vec<String>>,
        upto: Option<Vec<String>>,
        items: u64,
    ) -> Self {
        let ends = Ends { lower: Some(behind(after.as_deref())), upper: side(upto.as_deref()) };
        let range = Range::new(dialect, &key, ends);
        Self {
            key,
            after,
            first: None,
            upto,
            range,
            end: None,
            shared: None,
            items,
            next: Next::Finished,
            left_out: 0,
            guarded: false,
            followed: false,
            ties: false,
            notes: Vec::new(),
        }
    }

    /// The ends of a batch that is only looked at: it has both.
    pub(in crate::update) fn typical_ends(&self) -> Ends<'_> {
        Ends { lower: Some(behind(self.after.as_deref())), upper: side(self.upto.as_deref()) }
    }
}

/// True where SQLite would sort all rows to find the end of a batch, which the first of the drafts does: an index over the
/// key is of another collation than the key.
async fn sorts_all(sql: &mut dyn Sql, drafts: &[Draft]) -> Result<bool, UpdateError> {
    let Some(bounding) = drafts.first() else { return Ok(false) };
    let explanation = sql.dialect().explain(sql, &bounding.sql, &bounding.parameters).await?;
    Ok(explanation.lines.iter().any(|line| line.trim() == "USE TEMP B-TREE FOR ORDER BY"))
}

/// The problem of rights that a user lacks on the table of an update.
pub(in crate::update) async fn check_rights(
    sql: &mut dyn Sql,
    table: &TableName,
    rights: &[Right],
) -> Result<Option<Problem>, UpdateError> {
    let dialect = sql.dialect();
    let lacking = dialect.lacking(sql, table, rights).await?;
    Ok(lacking.map(|lacking| {
        Problem::error("table", format!("role \"{}\" lacks {}", lacking.role, lacking.what), lacking.hint)
    }))
}
