//! How far a standby is behind in time, from how far it is behind in the write-ahead log.
//!
//! `replay_lag` of pg_stat_replication is as old as the standby's last message, and null once nothing was written for a
//! while. So the server's own position is noted at each sample: a standby is as far behind as it is long ago that the
//! server was where the standby is now.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Positions that are kept: an hour of samples a second apart. A lag beyond is told as that of the oldest.
const KEPT: usize = 3_600;

/// Where the server's write-ahead log was, and when.
#[derive(Debug, Default)]
pub(super) struct Positions {
    /// (bytes since the log's beginning, when), the newest last; no two of the same position.
    known: VecDeque<(i64, Instant)>,
}

impl Positions {
    /// Takes note of where the server is.
    pub(super) fn note(&mut self, position: i64, now: Instant) {
        if self.known.back().is_some_and(|(last, _)| *last >= position) {
            return;
        }
        if self.known.len() == KEPT {
            self.known.pop_front();
        }
        self.known.push_back((position, now));
    }

    /// How far a standby at `replayed` is behind; `None` where the server was past that before the first note.
    pub(super) fn lag(&self, replayed: i64, now: Instant) -> Option<Duration> {
        let (oldest, _) = self.known.front()?;
        // The first position that it has not reached; it was written at that time at the latest.
        let missed = self.known.iter().find(|(position, _)| *position > replayed);
        match missed {
            None => Some(Duration::ZERO),
            Some((position, _)) if position == oldest => None,
            Some((_, at)) => Some(now.saturating_duration_since(*at)),
        }
    }

    /// As [`Positions::lag`], at least: since the first note, where it was behind already then.
    pub(super) fn lag_at_least(&self, now: Instant) -> Duration {
        self.known.front().map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(*at))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Positions;

    #[test]
    fn a_standby_is_as_far_behind_as_the_server_was_there_long_ago() {
        let (mut positions, start) = (Positions::default(), Instant::now());
        let at = |second: u64| start + Duration::from_secs(second);
        for (second, position) in [(0, 100), (1, 200), (2, 200), (3, 300), (4, 300)] {
            positions.note(position, at(second));
        }
        let lag = |replayed| positions.lag(replayed, at(10)).map(|lag| lag.as_secs());
        assert_eq!(lag(300), Some(0));
        assert_eq!(lag(400), Some(0), "a standby that is ahead of what was read before it");
        assert_eq!(lag(299), Some(7));
        assert_eq!(lag(200), Some(7));
        assert_eq!(lag(199), Some(9));
        assert_eq!(lag(100), Some(9));
        assert_eq!(lag(99), None, "it was behind before anybody looked");
        assert_eq!(positions.lag_at_least(at(10)), Duration::from_secs(10));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut positions, start) = (Positions::default(), Instant::now());
        for position in 0..10_000 {
            positions.note(position, start + Duration::from_secs(position.unsigned_abs()));
        }
        assert_eq!(positions.known.len(), super::KEPT);
    }
}
