//! Verification: once the rows of an update are done, they are looked at again, and what is not as its kind promises is found.
//!
//! The look is a walk like the one before: in batches, at the pace of the same controller, with a progress of its own,
//! `{"verify": {"walk": {…}, "looked": N, "wrong": N, "keys": [[…], …]}}`. It changes nothing, unless it was asked to repair. A
//! row that is wrong is read once more before it counts, for a user may just have written it. An update with wrong rows does
//! not end: it is quarantined, and those that depend on it wait. Tried again, it looks at the rows that were wrong, and ends
//! where they are right by then.

mod progress;

use async_trait::async_trait;
use serde_json::Map;

pub(in crate::update) use self::progress::skipped_of_looked;
pub use self::progress::{is_verification, verification};

use self::progress::Verifying;
use super::assign::{Assignment, assignments, listed};
use super::names::Names;
use super::scan::{self, Kind, Token};
use super::sql::{Dialect, Estimate, Sql, System, Table, Value};
use super::tolerance::LeftBehind;
use super::trial::Trial;
use super::walk::{Batch, Walk};
use super::{Budget, Handler, Mode, Next, Opening, PassedOver, Plan, Problem, Progress, Step, UpdateError};

/// The member of a progress that says that rows are looked at again.
pub const VERIFY: &str = "verify";

/// The keys of wrong rows that are kept: enough to see what is wrong with them.
const KEPT: usize = 20;

/// What there is to do so that an update that cannot be verified runs.
const LEAVE_OUT: &str = "leave \"verify\" out, and look at the rows by a query of your own";

/// A kind of which it can be said whether a row is as its definition says.
#[async_trait]
pub(super) trait Verifiable: Handler {
    /// The condition of a row that is not as promised; or why nobody can say, in words that follow "cannot be verified: ".
    ///
    /// # Errors
    /// Whatever the database says.
    async fn wrong(&self, sql: &mut dyn Sql) -> Result<Result<String, String>, UpdateError>;

    /// The column by which a row that is done does not meet the condition any more, so that the look cannot compare it.
    fn column_settled(&self, system: System) -> Option<String> {
        let _ = system;
        None
    }

    /// The texts of the definition that say what rows are promised to be.
    fn texts(&self) -> Vec<&str>;

    /// The statement that does the rows of a WHERE clause again.
    fn redo(&self, dialect: &dyn Dialect, clause: &str) -> String;

    /// The walk over the rows.
    fn walk(&self) -> &Walk;
}

/// A handler whose rows can be looked at again.
pub struct Verified {
    handler: Box<dyn Verifiable>,
    /// True where that is done before the update ends.
    always: bool,
}

impl Verified {
    /// The handler, which looks at its rows again before the update ends where that is `always` to be, and else where a
    /// progress says so.
    pub(super) fn new(handler: impl Verifiable + 'static, always: bool) -> Self {
        Self { handler: Box::new(handler), always }
    }

    /// The condition of a row that is wrong.
    async fn wrong(&self, sql: &mut dyn Sql) -> Result<String, UpdateError> {
        let wrong = self.handler.wrong(sql).await?;
        wrong.map_err(|why| UpdateError::Failed(format!("the rows of this update cannot be verified: {why}")))
    }

    /// A step of the update's own work: where that ends, its rows are verified, if they are to be.
    fn verified_next(&self, step: Step) -> Step {
        match step.next {
            Next::Finished if self.always => {
                let note = "its rows are done, and are looked at again now".to_owned();
                Step { next: Next::Continue(verification(false)), ..step }.noting([note])
            }
            _ => step,
        }
    }

    /// Verifies the next rows.
    async fn next(
        &self,
        sql: &mut dyn Sql,
        mut verifying: Verifying,
        budget: Budget,
        left: Option<&dyn LeftBehind>,
    ) -> Result<Step, UpdateError> {
        let wrong = self.wrong(sql).await?;
        if verifying.ended {
            return self.verify_wrong_ones(sql, verifying, &wrong).await;
        }
        let walk = self.handler.walk();
        let batch = walk.batch(sql, &verifying.place(), budget).await?;
        let mut found = if batch.items > 0 { walk.matching(sql, &batch, Some(&wrong)).await? } else { 0 };
        if found > 0 && verifying.repair {
            let statement = self.handler.redo(&*sql.dialect(), &batch.clause(Some(&wrong)));
            verifying.repaired += sql.execute(&statement, batch.parameters()).await?;
        }
        if found > 0 {
            found = walk.matching(sql, &batch, Some(&wrong)).await?;
        }
        let mut skipped = 0;
        match left {
            // Those that were skipped are told by their keys, so that all of these are read.
            Some(left) if found > 0 => {
                let keys = walk.keys_of(sql, &batch, &wrong, usize::try_from(found).unwrap_or(usize::MAX)).await?;
                found = keys.len() as u64;
                let wrong = left.without(sql, keys).await?;
                skipped = found - wrong.len() as u64;
                found -= skipped;
                verifying.keys.extend(wrong.into_iter().take(KEPT.saturating_sub(verifying.keys.len())));
            }
            None if found > 0 && verifying.keys.len() < KEPT => {
                let more = KEPT - verifying.keys.len();
                verifying.keys.extend(walk.keys_of(sql, &batch, &wrong, more).await?);
            }
            _ => {}
        }
        verifying.wrong += found;
        verifying.skipped += skipped;
        Ok(self.looked_at(verifying, batch, sql.dialect().system()))
    }

