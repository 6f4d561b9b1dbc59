//! What the triggers of an update are to do, made from its own definition.

use super::super::assign::{Assignment, assignments, listed};
use super::super::names::Names;
use super::super::scan;
use super::super::sql::{Dialect, System, TableName};

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::update) struct Wanted {
    /// The table.
    pub(in crate::update) table: TableName,
    /// True where the tables that inherit from it are left alone (PostgreSQL).
    pub(in crate::update) only: bool,
    /// What happens at what.
    pub(in crate::update) does: Does,
    /// Statements that the database must be able to plan, each with the definition's key that it comes of.
    pub(in crate::update) probes: Vec<(&'static str, String)>,
}

/// What triggers do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::update) enum Does {
    /// PostgreSQL: one trigger, and what stands in its function.
    Function { at: &'static str, when: Option<String>, body: String },
    /// SQLite: triggers, each with what stands before ON and what stands between BEGIN and END.
    Statements(Vec<(String, String)>),
}

impl Wanted {
    /// What tells it from another.
    pub(super) fn digest(&self) -> String {
        super::marker::digest(&format!("{} {} {:?}", self.table, self.only, self.does))
    }
}

/// The columns that a text assigns, each with its value; or why that cannot be said.
pub(in crate::update) fn pairs(set: &str, system: System) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for Assignment { target, columns, value } in assignments(set, system) {
        if scan::code(&value, system).iter().any(|token| token.is("DEFAULT")) {
            return Err("\"set\" assigns DEFAULT".to_owned());
        }
        let values = match listed(&target, system) {
            Some(targets) => listed(&value, system).filter(|values| values.len() == targets.len()),
            None if scan::code(&target, system).len() == 1 => Some(vec![value]),
            None => return Err(format!("\"set\" assigns {target}, which is a part of a column")),
        };
        match values {
            Some(values) if values.len() == columns.len() => found.extend(columns.into_iter().zip(values)),
            _ => return Err(format!("\"set\" assigns a row to {target}: assign each of its columns by itself")),
        }
    }
    Ok(found)
}

/// The column that a text assigns and reads in what it assigns.
pub(in crate::update) fn own_reader(set: &str, system: System) -> Option<String> {
    let all = assignments(set, system);
    let assigned: Vec<&String> = all.iter().flat_map(|one| &one.columns).collect();
    all.iter().find_map(|one| named(&one.value, &assigned, system))
}

/// The first of some columns that a text names.
pub(in crate::update) fn named(text: &str, columns: &[&String], system: System) -> Option<String> {
    let names = Names(system);
    let code = scan::code(text, system);
    let named = |name: String| columns.iter().find(|column| names.equal(column, &name)).map(|column| (*column).clone());
    code.iter().filter_map(|token| token.name(system)).find_map(named)
}

/// PostgreSQL: what makes of a row that is written what a backfill would.
pub(in crate::update) fn backfill_body(
    dialect: &dyn Dialect,
    table: &TableName,
    pairs: &[(String, String)],
    filter: Option<&str>,
) -> String {
    let sources = listed_values(pairs);
    let targets: Vec<String> = pairs
        .iter()
        .enumerate()
        .map(|(place, (column, _))| format!("    NEW.{} := tidegate_row.v{place};\n", dialect.quote(column)))
        .collect();
    format!(
        "#variable_conflict use_column\nDECLARE tidegate_row record;\nBEGIN\n  SELECT {sources}\n  INTO tidegate_row \
         FROM (SELECT NEW.*) AS {}{};\n  IF FOUND THEN\n{}  END IF;\n  RETURN NEW;\nEND",
        dialect.quote(&table.name),
        condition(filter),
        targets.concat()
    )
}

/// The setting that says, within a batch's own transaction, of which update it is.
const SETTING: &str = "tidegate.keep";

/// PostgreSQL: when the trigger of a backfill is to run: at all writes but those of the update's own batches, which write what
/// it would.
pub(in crate::update) fn unless_own(update: &str) -> String {
    format!("pg_catalog.current_setting('{SETTING}', true) IS DISTINCT FROM '{}'", super::marker::digest(update))
}

