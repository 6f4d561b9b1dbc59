//! `backfill`: sets columns of every row of a table, or of those that meet a condition, walking along its key.

use async_trait::async_trait;

use super::assign::assignments;
use super::keep::wanted::{self, Does, Wanted};
use super::keep::{BY_TRIGGER, KEEP, Keepable, Kept, Kind, LEAVE_OUT, Subject};
use super::names::Names;
use super::plan::Draft;
use super::reach::{Reach, SKIPPED};
use super::scan;
use super::sql::{Dialect, Estimate, Operation, Right, Sql, System, Table, TableName};
use super::verify::{Verifiable, Verified, not_as_assigned};
use super::walk::{Batch, Change, Moved, Outcome, Then, Walk};
use super::{Budget, Handler, Mode, PassedOver, Plan, Problem, Progress, Step, Trial, UpdateError};

/// What a backfill sets, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillDefinition {
    /// The table.
    pub table: TableName,
    /// The columns to walk along, NOT NULL and indexed in this order.
    pub key: Vec<String>,
    /// What stands after SET. It must leave the key alone: a row whose key moves ahead of the walk is met again.
    pub set: String,
    /// The condition that a row must meet to be set; it does not change which keys are walked.
    pub filter: Option<String>,
}

/// The handler of a backfill.
pub struct Backfill {
    definition: BackfillDefinition,
    walk: Walk,
    /// The update whose trigger keeps the rows.
    kept_for: Option<String>,
}

impl Backfill {
    /// A handler for this definition.
    pub fn new(definition: BackfillDefinition) -> Self {
        let parts = [
            ("kind", Some("backfill")),
            ("set", Some(definition.set.as_str())),
            ("where", definition.filter.as_deref()),
        ];
        let walk = Walk::new(definition.table.clone(), definition.key.clone()).defined_by(parts);
        Self { definition, walk, kept_for: None }
    }

    /// The same, on which so many may work at once on PostgreSQL.
    pub fn with_workers(self, workers: usize) -> Self {
        Self { walk: self.walk.with_workers(workers), ..self }
    }

    /// The same over the rows that `reach` says.
    pub fn reaching(self, reach: Reach) -> Self {
        Self { walk: self.walk.reaching(reach), ..self }
    }

    /// The same, with its rows verified: before the update ends where that is `always` to be, and else where a progress of
    /// [`verification`](super::verification) says so.
    pub fn verified(self, always: bool) -> Verified {
        Verified::new(self, always)
    }

    /// The same, with its rows kept by a trigger of the update of this name, and verified as [`Backfill::verified`] says.
    pub fn kept(self, update: &str, verify: bool) -> Kept {
        let kept_for = Some(update.to_owned());
        let promise = Self { walk: self.walk.over(false), definition: self.definition.clone(), kept_for };
        let walk = self.walk.defined_by([(KEEP, Some(BY_TRIGGER))]);
        Kept::new(
            update,
            Box::new(Self { walk, kept_for: promise.kept_for.clone(), ..self }.verified(verify)),
            Box::new(promise),
        )
    }

    /// The same without the walk's end, so that a test can show that it would notice. Never for production.
    #[cfg(feature = "test-switches")]
    #[doc(hidden)]
    pub fn endless(self) -> Self {
        Self { walk: self.walk.endless(), ..self }
    }

    /// The problem of a key that changes under the walk: rows that move ahead are met again, perhaps for ever.
    async fn moves_key(&self, sql: &mut dyn Sql) -> Result<Option<Problem>, UpdateError> {
        let assignments = assignments(&self.definition.set, sql.dialect().system());
        let assigned: Vec<String> = assignments.into_iter().flat_map(|assignment| assignment.columns).collect();
        let what = match self.walk.moved_by(sql, &assigned).await? {
            None => return Ok(None),
            Some(Moved::Key(column)) => format!("key column \"{column}\""),
            Some(Moved::Unique(column)) => format!("column \"{column}\", which makes the key unique"),
            Some(Moved::Source(column, of)) => {
                format!("column \"{column}\", from which \"{of}\" of the key is computed")
            }
        };
        Ok(Some(Problem::error(
            "set",
            format!("\"set\" assigns {what}, and a row that moves ahead is met again"),
            "walk along another key, or use kind \"batch\", whose rows you choose yourself",
        )))
    }

