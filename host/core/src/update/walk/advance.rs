//! The steps of a walk: the end of a batch found, and what it changes changed, with as few statements as are right.
//!
//! On PostgreSQL one statement does both, where the table has no trigger or rule that may do otherwise than the statement
//! says: what it finds and what it changes are then of one moment. On SQLite several go to the database's thread together.
//! The first batch, the last one, and whatever those cannot do goes statement by statement.

use super::known::Known;
use super::range::{Ends, Part, Range, Side, clause, compared, number, quoted};
use super::{Batch, Stand, Walk, Way, key_of};
use crate::update::sql::{Answer, Ask, Dialect, ErrorClass, Expected, Given, Row, Sql, SqlError, System, Value};
use crate::update::{Budget, Progress, UpdateError};

/// How often a table is described anew in one call that was altered meanwhile.
const ATTEMPTS: u32 = 3;

/// What is done to the rows of a batch.
pub(in crate::update) struct Change<'a> {
    /// The condition that a row must meet.
    pub(in crate::update) filter: Option<&'a str>,
    /// The statement, by the WHERE clause of the rows that it is about.
    pub(in crate::update) statement: &'a (dyn Fn(&dyn Dialect, &str) -> String + Sync),
    /// What becomes of the rows.
    pub(in crate::update) then: Then,
}

/// What becomes of rows that a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::update) enum Then {
    /// They stay, and a trigger may move them.
    Stay,
    /// They go.
    Go,
    /// Nothing: others are written, and counted.
    Written,
}

/// What came of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::update) struct Outcome {
    /// The rows that were written, where they are counted.
    pub(in crate::update) written: u64,
    /// The rows that were to be written, where that was counted at the same moment.
    pub(in crate::update) asked: Option<u64>,
    /// The rows that a trigger or a rule left as they were.
    pub(in crate::update) skipped: u64,
}

/// What a look for the end of a batch found.
enum Found {
    /// What is remembered of the table does not hold any more.
    Outdated,
    /// The last key of the batch; none where fewer rows are left than asked for.
    End(Option<Vec<String>>),
    /// The last key of the batch, whose rows are changed; and what came of that.
    Done(Vec<String>, Outcome),
}

/// Whether what is remembered holds, counts, and the key that was found.
type Answered = (bool, Vec<Option<u64>>, Option<Vec<String>>);

impl Walk {
    /// Finds the rows of the batch that starts at `progress`. It must be asked before any of them is changed.
    pub(in crate::update) async fn batch(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
        budget: Budget,
    ) -> Result<Batch, UpdateError> {
        Ok(self.step(sql, progress, budget, None).await?.0)
    }

    /// The batch that starts at `progress`: finds its rows, and has `change` done to them.
    pub(in crate::update) async fn advance(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
        budget: Budget,
        change: &Change<'_>,
    ) -> Result<(Batch, Outcome), UpdateError> {
        self.step(sql, progress, budget, Some(change)).await
    }

    async fn step(
        &self,
        sql: &mut dyn Sql,
        progress: &Progress,
        budget: Budget,
        change: Option<&Change<'_>>,
    ) -> Result<(Batch, Outcome), UpdateError> {
        self.reach.enter(sql).await?;
        let system = sql.dialect().system();
        for _ in 0..ATTEMPTS {
            let known = self.known(sql).await?;
            let done = self.step_knowing(sql, &known, progress, budget, change).await;
            match self.by_memory(&known, system, done)? {
                Some(done) => return Ok(done),
                None => self.memory.forget(),
            }
        }
        let message = format!("table \"{}\" is being altered again and again", self.table);
        Err(SqlError::new(ErrorClass::Transient, message).into())
    }

