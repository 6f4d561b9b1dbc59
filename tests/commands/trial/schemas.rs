//! What a table can be, and what can happen around it when its rows change.

use tidegate::update::sql::System;

/// A cell of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub system: System,
    pub kind: &'static str,
    pub layout: &'static str,
    pub side: &'static str,
}

/// All cells of a system.
pub fn cells(system: System) -> Vec<Cell> {
    let (layouts, sides): (&[&str], &[&str]) = match system {
        System::Sqlite => (&["plain", "without_rowid"], &["none", "trigger", "cascade", "virtual", "view"]),
        System::Postgres => (
            &["plain", "inherited", "partitioned", "quoted"],
            &["none", "trigger", "deferred", "statement", "cascade", "rule"],
        ),
    };
    let kinds = ["backfill", "delete", "copy", "batch", "validate"];
    let mut cells = Vec::new();
    for kind in kinds {
        for layout in layouts {
            cells.extend(sides.iter().map(|side| Cell { system, kind, layout, side }));
        }
    }
    cells
}

/// Rows of the table.
pub const ROWS: u32 = 60;

impl Cell {
    fn table(&self) -> &'static str {
        if self.layout == "quoted" { "odd \"name" } else { "items" }
    }

    fn quoted(&self) -> String {
        format!("\"{}\"", self.table().replace('"', "\"\""))
    }

    /// The table that things happen around: the one that is written to.
    fn written(&self) -> String {
        if self.kind == "copy" { "target".to_owned() } else { self.quoted() }
    }

    /// The definition of update `x`.
    pub fn definition(&self) -> String {
        let name = format!("'{}'", self.table());
        let table = self.quoted();
        match self.kind {
            "backfill" => {
                format!("kind = \"backfill\"\ntable = {name}\nkey = \"k\"\nset = \"v = v || 'x', n = n + 1\"")
            }
            "delete" => format!("kind = \"delete\"\ntable = {name}\nkey = \"k\"\nwhere = \"n % 2 = 0\""),
            "copy" => format!(
                "kind = \"copy\"\ntable = {name}\nkey = \"k\"\ninto = \"target\"\ncolumns = {{ k = \"k + 1000\", v = \"v\" }}"
            ),
            "batch" => format!(
                "kind = \"batch\"\ntable = {name}\nkey = \"k\"\nsql = '''UPDATE {table} SET v = 'b' WHERE :range; \
                 INSERT INTO other SELECT k FROM {table} WHERE :range'''"
            ),
            "validate" => format!(
                "kind = \"validate-constraint-and-delete\"\ntable = {name}\nconstraint = \"small\"\nunique_columns = \"k\""
            ),
            kind => panic!("{kind}"),
        }
    }

    /// What makes the tables and their rows.
    pub fn schema(&self) -> String {
        match self.system {
            System::Sqlite => self.sqlite(),
            System::Postgres => self.postgres(),
        }
    }

    fn sqlite(&self) -> String {
        let without = if self.layout == "without_rowid" { " WITHOUT ROWID" } else { "" };
        let on = self.written();
        let around = match self.side {
            "trigger" => ["INSERT", "UPDATE", "DELETE"]
                .iter()
                .map(|what| {
                    format!(
                        "CREATE TRIGGER on_{what} AFTER {what} ON {on} BEGIN INSERT INTO audit (what) VALUES ('{what}'); \
                         UPDATE tally SET n = n + 1 WHERE k = {}.k; END;",
                        if *what == "DELETE" { "old" } else { "new" }
                    )
                })
                .collect(),
            "cascade" => format!(
                "CREATE TABLE kids (id INTEGER PRIMARY KEY, k INTEGER REFERENCES {on} (k) ON DELETE CASCADE) STRICT; \
                 CREATE TABLE tags (id INTEGER PRIMARY KEY, k INTEGER REFERENCES {on} (k) ON DELETE SET NULL); \
                 INSERT INTO kids (k) SELECT k FROM {on} UNION ALL SELECT k FROM {on}; INSERT INTO tags (k) SELECT k FROM {on};"
            ),
            "virtual" => ["INSERT", "UPDATE", "DELETE"]
                .map(|what| {
                    format!(
                        "CREATE TRIGGER on_{what} AFTER {what} ON {on} BEGIN \
                         INSERT INTO words (body) VALUES ('{what}'); END;"
                    )
                })
                .concat(),
            "view" => ["INSERT", "UPDATE", "DELETE"]
                .map(|what| {
                    format!(
                        "CREATE TRIGGER on_{what} AFTER {what} ON {on} BEGIN INSERT INTO shown VALUES ('{what}'); END;"
                    )
                })
                .concat(),
            _ => String::new(),
        };
        let numbers = format!(
            "WITH RECURSIVE g (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < {ROWS}) INSERT INTO items \
             SELECT n, 'v' || n, n FROM g; \
             INSERT INTO tally SELECT k, 0 FROM items UNION ALL SELECT k + 1000, 0 FROM items;"
        );
        format!(
            "PRAGMA journal_mode = {}; PRAGMA ignore_check_constraints = ON; \
             CREATE TABLE items (k INTEGER PRIMARY KEY, v TEXT, n INTEGER, CONSTRAINT small CHECK (n < 40 OR n > 1000)){without}; \
             CREATE TABLE target (k INTEGER PRIMARY KEY, v TEXT); CREATE TABLE other (k INTEGER); \
             CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT); CREATE TABLE untouched (a); \
             CREATE TABLE tally (k INTEGER PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID; INSERT INTO untouched VALUES (1); \
             CREATE VIRTUAL TABLE words USING fts5 (body); \
             CREATE TABLE behind (id INTEGER PRIMARY KEY, what TEXT); CREATE VIEW shown AS SELECT what FROM behind; \
             CREATE TRIGGER instead INSTEAD OF INSERT ON shown BEGIN INSERT INTO behind (what) VALUES (new.what); END; \
             {numbers} {around}{}",
            if self.layout == "plain" { "wal" } else { "delete" },
            self.small_enough()
        )
    }

    /// Where the update is about something else, no row breaks the constraint.
    fn small_enough(&self) -> String {
        match self.kind {
            "validate" => String::new(),
            _ => format!(
                "UPDATE {} SET n = n + 2000; DELETE FROM audit; DELETE FROM words; DELETE FROM behind;",
                self.quoted()
            ),
        }
    }

    fn postgres(&self) -> String {
        let (table, on) = (self.quoted(), self.written());
        let columns = "k int primary key, v text, n int";
        let made = match self.layout {
            "inherited" => format!(
                "create table {table} ({columns}); create table more (primary key (k)) inherits ({table}); \
                 insert into {table} select g, 'v' || g, g from generate_series(1, 30) g; \
                 insert into more select g, 'v' || g, g from generate_series(31, {ROWS}) g;"
            ),
            "partitioned" => format!(
                "create table {table} ({columns}) partition by range (k); \
                 create table low partition of {table} for values from (0) to (25); \
                 create table high partition of {table} for values from (25) to (5000); \
                 insert into {table} select g, 'v' || g, g from generate_series(1, {ROWS}) g;"
            ),
            _ => format!(
                "create table {table} ({columns}); \
                 insert into {table} select g, 'v' || g, g from generate_series(1, {ROWS}) g;"
            ),
        };
        let note = "create function note() returns trigger language plpgsql as $$ begin \
                    insert into audit (what) values (tg_op); return null; end $$;";
        // Triggers of a table are not those of the tables that inherit from it.
        let tables: Vec<&str> = match (self.layout, self.kind) {
            ("inherited", "copy") => vec![&on],
            ("inherited", _) => vec![&on, "more"],
            _ => vec![&on],
        };
        let each = |make: &dyn Fn(&str) -> String| tables.iter().map(|table| make(table)).collect::<String>();
        let around = match self.side {
            "trigger" => {
                note.to_owned()
                    + &each(&|table| {
                        format!(
                            "create trigger t after insert or update or delete on {table} for each row execute function note();"
                        )
                    })
            }
            "deferred" => {
                note.to_owned()
                    + &each(&|table| {
                        format!(
                            "create constraint trigger t after insert or update or delete on {table} \
                         deferrable initially deferred for each row execute function note();"
                        )
                    })
            }
            "statement" => {
                note.to_owned()
                    + &format!(
                        "create trigger t after insert or update or delete on {on} for each statement execute function note();"
                    )
            }
            "cascade" => format!(
                "create table kids (id serial primary key, k int references {on} on delete cascade); \
                 create table tags (k int references {on} on delete set null); \
                 insert into kids (k) select k from only {on} union all select k from only {on}; \
                 insert into tags select k from only {on};"
            )
            .replace("only", if self.layout == "inherited" { "only" } else { "" }),
            "rule" => ["insert", "update", "delete"]
                .map(|what| {
                    format!(
                        "create rule on_{what} as on {what} to {on} do also insert into audit (what) values ('{what}');"
                    )
                })
                .concat(),
            _ => String::new(),
        };
        let small = match self.kind {
            "validate" => format!("alter table {table} add constraint small check (n < 40) not valid;"),
            _ => String::new(),
        };
        format!(
            "create table target (k int primary key, v text); create table other (k int); \
             create table audit (id serial primary key, what text); create table untouched (a int); \
             insert into untouched values (1); {made} {around} {small} analyze;"
        )
    }
}
