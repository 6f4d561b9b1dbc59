//! A column's values on their way through a program: of which class they are, and which values a column takes.

/// A column, as a program reads and writes its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The column's name, unquoted.
    pub name: String,
    /// What its values are to a program.
    pub class: Class,
    /// Its type without length or precision, ready for a cast; what is written is held to these all the same.
    pub type_name: String,
}

/// What the values of a column are to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// True and false.
    Boolean,
    /// Whole numbers.
    Integer,
    /// Floating point numbers.
    Float,
    /// Numbers of any size, which travel as text.
    Numeric,
    /// Texts.
    Text,
    /// Bytes.
    Bytes,
    /// What travels as the text that the database writes for it.
    Other,
    /// Whatever is put there (SQLite).
    Any,
}

impl Class {
    /// What it is called in a message.
    pub fn words(self) -> &'static str {
        match self {
            Class::Boolean => "a boolean",
            Class::Integer => "an integer",
            Class::Float => "a float, or an integer",
            Class::Numeric => "an integer, a float, a text, or a value of its own type",
            Class::Text => "a text",
            Class::Bytes => "bytes",
            Class::Other => "a text, or a value of its own type",
            Class::Any => "a value of SQLite's: an integer, a float, a text, bytes or a boolean",
        }
    }
}
