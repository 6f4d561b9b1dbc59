//! Room for others to write: SQLite keeps no queue of those who wait for its one lock.
//!
//! Who waits by SQLite's own busy handler tries again after up to 100 ms, and meets a lock that is free for a moment between
//! two batches by chance alone. So the host leaves the file alone for that long now and then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long the file is left alone: the longest time that SQLite's busy handler sleeps between two tries
/// (`sqliteDefaultBusyCallback` in its main.c).
const LENGTH: Duration = Duration::from_millis(100);
/// How long batches may hold the lock in all, from one time to the next, where others write, …
const CONTENDED: Duration = Duration::from_millis(500);
/// … and where nobody does.
const QUIET: Duration = Duration::from_secs(2);

/// When others have room to write.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<RoomState>);

#[derive(Debug)]
struct RoomState {
    /// How long batches have held the lock since others had room.
    held: Duration,
    /// When the last one ended.
    ended: Option<Instant>,
    /// SQLite's data_version: it changes where another connection commits.
    version: Option<i64>,
    /// True where somebody else has written since others had room last.
    contended: bool,
    /// The same of the time before.
    was_contended: bool,
}

impl Default for RoomState {
    fn default() -> Self {
        // Others may wait from the first batch on: whoever is kept out has not written yet.
        Self { held: Duration::ZERO, ended: None, version: None, contended: true, was_contended: false }
    }
}

impl Room {
    /// How long the file is to be left alone now.
    pub(super) fn room(&self) -> Duration {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = state.ended.map_or(LENGTH, |ended| ended.elapsed());
        let left = LENGTH.saturating_sub(since);
        let interval = if state.contended || state.was_contended { CONTENDED } else { QUIET };
        if !left.is_zero() && state.held < interval {
            return Duration::ZERO;
        }
        state.held = Duration::ZERO;
        state.was_contended = std::mem::take(&mut state.contended);
        left
    }

    /// A batch has begun, with this data_version.
    pub(super) fn begun(self: &Arc<Self>, version: Option<i64>) -> Turn {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.contended |= state.version.is_some() && state.version != version;
        state.version = version;
        Turn { room: Arc::clone(self), began: Instant::now() }
    }
}

/// The time of a batch, from its beginning until this is dropped.
pub(super) struct Turn {
    room: Arc<Room>,
    began: Instant,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.held += self.began.elapsed();
        state.ended = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of 100 ms, a moment apart: the times at which others were given room within `seconds`.
    async fn rooms(seconds: u64, mut version: impl FnMut(usize) -> i64) -> Vec<u128> {
        let (room, start) = (Arc::new(Room::default()), Instant::now());
        let mut rooms = Vec::new();
        let mut batch = 0;
        while start.elapsed() < Duration::from_secs(seconds) {
            let given = room.room();
            if !given.is_zero() {
                rooms.push(start.elapsed().as_millis());
                tokio::time::sleep(given).await;
            }
            let turn = room.begun(Some(version(batch)));
            batch += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(turn);
        }
        rooms
    }

    #[tokio::test(start_paused = true)]
    async fn others_are_given_room_more_often_where_there_are_any() {
        let alone = rooms(10, |_| 1).await;
        assert_eq!(alone[..2], [500, 2_600], "{alone:?}");
        assert!(alone[2..].windows(2).all(|two| two[1] - two[0] >= 2_000), "{alone:?}");
        let contended = rooms(10, |batch| i64::try_from(batch / 4).unwrap()).await;
        assert!(contended.windows(2).all(|two| two[1] - two[0] <= 700), "{contended:?}");
        // Somebody who wrote once is not waited for for ever.
        let once = rooms(20, |batch| i64::from(batch > 20)).await;
        assert!(once.len() <= 12, "{once:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_rests_gives_no_room_besides() {
        let room = Arc::new(Room::default());
        for _ in 0..100 {
            let turn = room.begun(Some(1));
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(turn);
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(room.room(), Duration::ZERO);
        }
    }
}
