//! A column in which NULL is forbidden.

use tidegate::update::sql::{Sql, System, Value};

use super::chain::{Chain, Link, Part, text, texts};
use super::{ColumnName, Refusal, look};

/// The default of the column $2 of the table $1 (quoted).
const DEFAULT: &str = "\
SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a
JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass($1::text) AND a.attname = $2::text AND a.attgenerated = ''";

pub(super) async fn chain(sql: &mut dyn Sql, name: &ColumnName, value: Option<&str>) -> Result<Chain, Refusal> {
    let dialect = sql.dialect();
    let ColumnName { table: of, column } = name;
    if dialect.system() == System::Sqlite {
        return Err(Refusal::new(
            "SQLite cannot forbid NULL in a column that is there",
            "make a table with it, and have a `copy` with keep = \"trigger\" fill it (`tidegate recipe split-table` prints a like chain)",
        ));
    }
    let table = look::table(sql, of).await?;
    let found = look::column(&table, name, System::Postgres)?;
    if found.not_null {
        return Err(Refusal::new(
            format!("column \"{column}\" of table \"{of}\" is NOT NULL already"),
            "there is nothing to do",
        ));
    }
    let key = look::key(&table, of, System::Postgres)?;
    let quoted = dialect.table(of);
    let values = [Value::from(quoted.as_str()), Value::from(column.as_str())];
    let default = look::list(sql, DEFAULT, &values).await?.into_iter().next();
    let Some(value) = value.map(str::to_owned).or(default) else {
        return Err(Refusal::new(
            format!(
                "column \"{column}\" of table \"{of}\" has no default, and what is to stand in place of NULL is not said"
            ),
            "say it: --value \"''\"",
        ));
    };
    let q = dialect.quote(column);
    let constraint = format!("{}_{column}_not_null", of.name);
    let q_constraint = dialect.quote(&constraint);
    let prefix = look::update_name(&[&of.name, column, "not_null"]);
    let fill = format!("{prefix}_1_fill");
    let alter = |what: String| format!("ALTER TABLE {quoted} {what}");
    let first = vec![
        Link::of_table(
            "1_fill",
            "No row has NULL there, and a trigger keeps it so.",
            "backfill",
            of,
            vec![
                ("key", texts(&key)),
                ("set", text(&format!("{q} = {value}"))),
                ("where", text(&format!("{q} IS NULL"))),
                ("keep", text("trigger")),
                ("verify", text("full")),
            ],
        ),
        Link::script(
            "2_forbid",
            "NULL is forbidden for what is written, without a look at the rows.",
            &[alter(format!("ADD CONSTRAINT {q_constraint} CHECK ({q} IS NOT NULL) NOT VALID"))],
        ),
        Link::of_table(
            "3_look",
            "The rows are looked at, and nobody waits for that.",
            "validate-constraint",
            of,
            vec![("constraint", text(&constraint))],
        ),
        Link::script(
            "4_not_null",
            "PostgreSQL takes the constraint's word for it.",
            &[alter(format!("ALTER COLUMN {q} SET NOT NULL")), alter(format!("DROP CONSTRAINT {q_constraint}"))],
        ),
    ];
    let second = vec![Link::unkeep("5_unkeep", "The trigger goes, and NULL is an error from then on.", &fill)];
    let parts = vec![
        Part::new("First: NULL is forbidden, and the trigger writes in its place what is to stand there.", first),
        Part::new("Second, once no instance of the application writes NULL there any more.", second),
    ];
    let title =
        format!("NULL is forbidden in column \"{column}\" of table \"{of}\", where {value} stands in its place.");
    let notes = vec!["No lock is held while rows are looked at.".to_owned()];
    Ok(Chain { title, name: prefix, notes, parts })
}
