//! A walk looked at before it is made: whether its statements prepare, and how the database would go about them.

use super::range::{Range, texts};
use super::{Batch, Walk};
use crate::update::explain::explain_with;
use crate::update::plan::{Draft, Plan, Planned};
use crate::update::reach::within_reach;
use crate::update::sql::{Column, Dialect, Operation, Right, Sql, System, TableName, Value};
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
        within_reach!(self.reach, sql, async {
            let mut problems = self.check(sql, operation).await?;
            if !problems.iter().any(Problem::is_error) {
                problems.extend(self.check_rights_to_hold(sql, rights).await?);
            }
            if problems.iter().any(Problem::is_error) {
                return Ok(problems);
            }
            let dialect = sql.dialect();
            let key = self.key(sql).await?;
            let batch = Batch::between(&*dialect, &key, None, None, 0);
            let mut drafts = vec![self.bounding(&*dialect, &key, None, None, 0)];
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
            let end = match position.as_ref().and_then(|position| position.walk.as_ref()) {
                Some(course) => Some(course.end.clone()),
                None => self.outermost(sql, &key, " DESC").await?,
            };
            let after = match position {
                Some(position) => Some(position.after),
                // From the second batch on the statements have both ends: a typical batch goes on from somewhere.
                None => self.outermost(sql, &key, "").await?,
            };
            let upto = match &end {
                Some(end) => self.bound(sql, &key, after.as_deref(), end, budget).await?.or_else(|| Some(end.clone())),
                None => None,
            };
            let batch = Batch::between(&*dialect, &key, after.as_deref(), upto.as_deref(), budget.items);
            let mut drafts = vec![self.bounding(&*dialect, &key, after.as_deref(), end.as_deref(), budget.items)];
            drafts.extend(statements(&*dialect, &batch));
            let mut plan = Plan { estimate, ..Plan::default() };
            for draft in drafts {
                match upto {
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
        key: &[Column],
        after: Option<&[String]>,
        end: Option<&[String]>,
        items: u64,
    ) -> Draft {
        let offset = Value::Integer(i64::try_from(items.saturating_sub(1)).unwrap_or(i64::MAX));
        let parameters = values(key, after).chain(values(key, end)).chain([offset]).collect();
        let parts = after.map_or(key.len(), <[String]>::len);
        let sql = self.bound_statement(dialect, key, Some(parts), true, "");
        Draft { field: "key", sql, parameters, explained: true }
    }
}

impl Batch {
    /// A batch with both ends, as most are; ends that are not known are NULL.
    fn between(
        dialect: &dyn Dialect,
        key: &[Column],
        after: Option<&[String]>,
        upto: Option<&[String]>,
        items: u64,
    ) -> Self {
        let any = vec![String::new(); key.len()];
        let lower = after.map_or(any.as_slice(), |after| &any[..after.len().min(any.len())]);
        let condition = Range::new(dialect, key, Some(lower), &any).condition;
        let range = Range { condition, parameters: values(key, after).chain(values(key, upto)).collect() };
        let owned = |end: Option<&[String]>| end.map(<[String]>::to_vec);
        Self {
            key: key.to_vec(),
            after: owned(after),
            upto: owned(upto),
            range,
            end: None,
            items,
            next: Next::Finished,
            left_out: 0,
            guarded: false,
            ties: false,
            notes: Vec::new(),
        }
    }
}

/// True where SQLite would sort all rows to find the end of a batch, which the first of the drafts does: an index over the
/// key is of another collation than the key.
async fn sorts_all(sql: &mut dyn Sql, drafts: &[Draft]) -> Result<bool, UpdateError> {
    let Some(bounding) = drafts.first() else { return Ok(false) };
    let explanation = sql.dialect().explain(sql, &bounding.sql, &bounding.parameters).await?;
    Ok(explanation.lines.iter().any(|line| line.trim() == "USE TEMP B-TREE FOR ORDER BY"))
}

/// The values of one end, NULL where it is not known.
fn values<'a>(key: &[Column], end: Option<&'a [String]>) -> impl Iterator<Item = Value> + use<'a> {
    let unknown = if end.is_none() { key.len() } else { 0 };
    texts(end).chain(std::iter::repeat_n(Value::Null, unknown))
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
