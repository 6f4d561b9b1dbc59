//! `keep`: rows that come in while an update runs, and after it, are as it makes them, by a trigger that is made from its own
//! definition before its first batch.
//!
//! The trigger is committed together with the first progress, `{"keep": …}`, in which stands where the walk goes on: at its
//! beginning, or where it was when somebody accepted another definition. The walk begins in a transaction of its own, so that it
//! sees every row that was there before the trigger was. From its first batch on, `keep` stands in the walk's progress with the
//! rest of the definition. Once the last row is done, the trigger must still be there.

mod check;
mod marker;
mod postgres;
mod sqlite;
mod unkeep;
pub(super) mod wanted;

use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde_json::{Map, Value as Json};

pub(super) use self::check::{Kind, LEAVE_OUT, Subject};
pub use self::marker::{Keep, kept};
pub use self::unkeep::{Unkeep, UnkeepDefinition};
use self::wanted::{Does, Wanted};
use super::sql::{Estimate, Sql, SqlError, System};
use super::trial::Trial;
use super::verify::VERIFY;
use super::{Budget, Handler, LeftBehind, Mode, Next, Opening, Plan, Planned, Problem, Progress, Step, UpdateError};

/// The member of a progress that says that the trigger is made; also the definition's key.
pub(super) const KEEP: &str = "keep";

/// The member of a progress that stands in no row: that of a batch that is done in a trial.
const TRIED: &str = "tried";

/// What `keep` is in a definition that has it.
pub(super) const BY_TRIGGER: &str = "trigger";

/// A kind whose rows a trigger can keep.
#[async_trait]
pub(super) trait Keepable: Send + Sync {
    /// What the triggers are to do; or why there can be none.
    ///
    /// # Errors
    /// Whatever the database says.
    async fn wanted(&self, sql: &mut dyn Sql) -> Result<Result<Wanted, Problem>, UpdateError>;

    /// What there is to know of it.
    fn subject(&self) -> Subject<'_>;
}

/// A handler whose rows are kept by a trigger.
pub struct Kept {
    update: String,
    handler: Box<dyn Handler>,
    promise: Box<dyn Keepable>,
}

/// What a progress says of the trigger.
enum Stage {
    /// It is to be made, and the walk goes on from here.
    Make(Progress),
    /// It is made, and no batch has been done since.
    Made(Progress),
    /// The handler's own, in a trial: nothing is made, nor looked for.
    Tried(Progress),
    /// The handler's own.
    Own,
}

impl Stage {
    fn of(progress: &Progress) -> Result<Self, UpdateError> {
        if let Some(inner) = progress.0.get(KEEP) {
            return match inner {
                Json::Object(inner) if progress.0.len() == 1 => Ok(Stage::Made(Progress(inner.clone()))),
                _ => Err(progress.refuse_shape("\"keep\" stands alone in a progress, and holds an object")),
            };
        }
        if let Some(Json::Object(inner)) = progress.0.get(TRIED) {
            return Ok(Stage::Tried(Progress(inner.clone())));
        }
        let pinned = progress.0.get("walk").and_then(|walk| walk.get("definition")?.get(KEEP));
        // Another definition than the one that is written down is for the walk to refuse.
        let has_definition = progress.0.get("walk").is_some_and(|walk| walk.get("definition").is_some());
        match progress.0.contains_key(VERIFY) || pinned.is_some() || has_definition {
            true => Ok(Stage::Own),
            false => Ok(Stage::Make(progress.clone())),
        }
    }
}

impl Kept {
    /// The handler of the update of this name, whose rows `promise` says how to keep.
    pub(super) fn new(update: &str, handler: Box<dyn Handler>, promise: Box<dyn Keepable>) -> Self {
        Self { update: update.to_owned(), handler, promise }
    }

    async fn wanted(&self, sql: &mut dyn Sql) -> Result<Wanted, UpdateError> {
        let refused = |Problem { message, hint, .. }| UpdateError::Failed(format!("{message} ({hint})"));
        self.promise.wanted(sql).await?.map_err(refused)
    }

