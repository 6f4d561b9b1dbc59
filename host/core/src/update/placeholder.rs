//! The placeholders of a batch's statements: which there are, and the statements with them replaced by parameters.

use super::Problem;
use super::explain::one_line;
use super::scan::{self, Kind, Token};
use super::script::out_of_place;
use super::settings::{SETTING, Settings};
use super::sql::{Dialect, System, Value};
use super::walk::{Ends, Key, Part};

/// What is bound in the statements of one batch.
pub(super) struct Bounds<'a> {
    /// The key's columns.
    pub(super) key: &'a Key,
    /// The key before the first row; `None` in the first batch.
    pub(super) after: Option<&'a [String]>,
    /// The key of the last row; `None` where a statement is only looked at.
    pub(super) upto: Option<&'a [String]>,
    /// The ends of `:range`. It may begin with the table's first key in the first batch.
    pub(super) ends: Ends<'a>,
    /// Items of a batch.
    pub(super) batch_size: u64,
    pub(super) settings: &'a Settings,
}

/// What placeholders can name.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// Columns of the key.
    pub(super) columns: usize,
    pub(super) settings: &'a Settings,
}

/// A statement in a database's own words, with the values of its parameters.
pub(super) struct Rendered {
    pub(super) sql: String,
    pub(super) parameters: Vec<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// A part of the key before the first row; NULL in the first batch.
    After(usize),
    /// A part of the key of the last row.
    Upto(usize),
    /// A part of the key that the first batch begins with.
    First(usize),
    BatchSize,
    /// The condition that a row's key lies in the batch.
    Range,
    /// The setting at this place.
    Setting(usize),
}

impl Meaning {
    /// True where it says which rows a batch has.
    const fn bounds(self) -> bool {
        !matches!(self, Meaning::BatchSize | Meaning::Setting(_))
    }
}

/// What a placeholder means.
fn meaning(name: &str, known: Known<'_>) -> Option<Meaning> {
    let part = |rest: &str| match (known.columns, rest) {
        (1, "") => Some(0),
        _ => rest.strip_prefix('_')?.parse::<usize>().ok()?.checked_sub(1).filter(|part| *part < known.columns),
    };
    match name {
        ":batch_size" => Some(Meaning::BatchSize),
        ":range" => Some(Meaning::Range),
        _ => match (name.strip_prefix(":after"), name.strip_prefix(":upto")) {
            (Some(rest), _) => part(rest).map(Meaning::After),
            (_, Some(rest)) => part(rest).map(Meaning::Upto),
            _ => known.settings.place(name).map(Meaning::Setting),
        },
    }
}

/// The placeholders that there are, for a hint.
fn list(known: Known<'_>) -> String {
    let parts = |name: &str| match known.columns {
        1 => name.to_owned(),
        _ => (1..=known.columns).map(|part| format!("{name}_{part}")).collect::<Vec<_>>().join(", "),
    };
    let settings: String = known.settings.names().map(|name| format!(", {SETTING}{name}")).collect();
    format!(":range, {}, {}, :batch_size{settings}", parts(":after"), parts(":upto"))
}

/// True where a statement is about the rows of its batch's range.
pub(super) fn uses_range(statement: &str, system: System) -> bool {
    let is_range = |token: &Token<'_>| token.kind == Kind::Placeholder && token.text == ":range";
    scan::code(statement, system).iter().any(is_range)
}

/// What is wrong with the placeholders of a script.
pub(super) fn problems(script: &str, known: Known<'_>, system: System) -> Vec<Problem> {
    let mut problems: Vec<Problem> = scan::code(script, system)
        .iter()
        .filter_map(|token| match token.kind {
            Kind::Placeholder if meaning(token.text, known).is_none() => {
                let unknown =
                    || problem(format!("unknown placeholder {}", token.text), format!("there are {}", list(known)));
                Some(known.settings.problem(token).unwrap_or_else(unknown))
            }
            Kind::Parameter => Some(problem(
                format!("{} is a parameter of {system}'s own, and nothing is bound to it", token.text),
                format!("there are {}", list(known)),
            )),
            _ => None,
        })
        .collect();
    let statements = scan::statements(script, system);
    problems.extend(statements.iter().filter_map(|statement| out_of_place(statement, system)));
    if statements.is_empty() {
        problems.push(problem("\"sql\" holds no statement".to_owned(), "write at least one".to_owned()));
    }
    let bounded = |statement: &&str| uses(statement, known, system).any(Meaning::bounds);
    if problems.is_empty() && !statements.iter().any(bounded) {
        problems.push(problem(
            "no statement says which rows the batch has: each would do them all, in every batch".to_owned(),
            "choose them with WHERE :range, which stands for the part of the key that the batch covers".to_owned(),
        ));
    }
    let untested = statements.iter().filter(|statement| forgets_the_first_batch(statement, known, system));
    problems.extend(untested.map(|statement| {
        problem(
            format!(
                ":after is NULL in the first batch, and a comparison with NULL holds for no row: {}",
                one_line(statement)
            ),
            "write :range, or (:after IS NULL OR key > :after)".to_owned(),
        )
    }));
    problems
}

