//! A column gets another name.

use tidegate::update::sql::{Sql, System};

use super::chain::{Chain, Link, Part, text, texts};
use super::{ColumnName, Refusal, look};

pub(super) async fn chain(sql: &mut dyn Sql, name: &ColumnName, new: &str) -> Result<Chain, Refusal> {
    let dialect = sql.dialect();
    let system = dialect.system();
    let ColumnName { table: of, column } = name;
    let table = look::table(sql, of).await?;
    let old = look::column(&table, name, system)?.clone();
    look::must_be_free(&table, of, new, system)?;
    let key = look::key(&table, of, system)?;
    if key.contains(&old.name) {
        return Err(Refusal::new(
            format!("table \"{of}\" is walked along column \"{column}\", which is of its key"),
            "a key's column is renamed at once, together with the application: ALTER TABLE … RENAME COLUMN",
        ));
    }
    let (quoted, q_old, q_new) = (dialect.table(of), dialect.quote(&old.name), dialect.quote(new));
    let prefix = look::update_name(&[&of.name, column, "to", new]);
    let fill = format!("{prefix}_2_fill");
    let alter = |what: String| format!("ALTER TABLE {quoted} {what}");
    let script = |name: &str, what: &str, statements: &[String]| match system {
        System::Sqlite => Link::sql(name, what, &format!("{};\n", statements.join(";\n"))),
        System::Postgres => Link::script(name, what, statements),
    };
    let mut first = vec![
        script(
            "1_add",
            "The new column.",
            &[alter(format!("ADD COLUMN {q_new} {}", old.sql_type).trim_end().to_owned())],
        ),
        Link::of_table(
            "2_fill",
            "Every row gets it, and a trigger keeps what is written meanwhile.",
            "backfill",
            of,
            vec![
                ("key", texts(&key)),
                ("set", text(&format!("{q_new} = {q_old}"))),
                ("keep", text("trigger")),
                ("verify", text("full")),
            ],
        ),
    ];
    let mut second = Vec::new();
    if old.not_null && system == System::Postgres {
        let constraint = format!("{}_{new}_not_null", of.name);
        let q_constraint = dialect.quote(&constraint);
        let not_valid = alter(format!("ADD CONSTRAINT {q_constraint} CHECK ({q_new} IS NOT NULL) NOT VALID"));
        first.push(script("3_forbid", "It is not to be NULL, from now on.", &[not_valid]));
        let keys = vec![("constraint", text(&constraint))];
        first.push(Link::of_table("4_look", "Nor is it anywhere.", "validate-constraint", of, keys));
        let set =
            [alter(format!("ALTER COLUMN {q_new} SET NOT NULL")), alter(format!("DROP CONSTRAINT {q_constraint}"))];
        first.push(script("5_not_null", "PostgreSQL takes the constraint's word for it.", &set));
        let free = [alter(format!("ALTER COLUMN {q_old} DROP NOT NULL"))];
        second.push(script("6_free", "The old column may be left out from now on.", &free));
    }
    second.insert(
        0,
        Link::unkeep("6_unkeep", "The trigger, which would overwrite the new column by the old, goes.", &fill),
    );
    let mut notes =
        vec!["What hangs on the old column, as indexes and views, is to be made anew on the new one.".to_owned()];
    if old.not_null && system == System::Sqlite {
        notes.push(
            "SQLite cannot make the new column NOT NULL, and demands the old one in every INSERT until it is dropped."
                .to_owned(),
        );
    }
    let third = vec![script("7_drop", "The old column goes.", &[alter(format!("DROP COLUMN {q_old}"))])];
    let parts = vec![
        Part::new("First: the new column is there, and as the old one.", first),
        Part::new(
            format!(
                "Second, once every instance of the application reads \"{new}\" and writes both \"{column}\" and \"{new}\"."
            ),
            second,
        ),
        Part::new(format!("Third, once every instance of the application reads and writes \"{new}\" alone."), third),
    ];
    let title =
        format!("Column \"{column}\" of table \"{of}\" becomes \"{new}\", over two deploys of the application.");
    Ok(Chain { title, name: prefix, notes, parts })
}
