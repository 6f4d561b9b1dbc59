//! `sql`: a script, executed once, in the transaction that takes its update out of the queue.

use async_trait::async_trait;

use super::explain::{can_be_explained, explain_with, one_line};
use super::plan::{Draft, Planned};
use super::settings::{self, Settings};
use super::sql::{ErrorClass, Sql, System};
use super::walk::digest;
use super::{Budget, Handler, Mode, Opening, Plan, Problem, Progress, Step, Trial, UpdateError, scan};

/// A script to be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptDefinition {
    /// Its statements; none that ends the transaction or cannot run in one. In them `:setting_NAME` stands for a
    /// [setting](Script::with_settings).
    pub sql: String,
}

/// The handler of a script.
pub struct Script {
    definition: ScriptDefinition,
    system: System,
    settings: Settings,
}

impl Script {
    /// A handler for this definition on a database of this system.
    pub fn new(definition: ScriptDefinition, system: System) -> Self {
        Self { definition, system, settings: Settings::default() }
    }

    /// The same with settings that its statements may use.
    pub fn with_settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// The first setting that a statement names and that there is not.
    fn unknown_setting(&self) -> Option<Problem> {
        scan::code(&self.definition.sql, self.system).iter().find_map(|token| self.settings.problem(token))
    }

    /// True where a statement has to be executed by itself, with parameters.
    fn uses_settings(&self) -> bool {
        settings::uses(&self.definition.sql, self.system).next().is_some()
    }
}

fn accept(progress: &Progress) -> Result<(), UpdateError> {
    if progress.0.is_empty() { Ok(()) } else { Err(progress.refuse("a script has no progress but {}")) }
}

#[async_trait]
impl Handler for Script {
    fn digest(&self) -> Option<String> {
        Some(digest([format!("{:?}", self.definition).as_str()]))
    }

    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        accept(progress)?;
        Ok(Mode::OneShot)
    }

    fn opening(&self) -> Opening {
        let statements = scan::statements(&self.definition.sql, self.system);
        let begins = |statement: &&str, word: &str| {
            scan::code(statement, self.system).first().is_some_and(|first| first.is(word))
        };
        let rebuilds = |statement: &&str| {
            let code = scan::code(statement, self.system);
            let is = |at: usize, word: &str| code.get(at).is_some_and(|token| token.is(word));
            is(0, "drop") && is(1, "table") || is(0, "alter") && code.iter().any(|token| token.is("rename"))
        };
        match self.system {
            System::Postgres if statements.iter().any(|statement| begins(statement, "lock")) => Opening::EachStatement,
            System::Sqlite if statements.iter().any(rebuilds) => Opening::Rebuild,
            _ => Opening::Snapshot,
        }
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, _budget: Budget) -> Result<Step, UpdateError> {
        accept(progress)?;
        let statements = scan::statements(&self.definition.sql, self.system);
        let out_of_place = statements.iter().find_map(|statement| out_of_place(statement, self.system));
        if let Some(problem) = out_of_place.or_else(|| self.unknown_setting()) {
            // A COMMIT of its own would be noticed only once it has happened.
            return Err(UpdateError::Failed(format!("{} ({})", problem.message, problem.hint)));
        }
        if self.system == System::Postgres {
            // A one-shot takes what it takes; a lock that it waits for still has its limit.
            sql.execute("SET LOCAL statement_timeout = 0", &[]).await?;
        }
        sql.expect_foreign();
        if !self.uses_settings() {
            sql.script(&self.definition.sql).await?;
            return Ok(Step::finished(1));
        }
        let dialect = sql.dialect();
        for statement in statements {
            match self.settings.render(statement, &*dialect) {
                // What takes no parameters may be what no statement with any can be.
                (_, parameters) if parameters.is_empty() => sql.script(statement).await?,
                (statement, parameters) => drop(sql.execute(&statement, &parameters).await?),
            }
        }
        Ok(Step::finished(1))
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let statements = scan::statements(&self.definition.sql, self.system);
        if statements.is_empty() {
            return Ok(vec![problem("\"sql\" holds no statement", "write at least one, or use kind \"noop\"")]);
        }
        let out_of_place: Vec<Problem> =
            statements.iter().filter_map(|statement| out_of_place(statement, self.system)).collect();
        if !out_of_place.is_empty() {
            return Ok(out_of_place);
        }
        if let Some(problem) = self.unknown_setting() {
            return Ok(vec![problem]);
        }
        let dialect = sql.dialect();
        // What comes after a statement that makes or changes something may need what that one did.
        let mut as_it_is = true;
        for statement in statements {
            let plain = can_be_explained(statement, self.system);
            let (rendered, parameters) = self.settings.render(statement, &*dialect);
            let found = match as_it_is && (plain || explains(self.system, statement)) {
                true => explain_with(sql, "sql", &rendered, &parameters).await?,
                false => syntax_error(sql, &rendered, self.system).await?,
            };
            if let Some(problem) = found {
                return Ok(vec![problem]);
            }
            as_it_is &= plain;
        }
        Ok(Vec::new())
    }

    async fn trial(&self, _sql: &mut dyn Sql, _place: f64, _budget: Budget) -> Result<Trial, UpdateError> {
        let statements = scan::statements(&self.definition.sql, self.system);
        Ok(match statements.iter().find(|statement| !can_be_explained(statement, self.system)) {
            None => Trial::Whole,
            Some(other) => Trial::Refused(Problem::error(
                "sql",
                format!(
                    "it would be in the way of others while it is tried: {} may lock whole tables, or change what no \
                     transaction gives back",
                    one_line(other)
                ),
                "run it on a copy of the database; `tidegate check --plan` tells how the database would go about it",
            )),
        })
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, _budget: Budget) -> Result<Option<Plan>, UpdateError> {
        accept(progress)?;
        let mut plan = Plan::default();
        let mut explained = true;
        let dialect = sql.dialect();
        for statement in scan::statements(&self.definition.sql, self.system) {
            // What comes after a statement of another kind may need what that one makes.
            explained &= can_be_explained(statement, self.system);
            let (statement, parameters) = self.settings.render(statement.trim(), &*dialect);
            let draft = Draft { field: "sql", sql: statement, parameters, explained };
            plan.statements.push(Planned::once(sql, draft).await?);
        }
        Ok(Some(plan))
    }
}

