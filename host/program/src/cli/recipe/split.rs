//! Columns of a table move to one of their own.

use tidegate::update::sql::{Sql, System, TableName};

use super::chain::{Chain, Link, Part, text, texts};
use super::{ColumnName, Refusal, look};

pub(super) async fn chain(sql: &mut dyn Sql, of: &TableName, into: &str, columns: &[String]) -> Result<Chain, Refusal> {
    let dialect = sql.dialect();
    let system = dialect.system();
    let table = look::table(sql, of).await?;
    let target = TableName { schema: of.schema.clone(), name: into.to_owned() };
    if dialect.describe(sql, &target).await?.is_some() {
        return Err(Refusal::new(format!("there is a table \"{target}\" already"), "take another name"));
    }
    let key = look::key(&table, of, system)?;
    let mut moved = Vec::new();
    for column in columns {
        let name = ColumnName { table: of.clone(), column: column.clone() };
        let found = look::column(&table, &name, system)?;
        if key.contains(&found.name) {
            return Err(Refusal::new(
                format!("column \"{column}\" is of the key, which both tables have"),
                "leave it out",
            ));
        }
        moved.push(found.clone());
    }
    let declared = |name: &String| look::find(&table, name, system);
    let both: Vec<_> = key.iter().filter_map(declared).chain(&moved).collect();
    let definitions: Vec<String> = both
        .iter()
        .map(|column| {
            let not_null = if column.not_null { " NOT NULL" } else { "" };
            format!("    {} {}{not_null}", dialect.quote(&column.name), column.sql_type)
        })
        .collect();
    let quoted_key: Vec<String> = key.iter().map(|column| dialect.quote(column)).collect();
    let (quoted, q_into) = (dialect.table(of), dialect.table(&target));
    let create = format!(
        "CREATE TABLE {q_into} (\n{},\n    PRIMARY KEY ({})\n)",
        definitions.join(",\n"),
        quoted_key.join(", ")
    );
    let prefix = look::update_name(&[&of.name, "split", into]);
    let copy = format!("{prefix}_2_copy");
    let names: Vec<String> = both.iter().map(|column| column.name.clone()).collect();
    let script = |name: &str, what: &str, statements: &[String]| match system {
        System::Sqlite => Link::sql(name, what, &format!("{};\n", statements.join(";\n"))),
        System::Postgres => Link::script(name, what, statements),
    };
    let schema = target.schema.as_ref().map(|schema| ("into_schema", text(schema)));
    let keys = [("key", texts(&key)), ("into", text(into)), ("columns", texts(&names)), ("keep", text("trigger"))];
    let first = vec![
        script("1_create", "The new table.", &[create]),
        Link::of_table(
            "2_copy",
            "It gets every row, and triggers keep what is written meanwhile.",
            "copy",
            of,
            keys.into_iter().chain(schema).collect(),
        ),
    ];
    let second =
        vec![Link::unkeep("3_unkeep", "The triggers, which would overwrite the new table by the old, go.", &copy)];
    let drops: Vec<String> = moved
        .iter()
        .map(|column| format!("ALTER TABLE {quoted} DROP COLUMN {}", dialect.quote(&column.name)))
        .collect();
    let third = vec![script("4_drop", "The old columns go.", &drops)];
    let listed = columns.join(", ");
    let parts = vec![
        Part::new(format!("First: table \"{into}\" is there, and holds what \"{}\" does.", of.name), first),
        Part::new(
            format!(
                "Second, once every instance of the application reads {listed} from \"{into}\", and writes them in both tables."
            ),
            second,
        ),
        Part::new(format!("Third, once every instance of the application writes {listed} to \"{into}\" alone."), third),
    ];
    let title = format!("{listed} of table \"{of}\" move to table \"{into}\", over two deploys of the application.");
    let notes = vec![
        "Foreign keys, defaults, checks and other indexes of the new table are to be added to its CREATE TABLE."
            .to_owned(),
    ];
    Ok(Chain { title, name: prefix, notes, parts })
}