    /// The same, by what is known of the table; `None` where that does not hold any more, and nothing was changed.
    async fn step_knowing(
        &self,
        sql: &mut dyn Sql,
        known: &Known,
        progress: &Progress,
        budget: Budget,
        change: Option<&Change<'_>>,
    ) -> Result<Option<(Batch, Outcome)>, UpdateError> {
        let stand = match self.stand(sql, known, progress).await {
            // Whether it is so is asked of the table itself.
            Err(UpdateError::Failed(_) | UpdateError::Redefined { .. }) if known.is_remembered() => return Ok(None),
            stand => stand?,
        };
        let Some(way) = &stand.way else { return Ok(Some((stand.nothing_left(), Outcome::default()))) };
        let dialect = sql.dialect();
        let found = match (change, dialect.system()) {
            (Some(change), System::Postgres)
                if known.takes_parts() && way.after.is_some() && !self.memory.keeps_apart() =>
            {
                self.find_and_change(sql, known, way, budget, change).await?
            }
            (change, System::Sqlite) => {
                let change = change.filter(|_| known.takes_parts() && way.after.is_some());
                self.find_on_thread(sql, known, way, budget, change).await?
            }
            (_, System::Postgres) => self.find(sql, known, way, budget).await?,
        };
        let (after, end) = (way.after.clone(), way.course.end.clone());
        let is_new =
            |upto: &Vec<String>| if Some(upto) == after.as_ref() { Err(UpdateError::NoProgress) } else { Ok(()) };
        let (batch, outcome) = match found {
            Found::Outdated => return Ok(None),
            Found::Done(upto, outcome) => {
                is_new(&upto)?;
                (stand.batch(&*dialect, upto, budget.items, false), outcome)
            }
            Found::End(found) => {
                found.as_ref().map_or(Ok(()), is_new)?;
                let batch = self.bounded(sql, stand, found, end, budget).await?;
                let outcome = match change {
                    Some(change) if batch.items > 0 => self.carry_out(sql, &batch, change).await?,
                    _ => Outcome::default(),
                };
                (batch, outcome)
            }
        };
        self.memory.note_common(batch.ends().common(&batch.key));
        Ok(Some((batch, outcome)))
    }

    /// The batch that ends at the key that was `found`, or where none was, with the walk: fewer rows are left than asked for.
    async fn bounded(
        &self,
        sql: &mut dyn Sql,
        stand: Stand,
        found: Option<Vec<String>>,
        end: Vec<String>,
        budget: Budget,
    ) -> Result<Batch, UpdateError> {
        let dialect = sql.dialect();
        let (Some(way), last) = (&stand.way, found.is_none()) else { return Ok(stand.nothing_left()) };
        let items = match &found {
            Some(_) => budget.items,
            None => self.count(sql, &Range::new(&*dialect, &stand.key, way.ends(Side::At(&end)))).await?,
        };
        Ok(stand.batch(&*dialect, found.unwrap_or(end), items, last))
    }

    /// Has the batch's rows changed by a statement of its own.
    pub(super) async fn carry_out(
        &self,
        sql: &mut dyn Sql,
        batch: &Batch,
        change: &Change<'_>,
    ) -> Result<Outcome, UpdateError> {
        let statement = (change.statement)(&*sql.dialect(), &batch.clause(change.filter));
        Ok(match change.then {
            Then::Stay => {
                let skipped = self.change_in_place(sql, batch, change.filter, &statement).await?;
                Outcome { skipped, ..Outcome::default() }
            }
            Then::Go => {
                let skipped = self.change(sql, batch, change.filter, &statement).await?;
                Outcome { skipped, ..Outcome::default() }
            }
            Then::Written => {
                // Where the transaction is no snapshot, rows may come in, or go, between two statements.
                let counts = self.workers > 1;
                let before = if counts { Some(self.matching(sql, batch, change.filter).await?) } else { None };
                let written = sql.execute(&statement, batch.parameters()).await?;
                let after = if counts { Some(self.matching(sql, batch, change.filter).await?) } else { None };
                Outcome { written, asked: before.min(after), skipped: 0 }
            }
        })
    }

    /// PostgreSQL: the last key of the batch.
    async fn find(&self, sql: &mut dyn Sql, known: &Known, way: &Way, budget: Budget) -> Result<Found, UpdateError> {
        let dialect = sql.dialect();
        let ends = way.ends(Side::At(&way.course.end));
        let (bound, mut parameters) = self.bound_statement(&*dialect, &known.key, ends, budget.items);
        let Some(token) = known.token.as_ref().filter(|_| known.is_remembered()) else {
            let row = sql.query(&bound, &parameters).await?.into_iter().next();
            return Ok(Found::End(row.map(|row| key_of(row, known.key.len())).transpose()?));
        };
        parameters.push(token.clone());
        let parts: Vec<String> = (1..=known.key.len()).map(|part| format!("part_{part}")).collect();
        let parts = parts.join(", ");
        let statement = format!(
            "SELECT known.token = {}, {parts} FROM (SELECT ({}) AS token) AS known\n\
             LEFT JOIN (\n{bound}\n) AS found ({parts}) ON true",
            dialect.parameter(parameters.len()),
            dialect.token(&self.table),
        );
        let (same, _, key) = self.answer(sql.query(&statement, &parameters).await?, 0)?;
        Ok(if same { Found::End(key) } else { Found::Outdated })
    }

