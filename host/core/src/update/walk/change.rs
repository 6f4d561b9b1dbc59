//! The rows of a batch changed, where triggers and rules may do otherwise than the statement says.

use async_trait::async_trait;

use super::range::{Ends, Lower, Range, Side};
use super::{Batch, Walk, counted, rows};
use crate::update::UpdateError;
use crate::update::reach::OnSkip;
use crate::update::sql::{Sql, SqlError, System, Value};

/// What changes the rows of a batch.
#[async_trait]
pub(in crate::update) trait Writing: Sync {
    /// Changes them: how many were to be changed, and how many were. It may be undone and asked again.
    async fn write(&self, sql: &mut dyn Sql) -> Result<(u64, u64), UpdateError>;
}

/// A statement that changes the rows that meet a filter.
struct Statement<'a> {
    walk: &'a Walk,
    batch: &'a Batch,
    filter: Option<&'a str>,
    statement: &'a str,
}

#[async_trait]
impl Writing for Statement<'_> {
    async fn write(&self, sql: &mut dyn Sql) -> Result<(u64, u64), UpdateError> {
        let Self { walk, batch, filter, statement } = *self;
        if !batch.guarded {
            let changed = sql.execute(statement, batch.parameters()).await?;
            return Ok((changed, changed));
        }
        match sql.dialect().system() {
            System::Sqlite => {
                let wanted = walk.matching(sql, batch, filter).await?;
                Ok((wanted, sql.execute(statement, batch.parameters()).await?))
            }
            System::Postgres => walk.change_held(sql, batch, filter, statement).await,
        }
    }
}

impl Walk {
    /// Has `statement` change the batch's rows that meet `filter`, and makes sure that it did: a trigger or a rule can
    /// keep a row from being changed without a word. Returns the number of rows that were left as they are.
    pub(in crate::update) async fn change(
        &self,
        sql: &mut dyn Sql,
        batch: &Batch,
        filter: Option<&str>,
        statement: &str,
    ) -> Result<u64, UpdateError> {
        Ok(self.write_counted(sql, &Statement { walk: self, batch, filter, statement }).await?.1)
    }

    /// The same for whatever changes them: how many were changed, and how many left as they are.
    async fn write_counted(&self, sql: &mut dyn Sql, writing: &dyn Writing) -> Result<(u64, u64), UpdateError> {
        let (wanted, changed) = writing.write(sql).await?;
        let skipped = wanted.saturating_sub(changed);
        if skipped > 0 && self.reach.on_skip == OnSkip::Error {
            let around = sql.dialect().surroundings(sql, &self.table).await?;
            let guards = around.reactions.iter().filter(|reaction| reaction.may_skip || reaction.instead);
            let guards: Vec<String> = guards.map(|guard| format!("\"{}\"", guard.name)).collect();
            return Err(UpdateError::Failed(format!(
                "a trigger or rule of table \"{}\" (one of {}) kept {skipped} of {wanted} rows from being changed: leave such \
                 rows out with \"where\", change the trigger or rule, or say on_skip = \"ignore\" to have them counted and left \
                 as they are",
                self.table,
                guards.join(", ")
            )));
        }
        Ok((changed, skipped))
    }

    /// Locks the batch's rows that meet `filter`, and has `statement` change these and no others: a row that comes in between
    /// would make up, in the count, for one that is skipped. Returns how many were to be changed, and how many were.
    async fn change_held(
        &self,
        sql: &mut dyn Sql,
        batch: &Batch,
        filter: Option<&str>,
        statement: &str,
    ) -> Result<(u64, u64), UpdateError> {
        const PLACE: &str = "tableoid::text || ctid::text";
        let rows =
            format!("SELECT {PLACE} AS place FROM {}{} FOR UPDATE", self.source(&*sql.dialect()), batch.clause(filter));
        let statement_of_places = format!("SELECT count(*), array_agg(place)::text FROM ({rows}) AS held");
        let held = sql.query(&statement_of_places, batch.parameters()).await?;
        let wanted = counted(&held)?;
        let Some(places) = held.first().and_then(|row| row.get(1)).filter(|_| wanted > 0).cloned() else {
            return Ok((0, 0));
        };
        let parameters: Vec<Value> = batch.parameters().iter().cloned().chain([places]).collect();
        let statement = format!("{statement}\nAND {PLACE} = ANY (${}::text::text[])", parameters.len());
        Ok((wanted, sql.execute(&statement, &parameters).await?))
    }

