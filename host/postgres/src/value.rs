//! Values on their way to PostgreSQL and back.
//!
//! Parameters travel as text, which the server reads as whatever type it has inferred: a whole number fits any numeric
//! type, a text any type at all. Results come in binary; the types that tidegate's own statements produce are decoded,
//! and others are to be cast to text by whoever writes the statement.

use std::error::Error;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

use tidegate::update::sql::{Row, SqlError, Value};

/// A value as a parameter.
#[derive(Debug)]
pub(super) struct Parameter<'a>(pub(super) &'a Value);

impl ToSql for Parameter<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
            // Rust writes the shortest text that identifies the number, and PostgreSQL reads "inf" and "NaN".
            Value::Real(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Value::Text(text) => out.extend_from_slice(text.as_bytes()),
            Value::Blob(bytes) => out.extend_from_slice(bytes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        match self.0 {
            Value::Blob(_) => Format::Binary,
            _ => Format::Text,
        }
    }

    to_sql_checked!();
}

/// A row's values.
pub(super) fn row(row: &tokio_postgres::Row) -> Result<Row, SqlError> {
    let column = |index: usize| {
        let decoded = row.try_get::<_, Option<Decoded>>(index);
        decoded.map(|value| value.map_or(Value::Null, |value| value.0)).map_err(|_| {
            let column = &row.columns()[index];
            SqlError::permanent(format!(
                "column \"{name}\" of the result is of type {kind}, which tidegate does not read: cast it, as in \
                 \"{name}\"::text",
                name = column.name(),
                kind = column.type_()
            ))
        })
    };
    (0..row.len()).map(column).collect()
}

struct Decoded(Value);

impl<'a> FromSql<'a> for Decoded {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let value = match *kind {
            Type::BOOL => Value::Integer(i64::from(bool::from_sql(kind, raw)?)),
            Type::INT2 => Value::Integer(i16::from_sql(kind, raw)?.into()),
            Type::INT4 => Value::Integer(i32::from_sql(kind, raw)?.into()),
            Type::INT8 => Value::Integer(i64::from_sql(kind, raw)?),
            Type::OID => Value::Integer(u32::from_sql(kind, raw)?.into()),
            Type::FLOAT4 => Value::Real(f32::from_sql(kind, raw)?.into()),
            Type::FLOAT8 => Value::Real(f64::from_sql(kind, raw)?),
            Type::BYTEA => Value::Blob(raw.to_vec()),
            Type::VOID => Value::Null,
            // Binary jsonb is a version and the text.
            Type::JSONB => Value::from(std::str::from_utf8(raw.get(1..).unwrap_or_default())?),
            _ => Value::from(std::str::from_utf8(raw)?),
        };
        Ok(Self(value))
    }

    fn accepts(kind: &Type) -> bool {
        let known = [
            Type::BOOL,
            Type::INT2,
            Type::INT4,
            Type::INT8,
            Type::OID,
            Type::FLOAT4,
            Type::FLOAT8,
            Type::BYTEA,
            Type::VOID,
            Type::JSONB,
        ];
        // These travel as their text, even in binary.
        let texts =
            [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME, Type::UNKNOWN, Type::JSON, Type::XML, Type::CHAR];
        known.contains(kind) || texts.contains(kind) || matches!(kind.kind(), Kind::Enum(_)) || kind.name() == "citext"
    }
}