    /// PostgreSQL: finds the last key of the batch and changes its rows, in one statement.
    async fn find_and_change(
        &self,
        sql: &mut dyn Sql,
        known: &Known,
        way: &Way,
        budget: Budget,
        change: &Change<'_>,
    ) -> Result<Found, UpdateError> {
        let most = way.after.as_ref().map_or(0, Vec::len).min(known.key.len()).saturating_sub(1);
        let mut common = self.memory.common().min(most);
        loop {
            let (statement, parameters) = self.whole(&*sql.dialect(), known, way, budget, change, common);
            let rows = sql.query(&statement, &parameters).await?;
            let counts = if self.counts(change) { 2 } else { 1 };
            match self.answer(rows, counts)? {
                (false, ..) => return Ok(Found::Outdated),
                (true, counts, Some(upto)) => {
                    let [written, asked] = [0, 1].map(|count| counts.get(count).copied().flatten());
                    let written = written.unwrap_or(0);
                    return Ok(Found::Done(upto, Outcome { written, asked, skipped: 0 }));
                }
                // The batch goes on to other values of the columns that were the same until now.
                (true, _, None) if common > 0 => common = 0,
                (true, _, None) => return Ok(Found::End(None)),
            }
        }
    }

    /// True where the rows that are to be written are counted at the same moment.
    fn counts(&self, change: &Change<'_>) -> bool {
        change.then == Then::Written && self.workers > 1
    }

    /// The statement that finds the end of the batch and changes its rows, where the first `common` columns are the same in
    /// all of them: it changes none where fewer than asked for are left that have them.
    fn whole(
        &self,
        dialect: &dyn Dialect,
        known: &Known,
        way: &Way,
        budget: Budget,
        change: &Change<'_>,
        common: usize,
    ) -> (String, Vec<Value>) {
        let key = &known.key;
        let ends = way.ends(Side::At(&way.course.end));
        let mut bound = Vec::new();
        let mut value = |part: Part| {
            let (Part::Lower(column) | Part::Upper(column)) = part;
            key.value(dialect, number(&mut bound, part), column)
        };
        let columns = quoted(dialect, key, Some("walked"));
        let mut among = ends.with_common(dialect, key, Some("walked"), 0, &mut value);
        if common > 0 {
            let same = compared(&columns[..common], "<=", (0..common).map(|part| value(Part::Lower(part))));
            among.push_str(&format!(" AND {same}"));
        }
        let changed = ends.with_common(dialect, key, None, common, |part| match part {
            Part::Lower(_) => value(part),
            Part::Upper(column) => format!("(SELECT part_{} FROM tidegate_edge)", column + 1),
        });
        let mut parameters: Vec<Value> = bound.into_iter().map(|part| ends.value(dialect, key, part)).collect();
        parameters.push(offset(budget));
        let limit = dialect.offset(parameters.len());
        let (mut with, mut same, mut gate) = (String::new(), "true".to_owned(), String::new());
        if let Some(token) = &known.token {
            parameters.push(token.clone());
            with = format!(",\ntidegate_known AS MATERIALIZED (SELECT ({}) AS token)", dialect.token(&self.table));
            same = format!("(SELECT token FROM tidegate_known) = {}", dialect.parameter(parameters.len()));
            gate = format!(" AND {same}");
        }
        let parts: Vec<String> = (1..=key.len()).map(|part| format!("part_{part}")).collect();
        let named: Vec<String> =
            columns.iter().zip(&parts).map(|(column, part)| format!("{column} AS {part}")).collect();
        let texts: Vec<String> = parts.iter().map(|part| dialect.key_as_text(part)).collect();
        let (returning, written) = match change.then {
            Then::Written => ("\nRETURNING 1", "(SELECT count(*) FROM tidegate_changed)"),
            Then::Stay | Then::Go => ("", "0"),
        };
        // Where the transaction is no snapshot, rows may come in before they could be counted.
        let asked = match self.counts(change) {
            true => format!(", (SELECT count(*) FROM {}{})", self.source(dialect), clause(&changed, change.filter)),
            false => String::new(),
        };
        // RECURSIVE lets what is asked about come first, where who looks at the server's activity sees it.
        let statement = format!(
            "WITH RECURSIVE tidegate_changed AS ({}{returning}),\n\
             tidegate_edge AS MATERIALIZED (SELECT {} FROM {} AS walked\nWHERE {among}\nORDER BY {} LIMIT 1 {limit}){with}\n\
             SELECT {same}, {written}{asked}, {} FROM (SELECT) AS one LEFT JOIN tidegate_edge ON true",
            (change.statement)(dialect, &clause(&format!("{changed}{gate}"), change.filter)),
            named.join(", "),
            self.source(dialect),
            columns.join(", "),
            texts.join(", "),
        );
        (statement, parameters)
    }