    /// The UPDATE of the rows that meet `clause`.
    fn statement(&self, dialect: &dyn Dialect, clause: &str) -> String {
        let own = match (&self.kept_for, dialect.system()) {
            (Some(update), System::Postgres) => wanted::own_batch(&dialect.table(&self.definition.table), update),
            _ => return format!("UPDATE {} SET {}{clause}", self.walk.source(dialect), self.definition.set),
        };
        // The batch writes what the trigger would.
        let word = if clause.is_empty() { "\nWHERE" } else { "\nAND" };
        format!("UPDATE {} SET {}{clause}{word} {own}", self.walk.source(dialect), self.definition.set)
    }

    /// What a batch executes, to be looked at.
    fn drafts(&self, dialect: &dyn Dialect, batch: &Batch) -> Vec<Draft> {
        let statement = self.statement(dialect, &batch.clause(self.definition.filter.as_deref()));
        vec![Draft::of("set", statement, batch)]
    }
}

#[async_trait]
impl Handler for Backfill {
    fn digest(&self) -> Option<String> {
        Some(self.walk.digest())
    }

    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        self.walk.accept(progress)?;
        Ok(Mode::Batched)
    }

    fn workers(&self) -> usize {
        self.walk.workers()
    }

    async fn cut(&self, sql: &mut dyn Sql, progress: &Progress, parts: usize) -> Result<Option<Progress>, UpdateError> {
        self.walk.cut(sql, progress, parts).await
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let statement = |dialect: &dyn Dialect, clause: &str| self.statement(dialect, clause);
        let change = Change { filter: self.definition.filter.as_deref(), statement: &statement, then: Then::Stay };
        let (batch, Outcome { skipped, .. }) = self.walk.advance(sql, progress, budget, &change).await?;
        Ok(batch.step(skipped, SKIPPED))
    }

    async fn pass_over(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<PassedOver>, UpdateError> {
        self.walk.pass_over(sql, progress).await
    }

    async fn run_key(&self, sql: &mut dyn Sql, key: &[String]) -> Result<(), UpdateError> {
        let statement = |dialect: &dyn Dialect, clause: &str| self.statement(dialect, clause);
        let change = Change { filter: self.definition.filter.as_deref(), statement: &statement, then: Then::Stay };
        self.walk.change_key(sql, key, &change).await.map(drop)
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        self.walk.estimate(sql, progress).await
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let mut problems = self.walk.check(sql, Some(Operation::Update)).await?;
        if problems.iter().any(Problem::is_error) {
            return Ok(problems);
        }
        if let Some(problem) = self.moves_key(sql).await? {
            problems.push(problem);
            return Ok(problems);
        }
        let drafts = |dialect: &dyn Dialect, batch: &Batch| {
            let reading = self.definition.filter.as_deref().map(|filter| {
                let table = self.walk.source(dialect);
                Draft::of("where", format!("SELECT 1 FROM {table}{}", batch.clause(Some(filter))), batch)
            });
            reading.into_iter().chain(self.drafts(dialect, batch)).collect()
        };
        self.walk.check_on(sql, problems, &[Right::Select, Right::Update], drafts).await
    }

    async fn trial(&self, sql: &mut dyn Sql, place: f64, budget: Budget) -> Result<Trial, UpdateError> {
        Ok(Trial::Batch(self.walk.ahead(sql, place, budget).await?.0))
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        self.walk.plan(sql, progress, budget, |dialect, batch| self.drafts(dialect, batch)).await.map(Some)
    }
}

#[async_trait]
impl Verifiable for Backfill {
    async fn wrong(&self, sql: &mut dyn Sql) -> Result<Result<String, String>, UpdateError> {
        let table = self.walk.table(sql).await?;
        let wrong = not_as_assigned(&self.definition.set, &*sql.dialect(), &table);
        Ok(wrong.map(|wrong| match &self.definition.filter {
            Some(filter) => format!("({filter}\n) AND ({wrong})"),
            None => wrong,
        }))
    }

    fn texts(&self) -> Vec<&str> {
        [self.definition.set.as_str()].into_iter().chain(self.definition.filter.as_deref()).collect()
    }

