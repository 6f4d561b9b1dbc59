//! Whose turn it is.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::super::choice::{Standing, assess};
use super::super::database::QueueRow;
use super::Worker;

impl Worker {
    /// The rows that remain and why, where none can run.
    pub(super) fn nothing_can_run(&self) -> Option<Vec<(String, String)>> {
        let standings = self.standings();
        let rows = self.queue.rows.iter().zip(&standings);
        rows.map(|(row, standing)| Some((row.update_name.clone(), standing.explain(row)?))).collect()
    }

    pub(super) fn standings(&self) -> Vec<Standing> {
        assess(&self.queue.rows, &|name| self.workload.handlers.contains_key(name))
    }

    /// The row to work on: the one in hand where it still can run, or else the first that can. What the controller's
    /// fallback holds gives way to what the controller is still to be tried for.
    pub(super) fn choose(&mut self) -> Option<QueueRow> {
        let handlers = &self.workload.handlers;
        let standings =
            self.standings.get_or_insert_with(|| assess(&self.queue.rows, &|name| handlers.contains_key(name)));
        let ready = || {
            let rows = self.queue.rows.iter().zip(&*standings);
            rows.filter(|(_, standing)| **standing == Standing::Ready).map(|(row, _)| row)
        };
        let now = Instant::now();
        let due = |row: &QueueRow| self.giving_way.get(&row.update_name);
        let held = |row: &QueueRow| self.supervisor.holds(&row.update_name);
        // Whoever gave way comes back once its time has come; until then, or until nobody else can run, the others do.
        let back = ready().find(|row| due(row).is_some_and(|due| *due <= now) && !held(row));
        let in_hand = || ready().find(|row| Some(&row.update_name) == self.current.as_ref() && due(row).is_none());
        let free = in_hand().filter(|row| !held(row));
        let free = free.or_else(|| ready().find(|row| due(row).is_none() && !held(row)));
        let chosen = back.or(free).or_else(in_hand).or_else(|| ready().find(|row| due(row).is_none()));
        chosen.or_else(|| ready().min_by_key(|row| due(row))).cloned()
    }

    /// How long a row has to wait that gave way, where nobody else can run.
    pub(super) fn must_wait(&self, row: &QueueRow) -> Option<Duration> {
        let left = self.giving_way.get(&row.update_name)?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// True where another row could run.
    pub(super) fn is_waited_for(&self, row: &QueueRow) -> bool {
        let could = |other: &QueueRow| {
            other.update_name != row.update_name
                && !self.giving_way.contains_key(&other.update_name)
                && !self.supervisor.holds(&other.update_name)
        };
        self.ready().any(could)
    }

    /// An update that cannot run, or is gone, is another one when it can run again.
    pub(super) fn forget_tries(&mut self) {
        if self.supervisor.has_fallen_back() {
            let ready: HashSet<String> = self.ready().map(|row| row.update_name.clone()).collect();
            self.supervisor.retain_tries(|update_name| ready.contains(update_name));
        }
    }

    /// The rows that can run.
    pub(super) fn ready(&self) -> impl Iterator<Item = &QueueRow> {
        let rows = self.queue.rows.iter().zip(self.standings());
        rows.filter(|(_, standing)| *standing == Standing::Ready).map(|(row, _)| row)
    }
}
