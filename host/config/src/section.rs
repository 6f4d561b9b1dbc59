//! Reads one section of the file at a time into its type of `raw`, and gathers everything that is wrong on the way:
//! unknown keys, values of a wrong type or out of range, variables that are not set.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::{DeserializeOwned, IntoDeserializer};
use serde_aux::serde_introspection::serde_introspect;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Position, Source};
use super::model::Places;
use super::secret::{Environment, expand};

/// Reads sections, and gathers what is wrong with them.
pub(super) struct Reader<'a> {
    pub source: Source<'a>,
    pub environment: Environment<'a>,
    pub errors: Vec<Diagnostic>,
}

/// A section as it was written.
pub(super) struct Section<T> {
    /// Its header as one writes it, for messages.
    pub title: String,
    /// Its values. What was wrong is reported, and left out here.
    pub values: T,
    /// Where they stand; keys that were left out of `values` for being wrong included.
    pub places: Places,
}

impl<T> Section<T> {
    /// True where the key was written, rightly or wrongly.
    pub(super) fn has(&self, key: &str) -> bool {
        self.places.keys.contains_key(key)
    }
}

/// A table of the file, with the place of its header.
pub(super) type Table<'a> = Spanned<DeTable<'a>>;

impl<'a> Reader<'a> {
    /// Reports an error.
    pub(super) fn error(&mut self, position: Position, message: impl Into<String>, hint: Option<String>) {
        let file = self.source.path.to_owned();
        self.errors.push(Diagnostic { file, position: Some(position), message: message.into(), hint });
    }

    /// Where a value stands.
    pub(super) fn at<T>(&self, value: &Spanned<T>) -> Position {
        self.source.position(value.span().start)
    }

