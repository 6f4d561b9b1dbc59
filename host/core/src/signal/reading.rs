//! The latest reading of each signal, and whoever reads them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Definition, Sample};

/// The latest value of one signal of a database's load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The value, in the signal's own unit.
    pub value: f64,
    /// How old it is.
    pub age: Duration,
}

/// Answers `signals.read`. Called from inside a guest's call: it must not block.
pub trait SignalReader: Send + Sync {
    /// The latest reading of a signal; `None` where there is no such signal or it was never read.
    fn read(&self, database_name: &str, signal: &str) -> Option<Reading>;
}

/// Knows no signal.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSignals;

impl SignalReader for NoSignals {
    fn read(&self, _database_name: &str, _signal: &str) -> Option<Reading> {
        None
    }
}

/// Whose signal it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The machine's or the host's: read under the name of any database.
    Host,
    /// That of the databases of these names.
    Databases(Vec<String>),
}

impl Scope {
    /// That of one database.
    pub fn database(name: impl Into<String>) -> Self {
        Self::Databases(vec![name.into()])
    }

    /// The keys under which it is kept.
    fn keys(&self) -> &[String] {
        /// No database has an empty name.
        const HOST: &[String] = &[String::new()];
        match self {
            Scope::Host => HOST,
            Scope::Databases(names) => names,
        }
    }
}

/// A signal as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalStatus {
    /// The database that it is of; `None` where it is the machine's or the host's.
    pub database: Option<String>,
    /// What it is.
    pub definition: Definition,
    /// Its latest reading; `None` until there was one.
    pub reading: Option<Reading>,
    /// Why there is no newer reading, and since when, where the last attempt failed.
    pub error: Option<(String, SystemTime)>,
}

/// The latest reading of each signal. Clones share the same.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// By database ("" for what is of none), then by name.
    entries: Arc<RwLock<BTreeMap<String, BTreeMap<String, Entry>>>>,
}

#[derive(Debug, Clone)]
struct Entry {
    definition: Definition,
    latest: Option<(f64, Instant)>,
    error: Option<(String, SystemTime)>,
}

impl Entry {
    fn new(definition: Definition) -> Self {
        Self { definition, latest: None, error: None }
    }

    fn reading(&self) -> Option<Reading> {
        self.latest.map(|(value, at)| Reading { value, age: at.elapsed() })
    }

    fn fail(&mut self, error: &str) {
        // The same again began when it was met first.
        if self.error.as_ref().is_none_or(|(known, _)| known != error) {
            self.error = Some((error.to_owned(), SystemTime::now()));
        }
    }

    fn status(&self, database: &str) -> SignalStatus {
        SignalStatus {
            database: (!database.is_empty()).then(|| database.to_owned()),
            definition: self.definition.clone(),
            reading: self.reading(),
            error: self.error.clone(),
        }
    }
}

impl Signals {
    /// Every signal, those of the machine first, then by database and name.
    pub fn all(&self) -> Vec<SignalStatus> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let signals = entries.iter().flat_map(|(database, named)| named.values().map(|entry| entry.status(database)));
        signals.collect()
    }

    /// The signals that can be read under a database's name: its own, then those of the machine.
    pub fn of(&self, database_name: &str) -> Vec<SignalStatus> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let signals = [database_name, ""].into_iter().filter_map(|name| Some((name, entries.get(name)?)));
        signals.flat_map(|(database, named)| named.values().map(|entry| entry.status(database))).collect()
    }

    /// Takes note of what there is to be, and forgets every other signal. What stays keeps its reading.
    pub(super) fn define(&self, definitions: Vec<(Scope, Definition)>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let mut known = std::mem::take(&mut *entries);
        for (scope, definition) in definitions {
            for key in scope.keys() {
                let before = known.get_mut(key).and_then(|named| named.remove(&definition.name));
                let mut entry = before.unwrap_or_else(|| Entry::new(definition.clone()));
                entry.definition.clone_from(&definition);
                entries.entry(key.clone()).or_default().insert(definition.name.clone(), entry);
            }
        }
    }

    /// Takes note of samples. Values that are no finite numbers are none.
    pub(super) fn note(&self, scope: &Scope, samples: &[Sample]) {
        let now = Instant::now();
        self.change(scope, |named| {
            for Sample { signal, value } in samples {
                let Some(entry) = named.get_mut(signal) else { continue };
                match value {
                    Ok(value) if value.is_finite() => (entry.latest, entry.error) = (Some((*value, now)), None),
                    Ok(value) => entry.fail(&format!("{value} is no number to decide by")),
                    Err(error) => entry.fail(error),
                }
            }
        });
    }

    /// Takes note of why some signals have no newer reading.
    pub(super) fn note_error(&self, scope: &Scope, signals: &[Definition], error: &str) {
        self.change(scope, |named| {
            for Definition { name, .. } in signals {
                if let Some(entry) = named.get_mut(name) {
                    entry.fail(error);
                }
            }
        });
    }

    fn change(&self, scope: &Scope, mut change: impl FnMut(&mut BTreeMap<String, Entry>)) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for key in scope.keys() {
            entries.get_mut(key).into_iter().for_each(&mut change);
        }
    }
}