fn problem(message: String, hint: String) -> Problem {
    Problem::error("sql", message, hint)
}

fn uses(statement: &str, known: Known<'_>, system: System) -> impl Iterator<Item = Meaning> {
    let placeholders = scan::code(statement, system).into_iter().filter(|token| token.kind == Kind::Placeholder);
    placeholders.filter_map(move |token| meaning(token.text, known))
}

/// True where a statement uses `:after` and has nothing that could make something of NULL.
fn forgets_the_first_batch(statement: &str, known: Known<'_>, system: System) -> bool {
    const HANDLES_NULL: [&str; 4] = ["is", "coalesce", "ifnull", "isnull"];
    let tokens: Vec<Token<'_>> = scan::code(statement, system);
    let is_after = |token: &Token<'_>| {
        token.kind == Kind::Placeholder && matches!(meaning(token.text, known), Some(Meaning::After(_)))
    };
    let tested = tokens.windows(3).any(|three| {
        let handles = |token: &Token<'_>| HANDLES_NULL.iter().any(|word| token.is(word));
        // ":after IS", "coalesce(:after", with a cast between them or not.
        (is_after(&three[0]) && three[1..].iter().any(handles)) || (handles(&three[0]) && is_after(&three[2]))
    });
    let cast_before_test =
        tokens.windows(4).any(|four| is_after(&four[0]) && four[1].is_symbol("::") && four[3].is("is"));
    tokens.iter().any(is_after) && !tested && !cast_before_test
}

/// A statement with each placeholder replaced. Placeholders that are not known are left as they are: the database
/// refuses them.
pub(super) fn render(statement: &str, dialect: &dyn Dialect, bounds: &Bounds<'_>) -> Rendered {
    let mut rendered = Rendered { sql: String::new(), parameters: Vec::new() };
    let known = Known { columns: bounds.key.len(), settings: bounds.settings };
    let mut numbers = Vec::new();
    for token in scan::tokens(statement, dialect.system()) {
        let meaning = (token.kind == Kind::Placeholder).then(|| meaning(token.text, known)).flatten();
        match meaning {
            None => rendered.sql.push_str(token.text),
            Some(Meaning::Range) => {
                let range = range(dialect, bounds, |meaning| {
                    number(&mut numbers, &mut rendered.parameters, dialect, bounds, meaning)
                });
                rendered.sql.push_str(&range);
            }
            Some(meaning) => {
                let number = number(&mut numbers, &mut rendered.parameters, dialect, bounds, meaning);
                let null = rendered.parameters.get(number - 1) == Some(&Value::Null);
                let text = match meaning {
                    // SQLite knows no typed NULL, and turns no NULL into a key of bytes.
                    _ if null && dialect.system() == System::Sqlite => dialect.parameter(number),
                    Meaning::After(part) | Meaning::Upto(part) => dialect.key_from_text(number, &bounds.key[part]),
                    Meaning::Setting(place) => bounds.settings.expression(place, dialect, number),
                    _ => format!("CAST({} AS bigint)", dialect.parameter(number)),
                };
                // A parenthesis keeps a cast's operator from meeting what stands beside it.
                rendered.sql.push_str(&format!("({text})"));
            }
        }
    }
    rendered
}

/// The condition that a key lies in the batch.
fn range(dialect: &dyn Dialect, bounds: &Bounds<'_>, mut number: impl FnMut(Meaning) -> usize) -> String {
    let begins_behind = bounds.ends.lower.is_none_or(|lower| !lower.is_inclusive());
    let condition = bounds.ends.condition(dialect, bounds.key, None, |part| {
        number(match part {
            Part::Lower(part) if begins_behind => Meaning::After(part),
            Part::Lower(part) => Meaning::First(part),
            Part::Upper(part) => Meaning::Upto(part),
        })
    });
    format!("({condition})")
}

/// The number of the parameter that has this meaning; bound when it is asked for first, so that none is left out.
fn number(
    numbers: &mut Vec<Meaning>,
    parameters: &mut Vec<Value>,
    dialect: &dyn Dialect,
    bounds: &Bounds<'_>,
    meaning: Meaning,
) -> usize {
    if let Some(known) = numbers.iter().position(|known| *known == meaning) {
        return known + 1;
    }
    let part = |key: Option<&[String]>, part: usize| {
        let text = key.and_then(|key| key.get(part)).zip(bounds.key.get(part));
        text.map_or(Value::Null, |(text, column)| dialect.key_value(text, column))
    };
    parameters.push(match meaning {
        Meaning::After(number) => part(bounds.after, number),
        Meaning::Upto(number) => part(bounds.upto, number),
        Meaning::First(number) => bounds.ends.value(dialect, bounds.key, Part::Lower(number)),
        Meaning::Setting(place) => bounds.settings.value(place, dialect.system()),
        _ => Value::Integer(i64::try_from(bounds.batch_size).unwrap_or(i64::MAX)),
    });
    numbers.push(meaning);
    numbers.len()
}
