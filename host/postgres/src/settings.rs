//! What a session is set to for the host's statements; and how a transaction comes to the same in a session that others use
//! too, behind a pooler in transaction mode. There each transaction begins with words that put aside whatever others have
//! set, until it ends, and that leave nothing behind. They travel with the first statement.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// What a session is to be set to.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub(super) values: Arc<[(&'static str, String)]>,
    /// A script for a session of the connection's own besides: what is of no use where a pooler is the server's client.
    pub(super) besides: Arc<str>,
    /// Whether transactions may write; `None` where that is for the role and the database to say.
    pub(super) writes: Option<bool>,
}

impl Settings {
    /// The script that sets a session.
    pub(super) fn script(&self) -> String {
        let mut script = self.each("set");
        if let Some(writes) = self.writes {
            let _ = write!(script, "set default_transaction_read_only = {}; ", if writes { "off" } else { "on" });
        }
        script + &self.besides
    }

    fn each(&self, word: &str) -> String {
        self.values.iter().map(|(name, value)| format!("{word} {name} = {value}; ")).collect()
    }
}

/// How isolated a transaction is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// As the role or the database wishes.
    Usual,
    /// Each statement sees what is committed by then.
    Committed,
    /// All statements see the same.
    Snapshot,
}

impl Isolation {
    /// How a transaction begins in a session that is the connection's own.
    pub(super) fn begin(self) -> &'static str {
        match self {
            Self::Usual => "begin",
            Self::Committed => "begin isolation level read committed",
            Self::Snapshot => "begin isolation level repeatable read",
        }
    }
}

/// What it takes to work in sessions that others use too.
#[derive(Debug)]
pub(super) struct Sharing {
    settings: Settings,
    /// The isolation that the role or the database wishes.
    usual: String,
    only_reads: bool,
    /// True where that is no wish of the host's, but the role's, or the database's, or because the server is a standby.
    pub(super) may_not_write: bool,
    /// What is set otherwise until the connection is handed back.
    adjusted: Mutex<Vec<String>>,
}

/// Asked for once: what a transaction is by default, whatever others have set in this session.
pub(super) const USUAL: &str = "\
select (select reset_val from pg_catalog.pg_settings where name = 'default_transaction_isolation'),
       pg_catalog.pg_is_in_recovery()
       or (select reset_val from pg_catalog.pg_settings where name = 'default_transaction_read_only') = 'on'";

/// Who others have made the session work as; and the time limit that they have set, which is over for the rest by then.
const WHO: &str = "\
select pg_catalog.current_setting('role'), pg_catalog.current_setting('session_authorization'),
       pg_catalog.current_setting('statement_timeout');
set local statement_timeout = 0";

/// Makes the transaction work as whom the connection was made.
const ALONE: &str = "set local session authorization default; set local role to default";

/// Puts aside what others have set, and says what that was. A temporary table of theirs must not stand for one of the
/// application's: `pg_temp` comes last.
const ASIDE: &str = "\
with found as materialized (
    select name, setting from pg_catalog.pg_settings where source = 'session' and name not like 'transaction\\_%'
)
select (select pg_catalog.json_object_agg(name, setting) from found),
       (select pg_catalog.count(pg_catalog.set_config(name, null, true)) from found where name <> 'client_encoding');
select pg_catalog.set_config('search_path',
    pg_catalog.concat_ws(', ', nullif(pg_catalog.current_setting('search_path'), ''), 'pg_temp'), true)
where pg_catalog.strpos(pg_catalog.current_setting('search_path'), 'pg_temp') = 0";

/// Drops the temporary tables that this transaction has made; those of others stay. The transaction has a number by then.
const DROP_TEMPORARY: &str = "\
do $$ declare made record; begin
    for made in select c.relname, c.relkind from pg_catalog.pg_class c
        where c.relnamespace = pg_catalog.pg_my_temp_schema() and pg_catalog.age(c.xmin) <= 0
        and c.relkind in ('r', 'p', 'v', 'S')
    loop
        execute pg_catalog.format('drop %s if exists pg_temp.%I cascade',
            case made.relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end, made.relname);
    end loop;
