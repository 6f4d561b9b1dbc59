//! The schemas of the matrix, as data: how a table is made, which keys its rows have, and what each kind of update is
//! expected to do there.
//!
//! Every table has the same columns, so that one writer and one set of checks do for all: a key `{id}` of the schema's own
//! type; `{tag}`, the number by which the test knows a row; `{n}`, which decides whether an update is about it; `{state}`,
//! `{touched}`, `{edits}` and `{note}`. In SQL `{t}` is the table, `{u}` the one that is copied into, which is made the
//! same way, `{written}` where the application writes, and `{c1}`, `{c2}`, `{p}`, `{f}` are tables and functions beside it.

mod postgres;
mod sqlite;

use tidegate::update::sql::System;
use tidegate::update::{OnSkip, Reach};

use super::update::{CONSTRAINT, Kind};

/// The rows that are there when an update begins; their tags are the even numbers from 2 on.
pub const ROWS: u32 = 160;

/// What is expected of a kind of update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It does what its definition says.
    Right,
    /// `check` refuses it with these words, and no row is changed.
    Refused(&'static str),
    /// A batch fails with these words: it stops before the rows that it cannot change.
    Stops(&'static str),
}

use Expected::{Refused, Right, Stops};

/// Whom the host connects as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Superuser,
    /// A role that owns nothing.
    Other,
    /// The role that owns the tables.
    Owner,
}

/// A value of the row with a tag, as SQL.
type Literal = fn(u32) -> String;

pub struct Schema {
    pub name: &'static str,
    /// The key's columns.
    pub key: &'static [&'static str],
    /// The type of `{id}`.
    pub sql_type: &'static str,
    /// The key of the row with a tag, as SQL.
    pub value: Literal,
    /// What `{id}` is called, where it is no column of the table's.
    pub id: Option<&'static str>,
    /// True where rows are inserted with their key, and copied with it.
    pub given: bool,
    /// True where every name needs quotes.
    pub quoted: bool,
    /// What has to be there first.
    pub before: &'static str,
    pub table: &'static str,
    /// How the target of a copy is made, where that is another way.
    pub target: Option<&'static str>,
    /// Executed once the rows are in, for the target of a copy too.
    pub after: &'static str,
    /// An additional column, and its value.
    pub extra: Option<(&'static str, Literal)>,
    /// The table that the row with a tag goes into.
    pub home: fn(u32) -> &'static str,
    pub written: &'static str,
    /// What stands in FROM in statements of one's own.
    pub source: &'static str,
    /// Between the columns and the values of an INSERT.
    pub overriding: &'static str,
    /// The rows that the update is about.
    pub meant: fn(Kind) -> &'static str,
    pub reach: Reach,
    pub role: Role,
    /// True where new keys can lie beyond the last one.
    pub late: bool,
    /// A query whose rows are the same before and after: what the update is not about.
    pub bystander: Option<&'static str>,
    /// A query that gives no row where the schema's own rule holds.
    pub sound: Option<&'static str>,
    pub expected: fn(Kind) -> Expected,
}

const REACH: Reach = Reach { only: false, row_security: false, on_skip: OnSkip::Error };

const PLAIN: Schema = Schema {
    name: "plain",
    key: &["id"],
    sql_type: "integer",
    value: number,
    id: None,
    given: true,
    quoted: false,
    before: "",
    table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({id}){constraint})",
    target: None,
    after: "",
    extra: None,
    home: |_| "{t}",
    written: "{t}",
    source: "{t}",
    overriding: "",
    meant: |_| "1 = 1",
    reach: REACH,
    role: Role::Superuser,
    late: true,
    bystander: None,
    sound: None,
    expected: |_| Right,
};

fn number(tag: u32) -> String {
    tag.to_string()
}

/// A row that triggers, rules and odd keys are about; the application leaves it alone.
pub fn is_special(tag: u32) -> bool {
    tag % 100 == 14
}

/// Numbers in an order of their own.
fn scattered(tag: u32) -> u32 {
    tag.wrapping_mul(2_654_435_761)
}

/// Texts that a careless program trips over.
fn nasty(tag: u32) -> String {
    let parts = ["o''clock", "ß", "Ω\u{301}", "a b", "%_\\", "\"", "line\nline", "日本", "$1", "?1", ":range", "--"];
    let part = parts[tag as usize % parts.len()];
    if tag == 14 { "''".to_owned() } else { format!("'{part}{tag}'") }
}

