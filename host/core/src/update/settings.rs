//! Settings: values that somebody gave names to, for statements to use as `:setting_NAME`. They are bound as parameters,
//! and never put into a statement as text.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value as Json;

use super::Problem;
use super::scan::{self, Kind, Token};
use super::sql::{Dialect, System, Value};

/// What stands before a setting's name in a statement.
pub const SETTING: &str = ":setting_";

/// A value of a setting.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// A text; a list is one too, written as JSON.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Any number.
    Real(f64),
    /// True or false; 1 or 0 on SQLite.
    Boolean(bool),
}

impl Setting {
    /// The value to bind: PostgreSQL makes of a text what it is cast to.
    fn value(&self, system: System) -> Value {
        match (self, system) {
            (Setting::Text(text), _) => Value::from(text.as_str()),
            (Setting::Integer(number), System::Sqlite) => Value::Integer(*number),
            (Setting::Real(number), System::Sqlite) => Value::Real(*number),
            (Setting::Boolean(flag), System::Sqlite) => Value::Integer(i64::from(*flag)),
            (Setting::Integer(number), System::Postgres) => Value::from(number.to_string()),
            (Setting::Real(number), System::Postgres) => Value::from(number.to_string()),
            (Setting::Boolean(flag), System::Postgres) => Value::from(flag.to_string()),
        }
    }

    /// What stands in a statement for it, where it is bound as parameter `number`.
    fn expression(&self, dialect: &dyn Dialect, number: usize) -> String {
        let parameter = dialect.parameter(number);
        let sql_type = match self {
            _ if dialect.system() == System::Sqlite => return format!("({parameter})"),
            Setting::Text(_) => return format!("(CAST({parameter} AS text))"),
            Setting::Integer(_) => "bigint",
            Setting::Real(_) => "double precision",
            Setting::Boolean(_) => "boolean",
        };
        format!("(CAST(CAST({parameter} AS text) AS {sql_type}))")
    }

    fn to_json(&self) -> Json {
        match self {
            Setting::Text(text) => Json::from(text.as_str()),
            Setting::Integer(number) => Json::from(*number),
            Setting::Real(number) => Json::from(*number),
            Setting::Boolean(flag) => Json::from(*flag),
        }
    }
}

/// The settings that there are, by name.
#[derive(Clone, PartialEq, Default)]
pub struct Settings(BTreeMap<String, Setting>);

impl fmt::Debug for Settings {
    /// Their names alone: a value may come from the environment, and is nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromIterator<(String, Setting)> for Settings {
    fn from_iter<I: IntoIterator<Item = (String, Setting)>>(settings: I) -> Self {
        Self(settings.into_iter().collect())
    }
}

impl Settings {
    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The place of the setting that a part of a statement names, among all of them.
    pub(super) fn place(&self, placeholder: &str) -> Option<usize> {
        let name = placeholder.strip_prefix(SETTING)?;
        self.0.keys().position(|known| known == name)
    }

    /// What stands in a statement for the setting at a place, bound as parameter `number`.
    pub(super) fn expression(&self, place: usize, dialect: &dyn Dialect, number: usize) -> String {
        self.0.values().nth(place).map_or_else(String::new, |setting| setting.expression(dialect, number))
    }

    /// The value to bind for the setting at a place.
    pub(super) fn value(&self, place: usize, system: System) -> Value {
        self.0.values().nth(place).map_or(Value::Null, |setting| setting.value(system))
    }

    /// What is wrong with a part of a statement that wants to name a setting.
    pub(super) fn problem(&self, token: &Token<'_>) -> Option<Problem> {
        if token.kind != Kind::Placeholder || !token.text.starts_with(SETTING) || self.place(token.text).is_some() {
            return None;
        }
        let hint = match self.0.is_empty() {
            true => "give it a value below [settings], of which there are none".to_owned(),
            false => format!("give it a value below [settings], where there are {}", list(self.names())),
        };
        Some(Problem::error("sql", format!("{} is no setting", token.text), hint))
    }

    /// The values of the settings that statements use, as JSON; `None` where they use none.
    pub(super) fn used(&self, sql: &str, system: System) -> Option<String> {
        let used: serde_json::Map<String, Json> = uses(sql, system)
            .filter_map(|name| self.0.get_key_value(name))
            .map(|(name, setting)| (name.clone(), setting.to_json()))
            .collect();
        (!used.is_empty()).then(|| Json::Object(used).to_string())
    }

    /// A statement with each setting replaced by a parameter, and the values of these. What else stands in it is left as
    /// it is.
    pub(super) fn render(&self, statement: &str, dialect: &dyn Dialect) -> (String, Vec<Value>) {
        let (mut sql, mut bound) = (String::new(), Vec::new());
        for token in scan::tokens(statement, dialect.system()) {
            let place = (token.kind == Kind::Placeholder).then(|| self.place(token.text)).flatten();
            let Some(place) = place else {
                sql.push_str(token.text);
                continue;
            };
            let number = bound.iter().position(|known| *known == place).unwrap_or_else(|| {
                bound.push(place);
                bound.len() - 1
            });
            sql.push_str(&self.expression(place, dialect, number + 1));
        }
        let parameters = bound.into_iter().map(|place| self.value(place, dialect.system()));
        (sql, parameters.collect())
    }
}

/// The names of settings that statements use, known or not.
pub fn uses(sql: &str, system: System) -> impl Iterator<Item = &str> {
    let placeholders = scan::code(sql, system).into_iter().filter(|token| token.kind == Kind::Placeholder);
    placeholders.filter_map(|token| token.text.strip_prefix(SETTING))
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