    /// Whether what is remembered holds, so many counts, and the key that was found.
    fn answer(&self, rows: Vec<Row>, counts: usize) -> Result<Answered, UpdateError> {
        let mut row = rows.into_iter().next().unwrap_or_default().into_iter();
        // A table that is not there any more has no token.
        let same = row.next().and_then(|same| same.as_integer()) == Some(1);
        let count = |count: Value| count.as_integer().and_then(|count| u64::try_from(count).ok());
        let counts = row.by_ref().take(counts).map(count).collect();
        let key: Row = row.collect();
        let key =
            if key.first().is_none_or(|part| *part == Value::Null) { None } else { Some(key_of(key, usize::MAX)?) };
        Ok((same, counts, key))
    }

    /// SQLite: finds the last key of the batch and, where it can be, changes its rows, all in one go.
    async fn find_on_thread(
        &self,
        sql: &mut dyn Sql,
        known: &Known,
        way: &Way,
        budget: Budget,
        change: Option<&Change<'_>>,
    ) -> Result<Found, UpdateError> {
        let dialect = sql.dialect();
        let ends = way.ends(Side::At(&way.course.end));
        let mut statements = Vec::with_capacity(4);
        if let Some(token) = known.token.as_ref().filter(|_| known.is_remembered()) {
            statements.push(Ask::query(dialect.token(&self.table), [], Expected::First(token.clone())));
        }
        let bounding = statements.len();
        let (bound, parameters) = self.bound_statement(&*dialect, &known.key, ends, budget.items);
        statements.push(Ask::query(bound, parameters.into_iter().map(Given::Value), Expected::Some));
        let found = known.key.iter().enumerate().map(|(number, column)| match dialect.key_bound("0", column) {
            Value::Integer(_) => Given::Whole(bounding, number),
            _ => Given::Found(bounding, number),
        });
        let again = self.finding_again(&*dialect, &known.key);
        let with_stored = found.clone().chain([Given::Found(bounding, known.key.len())]);
        statements.push(Ask::query(again, with_stored, Expected::Some));
        let finding = statements.len();
        if let Some(change) = change {
            let range = Range::new(&*dialect, &known.key, Ends { upper: Side::Unknown, ..ends });
            let lower = range.parameters.len().saturating_sub(known.key.len());
            let parameters = range.parameters.iter().take(lower).cloned().map(Given::Value).chain(found);
            statements.push(Ask::change((change.statement)(&*dialect, &range.clause(change.filter)), parameters));
        }
        let mut answers: Vec<Answer> = sql.ask(statements).await?;
        if answers.len() <= bounding {
            return Ok(Found::Outdated);
        }
        let changed = answers.get(finding).map(|answer| answer.changed);
        let again = answers.get(bounding + 1).is_some_and(|answer| !answer.rows.is_empty());
        let row = answers.swap_remove(bounding).rows.into_iter().next();
        let key = row.map(|row| key_of(row, known.key.len())).transpose()?;
        Ok(match (key, changed) {
            (Some(key), _) if !again => return Err(self.not_found_again(&key)),
            (Some(key), Some(written)) => Found::Done(key, Outcome { written, ..Outcome::default() }),
            (key, _) => Found::End(key),
        })
    }
}

/// How many rows stand before the last one of a batch.
pub(super) fn offset(budget: Budget) -> Value {
    Value::Integer(i64::try_from(budget.items.saturating_sub(1)).unwrap_or(i64::MAX))
}
