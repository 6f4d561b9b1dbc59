//! `copy`: inserts the rows of a table into another, walking along its key.

mod definition;

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

pub use self::definition::{CopyColumn, CopyDefinition, CopySource, OnConflict};
use super::plan::Draft;
use super::reach::{self, OnSkip, Reach};

use super::explain::{no_column, no_table};
use super::keep::wanted::{Does, Mirror, Wanted};
use super::keep::{BY_TRIGGER, KEEP, Keepable, Kept, Kind, Subject};
use super::names::Names;
use super::sql::{Dialect, Estimate, Index, Operation, Right, Sql, System, TableName, Value};
use super::trial::Look;
use super::walk::plan::check_rights;
use super::walk::{Batch, Change, Outcome, Then, Walk};
use super::{Budget, Handler, Mode, Opening, PassedOver, Plan, Problem, Progress, Step, Trial, UpdateError};

/// The handler of a copy.
pub struct Copy {
    definition: CopyDefinition,
    walk: Walk,
    /// Set where a trigger writes into the target as well.
    kept: Option<Remembered>,
}

/// The columns by which a row is found in the target, of the source and of the target, as they were found over a connection.
#[derive(Default)]
struct Remembered(Mutex<Option<(u64, KeyOfBoth)>>);

/// The columns by which a row is found in the target: of the source, and of the target.
type KeyOfBoth = Vec<(String, String)>;

impl Copy {
    /// A handler for this definition.
    pub fn new(definition: CopyDefinition) -> Self {
        let columns: Vec<String> = definition.columns.iter().map(CopyColumn::text).collect();
        let (columns, into) = (columns.join(", "), definition.into.to_string());
        let on_conflict = match definition.on_conflict {
            OnConflict::Error => "error",
            OnConflict::Ignore => "ignore",
        };
        let parts = [
            ("kind", Some("copy")),
            ("into", Some(into.as_str())),
            ("columns", Some(columns.as_str())),
            ("where", definition.filter.as_deref()),
            ("on_conflict", Some(on_conflict)),
        ];
        let walk = Walk::new(definition.table.clone(), definition.key.clone()).defined_by(parts);
        Self { definition, walk, kept: None }
    }

    /// The same, on which so many may work at once on PostgreSQL.
    pub fn with_workers(self, workers: usize) -> Self {
        Self { walk: self.walk.with_workers(workers), ..self }
    }

    /// The same over the rows that `reach` says.
    pub fn reaching(self, reach: Reach) -> Self {
        Self { walk: self.walk.reaching(reach), ..self }
    }

    /// The same, with the target kept as the source is by a trigger of the update of this name. What the target has already
    /// becomes what the source has, whatever the definition says of conflicts.
    pub fn kept(self, update: &str) -> Kept {
        let promise = Self {
            walk: self.walk.over(false),
            definition: self.definition.clone(),
            kept: Some(Remembered::default()),
        };
        let walk = self.walk.defined_by([(KEEP, Some(BY_TRIGGER))]);
        let handler = Self { walk, kept: Some(Remembered::default()), ..self };
        Kept::new(update, Box::new(handler), Box::new(promise))
    }

