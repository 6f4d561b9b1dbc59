//! A batch that is to be looked at while it is done and undone: where it begins, and the rows that it is about.

use super::sql::{Dialect, ErrorClass, Row, Sql, System, Value};
use super::{Problem, Progress, UpdateError};

/// Characters of a value that are shown: of a longer one its beginning and its end.
const SHOWN: usize = 80;
/// Characters that are shown of the end of a longer one.
const END: usize = 20;
/// Bytes of a value that are compared on SQLite; of a longer one its length, its beginning and so much of its end.
const COMPARED: usize = 100_000;

/// How an update can be tried.
#[derive(Debug, Clone)]
pub enum Trial {
    /// By a batch that begins there.
    Batch(Ahead),
    /// As a whole, in one go.
    Whole,
    /// Not at all: why, and what to do instead.
    Refused(Problem),
}

/// What a batch is going to do.
#[derive(Debug, Clone)]
pub struct Ahead {
    /// The progress that it goes on from.
    pub progress: Progress,
    /// The rows that it is about; `None` where these cannot be told from others.
    pub look: Option<Look>,
    /// What there is to know of the place.
    pub notes: Vec<String>,
}

/// How to look at the rows of a batch, before and after.
#[derive(Debug, Clone)]
pub struct Look {
    /// The table, as SQL names it.
    pub table: String,
    key: Vec<String>,
    columns: Vec<String>,
    statement: String,
    parameters: Vec<Value>,
}

/// A row as it was at one moment.
#[derive(Debug, Clone, PartialEq)]
struct Looked {
    key: Vec<String>,
    cells: Vec<Cell>,
}

/// A value: what is shown of it, and all by which it is told from another.
#[derive(Debug, Clone, PartialEq)]
struct Cell {
    shown: Option<String>,
    length: Option<i64>,
    digest: Value,
}

/// The rows of a batch at one moment.
#[derive(Debug, Clone, Default)]
pub struct LookedRows(Vec<Looked>);

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The key's columns, each with its value.
    pub key: Vec<(String, String)>,
    /// What happened to it.
    pub fate: Fate,
    /// The columns that are not as they were; of a row that came or went all that hold something.
    pub columns: Vec<ColumnChange>,
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was not there before.
    Inserted,
    /// It is another than before.
    Updated,
    /// It is not there any more.
    Deleted,
}

/// A column before and after; `None` for NULL, and where there was no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnChange {
    /// Its name.
    pub name: String,
    /// As it was, a long value cut.
    pub before: Option<String>,
    /// As it is.
    pub after: Option<String>,
}

impl Look {
    /// At the rows that `source` (what stands behind FROM, and a WHERE clause) gives, in the order of `key`.
    pub(super) fn new(
        dialect: &dyn Dialect,
        table: String,
        key: &[String],
        columns: Vec<String>,
        source: &str,
        parameters: Vec<Value>,
    ) -> Self {
        let mut outputs: Vec<String> = key.iter().map(|column| dialect.key_as_text(&dialect.quote(column))).collect();
        for column in &columns {
            outputs.extend(cell(dialect.system(), &dialect.quote(column)));
        }
        // PostgreSQL would take the name of an output for a column in ORDER BY, and gives one the name of what is cast in it.
        let outputs: Vec<String> =
            outputs.iter().zip(1..).map(|(output, number)| format!("{output} AS tidegate_{number}")).collect();
        let order: Vec<String> = key.iter().map(|column| dialect.quote(column)).collect();
        let statement = format!("SELECT {}\nFROM {source}\nORDER BY {}", outputs.join(", "), order.join(", "));
        Self { table, key: key.to_vec(), columns, statement, parameters }
    }

    /// The rows as they are now; `None` where the database cannot compare what would have to be compared.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn rows(&self, sql: &mut dyn Sql) -> Result<Option<LookedRows>, UpdateError> {
        sql.execute("SAVEPOINT tidegate_look", &[]).await?;
        let found = sql.query(&self.statement, &self.parameters).await;
        if matches!(&found, Err(error) if error.class == ErrorClass::Permanent) {
            sql.execute("ROLLBACK TO SAVEPOINT tidegate_look", &[]).await?;
            return Ok(None);
        }
        let found = found?;
        sql.execute("RELEASE SAVEPOINT tidegate_look", &[]).await?;
        Ok(Some(LookedRows(found.into_iter().map(|row| self.looked(row)).collect())))
    }

    fn looked(&self, row: Row) -> Looked {
        let mut values = row.into_iter();
        let key = values.by_ref().take(self.key.len()).map(|value| text(value).unwrap_or_default()).collect();
        let mut cells = Vec::with_capacity(self.columns.len());
        while let (Some(shown), Some(length), Some(digest)) = (values.next(), values.next(), values.next()) {
            cells.push(Cell { shown: text(shown), length: length.as_integer(), digest });
        }
        Looked { key, cells }
    }

    /// What became of the rows, in the order of the key; those that came are last.
    pub fn changes(&self, before: LookedRows, after: LookedRows) -> Vec<RowChange> {
        let mut after = after.0;
        let mut changes = Vec::new();
        for row in before.0 {
            // Rows of several tables may have the same key: the first that is the same as it was, or the first.
            let same = |found: &Looked| found.key == row.key;
            let found = after.iter().position(|found| *found == row).or_else(|| after.iter().position(same));
            match found.map(|at| after.remove(at)) {
                Some(now) if now == row => {}
                Some(now) => changes.push(self.change(Some(&row), Some(&now))),
                None => changes.push(self.change(Some(&row), None)),
            }
        }
        changes.extend(after.iter().map(|row| self.change(None, Some(row))));
        changes
    }

    fn change(&self, before: Option<&Looked>, after: Option<&Looked>) -> RowChange {
        let fate = match (before, after) {
            (None, _) => Fate::Inserted,
            (_, None) => Fate::Deleted,
            _ => Fate::Updated,
        };
        let values = before.or(after).map(|row| row.key.clone()).unwrap_or_default();
        let columns = self.columns.iter().enumerate().filter_map(|(at, name)| {
            let cell = |row: Option<&Looked>| row.and_then(|row| row.cells.get(at)).cloned();
            let (before, after) = (cell(before), cell(after));
            let differs = match fate {
                Fate::Updated => before != after,
                _ => before.as_ref().or(after.as_ref()).is_some_and(|cell| cell.shown.is_some()),
            };
            let told = |cell: Option<Cell>| cell.and_then(Cell::told);
            differs.then(|| ColumnChange { name: name.clone(), before: told(before), after: told(after) })
        });
        RowChange { key: self.key.iter().cloned().zip(values).collect(), fate, columns: columns.collect() }
    }
}

