//! Whom an update reaches besides what its statement says: inheriting tables, rows that policies hide, rows that triggers
//! keep from being changed.

use super::sql::{Operation, Reaction, Sql, SqlError, Surroundings, System, TableKind, TableName};
use super::{Problem, UpdateError};

/// Which rows of its table an update is about. The default is all of them, those of inheriting tables included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// The rows of the table itself, without those of tables that inherit from it (PostgreSQL).
    pub only: bool,
    /// The rows that the policies of row-level security let the role see (PostgreSQL). Without it a policy that would
    /// hide rows is an error.
    pub row_security: bool,
    /// What becomes of an update whose rows a trigger skips.
    pub on_skip: OnSkip,
}

/// What becomes of rows that a trigger or a rule keeps from being changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnSkip {
    /// The batch fails, and none of its rows is changed.
    #[default]
    Error,
    /// They stay as they are, and are counted.
    Ignore,
}

/// Why rows were left as they are.
pub(super) const SKIPPED: &str = "because a trigger or a rule kept them from being changed";

impl Reach {
    /// Has PostgreSQL apply the policies to what follows, where the update is about the rows that they let through.
    /// Called in a transaction, for which it counts.
    pub(super) async fn enter(self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        if self.asks_policies(sql) {
            sql.execute("SET LOCAL row_security = on", &[]).await?;
        }
        Ok(())
    }

    /// The same outside a transaction, until [`Reach::leave_session`], or until the session is handed back.
    pub(super) async fn enter_session(self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        match self.asks_policies(sql) {
            true => sql.adjust("row_security", "on").await,
            false => Ok(()),
        }
    }

    /// Ends what [`Reach::enter_session`] began.
    pub(super) async fn leave_session(self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        match self.asks_policies(sql) {
            true => sql.adjust("row_security", "off").await,
            false => Ok(()),
        }
    }

    fn asks_policies(self, sql: &mut dyn Sql) -> bool {
        self.row_security && sql.dialect().system() == System::Postgres
    }
}

/// Awaits `$work`, outside a transaction and over `$sql`, with the policies applied as `$reach` says.
macro_rules! within_reach {
    ($reach:expr, $sql:expr, $work:expr) => {{
        $reach.enter_session($sql).await?;
        let done: Result<_, UpdateError> = $work.await;
        $reach.leave_session($sql).await?;
        done
    }};
}
pub(super) use within_reach;

/// What is to be known of a table before an update performs `operation` on it; `field` names it in the definition.
pub(super) async fn check(
    sql: &mut dyn Sql,
    name: &TableName,
    kind: TableKind,
    operation: Operation,
    reach: Reach,
    field: &'static str,
) -> Result<Vec<Problem>, UpdateError> {
    if let Some(problem) = no_rows_of_its_own(name, kind, field) {
        return Ok(vec![problem]);
    }
    let Surroundings { reactions, row_security, .. } = sql.dialect().surroundings(sql, name).await?;
    let mut problems = Vec::new();
    for reaction in reactions.iter().filter(|reaction| reaction.operations.contains(&operation)) {
        problems.extend(about(reaction, operation, reach, field));
    }
    if row_security == Some(false) {
        problems.push(Problem::note(
            field,
            format!("the policies of table \"{name}\" do not bind this role, and the update reaches all rows"),
            "connect as a role that they bind, and say row_security = true, if only their rows are meant",
        ));
    }
    if row_security == Some(true) && reach.row_security {
        problems.push(Problem::note(
            field,
            format!("the update is about those rows of table \"{name}\" alone that its policies let this role see"),
            "leave row_security out, and let the role bypass the policies, if all rows are meant",
        ));
    }
    Ok(problems)
}

/// The problem of what is no table, but shows the rows of others.
pub(super) fn no_rows_of_its_own(name: &TableName, kind: TableKind, field: &'static str) -> Option<Problem> {
    matches!(kind, TableKind::View | TableKind::MaterializedView).then(|| {
        Problem::error(
            field,
            format!("\"{name}\" is {}, and an update changes the rows of a table", kind.words()),
            "name the table that the rows are in",
        )
    })
}

fn about(reaction: &Reaction, operation: Operation, reach: Reach, field: &'static str) -> Option<Problem> {
    let Reaction { name, table, .. } = reaction;
    if reaction.rule {
        let message = format!(
            "rule \"{name}\" of table \"{table}\" {} {operation}",
            match reaction.instead {
                true => "puts something else in the place of",
                false => "does something besides at",
            }
        );
        return Some(match reaction.instead {
            true => Problem::error(
                field,
                format!("{message}: the rows would not be changed"),
                format!(
                    "disable it for the time (ALTER TABLE {table} DISABLE RULE …), or use kind \"batch\" or \"sql\""
                ),
            ),
            false => Problem::warning(
                field,
                format!("{message}, and sees the rows as they are by then"),
                "make sure that the rule is right where it runs once for many rows",
            ),
        });
    }
    (reaction.may_skip && reach.on_skip == OnSkip::Error).then(|| {
        Problem::note(
            field,
            format!("trigger \"{name}\" of table \"{table}\" runs before each {operation}, and could skip rows: a batch of which it skips one fails"),
            "say on_skip = \"ignore\" if it may, or leave such rows out with \"where\"",
        )
    })
}