    /// The columns by which a row of the source is found in the target; or why there are none. A row of the one has to be one
    /// row of the other, and to be known by the same columns for ever.
    async fn key_of_both(&self, sql: &mut dyn Sql) -> Result<Result<KeyOfBoth, String>, UpdateError> {
        let CopyDefinition { table, into, columns, .. } = &self.definition;
        let dialect = sql.dialect();
        let names = Names(dialect.system());
        let missing = |name: &TableName| UpdateError::Failed(format!("there is no table \"{name}\""));
        let source = dialect.describe(sql, table).await?.ok_or_else(|| missing(table))?;
        let target = dialect.describe(sql, into).await?.ok_or_else(|| missing(into))?;
        let copied = |name: &String| {
            let copied = columns.iter().find(|column| names.equal(&column.target, name))?;
            let of = copied.column(dialect.system())?;
            let of = names.key_column(&source, &of).filter(|of| of.not_null)?;
            Some((of, name.clone()))
        };
        let mut unique = target.indexes.iter().filter(|index| index.unique && index.valid && !index.partial);
        let found = unique.find_map(|index| {
            let key: Vec<_> = index.columns.iter().map(|name| copied(name.as_ref()?)).collect::<Option<_>>()?;
            let of: Vec<_> = key.iter().map(|(of, _)| of.clone()).collect();
            let tells = names.unique_by(&source, &of).is_some_and(|more| more.is_empty());
            tells.then(|| key.into_iter().map(|(of, name)| (of.name, name)).collect())
        });
        Ok(found.ok_or_else(|| {
            format!(
                "table \"{into}\" has no unique index on copies of columns, all NOT NULL, by which table \"{table}\" tells its rows \
                 apart"
            )
        }))
    }

    /// How the target is kept; `None` where it is not, or cannot be.
    async fn mirror(&self, sql: &mut dyn Sql) -> Result<Option<Mirror>, UpdateError> {
        let Some(remembered) = &self.kept else { return Ok(None) };
        let connection = sql.connection();
        let known = remembered.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = known.filter(|(of, _)| connection == Some(*of)).map(|(_, key)| key);
        let key = match known {
            Some(key) => key,
            None => match self.key_of_both(sql).await? {
                Ok(key) => key,
                Err(_) => return Ok(None),
            },
        };
        *remembered.0.lock().unwrap_or_else(PoisonError::into_inner) = connection.map(|of| (of, key.clone()));
        Ok(Some(self.mirror_by(&*sql.dialect(), &key)))
    }

    fn mirror_by(&self, dialect: &dyn Dialect, key: &[(String, String)]) -> Mirror {
        let CopyDefinition { into, columns, filter, .. } = &self.definition;
        Mirror {
            source: self.walk.source(dialect),
            target: dialect.table(into),
            key: key.iter().map(|(source, target)| (dialect.quote(source), dialect.quote(target))).collect(),
            columns: columns.iter().map(|column| (dialect.quote(&column.target), column.source(dialect))).collect(),
            filter: filter.clone(),
            system: dialect.system(),
        }
    }

    /// The same without the walk's end, so that a test can show that it would notice. Never for production.
    #[cfg(feature = "test-switches")]
    #[doc(hidden)]
    pub fn endless(self) -> Self {
        Self { walk: self.walk.endless(), ..self }
    }

    /// The INSERT of the rows that meet `clause`.
    fn statement(&self, dialect: &dyn Dialect, clause: &str, mirror: Option<&Mirror>) -> String {
        if let Some(mirror) = mirror {
            // What somebody is writing in the source is waited for, and what is written there later finds it in the target.
            let locking = if dialect.system() == System::Postgres { "\nFOR SHARE" } else { "" };
            return mirror.upsert(clause, locking);
        }
        let CopyDefinition { into, columns, on_conflict, .. } = &self.definition;
        let targets: Vec<String> = columns.iter().map(|column| dialect.quote(&column.target)).collect();
        let sources: Vec<String> = columns.iter().map(|column| column.source(dialect)).collect();
        // Without a WHERE clause SQLite takes "ON" for the beginning of a join.
        let clause = if clause.is_empty() { "\nWHERE true" } else { clause };
        let conflict = match on_conflict {
            OnConflict::Error => "",
            OnConflict::Ignore => "\nON CONFLICT DO NOTHING",
        };
        // PostgreSQL's GENERATED ALWAYS AS IDENTITY refuses values that are not asked for so.
        let overriding = match dialect.system() {
            System::Sqlite => "",
            System::Postgres => " OVERRIDING SYSTEM VALUE",
        };
        format!(
            "INSERT INTO {} ({}){overriding}\nSELECT {}\nFROM {}{clause}{conflict}",
            dialect.table(into),
            targets.join(", "),
            sources.join(", "),
            self.walk.source(dialect)
        )
    }