impl LookedRows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Cell {
    /// The value for people, with how long it is where it was cut.
    fn told(self) -> Option<String> {
        let shown = self.shown?;
        match self.length.and_then(|length| usize::try_from(length).ok()).filter(|length| *length > SHOWN) {
            Some(length) => Some(format!("{shown} ({length} in all)")),
            None => Some(shown),
        }
    }
}

/// What is asked of a column: what is shown, how long it is, and what tells it from others.
fn cell(system: System, column: &str) -> [String; 3] {
    const BEGINNING: usize = SHOWN - END;
    match system {
        System::Postgres => {
            let text = format!("{column}::text");
            [
                format!(
                    "CASE WHEN length({text}) > {SHOWN} THEN left({text}, {BEGINNING}) || '…' || right({text}, {END}) \
                     ELSE {text} END"
                ),
                format!("length({text})::bigint"),
                format!("md5({text})"),
            ]
        }
        System::Sqlite => {
            let bytes = format!("CAST({column} AS BLOB)");
            // Two digits a byte.
            let (beginning, end, longest) = (BEGINNING / 2, END / 2, SHOWN / 2);
            [
                format!(
                    "CASE typeof({column}) WHEN 'blob' THEN CASE WHEN length({column}) > {longest} \
                     THEN 'x''' || hex(substr({column}, 1, {beginning})) || '…' || hex(substr({column}, -{end})) || '''' \
                     ELSE 'x''' || hex({column}) || '''' END \
                     WHEN 'text' THEN CAST(CASE WHEN length({column}) > {SHOWN} \
                     THEN substr({column}, 1, {BEGINNING}) || '…' || substr({column}, -{END}) ELSE {column} END AS BLOB) \
                     ELSE CAST({column} AS TEXT) END"
                ),
                format!("CASE typeof({column}) WHEN 'blob' THEN 2 * length({column}) ELSE length({column}) END"),
                format!(
                    "CAST(typeof({column}) || ':' AS BLOB) || CASE WHEN length({bytes}) > {COMPARED} \
                     THEN substr({bytes}, -{COMPARED}) ELSE {bytes} END"
                ),
            ]
        }
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Integer(number) => Some(number.to_string()),
        Value::Real(number) => Some(number.to_string()),
        Value::Text(text) => Some(text),
        Value::Blob(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, value: Option<&str>) -> Looked {
        let cell = Cell {
            shown: value.map(str::to_owned),
            length: value.map(|value| value.chars().count() as i64),
            digest: value.map_or(Value::Null, Value::from),
        };
        Looked { key: vec![key.to_owned()], cells: vec![cell] }
    }

    #[test]
    fn rows_that_stay_are_left_out_and_others_told_with_what_differs() {
        let look = Look {
            table: "t".to_owned(),
            key: vec!["id".to_owned()],
            columns: vec!["a".to_owned()],
            statement: String::new(),
            parameters: Vec::new(),
        };
        let before = LookedRows(vec![row("1", None), row("2", Some("b")), row("3", Some("c")), row("4", Some("d"))]);
        let after = LookedRows(vec![row("1", Some("xx…xx")), row("2", Some("b")), row("4", None), row("5", Some("e"))]);
        let told = look.changes(before, after);
        let told: Vec<String> = told
            .iter()
            .map(|change| {
                let ColumnChange { before, after, .. } = &change.columns[0];
                format!("{} {:?} {before:?} {after:?}", change.key[0].1, change.fate)
            })
            .collect();
        let expected = [
            "1 Updated None Some(\"xx…xx\")".to_owned(),
            "3 Deleted Some(\"c\") None".to_owned(),
            "4 Updated Some(\"d\") None".to_owned(),
            "5 Inserted None Some(\"e\")".to_owned(),
        ];
        assert_eq!(told, expected);
    }
}
