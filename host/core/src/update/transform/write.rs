//! What was made of rows, written: in one statement on PostgreSQL, by one that is prepared once on SQLite.

use async_trait::async_trait;

use super::rows::{Place, Shape};
use crate::update::UpdateError;
use crate::update::sql::{Dialect, Row, Sql, System, Value};
use crate::update::walk::Writing;

/// The new values of rows.
pub(super) struct Write<'a> {
    pub(super) shape: &'a Shape,
    pub(super) source: String,
    pub(super) key: Vec<String>,
    pub(super) writes: Vec<(Place, Row)>,
}

#[async_trait]
impl Writing for Write<'_> {
    async fn write(&self, sql: &mut dyn Sql) -> Result<(u64, u64), UpdateError> {
        let dialect = sql.dialect();
        let wanted = self.writes.len() as u64;
        let statement = self.shape.update(&*dialect, &self.source, &self.key);
        let changed = match self.shape.system {
            System::Postgres => sql.execute(&statement, &self.arrays()).await?,
            System::Sqlite => {
                let rows = self.writes.iter().map(|(place, values)| values.iter().chain(place).cloned().collect());
                sql.execute_each(&statement, rows.collect()).await?
            }
        };
        Ok((wanted, changed))
    }
}

impl Write<'_> {
    /// PostgreSQL: the tables of the rows, their places, and each column's new values.
    fn arrays(&self) -> Vec<Value> {
        let mut arrays: Vec<String> = vec![String::new(); 2 + self.shape.write.len()];
        for (place, values) in &self.writes {
            for (array, value) in arrays.iter_mut().zip(place.iter().chain(values)) {
                array.push(if array.is_empty() { '{' } else { ',' });
                push(array, value);
            }
        }
        arrays.iter_mut().for_each(|array| array.push('}'));
        arrays.into_iter().map(Value::Text).collect()
    }
}

impl Shape {
    /// The statement that writes rows: on PostgreSQL those in arrays, on SQLite one.
    fn update(&self, dialect: &dyn Dialect, source: &str, key: &[String]) -> String {
        let columns = self.write.iter().map(|field| dialect.quote(&field.name));
        match self.system {
            System::Sqlite => {
                let set: Vec<String> = columns.zip(1..).map(|(name, number)| format!("{name} = ?{number}")).collect();
                let at = self.at(dialect, key, set.len() + 1);
                format!("UPDATE {source} SET {} WHERE {at}", set.join(", "))
            }
            System::Postgres => {
                // To the type without its length: the assignment then holds the value to that, where a cast would cut it off.
                let set = columns.zip(&self.write).enumerate().map(|(number, (name, field))| {
                    format!("{name} = tidegate_new.value_{number}::{}", field.type_name)
                });
                let arrays = (0..self.write.len()).map(|number| format!(", ${}::text::text[]", number + 3));
                let names = (0..self.write.len()).map(|number| format!(", value_{number}"));
                format!(
                    "UPDATE {source} AS tidegate_row SET {}\nFROM unnest($1::text::oid[], $2::text::tid[]{}) \
                     AS tidegate_new (tidegate_table, tidegate_place{})\n\
                     WHERE tidegate_row.ctid = tidegate_new.tidegate_place \
                     AND tidegate_row.tableoid = tidegate_new.tidegate_table",
                    set.collect::<Vec<_>>().join(", "),
                    arrays.collect::<String>(),
                    names.collect::<String>(),
                )
            }
        }
    }

    /// The same with values that mean nothing, to be looked at.
    pub(super) fn draft_of_write(&self, dialect: &dyn Dialect, source: &str, key: &[String]) -> (String, Vec<Value>) {
        (self.update(dialect, source, key), vec![Value::Null; self.width(key) + self.write.len()])
    }
}

/// Adds a value to the text of an array.
fn push(array: &mut String, value: &Value) {
    match value {
        Value::Null => array.push_str("NULL"),
        Value::Integer(number) => array.push_str(&number.to_string()),
        Value::Real(number) => array.push_str(&number.to_string()),
        Value::Text(text) => {
            array.push('"');
            for character in text.chars() {
                if matches!(character, '"' | '\\') {
                    array.push('\\');
                }
                array.push(character);
            }
            array.push('"');
        }
        Value::Blob(bytes) => {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            array.push_str("\"\\\\x");
            for byte in bytes {
                array.push(char::from(DIGITS[usize::from(byte >> 4)]));
                array.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
            array.push('"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_an_array_as_postgresql_reads_it() {
        let mut array = String::new();
        for value in [
            Value::Null,
            Value::from("NULL"),
            Value::from("a \"b\" \\ , {c}\n"),
            Value::Integer(-7),
            Value::Real(f64::NEG_INFINITY),
            Value::Blob(vec![0, 0xfa]),
        ] {
            array.push(',');
            push(&mut array, &value);
        }
        assert_eq!(array, ",NULL,\"NULL\",\"a \\\"b\\\" \\\\ , {c}\n\",-7,-inf,\"\\\\x00fa\"");
    }
}
