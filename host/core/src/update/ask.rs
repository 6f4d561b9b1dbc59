//! Several statements that are asked at once, each by what those before it gave.

use super::sql::{Row, Sql, SqlError, Value};

/// One of several statements; see [`Sql::ask`](super::Sql::ask).
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The statement.
    pub sql: String,
    /// What is bound in it.
    pub parameters: Vec<Given>,
    /// True where the number of rows that it changes is asked for, and not its rows.
    pub changes: bool,
    /// What it must give, or nothing after it is executed.
    pub expected: Expected,
}

/// What is bound in one of several statements.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// A value.
    Value(Value),
    /// The value of a column in the first row of an earlier statement, each by its number from 0.
    Found(usize, usize),
    /// The same, as a whole number where its text is that of one.
    Whole(usize, usize),
}

/// A text as a whole number, where it is the text of one and could be no other's.
pub fn whole(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number: &i64| number.to_string() == text)
}

/// What a statement must give, or nothing after it is executed.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// Whatever it gives.
    Anything,
    /// A row.
    Some,
    /// A row with this value in its first column.
    First(Value),
}

/// What one of several statements gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Its rows, where these were asked for.
    pub rows: Vec<Row>,
    /// The rows that it changed, where that was asked for.
    pub changed: u64,
}

impl Ask {
    /// A statement that is asked for its rows.
    pub fn query(sql: impl Into<String>, parameters: impl IntoIterator<Item = Given>, expected: Expected) -> Self {
        Self { sql: sql.into(), parameters: parameters.into_iter().collect(), changes: false, expected }
    }

    /// A statement that changes rows.
    pub fn change(sql: impl Into<String>, parameters: impl IntoIterator<Item = Given>) -> Self {
        let parameters = parameters.into_iter().collect();
        Self { sql: sql.into(), parameters, changes: true, expected: Expected::Anything }
    }

    /// The values bound in it, after the answers of those before it.
    pub fn parameters(&self, answers: &[Answer]) -> Vec<Value> {
        let found = |statement: usize, column: usize| answers.get(statement)?.rows.first()?.get(column).cloned();
        let value = |given: &Given| match given {
            Given::Value(value) => value.clone(),
            Given::Found(statement, column) => found(*statement, *column).unwrap_or(Value::Null),
            Given::Whole(statement, column) => {
                let found = found(*statement, *column).unwrap_or(Value::Null);
                found.as_text().and_then(whole).map_or(found, Value::Integer)
            }
        };
        self.parameters.iter().map(value).collect()
    }

    /// True where it is executed whatever those before it give, and bound in it is nothing that they found.
    pub fn stands_alone(&self) -> bool {
        self.expected == Expected::Anything && self.parameters.iter().all(|given| matches!(given, Given::Value(_)))
    }

    /// True where its answer is what is expected.
    pub fn is_satisfied_by(&self, answer: &Answer) -> bool {
        match &self.expected {
            Expected::Anything => true,
            Expected::Some => !answer.rows.is_empty(),
            Expected::First(value) => answer.rows.first().and_then(|row| row.first()) == Some(value),
        }
    }
}

/// See [`Sql::ask`](super::Sql::ask): one after the other.
///
/// # Errors
/// Whatever the database says.
pub async fn ask_in_turn<S: Sql + ?Sized>(sql: &mut S, statements: Vec<Ask>) -> Result<Vec<Answer>, SqlError> {
    let mut answers: Vec<Answer> = Vec::with_capacity(statements.len());
    for ask in statements {
        let parameters = ask.parameters(&answers);
        let answer = match ask.changes {
            true => Answer { rows: Vec::new(), changed: sql.execute(&ask.sql, &parameters).await? },
            false => Answer { rows: sql.query(&ask.sql, &parameters).await?, changed: 0 },
        };
        let goes_on = ask.is_satisfied_by(&answer);
        answers.push(answer);
        if !goes_on {
            break;
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_whole_number_where_it_could_be_no_others() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-12", Some(-12)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-0", None),
            ("+1", None),
            ("007", None),
            (" 1", None),
            ("1.0", None),
            ("1e3", None),
            ("", None),
            ("abc", None),
        ] {
            assert_eq!(whole(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_needs_something_of_another_does_not_stand_alone() {
        let value = || Given::Value(Value::Integer(1));
        assert!(Ask::change("one", [value()]).stands_alone());
        assert!(!Ask::change("one", [value(), Given::Found(0, 0)]).stands_alone());
        assert!(!Ask::change("one", [Given::Whole(0, 0)]).stands_alone());
        assert!(!Ask::query("one", [value()], Expected::Some).stands_alone());
    }

    #[test]
    fn what_was_found_is_given_as_it_is_or_as_a_number() {
        let row = vec![Value::from("12"), Value::from("012"), Value::Null];
        let answers = [Answer { rows: vec![row], changed: 0 }];
        let given =
            [Given::Found(0, 0), Given::Whole(0, 0), Given::Whole(0, 1), Given::Whole(0, 2), Given::Whole(1, 0)];
        let expected = [Value::from("12"), Value::Integer(12), Value::from("012"), Value::Null, Value::Null];
        assert_eq!(Ask::change("one", given).parameters(&answers), expected);
    }
}