    async fn stands(&self, sql: &mut dyn Sql) -> Result<bool, UpdateError> {
        let wanted = self.wanted(sql).await?;
        match sql.dialect().system() {
            System::Sqlite => sqlite::stands(sql, &self.update, &wanted).await,
            System::Postgres => postgres::stands(sql, &self.update, &wanted).await,
        }
    }

    async fn make(&self, sql: &mut dyn Sql, then: Progress) -> Result<Step, UpdateError> {
        let wanted = self.wanted(sql).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let made = match sql.dialect().system() {
            System::Sqlite => sqlite::make(sql, &self.update, &wanted, now).await?,
            System::Postgres => postgres::make(sql, &self.update, &wanted, now).await?,
        };
        let name = marker::name(&self.update, sql.dialect().system());
        let note = match made {
            true => format!(
                "trigger \"{name}\" of table \"{}\" is made: rows that are written are right from now on",
                wanted.table
            ),
            false => format!("trigger \"{name}\" of table \"{}\" is there already", wanted.table),
        };
        let progress = Progress(Map::from_iter([(KEEP.to_owned(), Json::Object(then.0))]));
        Ok(Step::new(0, Next::Continue(progress)).noting([note]))
    }

    /// The walk's own step; at its end the trigger must be there.
    async fn walk(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let step = self.handler.run(sql, progress, budget).await?;
        let done = match &step.next {
            Next::Finished => true,
            Next::Continue(next) => next.0.contains_key(VERIFY) && !progress.0.contains_key(VERIFY),
        };
        if !done || progress.0.contains_key(VERIFY) {
            return Ok(step);
        }
        if !self.stands(sql).await? {
            return Err(UpdateError::Failed(format!(
                "the trigger that was to keep its rows is not there any more, does something else or is disabled, and rows that \
                 were written since may be wrong: cancel the update and queue it again to begin anew, or take \"keep\" out of its \
                 definition and accept that (`tidegate accept {}`)",
                self.update
            )));
        }
        let name = marker::name(&self.update, sql.dialect().system());
        let note = format!(
            "trigger \"{name}\" goes on keeping rows as they are written, until `tidegate unkeep {}`",
            self.update
        );
        Ok(step.noting([note]))
    }
}