/// No walk can be made.
fn no_walk(kind: Kind, words: &'static str) -> Expected {
    if kind.walks() { Refused(words) } else { Right }
}

/// Where rows are to be changed by the host's own statements.
const fn changes(kind: Kind) -> bool {
    matches!(kind, Kind::Backfill | Kind::Transform | Kind::Delete | Kind::ValidateAndDelete)
}

/// Keys of this type.
const fn keys(name: &'static str, sql_type: &'static str, value: Literal) -> Schema {
    Schema { name, sql_type, value, ..PLAIN }
}

const QUOTED: Schema = Schema { name: "quoted-names", quoted: true, ..PLAIN };

const COMPOSITE: Schema = Schema {
    name: "composite-key",
    key: &["id", "tag"],
    value: |tag| (tag % 5).to_string(),
    table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({id}, {tag}){constraint})",
    ..PLAIN
};

const NOT_UNIQUE: Schema = Schema {
    name: "not-unique-key",
    value: |tag| (tag / 30).to_string(),
    table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({tag}){constraint}); CREATE INDEX {c1} ON {t} ({id})",
    ..PLAIN
};

const DESCENDING: Schema = Schema {
    name: "descending-index",
    table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({tag}){constraint}); CREATE UNIQUE INDEX {c1} ON {t} ({id} DESC)",
    ..PLAIN
};

const TEXT: Schema = keys("text-key", "text", nasty);

/// The rows that are special are left as they are.
const SPARED: &str = "{tag} % 100 <> 14";

/// What triggers that skip rows make of the kinds, where that is an error.
fn skipped(kind: Kind) -> Expected {
    match kind {
        kind if changes(kind) => Stops("rows from being changed"),
        Kind::Copy => Stops("did not take"),
        _ => Right,
    }
}

/// The same where it is none.
fn skipped_and_ignored(kind: Kind) -> Expected {
    match kind {
        // It has no `on_skip`.
        Kind::ValidateAndDelete => Stops("rows from being changed"),
        Kind::Copy => Stops("did not take"),
        _ => Right,
    }
}

fn spared(kind: Kind) -> &'static str {
    if kind.moves() { "1 = 1" } else { SPARED }
}

fn moved_ahead(kind: Kind) -> Expected {
    if matches!(kind, Kind::Backfill | Kind::Transform) { Stops("ahead along the key") } else { Right }
}

/// SQLite's trigger says what is written in it; PostgreSQL's might say anything, which the log alone is told.
fn raised(kind: Kind) -> Expected {
    if changes(kind) || kind.copies() { Stops("hands off") } else { Right }
}

fn raised_by_function(kind: Kind) -> Expected {
    if changes(kind) || kind.copies() { Stops("raised an error") } else { Right }
}

const IGNORING: Reach = Reach { only: false, row_security: false, on_skip: OnSkip::Ignore };

fn view(kind: Kind) -> Expected {
    match kind {
        Kind::CreateIndex => Refused("is no table, and cannot have an index"),
        Kind::Validate => Refused("no constraint"),
        Kind::Sql => Right,
        _ => Refused("is a view, and an update changes the rows of a table"),
    }
}

fn sqlite_view(kind: Kind) -> Expected {
    match kind {
        Kind::CreateIndex => Refused("views may not be indexed"),
        Kind::Validate => Refused("there is no table"),
        kind => view(kind),
    }
}

const POSTGRES_VIEW: Schema = Schema {
    name: "updatable-view",
    table: "CREATE TABLE {p} ({columns}, PRIMARY KEY ({id})); CREATE VIEW {t} AS SELECT * FROM {p}",
    home: |_| "{p}",
    written: "{p}",
    expected: view,
    ..PLAIN
};

const SQLITE_VIEW: Schema = Schema {
    table: "CREATE TABLE {p} ({columns}, PRIMARY KEY ({id}){constraint}); CREATE VIEW {t} AS SELECT * FROM {p};
            CREATE TRIGGER {f} INSTEAD OF UPDATE ON {t} BEGIN UPDATE {p} SET {note} = NEW.{note} WHERE {id} = OLD.{id}; END",
    expected: sqlite_view,
    ..POSTGRES_VIEW
};

const INHERITANCE: &str = "CREATE TABLE {t} ({columns}, PRIMARY KEY ({id}));
    CREATE TABLE {c1} (PRIMARY KEY ({id})) INHERITS ({t});
    CREATE TABLE {c2} (more text, PRIMARY KEY ({id})) INHERITS ({c1})";

