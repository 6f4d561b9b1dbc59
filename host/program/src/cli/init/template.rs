//! The text of a configuration to start from. A line that begins with "#" and no blank after it is a setting at its
//! default or an example; a test takes these "#" away and holds the result against the defaults.

use tidegate::scheduler::database::QueueRow;

use super::url::Url;
use crate::cli::output;

/// What a configuration is made from.
pub(super) struct Template<'a> {
    pub(super) url: &'a Url,
    /// Where it is not the usual one.
    pub(super) queue_table: Option<&'a str>,
    /// What is queued, where somebody looked.
    pub(super) rows: Option<Vec<QueueRow>>,
}

const HEAD: &str = r##"# What tidegate does, and how fast. Lines with "#" and no blank after it are settings at their defaults, or examples:
# take the "#" away to use them. In any string ${NAME} stands for that environment variable. Relative paths begin at this
# file's folder. `tidegate check` says whether everything fits.

[background_updates]
# How long a batch is to take, and how long the built-in policy sleeps between two: after an update's last batch, where
# that was a short one, for its part of that, and not at all after one that did nothing. A controller has its own mind.
#background_update_duration_ms = 100
#sleep_enabled = true
#sleep_duration_ms = 1000
# "gentle" in place of that sleep: as much of the time as whoever else uses the database bears, by a probe that is done
# while an update is in hand. Its bounds are in [background_updates.gentle].
#pace = "steady"
# Items of an update's first slice, of a later batch at least, and of any batch at most.
#default_batch_size = 100
#min_batch_size = 100
#max_batch_size = 1000000
# How long a batch may go on beyond its target for the least, and the most that a controller may ask for as the least.
#batch_cut_off_ms = 1000
#max_min_batch_size = 1000
# "slices" follows what items cost within a batch; "synapse" sizes batches by Synapse's formula.
#estimator = "slices"
# The longest target duration that a controller may ask for.
#max_target_duration_ms = 60000
# How often the queue is looked at.
#poll_interval_ms = 1000
# Failures in a row after which an update is quarantined.
#max_attempts = 5
# How long a running batch may go on once the host is told to stop.
#shutdown_grace_ms = 10000

[[database]]
# What controllers and commands call it.
#name = "master"
# "sqlite:PATH" or "postgres://user:${PASSWORD}@host/name". Or `url_file`, a file that holds such a URL.
"##;

const SQLITE: &str = "\
# How long a statement waits for another process's lock.
#busy_timeout_ms = 5000
";

const POSTGRES: &str = "\
# Limits on every session; one-shot updates are free of the first two.
#lock_timeout_ms = 2000
#statement_timeout_ms = 60000
#idle_in_transaction_timeout_ms = 60000
";

const CONTROLLER: &str = r##"
# Who decides how long batches take and when they wait: a WebAssembly component. Without one, the built-in policy does.
#[[controller]]
#name = "steady"
#path = "steady.wasm"
# Where it fails `max_faults` times in a row: "default", the built-in policy, or "hold".
#fallback = "default"
#max_faults = 3
#[controller.settings]
#sleep_duration_ms = "200"
"##;

const SIGNALS_AND_ADMIN: &str = r##"
# The load that controllers go by is measured beside the work: `tidegate signals` shows it. With `probe_write = true` a tiny
# write is measured too.
#[signals]
#enabled = true
#interval_ms = 1000
#timeout_ms = 1000

# A measure of your own; a controller reads it by its name. Kinds: "sql", "prometheus", "http" and "file".
#[[signal]]
#name = "jobs-waiting"
#kind = "sql"
#sql = "SELECT count(*) FROM jobs"

# The page, the metrics and the API. Whoever is to steer needs a token: `tidegate token new` makes one.
#[admin]
#listen = ["127.0.0.1:9290"]
"##;

const UPDATE: &str = r##"
# What the queue's rows mean: one [[update]] for each name. A row whose name is defined nowhere waits until it is.
#[[update]]
#name = "messages_search_body"
#kind = "backfill"
#table = "messages"
#key = "id"
#set = "search_body = lower(body)"
#where = "search_body IS NULL"
"##;

