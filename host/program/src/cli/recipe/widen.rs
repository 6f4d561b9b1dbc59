//! A primary key of type integer becomes a bigint.

use tidegate::update::keep::trigger_name;
use tidegate::update::sql::{Sql, System, TableName, Value};

use super::chain::{Chain, Link, Part, text, texts};
use super::{ColumnName, Refusal, look};

/// Of the column $2 of the table $1 (quoted): its identity ('a', 'd' or ''), its default, its sequence, the schema.
const COLUMN: &str = "\
SELECT a.attidentity::text, coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
       coalesce(pg_get_serial_sequence($1::text, a.attname), ''), n.nspname::text
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass($1::text) AND a.attname = $2::text";

/// The primary key of the table $1 (quoted), where the column $2 is the whole of it.
const PRIMARY: &str = "\
SELECT k.conname::text FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND k.conkey = ARRAY[a.attnum]
WHERE k.conrelid = to_regclass($1::text) AND k.contype = 'p' AND a.attname = $2::text";

/// The foreign keys that refer to the column $2 of the table $1 (quoted): the table, its schema and name, the constraint, what
/// it says.
const REFERRING: &str = "\
SELECT k.conrelid::regclass::text, n.nspname::text, t.relname::text, k.conname::text, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey)
WHERE k.confrelid = to_regclass($1::text) AND k.contype = 'f' AND a.attname = $2::text
  AND coalesce(to_jsonb(k) ->> 'conparentid', '0') = '0' ORDER BY 1, 4";

/// What else hangs on the column $2 of the table $1 (quoted), and would stay with the old one.
const HANGING: &str = "\
SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid)
FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass($1::text) AND a.attname = $2::text
  AND d.classid <> 'pg_attrdef'::regclass
  AND NOT (d.classid = 'pg_constraint'::regclass AND EXISTS (SELECT FROM pg_constraint k WHERE k.oid = d.objid
           AND (k.contype = 'p' AND k.conrelid = d.refobjid OR k.contype = 'f' AND k.confrelid = d.refobjid
                AND k.conrelid <> d.refobjid)))
  AND NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class s WHERE s.oid = d.objid AND s.relkind = 'S'))
  AND NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = d.objid AND k.contype = 'p'))
ORDER BY 1";