/// PostgreSQL: the condition of a batch's statement by which the trigger leaves its rows alone. It is always met. Where a write to
/// the table may have others follow in the same transaction, by a trigger, a rule or a cascade, the trigger runs all the same:
/// these may be rows that the batch is not about.
pub(in crate::update) fn own_batch(table: &str, update: &str) -> String {
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let (table, trigger) = (literal(table), literal(&super::marker::name(update, System::Postgres)));
    format!(
        "(SELECT pg_catalog.set_config('{SETTING}', CASE WHEN c.relkind = 'r' AND NOT c.relhassubclass AND NOT c.relhasrules AND NOT \
         EXISTS (SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = c.oid \
         AND t.tgname <> {trigger} AND (NOT t.tgisinternal OR p.proname IN ('RI_FKey_cascade_upd', 'RI_FKey_setnull_upd', \
         'RI_FKey_setdefault_upd'))) THEN '{}' ELSE '' END, true) FROM pg_catalog.pg_class c \
         WHERE c.oid = pg_catalog.to_regclass({table})) IS NOT NULL",
        super::marker::digest(update)
    )
}

/// PostgreSQL: the query of [`backfill_body`], over the table itself.
pub(in crate::update) fn backfill_query(
    dialect: &dyn Dialect,
    table: &TableName,
    pairs: &[(String, String)],
    filter: Option<&str>,
) -> String {
    let of = format!("(SELECT * FROM {}) AS {}", dialect.table(table), dialect.quote(&table.name));
    format!("SELECT {}\nFROM {of}{}", listed_values(pairs), condition(filter))
}

fn listed_values(pairs: &[(String, String)]) -> String {
    let sources = pairs.iter().enumerate().map(|(place, (_, value))| format!("({value}\n) AS v{place}"));
    sources.collect::<Vec<_>>().join(", ")
}

fn condition(filter: Option<&str>) -> String {
    filter.map(|filter| format!("\n  WHERE ({filter}\n)")).unwrap_or_default()
}

/// SQLite: what does to the row that was written what a backfill would. `key` are the columns that tell a row from others,
/// quoted; `wrong` the condition of a row that is not as it is to be.
pub(in crate::update) fn backfill_statements(
    table: &str,
    key: &[String],
    set: &str,
    filter: Option<&str>,
    wrong: Option<&str>,
    at_update: &str,
) -> Does {
    let same: Vec<String> = key.iter().map(|column| format!("{column} = NEW.{column}")).collect();
    let and = |text: Option<&str>| text.map(|text| format!(" AND ({text}\n)")).unwrap_or_default();
    let statement = format!("UPDATE {table} SET {set}\nWHERE {}{}{};", same.join(" AND "), and(filter), and(wrong));
    Does::Statements(vec![("AFTER INSERT".to_owned(), statement.clone()), (at_update.to_owned(), statement)])
}

/// What a copy needs to be kept, in SQL.
pub(in crate::update) struct Mirror {
    /// The table that is copied from, as it stands in FROM, and the one that is copied into.
    pub(in crate::update) source: String,
    pub(in crate::update) target: String,
    /// The columns by which a row of the one is found in the other: of the source, and of the target, quoted.
    pub(in crate::update) key: Vec<(String, String)>,
    /// The columns of the target, quoted, each with what is written there.
    pub(in crate::update) columns: Vec<(String, String)>,
    pub(in crate::update) filter: Option<String>,
    pub(in crate::update) system: System,
}