    /// What a batch executes, to be looked at.
    fn drafts(&self, dialect: &dyn Dialect, batch: &Batch, mirror: Option<&Mirror>) -> Vec<Draft> {
        let statement = self.statement(dialect, &batch.clause(self.definition.filter.as_deref()), mirror);
        vec![Draft::of("columns", statement, batch)]
    }

    /// How many rows of a batch were not written, where that is no error.
    async fn missing(
        &self,
        sql: &mut dyn Sql,
        batch: &Batch,
        written: u64,
        asked: Option<u64>,
    ) -> Result<u64, UpdateError> {
        let CopyDefinition { into, filter, on_conflict, .. } = &self.definition;
        let mut missing = 0;
        if batch.items > 0 {
            // Where all rows of the batch were written, none has to be counted.
            if written < batch.items || batch.ties {
                let asked = match asked {
                    Some(asked) => asked,
                    None => self.walk.matching(sql, batch, filter.as_deref()).await?,
                };
                missing = asked.saturating_sub(written);
                if missing > 0 && *on_conflict == OnConflict::Error {
                    return Err(UpdateError::Failed(format!(
                        "table \"{into}\" did not take {missing} of {asked} rows, and gave no error: look at its triggers and rules"
                    )));
                }
            }
        }
        Ok(missing)
    }

    /// Sequences that copied values leave behind: PostgreSQL's next insert without a value would meet one of these.
    async fn check_sequences(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        const SEQUENCE: &str = "SELECT pg_get_serial_sequence($1::text, $2::text)";
        let dialect = sql.dialect();
        if dialect.system() != System::Postgres {
            return Ok(Vec::new());
        }
        let into = &self.definition.into;
        let mut problems = Vec::new();
        for column in &self.definition.columns {
            let values = [Value::from(dialect.table(into)), Value::from(column.target.as_str())];
            let rows = sql.query(SEQUENCE, &values).await?;
            let Some(sequence) = rows.first().and_then(|row| row.first()).and_then(Value::as_text) else { continue };
            problems.push(Problem::warning(
                "columns",
                format!(
                    "sequence {sequence} of column \"{}\" of table \"{into}\" stays behind the values that are copied",
                    column.target
                ),
                format!(
                    "move it before the application inserts there: SELECT setval('{sequence}', (SELECT max({}) FROM {}))",
                    dialect.quote(&column.target),
                    dialect.table(into)
                ),
            ));
        }
        Ok(problems)
    }

    /// How to look at the rows of the target that the batch is about: those with the keys that it copies.
    async fn look(&self, sql: &mut dyn Sql, batch: &Batch) -> Result<Option<Look>, UpdateError> {
        let CopyDefinition { into, columns, filter, .. } = &self.definition;
        let dialect = sql.dialect();
        let names = Names(dialect.system());
        let Some(target) = dialect.describe(sql, into).await? else { return Ok(None) };
        let copied = |name: &String| columns.iter().find(|column| names.equal(&column.target, name));
        let known = |index: &Index| index.columns.iter().map(|name| copied(name.as_ref()?)).collect::<Option<Vec<_>>>();
        let mut unique = target.indexes.iter().filter(|index| index.unique && index.valid && !index.partial);
        let Some(key) = unique.find_map(known) else { return Ok(None) };
        let targets: Vec<String> = key.iter().map(|column| column.target.clone()).collect();
        let quoted: Vec<String> = targets.iter().map(|name| dialect.quote(name)).collect();
        let sources: Vec<String> = key.iter().map(|column| column.source(&*dialect)).collect();
        let source = format!(
            "{} WHERE ({}) IN (SELECT {} FROM {}{})",
            dialect.table(into),
            quoted.join(", "),
            sources.join(", "),
            self.walk.source(&*dialect),
            batch.clause(filter.as_deref())
        );
        let all = target.columns.iter().map(|column| column.name.clone()).collect();
        Ok(Some(Look::new(&*dialect, into.to_string(), &targets, all, &source, batch.parameters().to_vec())))
    }