pub(super) async fn chain(sql: &mut dyn Sql, name: &ColumnName) -> Result<Chain, Refusal> {
    let dialect = sql.dialect();
    let ColumnName { table: of, column } = name;
    if dialect.system() == System::Sqlite {
        return Err(Refusal::new(
            "whole numbers of SQLite have 64 bits whatever the column's type: there is nothing to widen",
            "leave it as it is",
        ));
    }
    let table = look::table(sql, of).await?;
    let narrow = look::column(&table, name, System::Postgres)?;
    if !["smallint", "integer"].contains(&narrow.sql_type.as_str()) {
        return Err(Refusal::new(
            format!("column \"{column}\" of table \"{of}\" is of type {}", narrow.sql_type),
            "this recipe makes a bigint of an integer",
        ));
    }
    if table.children > 0 {
        return Err(Refusal::new(
            format!("other tables inherit from table \"{of}\""),
            "take the recipe of one of them, and change it",
        ));
    }
    let (quoted, column_value) = (dialect.table(of), Value::from(column.as_str()));
    let values = [Value::from(quoted.as_str()), column_value];
    let Some(primary) = look::list(sql, PRIMARY, &values).await?.into_iter().next() else {
        return Err(Refusal::new(
            format!("column \"{column}\" is not by itself the primary key of table \"{of}\""),
            "take the recipe of such a table, and change it",
        ));
    };
    let hanging = look::list(sql, HANGING, &values).await?;
    if !hanging.is_empty() {
        return Err(Refusal::new(
            format!("these would stay with the old column: {}", hanging.join("; ")),
            "drop them first, and make them anew on the new column as a part of the chain",
        ));
    }
    let (wide, old) = (format!("{column}_wide"), format!("{column}_narrow"));
    for free in [&wide, &old] {
        look::must_be_free(&table, of, free, System::Postgres)?;
    }
    let found = look::row(sql, COLUMN, &values).await?;
    let of_column = |at: usize| found.get(at).cloned().unwrap_or_default();
    let (identity, default, sequence, schema) = (of_column(0), of_column(1), of_column(2), of_column(3));
    let referring = sql.query(REFERRING, &values).await?;
    let cell = |row: &[Value], at: usize| row.get(at).and_then(Value::as_text).unwrap_or_default().to_owned();
    let prefix = look::update_name(&[&of.name, column, "bigint"]);
    let fill = format!("{prefix}_2_fill");
    let index = format!("{}_{wide}_key", of.name);
    let (q, q_wide, q_old) = (dialect.quote(column), dialect.quote(&wide), dialect.quote(&old));
    let trigger = dialect.quote(&trigger_name(&fill, System::Postgres));
    let function = format!("{}.{trigger}", dialect.quote(&schema));

    let mut swap = vec![format!("LOCK TABLE {quoted} IN ACCESS EXCLUSIVE MODE")];
    swap.extend(referring.iter().map(|row| format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", cell(row, 0))));
    swap.push(format!("DROP TRIGGER {trigger} ON {quoted}"));
    swap.push(format!("DROP FUNCTION {function}()"));
    swap.extend(
        referring
            .iter()
            .map(|row| format!("ALTER TABLE {} DROP CONSTRAINT {}", cell(row, 0), dialect.quote(&cell(row, 3)))),
    );
    let alter = |what: String| format!("ALTER TABLE {quoted} {what}");
    swap.push(alter(format!("DROP CONSTRAINT {}", dialect.quote(&primary))));
    let is_identity = !identity.is_empty();
    match (is_identity, sequence.is_empty()) {
        (true, _) => swap.push(alter(format!("ALTER COLUMN {q} DROP IDENTITY"))),
        (false, false) => swap.push(format!("ALTER SEQUENCE {sequence} OWNED BY NONE")),
        (false, true) => {}
    }
    if !is_identity && !default.is_empty() {
        swap.push(alter(format!("ALTER COLUMN {q} DROP DEFAULT")));
    }
    swap.push(alter(format!("ALTER COLUMN {q} DROP NOT NULL")));
    swap.push(alter(format!("RENAME COLUMN {q} TO {q_old}")));
    swap.push(alter(format!("RENAME COLUMN {q_wide} TO {q}")));
    swap.push(alter(format!("ALTER COLUMN {q} DROP DEFAULT")));
    swap.push(alter(format!(
        "ADD CONSTRAINT {} PRIMARY KEY USING INDEX {}",
        dialect.quote(&primary),
        dialect.quote(&index)
    )));
    match (is_identity, sequence.is_empty()) {
        (true, _) => {
            let word = if identity == "a" { "ALWAYS" } else { "BY DEFAULT" };
            swap.push(alter(format!("ALTER COLUMN {q} ADD GENERATED {word} AS IDENTITY")));
            let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
            swap.push(format!(
                "SELECT setval(pg_get_serial_sequence({}, {}), coalesce(max({q}), 0) + 1, false) FROM {quoted}",
                literal(&quoted),
                literal(column)
            ));
        }
        (false, false) => {
            swap.push(format!("ALTER SEQUENCE {sequence} AS bigint OWNED BY {quoted}.{q}"));
            swap.push(alter(format!("ALTER COLUMN {q} SET DEFAULT {default}")));
        }
        (false, true) if !default.is_empty() => swap.push(alter(format!("ALTER COLUMN {q} SET DEFAULT {default}"))),
        (false, true) => {}
    }
    swap.extend(referring.iter().map(|row| {
        let says = cell(row, 4);
        let not_valid = if says.ends_with("NOT VALID") { "" } else { " NOT VALID" };
        format!("ALTER TABLE {} ADD CONSTRAINT {} {says}{not_valid}", cell(row, 0), dialect.quote(&cell(row, 3)))
    }));

    let mut updates = vec![
        Link::script(
            "1_add",
            "The new column. Its default lets it be NOT NULL at once, without a look at the rows.",
            &[alter(format!("ADD COLUMN {q_wide} bigint NOT NULL DEFAULT 0"))],
        ),
        Link::of_table(
            "2_fill",
            "Every row gets it, and a trigger keeps what is written meanwhile.",
            "backfill",
            of,
            vec![
                ("key", text(column)),
                ("set", text(&format!("{q_wide} = {q}"))),
                ("keep", text("trigger")),
                ("verify", text("full")),
            ],
        ),
        Link::of_table(
            "3_index",
            "The index of the primary key to be.",
            "create-index",
            of,
            vec![
                ("index", text(&index)),
                ("columns", texts(std::slice::from_ref(&wide))),
                ("unique", "true".to_owned()),
            ],
        ),
        Link::script(
            "4_swap",
            "The two change places, and the trigger goes, in a moment in which nobody else is at the table.",
            &swap,
        ),
    ];
    for (number, row) in (5..).zip(&referring) {
        let table = TableName { schema: Some(cell(row, 1)).filter(|schema| *schema != "public"), name: cell(row, 2) };
        let keys = vec![("constraint", text(&cell(row, 3)))];
        let name = format!("{number}_refers_{}", look::update_name(&[&cell(row, 2)]));
        updates.push(Link::of_table(
            &name,
            "Rows that refer to it are looked at again.",
            "validate-constraint",
            &table,
            keys,
        ));
    }
    let last = format!("{}_drop", 5 + referring.len());
    updates.push(Link::script(&last, "The old column goes.", &[alter(format!("DROP COLUMN {q_old}"))]));
    let mut notes = vec![
        "The column keeps its name, and the application needs no deploy; it moves to the end of SELECT *.".to_owned(),
    ];
    notes.extend(referring.iter().map(|row| {
        format!(
            "Foreign key \"{}\" of table {} refers to it: its own column is to be widened, too.",
            cell(row, 3),
            cell(row, 0)
        )
    }));
    let title = format!("Column \"{column}\" of table \"{of}\" becomes a bigint, while the application writes.");
    Ok(Chain { title, name: prefix, notes, parts: vec![Part::new("", updates)] })
}