    /// A value as it was written, for a message: variables in it are not replaced.
    pub(super) fn written<T>(&self, value: &Spanned<T>) -> &'a str {
        self.source.written(value.span())
    }

    /// The table of a section that there is at most one of.
    pub(super) fn table(&mut self, title: &'static str, value: Spanned<DeValue<'a>>) -> Option<Table<'a>> {
        let (span, position) = (value.span(), self.at(&value));
        match value.into_inner() {
            DeValue::Table(table) => Some(Spanned::new(span, table)),
            _ => {
                let hint = format!("write {title} on a line of its own, and its keys below");
                self.error(position, format!("{title} must be a table"), Some(hint));
                None
            }
        }
    }

    /// The tables of a section that there may be several of.
    pub(super) fn tables(&mut self, title: &'static str, value: Spanned<DeValue<'a>>) -> Vec<Table<'a>> {
        let position = self.at(&value);
        match value.into_inner() {
            DeValue::Array(elements) => elements.into_iter().filter_map(|element| self.table(title, element)).collect(),
            _ => {
                let message = format!("there may be several {title}, so that the name stands in two brackets");
                self.error(position, message, Some(format!("write {title}")));
                Vec::new()
            }
        }
    }

    /// Reads a table whose keys are the fields of `T`.
    pub(super) fn section<T: DeserializeOwned + Default>(
        &mut self,
        title: &'static str,
        mut table: Table<'a>,
    ) -> Section<T> {
        let title = match table.get_ref().get("name").filter(|name| name.get_ref().is_str()) {
            Some(name) => format!("{title} {}", self.written(name)),
            None => title.to_owned(),
        };
        let mut places = self.places(&table);
        for (meant, position) in self.refuse_unknown_keys(&title, table.get_mut(), serde_introspect::<T>()) {
            places.keys.entry(meant.to_owned()).or_insert(position);
        }
        self.refuse_wrong_types::<T>(&mut table);
        self.replace_variables(table.get_mut());
        // Whatever could fail was taken out above.
        let values = T::deserialize(table.into_deserializer()).unwrap_or_default();
        Section { title, values, places }
    }

    /// Reads a table whose keys are free and whose values are plain, as text.
    pub(super) fn texts(&mut self, title: &str, mut table: Table<'a>) -> BTreeMap<String, String> {
        self.replace_variables(table.get_mut());
        let mut texts = BTreeMap::new();
        for (key, value) in table.into_inner() {
            let position = self.at(&value);
            let text = match value.into_inner() {
                DeValue::String(text) => text.into_owned(),
                DeValue::Integer(number) => number.to_string(),
                DeValue::Float(number) => number.to_string(),
                DeValue::Boolean(flag) => flag.to_string(),
                DeValue::Datetime(time) => time.to_string(),
                DeValue::Array(_) | DeValue::Table(_) => {
                    let hint = "write it as a string, and let the controller take it apart";
                    let message = format!("\"{}\" in {title} is neither text, number nor boolean", key.get_ref());
                    self.error(position, message, Some(hint.to_owned()));
                    continue;
                }
            };
            texts.insert(key.into_inner().into_owned(), text);
        }
        texts
    }

    fn places(&self, table: &Table<'a>) -> Places {
        let keys = table.get_ref().keys().map(|key| (key.get_ref().to_string(), self.at(key))).collect();
        Places { header: self.at(table), keys }
    }

    /// Takes out, and reports, the keys that are not among `known`. Returns those that were probably meant, and where:
    /// nobody needs to hear that they are missing.
    pub(super) fn refuse_unknown_keys<'k>(
        &mut self,
        title: &str,
        table: &mut DeTable<'a>,
        known: &[&'k str],
    ) -> Vec<(&'k str, Position)> {
        let mut meant = Vec::new();
        let place = if title.is_empty() { String::new() } else { format!(" in {title}") };
        let unknown: Vec<_> = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())).cloned().collect();
        for key in unknown {
            let position = self.at(&key);
            meant.extend(nearest(key.get_ref(), known).map(|name| (name, position)));
            let message = format!("unknown key \"{}\"{place}", key.get_ref());
            self.error(position, message, Some(suggest(key.get_ref(), known)));
            table.remove(key.get_ref().as_ref());
        }
        meant
    }

    /// Takes out, and reports, the values that their fields cannot hold. Variables are not replaced yet, so that no
    /// message can show one's value.
    fn refuse_wrong_types<T: DeserializeOwned>(&mut self, table: &mut Table<'a>) {
        while let Err(error) = T::deserialize(table.clone().into_deserializer()) {
            let wrong = error.span().and_then(|span| key_at(table.get_ref(), &span));
            let offset = error.span().map_or(table.span().start, |span| span.start);
            let position = self.source.position(offset);
            match wrong {
                Some(key) => {
                    self.error(position, format!("\"{key}\": {}", error.message()), None);
                    table.get_mut().remove(key.as_str());
                }
                None => {
                    self.error(position, error.message(), None);
                    table.get_mut().clear();
                }
            }
        }
    }

    /// Replaces the variables in all strings of a table. Where that fails it is reported and the key taken out.
    pub(super) fn replace_variables(&mut self, table: &mut DeTable<'a>) {
        let mut wrong = Vec::new();
        for (key, value) in table.iter_mut() {
            let errors_before = self.errors.len();
            self.replace_in(value);
            if self.errors.len() > errors_before {
                wrong.push(key.get_ref().to_string());
            }
        }
        for key in wrong {
            table.remove(key.as_str());
        }
    }

    fn replace_in(&mut self, value: &mut Spanned<DeValue<'a>>) {
        let position = self.at(value);
        match value.get_mut() {
            DeValue::String(text) => match expand(text, self.environment) {
                Ok(expanded) => *text = expanded.into(),
                Err(problem) => {
                    let hint = "\"${NAME}\" stands for that environment variable, \"$${\" for a plain \"${\"";
                    self.error(position, problem, Some(hint.to_owned()));
                }
            },
            DeValue::Array(elements) => elements.iter_mut().for_each(|element| self.replace_in(element)),
            DeValue::Table(table) => table.iter_mut().for_each(|(_, value)| self.replace_in(value)),
            _ => {}
        }
    }
}

/// The key whose value spans a place.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let holds = |value: &Spanned<DeValue<'_>>| value.span().start <= span.start && span.end <= value.span().end;
    table.iter().find(|(_, value)| holds(value)).map(|(key, _)| key.get_ref().to_string())
}

/// The one of `known` that was probably meant by what somebody wrote.
pub fn nearest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    /// Below this a suggestion is more often wrong than right.
    const NEAR: f64 = 0.6;
    let nearness = |name: &str| strsim::normalized_damerau_levenshtein(written, name);
    let nearest = known.iter().copied().max_by(|a, b| nearness(a).total_cmp(&nearness(b)))?;
    (nearness(nearest) >= NEAR).then_some(nearest)
}

/// What else could be written: the one of `known` that was probably meant, or all of them.
pub(super) fn suggest(written: &str, known: &[&str]) -> String {
    match nearest(written, known) {
        Some(nearest) => format!("did you mean \"{nearest}\"?"),
        None => format!("it can be {}", list(known)),
    }
}

/// Names as a message lists them.
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}