    /// What is wrong with the tables and the columns.
    async fn check_names(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let CopyDefinition { table, into, columns, .. } = &self.definition;
        let dialect = sql.dialect();
        let names = Names(dialect.system());
        let Some(target) = dialect.describe(sql, into).await? else {
            return Ok(vec![no_table("into", "into_schema", into)]);
        };
        if names.equal(&table.name, &into.name) && table.schema == into.schema {
            return Ok(vec![Problem::error(
                "into",
                format!("table \"{table}\" would be copied into itself"),
                "name another table: the walk would meet the rows that it inserts",
            )]);
        }
        let skips = match self.definition.on_conflict {
            OnConflict::Error => OnSkip::Error,
            OnConflict::Ignore => OnSkip::Ignore,
        };
        let reach = Reach { on_skip: skips, ..Reach::default() };
        let around = reach::check(sql, into, target.kind, Operation::Insert, reach, "into").await?;
        let unknown = columns.iter().filter(|column| names.column(&target, &column.target).is_none());
        let mut problems: Vec<Problem> =
            unknown.map(|column| no_column("columns", into, &target, &column.target)).collect();
        if let Some(source) = dialect.describe(sql, table).await? {
            let same = columns.iter().filter(|column| column.source == CopySource::SameName);
            let unknown = same.filter(|column| names.column(&source, &column.target).is_none());
            problems.extend(unknown.map(|column| no_column("columns", table, &source, &column.target)));
        }
        problems.extend(around);
        Ok(problems)
    }
}

#[async_trait]
impl Handler for Copy {
    fn digest(&self) -> Option<String> {
        Some(self.walk.digest())
    }

    fn mode(&self, progress: &Progress) -> Result<Mode, UpdateError> {
        self.walk.accept(progress)?;
        Ok(Mode::Batched)
    }

    fn opening(&self) -> Opening {
        // Where rows are locked as they are read, what each statement sees is what there is.
        if self.kept.is_some() { Opening::EachStatement } else { Opening::Snapshot }
    }

    fn workers(&self) -> usize {
        self.walk.workers()
    }

    async fn cut(&self, sql: &mut dyn Sql, progress: &Progress, parts: usize) -> Result<Option<Progress>, UpdateError> {
        self.walk.cut(sql, progress, parts).await
    }