/// Three rows have each key: one of the parent, one of the child, one of the grandchild.
const PARENT: Schema = Schema {
    name: "inheritance-parent",
    value: |tag| (tag / 3).to_string(),
    table: INHERITANCE,
    target: Some("CREATE TABLE {t} ({columns}, UNIQUE ({tag}))"),
    home: |tag| ["{t}", "{c1}", "{c2}"][tag as usize % 3],
    ..PLAIN
};

const RANGES: &str = "CREATE TABLE {t} ({columns}, PRIMARY KEY ({id})) PARTITION BY RANGE ({id});
    CREATE TABLE {c1} PARTITION OF {t} FOR VALUES FROM (50) TO (120);
    CREATE TABLE {c2} PARTITION OF {t} FOR VALUES FROM (120) TO (300);";
const LISTS: &str =
    "CREATE TABLE {t} ({columns}, part integer NOT NULL, PRIMARY KEY ({id}, part)) PARTITION BY LIST (part);
    CREATE TABLE {c1} PARTITION OF {t} FOR VALUES IN (0, 2); CREATE TABLE {c2} PARTITION OF {t} FOR VALUES IN (1);";

fn partitioned(kind: Kind) -> Expected {
    if kind == Kind::CreateIndex { Refused("is partitioned") } else { Right }
}

const PARTITIONED: Schema = Schema { expected: partitioned, ..PLAIN };

const POLICY: &str =
    "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON {t} USING ({n} % 2 = 0) WITH CHECK (true);";

fn bound(kind: Kind) -> Expected {
    match kind {
        Kind::CreateIndex | Kind::Validate | Kind::ValidateAndDelete => Refused("own"),
        _ => Refused("row-level security"),
    }
}

fn bound_owner(kind: Kind) -> Expected {
    match kind {
        Kind::CreateIndex | Kind::Validate => Right,
        _ => Refused("row-level security"),
    }
}

fn asked(kind: Kind) -> Expected {
    match kind {
        Kind::CreateIndex | Kind::Validate | Kind::ValidateAndDelete => Refused("own"),
        // Nothing in a script's definition says that the visible rows are meant.
        Kind::Sql => Refused("row-level security"),
        _ => Right,
    }
}

const POSTGRES_TRIGGER: &str =
    "CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE wrote record; BEGIN
        IF TG_OP = 'DELETE' THEN wrote := OLD; ELSE wrote := NEW; END IF;
        IF wrote.{tag} % 100 = 14 THEN
            IF TG_OP <> 'UPDATE' THEN WHAT; ELSIF NEW.{touched} <> OLD.{touched} THEN WHAT; END IF;
        END IF;
        RETURN wrote;
    END $$;
    CREATE TRIGGER guards BEFORE INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW EXECUTE FUNCTION {f}();";

/// The schemas of a database.
pub fn of(system: System) -> &'static [Schema] {
    match system {
        System::Sqlite => sqlite::on_sqlite().leak(),
        System::Postgres => postgres::on_postgres().leak(),
    }
}

/// A table of a schema: the one that updates are about, or the one that is copied into.
#[derive(Clone, Copy)]
pub struct Table {
    pub schema: &'static Schema,
    pub system: System,
    target: bool,
}

impl Table {
    pub fn of(schema: &'static Schema, system: System) -> Self {
        Self { schema, system, target: false }
    }

    /// The table that is copied into.
    pub fn target(&self) -> Self {
        Self { target: true, ..*self }
    }

    /// Its name, without quotes.
    pub fn name(&self) -> String {
        let name = match (self.target, self.schema.quoted) {
            (false, false) => "t",
            (true, false) => "u",
            (false, true) => "Größe \"of\" 'T'",
            (true, true) => "ziel; --",
        };
        name.to_owned()
    }

    /// The name of a column, without quotes.
    pub fn column(&self, column: &str) -> String {
        let name = match (column, self.schema.quoted) {
            ("id", _) if self.schema.id.is_some() => self.schema.id.unwrap_or_default(),
            ("id", true) => "Schlüssel \"id\"",
            ("tag", true) => "Tag:nr",
            ("n", true) => "select",
            ("state", true) => "état",
            ("touched", true) => "tou ched",
            ("edits", true) => "edits=1, n",
            ("note", true) => "no'te $1",
            (other, _) => other,
        };
        name.to_owned()
    }

    pub fn key_columns(&self) -> Vec<String> {
        self.schema.key.iter().map(|name| self.column(name)).collect()
    }