    /// The step of a batch that was looked at.
    fn looked_at(&self, mut verifying: Verifying, batch: Batch, system: System) -> Step {
        let items = batch.items;
        verifying.looked += items;
        match batch.next {
            Next::Continue(place) => verifying.walk = place.0,
            Next::Finished if verifying.wrong == 0 => {
                return Step::finished(items).noting([self.all_right(&verifying, system)]);
            }
            Next::Finished => (verifying.walk, verifying.ended) = (Map::new(), true),
        }
        Step::new(items, Next::Continue(verifying.into_progress()))
    }

    /// Verifies once more the rows that were wrong.
    async fn verify_wrong_ones(
        &self,
        sql: &mut dyn Sql,
        verifying: Verifying,
        wrong: &str,
    ) -> Result<Step, UpdateError> {
        let mut still = Vec::new();
        for key in &verifying.keys {
            if self.handler.walk().has(sql, key, wrong).await? {
                still.push(format!("({})", key.join(", ")));
            }
        }
        if !still.is_empty() {
            let Verifying { looked, wrong, skipped, repaired, .. } = verifying;
            return Err(UpdateError::Unverified { looked, wrong, skipped, repaired, keys: still.join(", ") });
        }
        // Nobody knows of the others.
        if verifying.wrong > verifying.keys.len() as u64 {
            let anew = Verifying { repair: verifying.repair, ..Verifying::default() };
            return Ok(Step::new(0, Next::Continue(anew.into_progress())));
        }
        Ok(Step::finished(0).noting([self.all_right(&verifying, sql.dialect().system())]))
    }

    /// What was found, where nothing is wrong.
    fn all_right(&self, verifying: &Verifying, system: System) -> String {
        let Verifying { looked, wrong, skipped, repaired, .. } = verifying;
        let looked = looked.saturating_sub(*skipped);
        let since = match (wrong, repaired) {
            (0, 0) => String::new(),
            (0, repaired) => format!(", {repaired} of them since they were done again"),
            (wrong, _) => format!(", {wrong} of them since somebody mended them"),
        };
        let besides = match skipped {
            0 => String::new(),
            skipped => format!("; besides these {skipped} are not, which were skipped"),
        };
        match self.handler.column_settled(system) {
            None => format!("verified: {looked} rows are as the definition says{since}{besides}"),
            Some(column) => format!(
                "verified in part: of {looked} rows none meets \"where\" and is otherwise than the definition says{since}; rows \
                 that do not meet it any more, by column \"{column}\", were not compared{besides}"
            ),
        }
    }
}