end $$";

/// Makes the session what it was before the transaction, as [`KEEP`] has noted it. No time limit of others' counts between
/// two statements of the host's: what follows in the same message puts all aside again.
const GIVE_BACK: &str = "\
select pg_catalog.count(pg_catalog.set_config(name, before.settings ->> name, false)) from (
    select pg_catalog.current_setting('tidegate.before')::json -> 'settings' as settings
) as before cross join lateral (
    select name from pg_catalog.pg_settings where source = 'session' and name not like 'transaction\\_%'
    union select pg_catalog.json_object_keys(before.settings)
) as changed;
select pg_catalog.set_config(name, pg_catalog.current_setting('tidegate.before')::json ->> name, false)
from (values (1, 'session_authorization'), (2, 'role'), (3, 'statement_timeout')) as whose (place, name) order by place;
set local statement_timeout = 0";

/// Notes in the transaction what the session was before ($1).
pub(super) const KEEP: &str = "select pg_catalog.set_config('tidegate.before', $1, true)";

/// How a session was that others use too, as JSON, from the rows of [`Sharing::begin`].
pub(super) fn before(rows: &[Vec<Option<String>>]) -> Option<String> {
    let [who, set, ..] = rows else { return None };
    let [role, authorization, statement_timeout] = who.as_slice() else { return None };
    let settings: Option<serde_json::Value> = set.first()?.as_deref().and_then(|set| serde_json::from_str(set).ok());
    let before = serde_json::json!({
        "role": role,
        "session_authorization": authorization,
        "statement_timeout": statement_timeout,
        "settings": settings.unwrap_or_else(|| serde_json::json!({})),
    });
    Some(before.to_string())
}

impl Sharing {
    pub(super) fn new(settings: Settings, usual: &str, only_reads: bool) -> Self {
        let may_not_write = only_reads && settings.writes.is_none();
        let only_reads = settings.writes.map_or(only_reads, |writes| !writes);
        Self { settings, usual: usual.to_owned(), only_reads, may_not_write, adjusted: Mutex::default() }
    }

    /// True where transactions are serializable unless they say otherwise.
    pub(super) fn is_serializable(&self) -> bool {
        self.usual == "serializable"
    }

    /// Begins a transaction of the host's own in whatever session it is given.
    pub(super) fn begin(&self, isolation: Isolation, application_name: &str) -> String {
        let level = match isolation {
            Isolation::Usual => self.usual.as_str(),
            Isolation::Committed => "read committed",
            Isolation::Snapshot => "repeatable read",
        };
        let access = if self.only_reads { "read only" } else { "read write" };
        format!(
            "begin isolation level {level} {access}, not deferrable; {WHO}; {ALONE}; {ASIDE}; {}",
            self.locals(application_name)
        )
    }

    /// The settings of the transaction in hand.
    fn locals(&self, application_name: &str) -> String {
        let adjusted: String = self.adjusted().iter().map(|set| format!("set local {set}; ")).collect();
        format!(
            "set local client_encoding = 'UTF8'; {}{adjusted}set local application_name = '{application_name}'",
            self.settings.each("set local")
        )
    }

    /// Once statements of others are done: drops what they have made for the session alone, makes that what it was before, and
    /// sets the transaction anew.
    pub(super) fn tidied(&self, application_name: &str) -> String {
        format!("{ALONE}; {DROP_TEMPORARY}; {GIVE_BACK}; {ALONE}; {ASIDE}; {}", self.locals(application_name))
    }

    /// Sets something otherwise in the transactions that follow, until the connection is handed back.
    pub(super) fn adjust(&self, name: &str, value: &str) {
        let mut adjusted = self.adjusted();
        adjusted.retain(|set| set.split(' ').next() != Some(name));
        adjusted.push(format!("{name} = {value}"));
    }

    /// The connection is handed back.
    pub(super) fn handed_back(&self) {
        self.adjusted().clear();
    }

    fn adjusted(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.adjusted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