fn problem(message: &str, hint: &str) -> Problem {
    Problem::error("sql", message, hint)
}

/// True where the system explains a statement of any kind: SQLite all but a PRAGMA, which it may execute meanwhile.
fn explains(system: System, statement: &str) -> bool {
    system == System::Sqlite && !scan::code(statement, system).first().is_some_and(|first| first.is("pragma"))
}

/// The problem of a statement that a transaction of the host's cannot hold.
pub(super) fn out_of_place(statement: &str, system: System) -> Option<Problem> {
    let code = scan::code(statement, system);
    let is = |at: usize, word: &str| code.get(at).is_some_and(|token| token.is(word));
    let first = |words: &[&str]| words.iter().any(|word| is(0, word));
    let alone = |what: &str, hint: &str| {
        Some(problem(&format!("{what} cannot run in a transaction, and this would run in one"), hint))
    };
    let by_hand = "run it by hand, or from the application";
    match system {
        _ if first(&["begin", "start", "commit", "end", "abort"])
            || (is(0, "rollback") && !code.iter().any(|token| token.is("to"))) =>
        {
            Some(problem(
                &format!("{} would begin or end the transaction that this runs in", one_line(statement)),
                "leave it out: the host begins, and commits together with the update's progress",
            ))
        }
        _ if is(0, "vacuum") => alone("VACUUM", by_hand),
        System::Postgres
            if code.iter().any(|token| token.is("concurrently")) && first(&["create", "drop", "reindex", "alter"]) =>
        {
            alone(
                "CONCURRENTLY",
                "use kind \"create-index\", whose \"replaces\" drops an index too; or leave the word out",
            )
        }
        System::Postgres if first(&["create", "drop"]) && (is(1, "database") || is(1, "tablespace")) => {
            alone("this", by_hand)
        }
        System::Postgres if is(0, "alter") && is(1, "system") => alone("ALTER SYSTEM", by_hand),
        System::Sqlite if first(&["attach", "detach"]) => alone("ATTACH and DETACH", by_hand),
        System::Sqlite if is(0, "pragma") && (is(1, "foreign_keys") || is(1, "journal_mode")) => Some(problem(
            &format!("{} does nothing in a transaction, and this would run in one", one_line(statement)),
            "leave it out: a script that drops or renames a table runs without foreign keys, which are checked at its end",
        )),
        _ => None,
    }
}

/// What a database says to the form alone of a statement that it cannot be asked to explain; `None` where it says
/// nothing, or cannot be asked.
async fn syntax_error(sql: &mut dyn Sql, statement: &str, system: System) -> Result<Option<Problem>, UpdateError> {
    const SYNTAX_ERROR: &str = "42601";
    const PARSED: &str = "TG002";
    /// Words with which PL/pgSQL begins statements of its own.
    const OF_PLPGSQL: [&str; 12] =
        ["declare", "fetch", "move", "close", "open", "execute", "call", "get", "raise", "return", "perform", "copy"];
    let first = scan::code(statement, system).first().copied();
    if system == System::Sqlite || first.is_none_or(|first| OF_PLPGSQL.iter().any(|word| first.is(word))) {
        return Ok(None);
    }
    // The block is compiled, which reads the statement, and ends before it comes to it.
    let block = format!("BEGIN IF false THEN {statement}\n; END IF;");
    match sql.script(&scan::do_block(&block, PARSED)).await {
        Err(error) if error.code.as_deref() == Some(SYNTAX_ERROR) => {
            Ok(Some(problem(&error.message, &format!("mend the SQL; the statement: {}", one_line(statement)))))
        }
        Err(error) if error.class != ErrorClass::Permanent => Err(error.into()),
        _ => Ok(None),
    }
}