    fn column_settled(&self, system: System) -> Option<String> {
        let (names, read) = (Names(system), scan::code(self.definition.filter.as_deref()?, system));
        let mut assigned = assignments(&self.definition.set, system).into_iter().flat_map(|one| one.columns);
        assigned
            .find(|column| read.iter().filter_map(|token| token.name(system)).any(|name| names.equal(column, &name)))
    }

    fn redo(&self, dialect: &dyn Dialect, clause: &str) -> String {
        self.statement(dialect, clause)
    }

    fn walk(&self) -> &Walk {
        &self.walk
    }
}

#[async_trait]
impl Keepable for Backfill {
    async fn wanted(&self, sql: &mut dyn Sql) -> Result<Result<Wanted, Problem>, UpdateError> {
        let dialect = sql.dialect();
        let (system, BackfillDefinition { table, set, filter, .. }) = (dialect.system(), &self.definition);
        let refused =
            |why: String| Ok(Err(Problem::error(KEEP, format!("no trigger can keep the rows: {why}"), LEAVE_OUT)));
        let filter = filter.as_deref();
        let pairs = match wanted::pairs(set, system) {
            Ok(pairs) => pairs,
            Err(why) => return refused(why),
        };
        // The trigger runs on rows that are set already: setting them once more must change nothing.
        let assigned: Vec<&String> = pairs.iter().map(|(column, _)| column).collect();
        let own = wanted::own_reader(set, system);
        let settles = filter.is_some_and(|filter| wanted::named(filter, &assigned, system).is_some());
        if let Some(column) = own.as_ref().filter(|_| !settles) {
            return refused(format!(
                "\"set\" reads column \"{column}\", which it assigns, and would do so again each time a row is written; with a \
                 \"where\" that a row that is set does not meet any more, it can be kept"
            ));
        }
        let probes = vec![("set", wanted::backfill_query(&*dialect, table, &pairs, filter))];
        let does = match system {
            System::Postgres => Does::Function {
                at: "BEFORE INSERT OR UPDATE",
                when: self.kept_for.as_deref().map(wanted::unless_own),
                body: wanted::backfill_body(&*dialect, table, &pairs, filter),
            },
            System::Sqlite => {
                let Some(described) = dialect.describe(sql, table).await? else {
                    return Err(UpdateError::Failed(format!("there is no table \"{table}\"")));
                };
                let texts = self.texts();
                let stable = own.is_none() && super::verify::unstable(sql, &texts).await?.is_none();
                let (wrong, at) = match not_as_assigned(set, &*dialect, &described) {
                    Ok(wrong) if stable => (Some(wrong), "AFTER UPDATE".to_owned()),
                    // What comes to something else each time would have the trigger fire for ever where triggers may do that.
                    _ if own.is_none() => (None, self.others(&*dialect, &described, &assigned)),
                    _ => (None, "AFTER UPDATE".to_owned()),
                };
                let key = self.walk.key_columns(sql).await?;
                let key: Vec<String> = key.iter().map(|column| dialect.quote(&column.name)).collect();
                let table = dialect.quote(&table.name);
                wanted::backfill_statements(&table, &key, set, filter, wrong.as_deref(), &at)
            }
        };
        Ok(Ok(Wanted { table: table.clone(), only: self.walk.is_only(), does, probes }))
    }

    fn subject(&self) -> Subject<'_> {
        let BackfillDefinition { table, set, filter, .. } = &self.definition;
        // How names are read differs in their case alone, and columns are compared by the system's rules later.
        let assigned = assignments(set, System::Postgres).into_iter().flat_map(|one| one.columns).collect();
        let texts = [Some(set), filter.as_ref()].into_iter().flatten().cloned().collect();
        let row_security = self.walk.asks_policies();
        Subject { kind: Kind::Backfill, table, texts, assigned, into: None, row_security }
    }
}

impl Backfill {
    /// SQLite: at which updates the trigger runs, where it is to leave its own alone: those of other columns.
    fn others(&self, dialect: &dyn Dialect, table: &Table, assigned: &[&String]) -> String {
        let names = Names(dialect.system());
        let is_assigned = |name: &str| assigned.iter().any(|other| names.equal(other, name));
        let others = table.columns.iter().filter(|column| !is_assigned(&column.name));
        let others: Vec<String> = others.map(|column| dialect.quote(&column.name)).collect();
        format!("AFTER UPDATE OF {}", others.join(", "))
    }
}