impl Template<'_> {
    /// The text.
    pub(super) fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        // In the URL ${NAME} keeps its meaning.
        text += &format!("url = {}\n", quoted(&self.url.written));
        match self.queue_table {
            Some(table) => text += &format!("queue_table = {}\n", quoted(&plain(table))),
            None => text += "#queue_table = \"background_updates\"\n",
        }
        text += if self.url.is_sqlite() { SQLITE } else { POSTGRES };
        text += CONTROLLER;
        text += SIGNALS_AND_ADMIN;
        match self.rows.as_deref() {
            None | Some([]) => text += UPDATE,
            Some(rows) => {
                text += "\n# What was queued when this file was made, each to be defined: fill in what it does, then take \
                         the \"#\" away. A row\n# whose name is defined nowhere waits until it is. The kinds and their keys \
                         are in the book.\n";
                rows.iter().for_each(|row| text += &stub(row));
            }
        }
        text
    }
}

/// A definition to be filled in.
fn stub(row: &QueueRow) -> String {
    let mut said = format!("at progress {}", shortened(&row.progress));
    if row.ordering != 0 {
        said += &format!(", in place {}", row.ordering);
    }
    if let Some(depends_on) = row.depends_on.as_deref().filter(|name| !name.is_empty()) {
        said += &format!(", behind {}", output::inline(depends_on));
    }
    format!(
        "\n# Queued {said}.\n#[[update]]\n#name = {}\n#kind = \"backfill\"\n#table = \"…\"\n#key = \"…\"\n#set = \"…\"\n",
        quoted(&plain(&row.update_name))
    )
}

/// A text as one line of a comment.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    let line = output::inline(text);
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A text in which nothing stands for a variable.
fn plain(text: &str) -> String {
    text.replace("${", "$${")
}

/// A text as a TOML string on one line. JSON's strings are such, but that TOML has no raw DEL.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidegate::scheduler::database::QueueRow;
    use tidegate_config::{Config, DEFAULT_ADDRESS};

    use super::{Template, Url};

    fn parsed(text: &str) -> Config {
        let config = Config::parse(text, Path::new("tidegate.toml"), &|_| None);
        config.unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
    }

    /// The text with what is commented out put in force.
    fn in_force(text: &str) -> String {
        let line = |line: &str| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn what_is_commented_out_are_the_defaults_and_an_example() {
        for url in [Url::example(), Url { written: "postgres://me@db/app".to_owned(), password: None }] {
            let text = Template { url: &url, queue_table: None, rows: None }.text();
            let (default, all) = (parsed(&text), parsed(&in_force(&text)));
            assert_eq!(default.background_updates, all.background_updates);
            let target = |config: &Config| config.databases.first().map(|database| database.target.clone());
            assert_eq!(target(&default), target(&all));
            assert_eq!(default.sampling, all.sampling);
            let examples = |config: &Config| (config.updates.len(), config.controllers.len(), config.signals.len());
            assert_eq!((examples(&default), examples(&all)), ((0, 0, 0), (1, 1, 1)));
            let listen = |config: &Config| config.admin.as_ref().map(|admin| admin.listen.clone());
            assert_eq!((listen(&default), listen(&all)), (None, Some(vec![DEFAULT_ADDRESS])));
            let named = |config: &Config| config.databases.first().map(|d| (d.name.clone(), d.queue_table.clone()));
            assert_eq!(named(&default), named(&all));
        }
    }

    #[test]
    fn whatever_is_queued_the_text_is_a_configuration() {
        let names = [
            "plain",
            "with \"quotes\" and \\",
            "two\nlines\r\u{1b}[2J\u{7f}",
            "${HOME}$${X}",
            "]]\n[[database]]",
            "ç – ✓",
        ];
        let row = |name: &&str| QueueRow {
            update_name: (*name).to_owned(),
            progress: format!("{{\n\"{name}\"}}{}", "x".repeat(300)),
            depends_on: Some((*name).to_owned()),
            ordering: 7,
            ..QueueRow::default()
        };
        let url = Url::example();
        let text =
            Template { url: &url, queue_table: Some("q\"${u}\n"), rows: Some(names.iter().map(row).collect()) }.text();
        assert!(parsed(&text).updates.is_empty());
        let all = parsed(&in_force(&text));
        assert_eq!(all.updates.iter().map(|update| update.name.as_str()).collect::<Vec<_>>(), names);
        assert_eq!(all.databases.first().map(|database| database.queue_table.as_str()), Some("q\"${u}\n"));
    }
}