#[async_trait]
impl Handler for Verified {
    fn digest(&self) -> Option<String> {
        self.handler.digest()
    }

    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        match Verifying::of(progress)? {
            // An iteration by itself: what was found wrong before stays written down, whatever comes of it.
            Some(Verifying { ended: true, .. }) => Ok(Mode::OneShot),
            Some(verifying) => self.handler.walk().accept(&verifying.place()).map(|()| Mode::Batched),
            None => self.handler.mode(progress),
        }
    }

    fn opening(&self) -> Opening {
        self.handler.opening()
    }

    fn workers(&self) -> usize {
        self.handler.workers()
    }

    async fn cut(&self, sql: &mut dyn Sql, progress: &Progress, parts: usize) -> Result<Option<Progress>, UpdateError> {
        match Verifying::of(progress)? {
            Some(_) => Ok(None),
            None => self.handler.cut(sql, progress, parts).await,
        }
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        if let Some(verifying) = Verifying::of(progress)? {
            return self.next(sql, verifying, budget, None).await;
        }
        Ok(self.verified_next(self.handler.run(sql, progress, budget).await?))
    }

    async fn verify(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
        budget: Budget,
        left: &dyn LeftBehind,
    ) -> Result<Step, UpdateError> {
        match Verifying::of(progress)? {
            Some(verifying) => self.next(sql, verifying, budget, Some(left)).await,
            None => self.run(sql, progress, budget).await,
        }
    }

    async fn pass_over(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<PassedOver>, UpdateError> {
        match Verifying::of(progress)? {
            // What is wrong with a single row was found before, and is not to be passed over.
            Some(Verifying { ended: true, .. }) => Ok(None),
            // It cannot be compared, or not be done again.
            Some(mut verifying) => {
                let batch = self.handler.walk().batch(sql, &verifying.place(), Budget { items: 1 }).await?;
                let Some(key) = batch.upto.clone() else { return Ok(None) };
                verifying.skipped += batch.items;
                Ok(Some(PassedOver { step: self.looked_at(verifying, batch, sql.dialect().system()), key }))
            }
            None => {
                let passed = self.handler.pass_over(sql, progress).await?;
                Ok(passed.map(|PassedOver { step, key }| PassedOver { step: self.verified_next(step), key }))
            }
        }
    }

    async fn run_key(&self, sql: &mut dyn Sql, key: &[String]) -> Result<(), UpdateError> {
        self.handler.run_key(sql, key).await
    }

    async fn abandon(&self, sql: &mut dyn Sql) -> Result<Option<String>, UpdateError> {
        self.handler.abandon(sql).await
    }

    async fn run_outside(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Step, UpdateError> {
        self.handler.run_outside(sql, progress).await
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        match Verifying::of(progress)? {
            Some(Verifying { ended: true, .. }) => Ok(None),
            Some(verifying) => self.handler.walk().estimate(sql, &verifying.place()).await,
            None => self.handler.estimate(sql, progress).await,
        }
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let mut problems = self.handler.check(sql).await?;
        if self.always && !problems.iter().any(Problem::is_error) {
            problems.extend(self.unverifiable(sql).await?);
            problems.extend(self.handler.column_settled(sql.dialect().system()).map(|column| {
                let message = format!(
                    "\"where\" reads column \"{column}\", which \"set\" assigns: a row that is done may not meet it any more, and \
                     is not compared"
                );
                Problem::warning(VERIFY, message, "leave that condition out, and have all rows set and compared")
            }));
        }
        Ok(problems)
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        match Verifying::of(progress)? {
            Some(_) => Ok(None),
            None => self.handler.plan(sql, progress, budget).await,
        }
    }

    async fn trial(&self, sql: &mut dyn Sql, place: f64, budget: Budget) -> Result<Trial, UpdateError> {
        self.handler.trial(sql, place, budget).await
    }

    async fn unverifiable(&self, sql: &mut dyn Sql) -> Result<Option<Problem>, UpdateError> {
        let why = match unstable(sql, &self.handler.texts()).await? {
            Some(why) => Some(why),
            None => self.handler.wrong(sql).await?.err(),
        };
        Ok(why
            .map(|why| Problem::error(VERIFY, format!("the rows of this update cannot be verified: {why}"), LEAVE_OUT)))
    }
}

/// The condition of a row in which a column is not what was assigned to it; or why nobody can say.
pub(super) fn not_as_assigned(set: &str, dialect: &dyn Dialect, table: &Table) -> Result<String, String> {
    let system = dialect.system();
    let all = assignments(set, system);
    let names = Names(system);
    let assigned: Vec<&String> = all.iter().flat_map(|assignment| &assignment.columns).collect();
    for Assignment { value, .. } in &all {
        let code = scan::code(value, system);
        let reads = |token: &Token<'_>| {
            let name = token.name(system)?;
            assigned.iter().find(|column| names.equal(column, &name)).copied()
        };
        if let Some(column) = code.iter().find_map(reads) {
            return Err(format!(
                "\"set\" reads column \"{column}\", which it assigns, so that a row does not tell what it was"
            ));
        }
        if code.iter().any(|token| token.is("DEFAULT")) {
            return Err("\"set\" assigns DEFAULT".to_owned());
        }
    }
    let wrong: Result<Vec<String>, String> = all.iter().map(|one| differs(one, dialect, table)).collect();
    Ok(wrong?.join("\nOR "))
}

fn differs(assignment: &Assignment, dialect: &dyn Dialect, table: &Table) -> Result<String, String> {
    let Assignment { target, columns, value } = assignment;
    let system = dialect.system();
    let Some(targets) = listed(target, system) else {
        return Ok(one_differs(target, columns.first(), value, dialect, table));
    };
    if let Some(values) = listed(value, system).filter(|values| values.len() == targets.len()) {
        let pairs = targets.iter().zip(columns).zip(values);
        let differ = pairs.map(|((target, column), value)| one_differs(target, Some(column), &value, dialect, table));
        return Ok(differ.collect::<Vec<_>>().join("\nOR "));
    }
    match system {
        System::Sqlite => Ok(format!("{target} IS NOT {value}\n")),
        System::Postgres => Err(format!("\"set\" assigns a row to {target}: assign each of its columns by itself")),
    }
}

