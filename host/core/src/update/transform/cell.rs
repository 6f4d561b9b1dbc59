//! Values of rows, what becomes of a row, and who decides that.

use std::fmt;
use std::marker::PhantomData;

use async_trait::async_trait;

use crate::update::field::{Class, Field};
use crate::update::sql::{System, Value};

/// The value of a column, as a [`Transformer`] is given it.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// SQL's NULL.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A floating point number.
    Float(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A value of another type, as the text that the database writes for it.
    Other {
        /// The type, as the database names it.
        type_name: String,
        /// The value.
        text: String,
    },
}

/// The columns of one row that the definition reads, in its order.
pub type Cells = Vec<Cell>;

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowOutcome {
    /// It stays as it is.
    Keep,
    /// These are written into the columns that the definition writes, in its order.
    Write(Cells),
    /// It cannot be done, for this reason.
    Fail(String),
}

/// Makes new values of rows: a WebAssembly component, or a function of the program that embeds the host ([`RowFunction`]).
#[async_trait]
pub trait Transformer: Send + Sync {
    /// What tells it from another one that would make other values: a digest, or a name with a version. It stands in the
    /// update's progress, and an update that has begun goes on under no other, unless somebody accepts it.
    ///
    /// # Errors
    /// Why there is none to work with.
    fn identity(&self) -> Result<String, TransformFault>;

    /// Makes it ready, so that no batch waits for that.
    ///
    /// # Errors
    /// Why it cannot be.
    async fn prepare(&self) -> Result<(), TransformFault> {
        Ok(())
    }

    /// One outcome for each row, in the same order. It may be asked again for the same rows, and must not take longer than a
    /// batch does.
    ///
    /// # Errors
    /// What went wrong. Fewer rows are tried then, down to one.
    async fn transform(&self, rows: Vec<Cells>) -> Result<Vec<RowOutcome>, TransformFault>;
}

/// Why a [`Transformer`] gave no outcomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformFault {
    /// What everybody is told; no value of a row may stand in it.
    pub message: String,
    /// What the operator's log is told besides.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: String,
    /// True where fewer rows may go through.
    pub of_rows: bool,
}

impl TransformFault {
    /// A fault that the rows may be to blame for.
    pub fn of_rows(message: impl Into<String>, detail: Option<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), detail, hint: hint.into(), of_rows: true }
    }

    /// A fault that would meet any row.
    pub fn of_all(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), detail: None, hint: hint.into(), of_rows: false }
    }
}

/// A function of a program as a [`Transformer`]: called once a row.
pub struct RowFunction<F> {
    identity: String,
    function: F,
    _row: PhantomData<fn(&[Cell]) -> RowOutcome>,
}

impl<F: Fn(&[Cell]) -> RowOutcome + Send + Sync> RowFunction<F> {
    /// The function, with what tells it from another version of itself.
    pub fn new(identity: impl Into<String>, function: F) -> Self {
        Self { identity: identity.into(), function, _row: PhantomData }
    }
}

#[async_trait]
impl<F: Fn(&[Cell]) -> RowOutcome + Send + Sync> Transformer for RowFunction<F> {
    fn identity(&self) -> Result<String, TransformFault> {
        Ok(self.identity.clone())
    }

    async fn transform(&self, rows: Vec<Cells>) -> Result<Vec<RowOutcome>, TransformFault> {
        Ok(rows.iter().map(|row| (self.function)(row)).collect())
    }
}

impl Cell {
    /// The value of a column, as the database gave it.
    pub(super) fn of(value: Value, field: &Field) -> Self {
        match (value, field.class) {
            (Value::Null, _) => Cell::Null,
            (Value::Integer(number), Class::Boolean) => Cell::Boolean(number != 0),
            (Value::Integer(number), _) => Cell::Integer(number),
            (Value::Real(number), _) => Cell::Float(number),
            (Value::Text(text), Class::Other | Class::Numeric) => {
                Cell::Other { type_name: field.type_name.clone(), text }
            }
            (Value::Text(text), _) => Cell::Text(text),
            (Value::Blob(bytes), _) => Cell::Bytes(bytes),
        }
    }

    /// The value to write into a column; what is wrong with it where the column takes no such value.
    pub(super) fn into_value(self, field: &Field, system: System) -> Result<Value, String> {
        let refused = |cell: &Cell| {
            format!(
                "{cell} for column \"{}\", which is of type {} and takes {}",
                field.name,
                shown(field),
                field.class.words()
            )
        };
        let fits = match (&self, field.class) {
            (Cell::Null, _) => true,
            (Cell::Other { type_name, .. }, Class::Other | Class::Numeric) => *type_name == field.type_name,
            (Cell::Other { .. }, _) => false,
            (_, Class::Any) => true,
            // SQLite's booleans are the numbers 0 and 1.
            (Cell::Boolean(_), Class::Integer) if system == System::Sqlite => true,
            (Cell::Boolean(_), class) => class == Class::Boolean,
            (Cell::Integer(_), class) => matches!(class, Class::Integer | Class::Float | Class::Numeric),
            (Cell::Float(_), class) => matches!(class, Class::Float | Class::Numeric),
            (Cell::Text(_), class) => matches!(class, Class::Text | Class::Other | Class::Numeric),
            (Cell::Bytes(_), class) => class == Class::Bytes,
        };
        if !fits {
            return Err(refused(&self));
        }
        match &self {
            Cell::Float(number) if number.is_nan() && system == System::Sqlite => {
                return Err(format!(
                    "a float that is no number for column \"{}\": SQLite would store NULL",
                    field.name
                ));
            }
            Cell::Text(text) | Cell::Other { text, .. } if text.contains('\0') && system == System::Postgres => {
                return Err(format!("a text with a zero byte for column \"{}\": PostgreSQL holds none", field.name));
            }
            _ => {}
        }
        Ok(match self {
            Cell::Null => Value::Null,
            Cell::Boolean(flag) => Value::Integer(flag.into()),
            Cell::Integer(number) => Value::Integer(number),
            Cell::Float(number) => Value::Real(number),
            Cell::Text(text) | Cell::Other { text, .. } => Value::Text(text),
            Cell::Bytes(bytes) => Value::Blob(bytes),
        })
    }
}

fn shown(field: &Field) -> &str {
    if field.type_name.is_empty() { "none" } else { &field.type_name }
}

/// What kind of value it is. The value itself is nobody's business.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cell::Null => "null",
            Cell::Boolean(_) => "a boolean",
            Cell::Integer(_) => "an integer",
            Cell::Float(_) => "a float",
            Cell::Text(_) => "a text",
            Cell::Bytes(_) => "bytes",
            Cell::Other { .. } => "a value of another type",
        })
    }
}