#[async_trait]
impl Handler for Kept {
    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        match Stage::of(progress)? {
            Stage::Make(then) => self.handler.mode(&then).map(|_| Mode::OneShot),
            Stage::Made(inner) | Stage::Tried(inner) => self.handler.mode(&inner),
            Stage::Own => self.handler.mode(progress),
        }
    }

    fn digest(&self) -> Option<String> {
        self.handler.digest()
    }

    fn refusal(&self) -> Option<&str> {
        self.handler.refusal()
    }

    fn is_vetted(&self, _mode: Mode) -> bool {
        true
    }

    fn opening(&self) -> Opening {
        self.handler.opening()
    }

    fn workers(&self) -> usize {
        self.handler.workers()
    }

    async fn cut(&self, sql: &mut dyn Sql, progress: &Progress, parts: usize) -> Result<Option<Progress>, UpdateError> {
        match Stage::of(progress)? {
            Stage::Own => self.handler.cut(sql, progress, parts).await,
            Stage::Make(_) | Stage::Made(_) | Stage::Tried(_) => Ok(None),
        }
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        match Stage::of(progress)? {
            Stage::Make(then) => self.make(sql, then).await,
            // Made for another definition, or gone again: it is made anew.
            Stage::Made(inner) if !self.stands(sql).await? => Ok(Step::new(0, Next::Continue(inner))),
            Stage::Made(inner) => self.walk(sql, &inner, budget).await,
            Stage::Tried(inner) => self.handler.run(sql, &inner, budget).await,
            Stage::Own => self.walk(sql, progress, budget).await,
        }
    }

    async fn verify(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
        budget: Budget,
        left: &dyn LeftBehind,
    ) -> Result<Step, UpdateError> {
        self.handler.verify(sql, progress, budget, left).await
    }

    async fn abandon(&self, sql: &mut dyn Sql) -> Result<Option<String>, UpdateError> {
        self.handler.abandon(sql).await
    }

    async fn run_outside(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Step, UpdateError> {
        self.handler.run_outside(sql, progress).await
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        match Stage::of(progress)? {
            Stage::Make(inner) | Stage::Made(inner) | Stage::Tried(inner) => self.handler.estimate(sql, &inner).await,
            Stage::Own => self.handler.estimate(sql, progress).await,
        }
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let mut problems = self.handler.check(sql).await?;
        if problems.iter().any(Problem::is_error) {
            return Ok(problems);
        }
        match self.promise.wanted(sql).await? {
            Ok(wanted) => problems.extend(check::problems(sql, &self.update, &self.promise.subject(), &wanted).await?),
            Err(problem) => problems.push(problem),
        }
        Ok(problems)
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        let (first, inner) = match Stage::of(progress)? {
            Stage::Make(inner) => (true, inner),
            Stage::Made(inner) | Stage::Tried(inner) => (false, inner),
            Stage::Own => (false, progress.clone()),
        };
        let Some(mut plan) = self.handler.plan(sql, &inner, budget).await? else { return Ok(None) };
        if first {
            let wanted = self.wanted(sql).await?;
            let name = marker::name(&self.update, sql.dialect().system());
            let table = sql.dialect().table(&wanted.table);
            let made = match wanted.does {
                Does::Function { at, when, body } => vec![format!(
                    "CREATE TRIGGER \"{name}\" {at} ON {table} FOR EACH ROW{} EXECUTE FUNCTION \"{name}\"() -- once, before the first \
                     batch; the function:\n{body}",
                    when.map(|when| format!(" WHEN ({when})")).unwrap_or_default()
                )],
                Does::Statements(statements) => statements
                    .into_iter()
                    .map(|(at, does)| format!("CREATE TRIGGER \"{name}\" {at} ON {table} -- once, before the first batch\nBEGIN\n{does}\nEND"))
                    .collect(),
            };
            plan.statements.splice(0..0, made.into_iter().map(Planned::unexplained));
        }
        Ok(Some(plan))
    }

    async fn unverifiable(&self, sql: &mut dyn Sql) -> Result<Option<Problem>, UpdateError> {
        self.handler.unverifiable(sql).await
    }

    async fn trial(&self, sql: &mut dyn Sql, place: f64, budget: Budget) -> Result<Trial, UpdateError> {
        let trial = self.handler.trial(sql, place, budget).await?;
        Ok(match trial {
            Trial::Batch(mut ahead) => {
                let name = marker::name(&self.update, sql.dialect().system());
                ahead.notes.push(format!(
                    "trigger \"{name}\", which the update makes before its first batch, is not made here"
                ));
                ahead.progress = Progress(Map::from_iter([(TRIED.to_owned(), Json::Object(ahead.progress.0))]));
                Trial::Batch(ahead)
            }
            other => other,
        })
    }
}

/// Drops the triggers of an update; those that were there. To be called in a transaction.
///
/// # Errors
/// Whatever the database says.
pub async fn drop_of(sql: &mut dyn Sql, update: &str) -> Result<Vec<Keep>, SqlError> {
    let mut keeps = kept(sql).await?;
    keeps.retain(|keep| keep.update == update);
    match sql.dialect().system() {
        System::Sqlite => sqlite::drop(sql, &keeps).await?,
        System::Postgres => postgres::drop(sql, &keeps).await?,
    }
    Ok(keeps)
}

/// The name of the trigger that keeps an update's rows; on SQLite the names of its triggers begin with it. On PostgreSQL its
/// function bears the same, in the table's schema.
pub fn trigger_name(update: &str, system: System) -> String {
    marker::name(update, system)
}

/// Triggers, in words.
pub fn told(keeps: &[Keep]) -> String {
    let each = keeps.iter().map(|Keep { table, triggers, .. }| {
        let names: Vec<String> = triggers.iter().map(|name| format!("\"{name}\"")).collect();
        let word = if names.len() == 1 { "trigger" } else { "triggers" };
        format!("{word} {} of table {table}", names.join(" and "))
    });
    each.collect::<Vec<_>>().join("; ")
}
