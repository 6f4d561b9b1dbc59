//! What a statement costs besides what its plan says: foreign keys that look for the rows of other tables, triggers.

use super::{READ_IN_PASSING, is_large};
use crate::update::Problem;
use crate::update::sql::{ErrorClass, Operation, Sql, SqlError, TableName};

/// What is to be known before rows of `table` are changed by `operation`.
pub(super) async fn costs(
    sql: &mut dyn Sql,
    operation: Operation,
    table: &TableName,
    field: &'static str,
) -> Result<Vec<Problem>, SqlError> {
    let dialect = sql.dialect();
    let surroundings = dialect.surroundings(sql, table).await?;
    let mut problems = Vec::new();
    for search in surroundings.searches.iter().filter(|_| operation == Operation::Delete) {
        let columns = search.columns.join(", ");
        let size = match is_large(sql, &search.table).await {
            Ok(false) => continue,
            Ok(true) => format!(", which has more than {READ_IN_PASSING} rows"),
            // Somebody else's table, which the role may not read.
            Err(error) if error.class == ErrorClass::Permanent => String::new(),
            Err(error) => return Err(error),
        };
        problems.push(Problem::warning(
            field,
            format!(
                "each row that is deleted has PostgreSQL read the whole of table \"{}\"{size}, for foreign key \"{}\"",
                search.table, search.constraint
            ),
            format!("make an index on \"{}\" ({columns})", search.table),
        ));
    }
    for reaction in surroundings.reactions.iter().filter(|reaction| reaction.operations.contains(&operation)) {
        if reaction.rule || !reaction.each_row {
            continue;
        }
        problems.push(Problem::note(
            field,
            format!(
                "trigger \"{}\" of table \"{}\" runs for each row that the batch changes by {operation}, and the plan does not \
                 tell what that costs",
                reaction.name, reaction.table
            ),
            "look at what it does",
        ));
    }
    Ok(problems)
}