impl SignalReader for Signals {
    fn read(&self, database_name: &str, signal: &str) -> Option<Reading> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let of = |key: &str| entries.get(key)?.get(signal)?.reading();
        of(database_name).or_else(|| of(""))
    }
}

#[cfg(test)]
mod tests {
    use super::{Definition, Sample, Scope, SignalReader, Signals};

    fn signal(name: &str) -> Definition {
        Definition { name: name.to_owned(), unit: "ms".to_owned(), source: "a test".to_owned() }
    }

    fn value(signals: &Signals, database: &str, name: &str) -> Option<f64> {
        signals.read(database, name).map(|reading| reading.value)
    }

    #[test]
    fn a_database_has_its_own_signals_and_the_machines() {
        let signals = Signals::default();
        let of_two = Scope::Databases(vec!["one".to_owned(), "two".to_owned()]);
        signals.define(vec![(Scope::Host, signal("load")), (of_two.clone(), signal("lag"))]);
        assert_eq!(value(&signals, "one", "lag"), None);
        signals.note(&Scope::Host, &[Sample::new("load", Ok::<_, String>(0.5))]);
        signals
            .note(&of_two, &[Sample::new("lag", Ok::<_, String>(7.0)), Sample::new("unknown", Ok::<_, String>(1.0))]);
        for (database, name, expected) in [
            ("one", "lag", Some(7.0)),
            ("two", "lag", Some(7.0)),
            ("three", "lag", None),
            ("three", "load", Some(0.5)),
            ("one", "unknown", None),
        ] {
            assert_eq!(value(&signals, database, name), expected, "{name} of {database}");
        }
        let names: Vec<String> = signals.of("one").into_iter().map(|signal| signal.definition.name).collect();
        assert_eq!(names, ["lag", "load"]);
    }

    #[test]
    fn an_error_keeps_the_reading_and_a_new_reading_ends_the_error() {
        let (signals, scope) = (Signals::default(), Scope::database("one"));
        signals.define(vec![(scope.clone(), signal("lag"))]);
        signals.note(&scope, &[Sample::new("lag", Ok::<_, String>(7.0))]);
        for error in [Err("refused"), Ok(f64::NAN)] {
            signals.note(&scope, &[Sample::new("lag", error)]);
            assert_eq!(value(&signals, "one", "lag"), Some(7.0));
            assert!(signals.all()[0].error.is_some());
        }
        signals.note(&scope, &[Sample::new("lag", Ok::<_, String>(8.0))]);
        assert_eq!(signals.all()[0].error, None);
    }

    #[test]
    fn what_is_defined_anew_keeps_its_reading_and_all_else_is_forgotten() {
        let (signals, scope) = (Signals::default(), Scope::database("one"));
        signals.define(vec![(scope.clone(), signal("lag")), (scope.clone(), signal("old"))]);
        signals.note(&scope, &[Sample::new("lag", Ok::<_, String>(7.0)), Sample::new("old", Ok::<_, String>(1.0))]);
        signals.define(vec![(scope.clone(), signal("lag")), (scope, signal("new"))]);
        assert_eq!(value(&signals, "one", "lag"), Some(7.0));
        assert_eq!(value(&signals, "one", "old"), None);
        assert_eq!(signals.all().len(), 2);
    }
}
