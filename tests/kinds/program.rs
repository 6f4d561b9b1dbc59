//! The kinds as an operator has them: the book's own examples, checked and run by the program.

use crate::support::command::Site;
use crate::support::on_both;
use crate::support::place::Place;

const PAGE: &str = include_str!("../../docs/src/updates.md");

/// The examples in the book's section on kinds.
fn examples() -> String {
    let section = PAGE.split("\n## Kinds of update\n").nth(1).unwrap().split("\n## ").next().unwrap();
    section.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

const TABLES: &str = "
    CREATE TABLE messages (room text NOT NULL, id integer NOT NULL UNIQUE, state text, sent_at integer,
        PRIMARY KEY (room, id));
    INSERT INTO messages VALUES ('!a', 1, 'sent', 86400), ('!b', 2, 'draft', 1), ('!a', 3, NULL, 200000);
    CREATE TABLE archive (id integer PRIMARY KEY, day integer); INSERT INTO archive VALUES (3, -1);
    CREATE TABLE teams (id integer PRIMARY KEY NOT NULL); INSERT INTO teams VALUES (7);
    CREATE TABLE names (person integer, name text);
    CREATE TABLE drafts (id integer);";

const PEOPLE: &str = "INSERT INTO people VALUES (1, 'Ann', 'a@x', 7), (2, 'Bob', NULL, 7), (3, 'Cy', 'c@x', NULL);
    CREATE INDEX people_by_email ON people (email);";

/// The table `people`, with a row that came in before its constraint did.
fn people(place: &Place) -> String {
    let columns = "id integer PRIMARY KEY NOT NULL, first_name text, email text, team integer";
    let foreign_key = "CONSTRAINT people_team_fkey FOREIGN KEY (team) REFERENCES teams (id)";
    let there = "CONSTRAINT people_email_there CHECK (email IS NOT NULL)";
    place
        .either(
            "PRAGMA ignore_check_constraints = on; CREATE TABLE people (COLUMNS, FOREIGN_KEY, THERE); PEOPLE",
            "CREATE TABLE people (COLUMNS); PEOPLE ALTER TABLE people ADD FOREIGN_KEY NOT VALID, ADD THERE NOT VALID",
        )
        .replace("COLUMNS", columns)
        .replace("FOREIGN_KEY", foreign_key)
        .replace("THERE", there)
        .replace("PEOPLE", PEOPLE)
}

on_both! {
    async fn the_examples_of_the_book_are_in_order_and_run(place: Place) {
        place.run(TABLES).await;
        place.run(&people(place)).await;
        place.recommended().await;
        let settings = "[background_updates]\nsleep_enabled = false\nmax_attempts = 1\npoll_interval_ms = 50\n";
        let site = Site::new(&format!("{settings}[[database]]\nurl = \"{}\"\n{}", place.url, examples()));
        let names =
            ["archive_messages", "drop_drafts", "people_by_email", "people_email_there", "people_team_valid", "split_names", "tidy"];
        let told = site.tidegate(&[&["enqueue"], &names[..]].concat()).await;
        assert_eq!(told.code, 0, "{}", told.all());
        let told = site.tidegate(&["check"]).await;
        assert_eq!(told.all(), "tidegate.toml is in order: 1 database, 0 controllers, 7 updates\nexit code 0");
        let plans = site.tidegate(&["check", "--plan"]).await.out;
        assert!(names.iter().all(|name| plans.contains(&format!("update \"{name}\" on database"))), "{plans}");
        let told = site.tidegate(&["run", "--until-done"]).await;
        assert_eq!(told.code, 0, "{}", told.all());
        let seen = |sql| place.rows(sql);
        assert_eq!(seen("SELECT id, day FROM archive ORDER BY id").await, ["1|1", "2|0", "3|-1"]);
        assert_eq!(seen("SELECT id FROM messages ORDER BY id").await, ["1", "3"]);
        assert_eq!(seen("SELECT person, name FROM names ORDER BY person").await, ["1|Ann", "3|Cy"]);
        assert_eq!(seen("SELECT * FROM people ORDER BY id").await, ["1|a@x|7", "3|c@x|"]);
        let indexes = place.either(
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND name LIKE 'people%'",
            "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'people_by%'",
        );
        // That index is for PostgreSQL alone: on SQLite nothing replaces the old one.
        assert_eq!(seen(indexes).await, [place.either("people_by_email", "people_by_lower_email")]);
        let open = place.either(
            "SELECT 1 FROM pragma_foreign_key_check",
            "SELECT 1 FROM pg_constraint WHERE NOT convalidated",
        );
        assert_eq!(seen(open).await, [""; 0]);
    }
}
