//! A chain of updates, and its text.

use std::fmt::Write as _;

use tidegate::update::sql::TableName;

/// Updates that are done one after the other, and what somebody has to do in between.
pub(super) struct Chain {
    /// What it comes to, in a sentence.
    pub(super) title: String,
    /// What the updates' names begin with.
    pub(super) name: String,
    /// What to know before it is queued, a sentence each.
    pub(super) notes: Vec<String>,
    pub(super) parts: Vec<Part>,
}

/// Updates that can be queued together.
pub(super) struct Part {
    /// What has to be done before, and why; empty where nothing.
    pub(super) before: String,
    pub(super) updates: Vec<Link>,
}

/// An update.
pub(super) struct Link {
    /// What its name ends with.
    pub(super) name: String,
    /// What it does, in a sentence.
    pub(super) what: String,
    /// Its keys, with their values in TOML.
    pub(super) keys: Vec<(&'static str, String)>,
}

impl Part {
    pub(super) fn new(before: impl Into<String>, updates: Vec<Link>) -> Self {
        Self { before: before.into(), updates }
    }
}

impl Link {
    /// A script in one transaction that waits for no lock for long.
    pub(super) fn script(name: &str, what: &str, statements: &[String]) -> Self {
        let sql = format!("SET LOCAL lock_timeout = '100ms';\n{};\n", statements.join(";\n"));
        Self::sql(name, what, &sql)
    }

    /// A script in one transaction.
    pub(super) fn sql(name: &str, what: &str, sql: &str) -> Self {
        Self { name: name.to_owned(), what: what.to_owned(), keys: vec![("kind", text("sql")), ("sql", text(sql))] }
    }

    /// An update of a table.
    pub(super) fn of_table(
        name: &str,
        what: &str,
        kind: &str,
        table: &TableName,
        keys: Vec<(&'static str, String)>,
    ) -> Self {
        let schema = table.schema.as_ref().map(|schema| ("schema", text(schema)));
        let first = [("kind", text(kind)), ("table", text(&table.name))];
        let keys = first.into_iter().chain(schema).chain(keys).collect();
        Self { name: name.to_owned(), what: what.to_owned(), keys }
    }

    /// The end of what an update's trigger keeps.
    pub(super) fn unkeep(name: &str, what: &str, update: &str) -> Self {
        let keys = vec![("kind", text("unkeep")), ("update", text(update))];
        Self { name: name.to_owned(), what: what.to_owned(), keys }
    }
}

/// A text as TOML.
pub(super) fn text(text: &str) -> String {
    match text.contains('\n') && !text.contains("'''") && !text.contains('\r') {
        true => format!("'''\n{text}'''"),
        false => toml::Value::String(text.to_owned()).to_string(),
    }
}

/// Texts as TOML.
pub(super) fn texts(texts: &[String]) -> String {
    toml::Value::Array(texts.iter().cloned().map(toml::Value::String).collect()).to_string()
}

impl Chain {
    /// The whole of it, for one database of several, where the configuration has some of these updates already.
    pub(super) fn told(&self, database: Option<&str>, known: &[String]) -> String {
        let mut out = format!("# {}\n", self.title);
        for note in &self.notes {
            let _ = writeln!(out, "# {note}");
        }
        out.push_str(
            "# Read it, change what is not meant, add it to the configuration, and look at `tidegate check --plan`.\n",
        );
        let many = self.parts.len() > 1;
        for (number, part) in self.parts.iter().enumerate() {
            let names: Vec<String> = part.updates.iter().map(|link| format!("{}_{}", self.name, link.name)).collect();
            out.push('\n');
            if !part.before.is_empty() {
                for line in part.before.lines() {
                    let _ = writeln!(out, "# {line}");
                }
            }
            let job = if many { format!("{}_{}", self.name, number + 1) } else { self.name.clone() };
            let mut commands = Vec::new();
            for (place, name) in names.iter().enumerate() {
                let behind =
                    place.checked_sub(1).map(|before| format!(" --depends-on {}", names[before])).unwrap_or_default();
                commands.push(format!("#   tidegate enqueue {name}{behind}"));
            }
            let _ =
                writeln!(out, "# Queue these together: start job \"{job}\" over the API, or\n{}", commands.join("\n"));
            for (link, name) in part.updates.iter().zip(&names) {
                let _ = writeln!(out, "\n# {}", link.what);
                if known.contains(name) {
                    let _ = writeln!(out, "# The configuration has an update of this name already.");
                }
                let _ = writeln!(out, "[[update]]\nname = {}", text(name));
                if let Some(database) = database {
                    let _ = writeln!(out, "databases = {}", texts(&[database.to_owned()]));
                }
                for (key, value) in &link.keys {
                    let _ = writeln!(out, "{key} = {value}");
                }
            }
            let _ = writeln!(out, "\n[[job]]\nname = {}", text(&job));
            if let Some(database) = database {
                let _ = writeln!(out, "database = {}", text(database));
            }
            for (place, name) in names.iter().enumerate() {
                let _ = writeln!(out, "\n[[job.update]]\nupdate = {}", text(name));
                if let Some(before) = place.checked_sub(1) {
                    let _ = writeln!(out, "depends_on = {}", text(&names[before]));
                }
            }
        }
        out
    }
}