    async fn run(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Step, UpdateError> {
        let CopyDefinition { into, filter, .. } = &self.definition;
        let mirror = self.mirror(sql).await?;
        let statement = |dialect: &dyn Dialect, clause: &str| self.statement(dialect, clause, mirror.as_ref());
        let change = Change { filter: filter.as_deref(), statement: &statement, then: Then::Written };
        let (batch, Outcome { written, asked, .. }) = self.walk.advance(sql, progress, budget, &change).await?;
        // Where the application writes into the target too, by the trigger, it cannot be said which rows are to be written.
        let missing = match &mirror {
            None => self.missing(sql, &batch, written, asked).await?,
            Some(_) => 0,
        };
        Ok(batch.step(
            missing,
            &format!("because they conflict with rows that \"{into}\" has, or a trigger of it skips them"),
        ))
    }

    async fn pass_over(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<PassedOver>, UpdateError> {
        self.walk.pass_over(sql, progress).await
    }

    async fn run_key(&self, sql: &mut dyn Sql, key: &[String]) -> Result<(), UpdateError> {
        let statement = |dialect: &dyn Dialect, clause: &str| self.statement(dialect, clause, None);
        let change = Change { filter: self.definition.filter.as_deref(), statement: &statement, then: Then::Written };
        let (batch, Outcome { written, asked, .. }) = self.walk.change_key(sql, key, &change).await?;
        self.missing(sql, &batch, written, asked).await.map(drop)
    }

    async fn estimate(&self, sql: &mut dyn Sql, progress: &Progress) -> Result<Option<Estimate>, UpdateError> {
        self.walk.estimate(sql, progress).await
    }

    async fn check(&self, sql: &mut dyn Sql) -> Result<Vec<Problem>, UpdateError> {
        let named = self.check_names(sql).await?;
        let walked = self.walk.check(sql, None).await?;
        let mut problems = [walked.as_slice(), &named].concat();
        if !problems.iter().any(Problem::is_error) {
            let lacking = check_rights(sql, &self.definition.into, &[Right::Insert]).await?;
            problems.extend(lacking.map(|problem| Problem { field: "into", ..problem }));
        }
        if problems.iter().any(Problem::is_error) {
            return Ok(problems);
        }
        let sequences = self.check_sequences(sql).await?;
        let mirror = self.mirror(sql).await?;
        let drafts = |dialect: &dyn Dialect, batch: &Batch| {
            let reading = self.definition.filter.as_deref().map(|filter| {
                let table = self.walk.source(dialect);
                Draft::of("where", format!("SELECT 1 FROM {table}{}", batch.clause(Some(filter))), batch)
            });
            reading.into_iter().chain(self.drafts(dialect, batch, mirror.as_ref())).collect()
        };
        let found = self.walk.check_on(sql, walked, &[Right::Select], drafts).await?;
        Ok(found.into_iter().chain(named).chain(sequences).collect())
    }

    async fn trial(&self, sql: &mut dyn Sql, place: f64, budget: Budget) -> Result<Trial, UpdateError> {
        let (mut ahead, batch) = self.walk.ahead(sql, place, budget).await?;
        ahead.look = self.look(sql, &batch).await?;
        if ahead.look.is_none() {
            ahead.notes.push(format!(
                "the rows that come into table \"{}\" are not shown: it has no unique index whose columns are all copied",
                self.definition.into
            ));
        }
        Ok(Trial::Batch(ahead))
    }

    async fn plan(&self, sql: &mut dyn Sql, progress: &Progress, budget: Budget) -> Result<Option<Plan>, UpdateError> {
        let mirror = self.mirror(sql).await?;
        let drafts = |dialect: &dyn Dialect, batch: &Batch| self.drafts(dialect, batch, mirror.as_ref());
        self.walk.plan(sql, progress, budget, drafts).await.map(Some)
    }
}

#[async_trait]
impl Keepable for Copy {
    async fn wanted(&self, sql: &mut dyn Sql) -> Result<Result<Wanted, Problem>, UpdateError> {
        let key = match self.key_of_both(sql).await? {
            Ok(key) => key,
            Err(why) => {
                let hint =
                    "copy the columns of the source's primary key, and make them the target's, or leave \"keep\" out";
                return Ok(Err(Problem::error(KEEP, format!("no trigger can keep the copy: {why}"), hint)));
            }
        };
        let dialect = sql.dialect();
        let mirror = self.mirror_by(&*dialect, &key);
        let does = match dialect.system() {
            System::Sqlite => mirror.statements(),
            System::Postgres => {
                Does::Function { at: "AFTER INSERT OR UPDATE OR DELETE", when: None, body: mirror.body() }
            }
        };
        let probes = vec![("into", mirror.probe())];
        Ok(Ok(Wanted { table: self.definition.table.clone(), only: self.walk.is_only(), does, probes }))
    }

    fn subject(&self) -> Subject<'_> {
        let CopyDefinition { table, into, columns, filter, .. } = &self.definition;
        let expressions = columns.iter().filter_map(|column| match &column.source {
            CopySource::SameName => None,
            CopySource::Expression(expression) => Some(expression.clone()),
        });
        let texts = expressions.chain(filter.clone()).collect();
        let row_security = self.walk.asks_policies();
        Subject { kind: Kind::Copy, table, texts, assigned: Vec::new(), into: Some(into), row_security }
    }
}
