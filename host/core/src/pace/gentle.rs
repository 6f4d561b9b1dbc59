//! Gentle pacing: what part of the time updates get, and how long their batches are, by what the foreground's latency has
//! become since it was left alone.
//!
//! Plain arithmetic on milliseconds, without a clock: `guests/rust-gentle` has a copy of this file, which a test holds to
//! this one. The rule is that of LEDBAT (RFC 6817), by which a download in the background shares a line with people:
//!
//! - What is watched is not the latency but its excess over what it is while nothing runs, which is measured anew all the
//!   time (LEDBAT's queueing delay over a base delay). So nobody has to know a latency to aim at.
//! - The duty grows and shrinks in proportion to how far the excess is below or above what is allowed (LEDBAT's linear
//!   controller: `gain * (TARGET - delay) / TARGET`), and no faster than it grows where there is none. A measure that
//!   chance moves to either side so moves the duty to either side, and it ends where the excess is what is allowed more
//!   often than not.
//! - To measure what the latency is by itself, one leaves off for a moment now and then (LEDBAT++'s periodic slowdown, BBR's
//!   PROBE_RTT).
//!
//! Short batches disturb less than long ones with the same duty, and cost more: so batches grow only once the duty is at
//! its most, and shrink twice as fast as it.

/// Between which bounds it moves. Durations are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The least part of the time that batches get, above 0.
    pub least_duty: f64,
    /// The most, up to 1.
    pub most_duty: f64,
    /// What batches aim at where the foreground feels them.
    pub shortest_batch_ms: f64,
    /// What they aim at where it does not, and while nothing is known.
    pub longest_batch_ms: f64,
    /// The longest rest between two batches.
    pub longest_sleep_ms: f64,
    /// The rest after a whole batch while nothing is known.
    pub plain_sleep_ms: f64,
    /// By what part of itself the undisturbed latency may grow.
    pub allowed_excess: f64,
    /// By how much it may grow, where that is more.
    pub allowed_excess_ms: f64,
    /// Older readings say nothing.
    pub stale_after_ms: f64,
}

impl Bounds {
    /// What the foreground's latency may be where it is this while nothing runs.
    pub fn limit(&self, undisturbed_ms: f64) -> f64 {
        undisturbed_ms + (undisturbed_ms * self.allowed_excess).max(self.allowed_excess_ms)
    }
}

/// The foreground's latency as it was read last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// What it is.
    pub latency_ms: f64,
    /// What it is while nothing runs.
    pub undisturbed_ms: f64,
    /// What it may be.
    pub limit_ms: f64,
    /// How old the reading is.
    pub age_ms: f64,
}

/// A rest before a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Rest {
    /// How long.
    pub ms: f64,
    /// Why, for operators.
    pub reason: String,
}

/// The part of the time that it begins with: about what Synapse's defaults give.
const FIRST_DUTY: f64 = 0.1;
/// Rests are saved up below this: hosts make none of less.
const SHORTEST_REST_MS: f64 = 10.0;
/// How long it leaves off to measure what the latency is while nothing runs.
const LISTENING_MS: f64 = 400.0;
/// How often.
const BETWEEN_LISTENINGS_MS: f64 = 4_000.0;
/// How often it listens, before the first batch, for a first reading.
const FIRST_LISTENINGS: u32 = 3;
/// How fast the duty grows where nothing is felt: by e to the power of this in a second, which is 49 %.
const GAIN: f64 = 0.4;
/// How much faster batches shrink.
const SHORTENING: f64 = 2.0;
/// The bounds of how far the excess can be below and above what is allowed, in parts of that. Above both ways the same, so
/// that chance is without effect; but not where the latency is a multiple of its limit, which is no chance.
const OFF_TARGET: f64 = 1.0;
const FAR_OFF_TARGET: f64 = 3.0;
/// That multiple.
const FAR: f64 = 3.0;
/// The most time that is reckoned with at once, in milliseconds: what passed while nobody looked proves nothing.
const LONGEST_STEP_MS: f64 = 1_000.0;

/// What was learned of one database.
#[derive(Debug, Clone, PartialEq)]
pub struct Gentle {
    bounds: Bounds,
    duty: f64,
    batch_ms: f64,
    /// True where nothing is known of the foreground.
    blind: bool,
    /// Rests that are owed.
    debt_ms: f64,
    /// Batches and rests since the duty was set last.
    since_step_ms: f64,
    since_listening_ms: f64,
    listenings: u32,
}

