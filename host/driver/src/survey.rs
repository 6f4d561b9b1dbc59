//! What speaks against working on a database, found out without writing: the rights that a host needs on the queue table
//! and on tidegate's own.

use super::schema::exists;
use super::tables::Tables;
use tidegate::scheduler::database::Remark;
use tidegate::update::sql::{Right, Sql, SqlError, TableName};

/// tidegate's own tables, and what a host does with them.
const OWN_TABLES: [(&str, &[Right]); 7] = [
    ("tidegate_version", &[Right::Select]),
    ("tidegate_failures", &[Right::Select, Right::Insert, Right::Update, Right::Delete]),
    ("tidegate_state", &[Right::Select, Right::Insert, Right::Update, Right::Delete]),
    ("tidegate_history", &[Right::Select, Right::Insert, Right::Delete]),
    ("tidegate_ledger", &[Right::Select, Right::Insert]),
    ("tidegate_lease", &[Right::Select, Right::Insert, Right::Update]),
    (super::skipped::SKIPPED, &[Right::Select, Right::Insert, Right::Update, Right::Delete]),
];

impl Tables {
    /// The rights that are missing.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn survey(&self, sql: &mut dyn Sql) -> Result<Vec<Remark>, SqlError> {
        const QUEUE: &[Right] = &[Right::Select, Right::Insert, Right::Update, Right::Delete];
        let mut wanted: Vec<(&str, &[Right])> = Vec::new();
        let mut missing = None;
        for (name, rights) in [(self.name.as_str(), QUEUE)].into_iter().chain(OWN_TABLES) {
            match exists(sql, name).await? {
                true => wanted.push((name, rights)),
                // Whichever is missing, it comes to the same schema.
                false => missing = Some((name, &[Right::Create][..])),
            }
        }
        wanted.extend(missing);
        let mut remarks = Vec::new();
        for (name, rights) in wanted {
            let table = TableName { schema: None, name: name.to_owned() };
            if let Some(lacking) = sql.dialect().lacking(sql, &table, rights).await? {
                let why = if rights == [Right::Create] {
                    format!(", where the tables of the queue are to be made: \"{}\" and tidegate's own", self.name)
                } else {
                    String::new()
                };
                let message = format!("role \"{}\" lacks {}{why}", lacking.role, lacking.what);
                remarks.push(Remark::hindrance(message, lacking.hint));
            }
        }
        Ok(remarks)
    }
}
