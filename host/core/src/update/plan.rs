//! What a batch would do and how the database would go about it, told without doing it: the material of
//! `tidegate check --plan`.

mod hidden;

use super::names::Names;
use super::sql::{Dialect, ErrorClass, Estimate, Index, Operation, Sql, SqlError, System, Table, TableName, Value};
use super::{Problem, UpdateError};

/// Rows of a table that a batch may read besides its own without anybody noticing: some milliseconds.
const READ_IN_PASSING: u64 = 10_000;

/// What a typical batch of an update would do.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Its statements, in order; none where it does nothing.
    pub statements: Vec<Planned>,
    /// How far the update has come and the rows in all, from statistics; `None` where the database has no idea.
    pub estimate: Option<Estimate>,
    /// What will hurt: a statement that reads a whole table in each batch.
    pub warnings: Vec<Problem>,
}

/// A statement that would be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The statement, its parameters as placeholders.
    pub sql: String,
    /// How the database would go about it, in its own words, a line each. Empty where it does not explain such a
    /// statement, where one of those before may make what this one needs, and where there is no row to explain it by.
    pub explanation: Vec<String>,
}

/// How a database would go about a statement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explanation {
    /// In its own words, a line each.
    pub lines: Vec<String>,
    /// How it would read the tables.
    pub reads: Vec<Read>,
    /// What it does to which tables.
    pub changes: Vec<(Operation, TableName)>,
    /// True where it would sort rows even if it were told to avoid that.
    pub sorts: bool,
}

/// How a statement reads a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The table, or the name that it goes by in the statement.
    pub table: TableName,
    /// The index by which rows are found; as [`Index::name`], where it has a name.
    pub index: Option<String>,
    /// What is looked up in that index, in the database's own words; `None` where that is not told.
    pub condition: Option<String>,
    /// True where all of the table is read, and no index could spare that.
    pub whole: bool,
}

/// A statement of a batch, to be looked at rather than executed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Draft {
    /// The definition's key that is to blame where the database refuses the statement.
    pub(super) field: &'static str,
    pub(super) sql: String,
    pub(super) parameters: Vec<Value>,
    /// False where the database cannot be asked about it before it is executed.
    pub(super) explained: bool,
}

impl Plan {
    /// There is nothing to do.
    pub(super) fn nothing() -> Self {
        Self { estimate: Some(Estimate { done: 1.0, rows: 0.0 }), ..Self::default() }
    }

    /// One statement that goes over a table at once.
    pub(super) async fn once(sql: &mut dyn Sql, draft: Draft, table: &TableName) -> Result<Self, SqlError> {
        let statement = Planned::once(sql, draft).await?;
        let estimate = Self::rows_of(sql, table).await?;
        Ok(Self { statements: vec![statement], estimate, warnings: Vec::new() })
    }

    /// The rows of a table that is not walked. Only a column that an index begins with is asked about: for any other
    /// the database would read the whole table.
    pub(super) async fn rows_of(sql: &mut dyn Sql, name: &TableName) -> Result<Option<Estimate>, SqlError> {
        let dialect = sql.dialect();
        let names = Names(dialect.system());
        let Some(table) = dialect.describe(sql, name).await? else { return Ok(None) };
        let leading = table.indexes.iter().filter(|index| index.valid && !index.partial);
        let mut columns = leading.filter_map(|index| names.column(&table, index.columns.first()?.as_ref()?));
        match columns.next() {
            Some(column) => dialect.estimate(sql, name, std::slice::from_ref(column), None).await,
            None => Ok(None),
        }
    }

    /// Adds a statement and how the database would go about it. Where it is one of a walk along `key`, it should find
    /// the rows of `walked` by the key's index.
    pub(super) async fn add(
        &mut self,
        sql: &mut dyn Sql,
        draft: Draft,
        walked: &TableName,
        key: &[String],
    ) -> Result<(), UpdateError> {
        if !draft.explained {
            self.statements.push(Planned::unexplained(draft.sql));
            return Ok(());
        }
        let dialect = sql.dialect();
        let explanation = dialect.explain(sql, &draft.sql, &draft.parameters).await?;
        let judge = Judge { walked, key, field: draft.field, names: Names(dialect.system()) };
        let mut warnings = judge.warnings(sql, &explanation, &draft.sql).await?;
        for (operation, table) in &explanation.changes {
            warnings.extend(hidden::costs(sql, *operation, table, draft.field).await?);
        }
        // One statement after the other may have the same said of it.
        let new: Vec<Problem> = warnings.into_iter().filter(|warning| !self.warnings.contains(warning)).collect();
        self.warnings.extend(new);
        self.statements.push(Planned { sql: draft.sql, explanation: explanation.lines });
        Ok(())
    }
}

impl Planned {
    /// A statement of which nothing more is known.
    pub(super) fn unexplained(sql: String) -> Self {
        Self { sql, explanation: Vec::new() }
    }

    /// A statement of a one-shot, with how the database would go about it. What that reads is nothing to warn of: it
    /// happens once.
    pub(super) async fn once(sql: &mut dyn Sql, draft: Draft) -> Result<Self, SqlError> {
        if !draft.explained {
            return Ok(Self::unexplained(draft.sql));
        }
        let explanation = match sql.dialect().explain(sql, &draft.sql, &draft.parameters).await {
            Ok(explanation) => explanation.lines,
            // It may need what a statement before it makes; what else can be wrong with it, `check` has told.
            Err(error) if error.class == ErrorClass::Permanent => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { sql: draft.sql, explanation })
    }
}

/// Looks through explanations for what will hurt.
struct Judge<'a> {
    walked: &'a TableName,
    key: &'a [String],
    field: &'static str,
    names: Names,
}