impl Gentle {
    /// Knows nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            duty: FIRST_DUTY.clamp(bounds.least_duty, bounds.most_duty),
            batch_ms: bounds.shortest_batch_ms.min(bounds.longest_batch_ms),
            blind: true,
            debt_ms: 0.0,
            since_step_ms: 0.0,
            since_listening_ms: 0.0,
            listenings: 0,
        }
    }

    /// The duration that the next batch aims at.
    pub fn target_ms(&self) -> f64 {
        if self.blind { self.bounds.longest_batch_ms } else { self.batch_ms }
    }

    /// The part of the time that batches get.
    pub fn duty(&self) -> f64 {
        self.duty
    }

    /// The next rest before a batch. `None` once the batch may run: to be asked again after each.
    pub fn rest(&mut self, latency: Option<Latency>) -> Option<Rest> {
        let Some(latency) = latency else { return self.rest_blindly() };
        let was_blind = std::mem::replace(&mut self.blind, false);
        let why = self.adjust(latency);
        if was_blind {
            // What is owed was reckoned by the plain sleep.
            self.debt_ms = self.debt_ms.min(self.bounds.longest_sleep_ms);
        }
        if self.since_listening_ms >= BETWEEN_LISTENINGS_MS && self.debt_ms < LISTENING_MS {
            return Some(self.take(LISTENING_MS, "listening to what the foreground's latency is by itself".to_owned()));
        }
        let ms = self.debt_ms.min(self.bounds.longest_sleep_ms);
        let percent = self.duty * 100.0;
        let percent = if percent < 10.0 { format!("{percent:.1}") } else { format!("{percent:.0}") };
        (ms >= SHORTEST_REST_MS).then(|| self.take(ms, format!("{why}: updates get {percent} % of the time")))
    }

    /// Takes note of how long a batch took.
    pub fn note_batch(&mut self, duration_ms: f64) {
        let duration_ms = duration_ms.max(0.0);
        self.since_step_ms += duration_ms;
        self.since_listening_ms += duration_ms;
        self.debt_ms += match self.blind {
            // A batch that ended its update before its time owes its part, as with the built-in policy.
            true => self.bounds.plain_sleep_ms * (duration_ms / self.bounds.longest_batch_ms.max(1.0)).min(1.0),
            false => duration_ms * (1.0 / self.duty - 1.0),
        };
    }

    /// What is owed is paid with this rest.
    fn take(&mut self, ms: f64, reason: String) -> Rest {
        self.debt_ms = 0.0;
        self.since_step_ms += ms;
        self.since_listening_ms = if ms >= LISTENING_MS { 0.0 } else { self.since_listening_ms + ms };
        Rest { ms, reason }
    }

    /// Nothing was ever read: some time is given to the probe, then it goes on as Synapse does by default.
    fn rest_blindly(&mut self) -> Option<Rest> {
        self.blind = true;
        if self.listenings < FIRST_LISTENINGS {
            self.listenings += 1;
            return Some(self.take(LISTENING_MS, "listening to the foreground before the first batch".to_owned()));
        }
        let ms = self.debt_ms.min(self.bounds.plain_sleep_ms);
        let reason = "the foreground's latency was never read: batches and sleeps as by default".to_owned();
        (ms >= SHORTEST_REST_MS).then(|| self.take(ms, reason))
    }

    /// Sets the duty by a reading; says what speaks for it.
    fn adjust(&mut self, latency: Latency) -> String {
        let Bounds { least_duty, most_duty, longest_batch_ms, stale_after_ms, .. } = self.bounds;
        let shortest_batch_ms = self.bounds.shortest_batch_ms.min(longest_batch_ms);
        let seconds = std::mem::take(&mut self.since_step_ms).min(LONGEST_STEP_MS) / 1e3;
        if latency.age_ms > stale_after_ms {
            (self.duty, self.batch_ms) = (least_duty, shortest_batch_ms);
            return format!("the foreground's latency was last read {:.0} s ago", latency.age_ms / 1e3);
        }
        let off_target = latency.off_target();
        if self.duty >= most_duty || off_target < 0.0 {
            let factor = (GAIN * if off_target < 0.0 { SHORTENING } else { 1.0 } * off_target * seconds).exp();
            self.batch_ms = (self.batch_ms * factor).clamp(shortest_batch_ms, longest_batch_ms);
        }
        self.duty = (self.duty * (GAIN * off_target * seconds).exp()).clamp(least_duty, most_duty);
        let Latency { latency_ms, limit_ms, .. } = latency;
        let relation = if off_target >= 0.0 { "<=" } else { ">" };
        format!("foreground latency {} ms {relation} {} ms", number(latency_ms), number(limit_ms))
    }
}

