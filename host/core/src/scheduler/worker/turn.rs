//! Whose turn it is in a lane.
//!
//! An update that cannot be tried at the moment, whatever the reason, is put off: it has a time before which it is not
//! tried. Of the others the first by the queue's order is next, those that this host has begun before those that it has
//! not: what is queued while an update is in hand waits for its end.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::super::activity::Waiting;
use super::super::choice::Roster;
use super::super::database::QueueRow;
use super::{PutOff, Worker};

/// What is next.
pub(super) enum Turn {
    /// An iteration of this update.
    Of(QueueRow),
    /// Nothing before this time: then this update, or any.
    Later(PutOff, Option<String>),
    /// Nothing, until the queue is another.
    OfNobody,
}

impl Worker {
    /// What is next. What the controller's fallback holds gives way to what the controller is still to be tried for.
    pub(super) fn choose(&self) -> Turn {
        let now = Instant::now();
        let state = self.common.state();
        let roster = &state.roster;
        if let Some(barred) = self.barred.as_ref().filter(|barred| barred.until > now)
            && roster.ready(&self.lane).next().is_some()
        {
            return Turn::Later(barred.clone(), None);
        }
        let put_off = |row: &QueueRow| self.paces.get(&row.update_name)?.put_off.as_ref();
        let is_due = |row: &&QueueRow| {
            put_off(row).is_none_or(|put_off| put_off.until <= now) && !state.is_claimed(&self.lane, &row.update_name)
        };
        let is_free = |row: &&QueueRow| is_due(row) && !self.supervisor.holds(&row.update_name);
        let free = self.begun(roster).find(is_free).or_else(|| roster.ready(&self.lane).find(is_free));
        let held = || self.begun(roster).find(is_due).or_else(|| roster.ready(&self.lane).find(is_due));
        if let Some(row) = free.or_else(held) {
            return Turn::Of(row.clone());
        }
        let waiting = roster.ready(&self.lane).filter_map(|row| Some((put_off(row)?, row)));
        match waiting.min_by_key(|(put_off, _)| put_off.until) {
            Some((put_off, row)) => Turn::Later(put_off.clone(), Some(row.update_name.clone())),
            None => Turn::OfNobody,
        }
    }

    /// The rows that this lane has begun and that are ready, in the queue's order.
    fn begun<'a>(&self, roster: &'a Roster) -> impl Iterator<Item = &'a QueueRow> {
        let mut places: Vec<usize> =
            self.paces.keys().filter_map(|update_name| roster.place_of_ready(update_name, &self.lane)).collect();
        places.sort_unstable();
        places.into_iter().filter_map(|place| roster.at(place))
    }

    /// Has an update not tried for a while; others are, meanwhile. How long comes back: longer each time, until one of
    /// its batches is committed.
    pub(super) fn put_off(&mut self, update_name: &str, why: String) -> Duration {
        let pace = self.pace(update_name);
        let wait = pace.backoff.after_failure();
        pace.put_off = Some(PutOff::new(wait, why));
        wait
    }

    /// Those that are put off, but for the one in hand, for others to read.
    pub(super) fn told_put_off(&self) -> Vec<Waiting> {
        /// As many as a person reads.
        const MOST: usize = 50;
        let in_hand = self.tell(|work| work.update_name.clone());
        let state = self.common.state();
        let others = self.begun(&state.roster).filter(|row| Some(&row.update_name) != in_hand.as_ref());
        let told = others.filter_map(|row| {
            let PutOff { until_ms, why, .. } = self.paces.get(&row.update_name)?.put_off.as_ref()?;
            Some(Waiting { update_name: row.update_name.clone(), until_ms: *until_ms, reason: why.clone() })
        });
        told.take(MOST).collect()
    }

    /// Ends whatever is waited for, where somebody has asked for that since it was last looked.
    pub(super) fn hurry_if_told(&mut self) -> bool {
        let hurries = self.common.hurries();
        let told = std::mem::replace(&mut self.hurries, hurries) != hurries;
        if told {
            self.hurry();
        }
        told
    }

    /// Ends whatever is waited for.
    pub(super) fn hurry(&mut self) {
        self.barred = None;
        self.paces.values_mut().for_each(|pace| pace.put_off = None);
        if self.current.as_ref().is_some_and(|current| self.supervisor.holds(current)) {
            self.supervisor.hurry();
        }
    }

    /// Whose failure somebody has forgotten need not wait for its time: it is to be tried again.
    pub(super) fn forget_waits(&mut self) {
        for (update_name, pace) in &mut self.paces {
            let failed = self.common.state().roster.get(update_name).is_none_or(|row| row.failure.is_some());
            if !failed && !self.common.is_unrecorded(update_name) {
                pace.put_off = None;
            }
        }
    }

    /// An update that cannot run, or is gone, is another one when it can run again.
    pub(super) fn forget_tries(&mut self) {
        if self.supervisor.has_fallen_back() {
            let state = self.common.state();
            let ready: HashSet<&str> = state.roster.ready(&self.lane).map(|row| row.update_name.as_str()).collect();
            self.supervisor.retain_tries(|update_name| ready.contains(update_name));
        }
    }
}