impl Mirror {
    /// The INSERT of the rows that meet `clause`, with what stands before ON CONFLICT.
    pub(in crate::update) fn upsert(&self, clause: &str, locking: &str) -> String {
        let targets: Vec<&str> = self.columns.iter().map(|(target, _)| target.as_str()).collect();
        let sources: Vec<&str> = self.columns.iter().map(|(_, source)| source.as_str()).collect();
        let key: Vec<&str> = self.key.iter().map(|(_, target)| target.as_str()).collect();
        let others = targets.iter().filter(|target| !key.contains(target));
        let set: Vec<String> = others.map(|target| format!("{target} = excluded.{target}")).collect();
        let then = match set.is_empty() {
            true => "NOTHING".to_owned(),
            false => format!("UPDATE SET {}", set.join(", ")),
        };
        let overriding = match self.system {
            System::Sqlite => "",
            System::Postgres => " OVERRIDING SYSTEM VALUE",
        };
        // Without a WHERE clause SQLite takes "ON" for the beginning of a join.
        let clause = if clause.is_empty() { "\nWHERE true" } else { clause };
        format!(
            "INSERT INTO {} ({}){overriding}\nSELECT {}\nFROM {}{clause}{locking}\nON CONFLICT ({}) DO {then}",
            self.target,
            targets.join(", "),
            sources.join(", "),
            self.source,
            key.join(", ")
        )
    }

    /// The condition of the row of the source with the key of `row`.
    fn same(&self, row: &str) -> String {
        let same = self.key.iter().map(|(source, _)| format!("{source} = {row}.{source}"));
        let filter = self.filter.as_ref().map(|filter| format!(" AND ({filter}\n)")).unwrap_or_default();
        format!("\nWHERE {}{filter}", same.collect::<Vec<_>>().join(" AND "))
    }

    /// Writes what the source has under the key of the row that was written.
    fn write(&self) -> String {
        format!("{};", self.upsert(&self.same("NEW"), ""))
    }

    /// Takes from the target what the source has no more under the key of the row that was.
    pub(in crate::update) fn take(&self, row: &str) -> String {
        let same: Vec<String> = self.key.iter().map(|(source, target)| format!("{target} = {row}.{source}")).collect();
        format!(
            "DELETE FROM {} WHERE {} AND NOT EXISTS (SELECT 1 FROM {}{});",
            self.target,
            same.join(" AND "),
            self.source,
            self.same(row)
        )
    }

    /// A statement that compares the keys of both.
    pub(in crate::update) fn probe(&self) -> String {
        let same: Vec<String> = self
            .key
            .iter()
            .map(|(source, target)| format!("{target} = (SELECT {source} FROM {} LIMIT 1)", self.source))
            .collect();
        format!("DELETE FROM {} WHERE {}", self.target, same.join(" AND "))
    }

    /// PostgreSQL: what the function does.
    pub(in crate::update) fn body(&self) -> String {
        format!(
            "#variable_conflict use_column\nBEGIN\n  IF TG_OP <> 'INSERT' THEN\n{}\n  END IF;\n  IF TG_OP <> 'DELETE' \
             THEN\n{}\n  END IF;\n  RETURN NULL;\nEND",
            self.take("OLD"),
            self.write()
        )
    }

    /// SQLite: what the triggers do.
    pub(in crate::update) fn statements(&self) -> Does {
        Does::Statements(vec![
            ("AFTER INSERT".to_owned(), self.write()),
            ("AFTER UPDATE".to_owned(), format!("{}\n{}", self.take("OLD"), self.write())),
            ("AFTER DELETE".to_owned(), self.take("OLD")),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_assigned_is_taken_apart_or_refused() {
        let told = |set: &str| pairs(set, System::Postgres);
        let owned = |pairs: &[(&str, &str)]| {
            Ok(pairs.iter().map(|(column, value)| ((*column).to_owned(), (*value).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(told("a = b, \"C\" = f(d, e)"), owned(&[("a", "b"), ("C", "f(d, e)")]));
        assert_eq!(told("(a, b) = (1, c)"), owned(&[("a", "1"), ("b", "c")]));
        assert!(told("a[1] = 2").is_err() && told("a = DEFAULT").is_err() && told("(a, b) = (SELECT 1, 2)").is_err());
        assert_eq!(own_reader("a = b, b = 1", System::Postgres).as_deref(), Some("b"));
        assert_eq!(own_reader("a = lower(c)", System::Postgres), None);
    }
}
