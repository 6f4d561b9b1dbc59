//! The arithmetic behind estimates of how far a walk has come.

use tidegate::update::sql::{Estimate, SqlError, Value};

/// The smallest and the largest key of a table, where its key is a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRange {
    /// The smallest.
    pub min: i64,
    /// The largest.
    pub max: i64,
}

impl KeyRange {
    /// From a row of two numbers; `None` where they are NULL, as in an empty table.
    pub fn from_row(row: Option<&Vec<Value>>) -> Option<Self> {
        let number = |column: usize| row.and_then(|row| row.get(column)).and_then(Value::as_integer);
        Some(Self { min: number(0)?, max: number(1)? })
    }

    /// Keys in the range: as many rows at most.
    pub fn keys(self) -> f64 {
        (i128::from(self.max) - i128::from(self.min) + 1) as f64
    }

    /// The part of the range that is at or before `after`.
    pub fn done(self, after: i64) -> f64 {
        let before = (i128::from(after) - i128::from(self.min) + 1) as f64;
        (before / self.keys()).clamp(0.0, 1.0)
    }

    /// The estimate, with the number of rows that statistics give, where they give one.
    ///
    /// # Errors
    /// Where the key is no whole number.
    pub fn estimate(self, after: Option<&String>, rows: Option<f64>) -> Result<Estimate, SqlError> {
        let done = match after {
            None => 0.0,
            Some(text) => self.done(whole_number(text)?),
        };
        Ok(Estimate { done, rows: rows.unwrap_or_else(|| self.keys()) })
    }
}

/// A table without rows: whatever there was to do is done.
pub const EMPTY: Estimate = Estimate { done: 1.0, rows: 0.0 };

fn whole_number(text: &str) -> Result<i64, SqlError> {
    text.parse().map_err(|_| SqlError::permanent(format!("\"{text}\" is no key of a column of whole numbers")))
}

#[cfg(test)]
mod tests {
    use super::KeyRange;

    #[test]
    fn a_range_knows_its_parts() {
        let range = KeyRange { min: 1, max: 10 };
        for (after, done) in [(0, 0.0), (1, 0.1), (5, 0.5), (10, 1.0), (99, 1.0), (-7, 0.0)] {
            assert_eq!(range.done(after), done, "after {after}");
        }
        let whole = KeyRange { min: i64::MIN, max: i64::MAX };
        assert_eq!(whole.done(i64::MAX), 1.0);
        assert!((whole.done(0) - 0.5).abs() < 1e-9);
    }
}