impl Judge<'_> {
    async fn warnings(
        &self,
        sql: &mut dyn Sql,
        explanation: &Explanation,
        statement: &str,
    ) -> Result<Vec<Problem>, SqlError> {
        let dialect = sql.dialect();
        let table = dialect.describe(sql, self.walked).await?;
        let mut warnings = Vec::new();
        for read in &explanation.reads {
            let name = real_name(sql, &*dialect, &read.table, statement).await?;
            let warning = match &table {
                Some(table) if self.is_walked(&name) => self.about_walked(table, read),
                _ => self.about_other(sql, &*dialect, &name, read).await?,
            };
            warnings.extend(warning.filter(|warning| !warnings.contains(warning)));
        }
        if explanation.sorts && self.field == "key" {
            warnings.push(self.problem(
                format!("finding the end of a batch sorts all rows of \"{}\" that are left", self.walked),
                format!("make an index that has the order of ({})", self.key.join(", ")),
            ));
        }
        Ok(warnings)
    }

    fn is_walked(&self, name: &TableName) -> bool {
        let same_schema = match (&name.schema, &self.walked.schema) {
            (Some(one), Some(other)) => self.names.equal(one, other),
            _ => true,
        };
        self.names.equal(&name.name, &self.walked.name) && same_schema
    }

    /// The walked table is to be read by an index that has the key's order.
    fn about_walked(&self, table: &Table, read: &Read) -> Option<Problem> {
        if self.reads_all(table, read) {
            return Some(self.problem(
                format!("each batch reads the whole of table \"{}\", not the range of its key", self.walked),
                format!("make an index that {} can use for the range of ({})", self.names.0, self.key.join(", ")),
            ));
        }
        // PostgreSQL weighs the indexes by its statistics; SQLite takes what looks best without any.
        let index = read.index.as_ref().filter(|_| self.names.0 == System::Sqlite)?;
        let index = table.indexes.iter().find(|found| self.names.equal(&found.name, index))?;
        (!self.leads_the_key(index)).then(|| {
            self.problem(
                format!(
                    "each batch finds its rows in table \"{}\" by index \"{}\", not by the range of its key",
                    self.walked, index.name
                ),
                "keep SQLite from using that index with a unary plus before the column, as in \"+state = 1\", or run \
                 ANALYZE"
                    .to_owned(),
            )
        })
    }

    /// True where all of the table is read, or all of an index: what is looked up there is not what it begins with.
    fn reads_all(&self, table: &Table, read: &Read) -> bool {
        let index = table.indexes.iter().find(|found| read.index.as_ref().is_some_and(|name| *name == found.name));
        let first = index.and_then(|index| index.columns.first()?.as_ref());
        let looked_up = |(condition, first): (&String, &String)| {
            condition.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| self.names.equal(word, first))
        };
        // A name that has to be quoted is not looked for.
        let plain = first.filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
        read.whole || read.condition.as_ref().zip(plain).is_some_and(|both| !looked_up(both))
    }

    fn leads_the_key(&self, index: &Index) -> bool {
        let first = index.columns.first().and_then(Option::as_ref);
        first.zip(self.key.first()).is_some_and(|(column, key)| self.names.equal(column, key))
    }

    /// Another table, which every batch reads as a whole: no matter while it is small.
    async fn about_other(
        &self,
        sql: &mut dyn Sql,
        dialect: &dyn Dialect,
        name: &TableName,
        read: &Read,
    ) -> Result<Option<Problem>, SqlError> {
        // What is no table, but a subquery or a function, is of no size that could be known.
        let Some(table) = dialect.describe(sql, name).await? else { return Ok(None) };
        if !self.reads_all(&table, read) {
            return Ok(None);
        }
        Ok(is_large(sql, name).await?.then(|| {
            self.problem(
                format!("each batch reads the whole of table \"{name}\", which has more than {READ_IN_PASSING} rows"),
                format!("make an index on the columns of \"{name}\" that the statement compares"),
            )
        }))
    }

    fn problem(&self, message: String, hint: String) -> Problem {
        Problem::warning(self.field, message, hint)
    }
}

/// True for a table of more rows than a batch may read in passing.
async fn is_large(sql: &mut dyn Sql, name: &TableName) -> Result<bool, SqlError> {
    let quoted = sql.dialect().table(name);
    let count = format!("SELECT count(*) FROM (SELECT 1 FROM {quoted} LIMIT {}) AS counted", READ_IN_PASSING + 1);
    let rows = sql.query(&count, &[]).await?;
    let count = rows.first().and_then(|row| row.first()).and_then(Value::as_integer).unwrap_or(0);
    Ok(u64::try_from(count).is_ok_and(|count| count > READ_IN_PASSING))
}

/// The table behind a name in an explanation, which may be the name that a statement gives it.
async fn real_name(
    sql: &mut dyn Sql,
    dialect: &dyn Dialect,
    name: &TableName,
    statement: &str,
) -> Result<TableName, SqlError> {
    if name.schema.is_some() || dialect.describe(sql, name).await?.is_some() {
        return Ok(name.clone());
    }
    let words: Vec<&str> = statement.split(|c: char| c.is_whitespace() || "(),".contains(c)).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    for (at, _) in words.iter().enumerate().filter(|(_, word)| word.eq_ignore_ascii_case(&name.name)) {
        let before = words[..at].iter().rev().find(|word| !word.eq_ignore_ascii_case("as"));
        let Some(before) = before else { continue };
        let table = TableName { schema: None, name: before.trim_matches('"').to_owned() };
        if dialect.describe(sql, &table).await?.is_some() {
            return Ok(table);
        }
    }
    Ok(name.clone())
}