    /// As [`Walk::change`], for a statement after which the rows are still there: where a trigger has moved one ahead, to
    /// where the walk has yet to come, the batch fails, since the row would be changed again.
    pub(in crate::update) async fn change_in_place(
        &self,
        sql: &mut dyn Sql,
        batch: &Batch,
        filter: Option<&str>,
        statement: &str,
    ) -> Result<u64, UpdateError> {
        self.write_in_place(sql, batch, &Statement { walk: self, batch, filter, statement }).await
    }

    /// The same for whatever changes them.
    pub(in crate::update) async fn write_in_place(
        &self,
        sql: &mut dyn Sql,
        batch: &Batch,
        writing: &dyn Writing,
    ) -> Result<u64, UpdateError> {
        let dialect = sql.dialect();
        let (true, Some(upto), Some(end)) = (batch.guarded || batch.followed, &batch.upto, &batch.end) else {
            return Ok(self.write_counted(sql, writing).await?.1);
        };
        let ahead =
            Range::new(&*dialect, &batch.key, between(upto, batch.shared.as_ref().map_or(end, |shared| &shared.to)));
        // Before the part of the walk in hand another worker may have yet to come, too.
        let before =
            batch.shared.as_ref().map(|shared| Range::new(&*dialect, &batch.key, between(&shared.from, &shared.own)));
        let (skipped, moved) = match dialect.system() {
            System::Postgres => {
                // Rows that this transaction wrote: of those that can be seen, what others wrote is committed. A function that
                // catches errors writes under numbers of its own, which are later ones.
                const OWN: Option<&str> = Some(
                    "age(xmin) <= age(pg_current_xact_id()::xid) AND pg_xact_status((pg_current_xact_id()::text::bigint \
                     + age(pg_current_xact_id()::xid) - age(xmin))::text::xid8) = 'in progress'",
                );
                let (changed, skipped) = self.write_counted(sql, writing).await?;
                run_deferred(sql).await?;
                // The rest of the walk is looked at only where rows have left the batch.
                let left = self.count_where(sql, &batch.range, OWN).await? < changed;
                let mut moved = 0;
                for range in [Some(&ahead), before.as_ref()].into_iter().flatten().filter(|_| left) {
                    moved += self.count_where(sql, range, OWN).await?;
                }
                (skipped, moved)
            }
            System::Sqlite => {
                sql.execute("SAVEPOINT tidegate_batch", &[]).await?;
                let (_, skipped) = self.write_counted(sql, writing).await?;
                let mut moved = 0;
                // Nobody else writes: where as many rows are in the range as before, none has left it.
                if self.count(sql, &batch.range).await? < batch.items {
                    let after = self.count(sql, &ahead).await?;
                    sql.execute("ROLLBACK TO tidegate_batch", &[]).await?;
                    moved = after.saturating_sub(self.count(sql, &ahead).await?);
                    if moved == 0 {
                        self.write_counted(sql, writing).await?;
                    }
                }
                sql.execute("RELEASE tidegate_batch", &[]).await?;
                (skipped, moved)
            }
        };
        if moved == 0 {
            return Ok(skipped);
        }
        let (whither, or) = match batch.shared {
            Some(_) => ("to another part of the walk", ", or leave \"workers\" out"),
            None => ("ahead along the key", ""),
        };
        Err(UpdateError::Failed(format!(
            "a trigger of table \"{}\" moved {} of the batch {whither} ({}), where the walk would change them again: \
             walk along a key that no trigger changes, or disable the trigger for the time{or}",
            self.table,
            rows(moved),
            self.key.join(", ")
        )))
    }
}

/// Has PostgreSQL run now what triggers have deferred to the commit, when it would be too late to see what they do. What is
/// deferred for keys and foreign keys stays so: the next slice may make it right.
async fn run_deferred(sql: &mut dyn Sql) -> Result<(), UpdateError> {
    const DEFERRED: &str = "\
        SELECT string_agg(DISTINCT format('%I.%I', n.nspname, c.conname), ', ') FROM pg_trigger t \
        JOIN pg_constraint c ON c.oid = t.tgconstraint JOIN pg_namespace n ON n.oid = c.connamespace \
        WHERE NOT t.tgisinternal AND t.tginitdeferred AND t.tgenabled IN ('O', 'A')";
    let found = sql.query(DEFERRED, &[]).await?;
    if let Some(names) = found.first().and_then(|row| row.first()).and_then(Value::as_text) {
        let run = sql.execute(&format!("SET CONSTRAINTS {names} IMMEDIATE"), &[]).await;
        run.map_err(|error| SqlError { deferred: true, ..error })?;
    }
    Ok(())
}

/// The range behind one key up to another.
fn between<'a>(after: &'a [String], upto: &'a [String]) -> Ends<'a> {
    Ends { lower: Some(Lower::after(Side::At(after))), upper: Side::At(upto) }
}