impl Latency {
    /// How far the excess is below what is allowed, in parts of that; less than 0 where it is above.
    fn off_target(&self) -> f64 {
        let Self { latency_ms, undisturbed_ms, limit_ms, .. } = *self;
        let allowed_ms = limit_ms - undisturbed_ms;
        let off_target = if allowed_ms > 0.0 { (limit_ms - latency_ms) / allowed_ms } else { limit_ms - latency_ms };
        match latency_ms <= limit_ms {
            true => off_target.min(OFF_TARGET),
            false if latency_ms <= limit_ms * FAR => off_target.max(-OFF_TARGET),
            // What is no number is not within the limit either.
            false => -FAR_OFF_TARGET,
        }
    }
}

/// Milliseconds as precise as people read them.
fn number(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2}") } else { format!("{ms:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        least_duty: 0.02,
        most_duty: 0.9,
        shortest_batch_ms: 10.0,
        longest_batch_ms: 100.0,
        longest_sleep_ms: 10_000.0,
        plain_sleep_ms: 1_000.0,
        allowed_excess: 0.25,
        allowed_excess_ms: 0.0,
        stale_after_ms: 5_000.0,
    };

    /// Of a foreground whose latency is 4 ms by itself.
    fn read(latency_ms: f64) -> Latency {
        Latency { latency_ms, undisturbed_ms: 4.0, limit_ms: BOUNDS.limit(4.0), age_ms: 20.0 }
    }

    /// Some time during which the foreground's latency is this, by what is running, where it is 4 ms by itself; the part
    /// of the time that batches had.
    fn during(gentle: &mut Gentle, seconds: f64, latency: impl Fn(&Gentle) -> f64) -> f64 {
        let (mut worked, mut rested) = (0.0, 0.0);
        while worked + rested < seconds * 1e3 {
            let reading = read(latency(gentle));
            rested += gentle.rest(Some(reading)).map_or(0.0, |rest| rest.ms);
            worked += gentle.target_ms();
            gentle.note_batch(gentle.target_ms());
        }
        worked / (worked + rested)
    }

    #[test]
    fn nobody_there_means_full_duty_and_long_batches() {
        let mut gentle = Gentle::new(BOUNDS);
        during(&mut gentle, 30.0, |_| 4.0);
        assert_eq!((gentle.duty(), gentle.target_ms()), (0.9, 100.0));
        let worked = during(&mut gentle, 60.0, |_| 4.0);
        assert!((0.8..0.9).contains(&worked), "{worked}: most of the time, but for what it listens");
    }

    #[test]
    fn a_foreground_that_suffers_gets_the_time_and_short_batches() {
        let mut gentle = Gentle::new(BOUNDS);
        during(&mut gentle, 60.0, |_| 4.0);
        let worked = during(&mut gentle, 30.0, |_| 40.0);
        assert_eq!((gentle.duty(), gentle.target_ms()), (0.02, 10.0));
        assert!(worked < 0.25, "{worked}: it took too long about it");
        during(&mut gentle, 60.0, |_| 4.0);
        assert_eq!(gentle.duty(), 0.9, "it comes back");
    }

    #[test]
    fn it_settles_where_the_excess_is_what_is_allowed() {
        // 4 ms alone, 6.5 ms at full duty: 5 ms, which is the limit, at 40 % of the time.
        let feels = |gentle: &Gentle| 4.0 + 2.5 * gentle.duty();
        let mut gentle = Gentle::new(BOUNDS);
        during(&mut gentle, 30.0, feels);
        let worked = during(&mut gentle, 120.0, feels);
        assert!((0.3..0.43).contains(&worked), "{worked}");
        assert_eq!(gentle.target_ms(), 10.0);
    }

    #[test]
    fn the_limit_is_a_part_of_the_undisturbed_latency_and_not_less_than_what_is_allowed() {
        let bounds = Bounds { allowed_excess_ms: 0.5, ..BOUNDS };
        assert_eq!((bounds.limit(1.0), bounds.limit(2.0), bounds.limit(8.0)), (1.5, 2.5, 10.0));
    }

    #[test]
    fn what_chance_does_to_a_measure_does_nothing_to_the_duty() {
        // Half as much or twice as much, by turns, as on a machine that others use.
        let mut gentle = Gentle::new(BOUNDS);
        let turn = std::cell::Cell::new(0);
        let worked = during(&mut gentle, 300.0, |_| {
            turn.set(turn.get() + 1);
            if turn.get() % 5 < 2 { 8.0 } else { 2.0 }
        });
        assert!(worked > 0.65, "{worked}");
    }

    #[test]
    fn far_too_much_takes_the_duty_back_fast() {
        let mut gentle = Gentle::new(BOUNDS);
        during(&mut gentle, 60.0, |_| 4.0);
        let mut slower = gentle.clone();
        during(&mut gentle, 3.0, |_| 40.0);
        during(&mut slower, 3.0, |_| 7.0);
        assert!(gentle.duty() < 0.1 && slower.duty() > 0.2, "{} {}", gentle.duty(), slower.duty());
        assert_eq!(gentle.target_ms(), 10.0);
    }

    #[test]
    fn old_readings_mean_care_and_none_means_the_defaults() {
        let mut gentle = Gentle::new(BOUNDS);
        during(&mut gentle, 30.0, |_| 4.0);
        gentle.note_batch(100.0);
        let stale = Latency { age_ms: 7_200.0, ..read(1.0) };
        gentle.rest(Some(stale));
        assert_eq!((gentle.duty(), gentle.target_ms()), (0.02, 10.0));
        gentle.note_batch(10.0);
        let rest = gentle.rest(Some(stale)).unwrap();
        let reason = "the foreground's latency was last read 7 s ago: updates get 2.0 % of the time";
        assert_eq!((rest.ms.round(), rest.reason.as_str()), (490.0, reason));

        let mut gentle = Gentle::new(BOUNDS);
        let mut rests = Vec::new();
        for _ in 0..3 {
            rests.push(gentle.rest(None).unwrap().ms);
        }
        assert_eq!((gentle.rest(None), gentle.target_ms()), (None, 100.0));
        for duration in [100.0, 30.0, 7_000.0] {
            gentle.note_batch(duration);
            let rest = gentle.rest(None).unwrap();
            assert!(rest.reason.contains("never read"), "{}", rest.reason);
            rests.push(rest.ms);
        }
        assert_eq!(rests, [400.0, 400.0, 400.0, 1_000.0, 300.0, 1_000.0]);
    }

    #[test]
    fn no_latency_is_no_number_that_is_fine() {
        let mut gentle = Gentle::new(BOUNDS);
        for latency in [f64::NAN, f64::INFINITY] {
            during(&mut gentle, 60.0, |_| latency);
            assert_eq!(gentle.duty(), 0.02);
        }
    }

    #[test]
    fn it_listens_now_and_then_and_says_why_it_rests() {
        let mut gentle = Gentle::new(BOUNDS);
        let mut reasons = Vec::new();
        let (mut time, mut listened) = (0.0, Vec::new());
        while time < 60_000.0 {
            if let Some(rest) = gentle.rest(Some(read(4.2))) {
                time += rest.ms;
                if rest.reason.starts_with("listening") {
                    listened.push(rest.ms);
                }
                reasons.push(rest.reason);
            }
            time += gentle.target_ms();
            gentle.note_batch(gentle.target_ms());
        }
        assert_eq!(listened, [400.0; 13]);
        assert_eq!(reasons[0], "foreground latency 4.20 ms <= 5.00 ms: updates get 10 % of the time");
    }

    #[test]
    fn one_long_batch_is_not_paid_for_the_rest_of_the_day() {
        let mut gentle = Gentle::new(BOUNDS);
        gentle.rest(Some(read(1.0)));
        gentle.note_batch(3_600_000.0);
        let rest = gentle.rest(Some(read(1.0))).unwrap();
        assert_eq!(rest.ms, 10_000.0);
    }
}