    /// The columns that a copy copies.
    pub fn copied_columns(&self) -> Vec<String> {
        let id = (self.schema.given && self.schema.id.is_none()).then_some("id");
        let all = id.into_iter().chain(["tag", "n", "state", "touched", "edits", "note"]);
        all.chain(self.schema.extra.map(|(name, _)| name)).map(|name| self.column(name)).collect()
    }

    /// The key of the row with a tag, as SQL.
    pub fn key(&self, tag: u32) -> String {
        (self.schema.value)(tag)
    }

    /// SQL with the names put in.
    pub fn fill(&self, sql: &str) -> String {
        let quote = |name: &str| match self.schema.quoted {
            true => format!("\"{}\"", name.replace('"', "\"\"")),
            false => name.to_owned(),
        };
        let beside = |suffix: &str| quote(&format!("{}{suffix}", self.name()));
        let others = "{tag} integer NOT NULL, {n} integer NOT NULL, {state} text NOT NULL, \
                      {touched} integer NOT NULL DEFAULT 0, {edits} integer NOT NULL DEFAULT 0, {note} text";
        let mut filled = sql
            .replace("{written}", self.schema.written)
            .replace("{source}", self.schema.source)
            .replace("{first}", &format!("{{{}}}", self.schema.key[0].replace("rowid", "id")))
            .replace("{columns}", &format!("{{id}} {} NOT NULL, {others}", self.schema.sql_type))
            .replace("{others}", others);
        for column in ["id", "tag", "n", "state", "touched", "edits", "note"] {
            filled = filled.replace(&format!("{{{column}}}"), &quote(&self.column(column)));
        }
        for suffix in ["c1", "c2", "p", "f"] {
            filled = filled.replace(&format!("{{{suffix}}}"), &beside(&format!("_{suffix}")));
        }
        filled.replace("{t}", &quote(&self.name())).replace("{u}", &quote(&self.target().name()))
    }

    /// The statements that make the table.
    pub fn make(&self, kind: Kind) -> String {
        let constraint = match (self.system, kind.validates()) {
            (System::Sqlite, true) => format!(", CONSTRAINT {CONSTRAINT} CHECK ({{n}} >= 0)"),
            _ => String::new(),
        };
        let table = self.schema.target.filter(|_| self.target).unwrap_or(self.schema.table);
        self.fill(&table.replace("{constraint}", &constraint))
    }

    /// The INSERT of a row.
    pub fn insert(&self, tag: u32, kind: Kind, state: &str, note: Option<&str>) -> String {
        let place = tag / 2;
        let broken = kind == Kind::ValidateAndDelete && state == "old" && place % 3 == 1;
        let n = if broken { "-1".to_owned() } else { (place % 9).to_string() };
        let note = note.map_or("NULL".to_owned(), |note| format!("'{note}'"));
        let values = [tag.to_string(), n, format!("'{state}'"), "0".to_owned(), "0".to_owned(), note];
        let mut columns = vec!["{tag}", "{n}", "{state}", "{touched}", "{edits}", "{note}"];
        let mut values = values.to_vec();
        if self.schema.given && !(self.target && self.schema.id.is_some()) {
            columns.insert(0, "{id}");
            values.insert(0, self.key(tag));
        }
        if let Some((name, value)) = self.schema.extra {
            columns.push(name);
            values.push(value(tag));
        }
        let home = if self.target && self.schema.target.is_some() { "{t}" } else { (self.schema.home)(tag) };
        let overriding = self.schema.overriding;
        let head = self.fill(&format!("INSERT INTO {home} ({}){overriding}", columns.join(", ")));
        // Values are not looked into for names.
        format!("{head} VALUES ({})", values.join(", "))
    }

    /// Statements that move notes into a table of their own, for the rows in a range.
    pub fn moving(&self, range: &str) -> String {
        let rows = format!("FROM {{source}} WHERE {range} AND {{note}} IS NOT NULL AND {{n}} % 3 <> 0");
        // So that the application writes between the two.
        let pause = match self.system {
            System::Sqlite => String::new(),
            System::Postgres => {
                format!("SELECT others_write() FROM (SELECT 1 FROM {{source}} WHERE {range} LIMIT 1) AS one;")
            }
        };
        self.fill(&format!(
            "INSERT INTO moved (tag, note) SELECT {{tag}}, {{note}} {rows}; {pause} UPDATE {{source}} SET {{note}} = NULL \
             WHERE {range} AND {{note}} IS NOT NULL AND {{n}} % 3 <> 0"
        ))
    }
}