/// Types of PostgreSQL whose values are equal where their texts are, and which compare fast.
const PLAIN: [&str; 9] =
    ["smallint", "integer", "bigint", "boolean", "uuid", "date", "oid", "timestamp without time zone", "bytea"];

/// The condition that one column is not what a value comes to once it is stored there.
fn one_differs(target: &str, column: Option<&String>, value: &str, dialect: &dyn Dialect, table: &Table) -> String {
    let names = Names(dialect.system());
    let column = column.and_then(|name| names.column(table, name));
    match (dialect.system(), column) {
        // What stands in a column compares by its affinity; letters that a collation takes for the same are not.
        (System::Sqlite, _) => format!("{target} COLLATE BINARY IS NOT ({value}\n)"),
        (System::Postgres, Some(column)) if !target.contains('[') => {
            let sql_type = &column.sql_type;
            match PLAIN.contains(&sql_type.as_str()) {
                true => format!("{target} IS DISTINCT FROM CAST(({value}\n) AS {sql_type})"),
                // Not every type has an operator of equality, and not each takes the same for equal: 1.0 and 1.00, say.
                false => format!(
                    "CAST({target} AS text) COLLATE \"C\" IS DISTINCT FROM CAST(CAST(({value}\n) AS {sql_type}) AS text)"
                ),
            }
        }
        (System::Postgres, _) => format!("{target} IS DISTINCT FROM ({value}\n)"),
    }
}

/// What tells the time without being a function that changes anything.
const CLOCKS: [&str; 10] = [
    "now",
    "current_timestamp",
    "current_date",
    "current_time",
    "localtime",
    "localtimestamp",
    "transaction_timestamp",
    "statement_timestamp",
    "clock_timestamp",
    "timeofday",
];
/// SQLite's functions that tell the time of now where they are given none, or 'now'.
const TIMES: [&str; 7] = ["date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff"];

/// Why texts of SQL may come to something else when they are asked again; `None` where they do not.
pub(super) async fn unstable(sql: &mut dyn Sql, texts: &[&str]) -> Result<Option<String>, UpdateError> {
    let dialect = sql.dialect();
    let system = dialect.system();
    let mut called = Vec::new();
    for text in texts {
        let code = scan::code(text, system);
        let tells_now =
            code.iter().any(|token| token.kind == Kind::Literal && token.text.eq_ignore_ascii_case("'now'"));
        for (place, token) in code.iter().enumerate() {
            let Some(name) = token.name(system) else { continue };
            let lower = name.to_lowercase();
            let opens = code.get(place + 1).is_some_and(|next| next.is_symbol("("));
            let empty = opens && code.get(place + 2).is_some_and(|next| next.is_symbol(")"));
            let is_time = system == System::Sqlite && TIMES.contains(&lower.as_str()) && (tells_now || empty);
            let is_clock = CLOCKS.contains(&lower.as_str()) && token.kind == Kind::Word && (opens || lower != "now");
            if is_clock || opens && is_time {
                return Ok(Some(format!("{lower} comes to something else each time")));
            }
            if opens && !called.contains(&lower) {
                called.push(lower);
            }
        }
    }
    if called.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = called.iter().map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
    let names = names.join(", ");
    let statement = match system {
        System::Sqlite => format!(
            "SELECT lower(name) FROM pragma_function_list WHERE lower(name) IN ({names}) GROUP BY lower(name) \
             HAVING min(flags & 2048) = 0 ORDER BY 1 LIMIT 1"
        ),
        System::Postgres => format!(
            "SELECT proname::text FROM pg_catalog.pg_proc WHERE lower(proname) IN ({names}) AND provolatile = 'v' \
             AND pg_catalog.pg_function_is_visible(oid) ORDER BY 1 LIMIT 1"
        ),
    };
    let rows = sql.query(&statement, &[]).await?;
    let found = rows.first().and_then(|row| row.first());
    Ok(match found {
        Some(Value::Text(name)) => Some(match system {
            System::Sqlite => format!("{name}() may come to something else each time"),
            System::Postgres => format!(
                "{name}() is VOLATILE, and may come to something else each time (ALTER FUNCTION … IMMUTABLE or STABLE says \
                 that it does not)"
            ),
        }),
        _ => None,
    })
}
