//! The modelled world: its clocks, its load, what a batch takes in it, and what samplers read of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::scenario::{ClockJump, Load, Scenario, Signal, Span, Step};
use tidegate::signal::{FOREGROUND_LATENCY, FOREGROUND_UNDISTURBED};
use tidegate_wasm::{Clock, Reading, SignalReader};

/// The part of the server that is in use at most, so that every answer comes at some time.
pub const BUSIEST: f64 = 0.95;

/// How often the foreground's latency is taken.
const FOREGROUND_INTERVAL: Duration = Duration::from_secs(1);

/// The time that the foreground's latency is taken over where a pace goes by it.
const FOREGROUND_WINDOW: Duration = Duration::from_secs(5);

/// The clocks of a run.
#[derive(Debug, Clone)]
pub(super) struct Clocks {
    origin: Instant,
    start: Duration,
    jumps: Vec<ClockJump>,
}

impl Clocks {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self { origin: Instant::now(), start: scenario.start, jumps: scenario.clock.clone() }
    }

    /// How long the run has been going on.
    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The moment as tokio knows it.
    pub(super) fn instant(&self, moment: Duration) -> Instant {
        self.origin + moment
    }

    /// The wall clock at a moment: the time since the Unix epoch.
    pub(super) fn wall_at(&self, moment: Duration) -> Duration {
        wall_at(self.start, &self.jumps, moment)
    }
}

/// The wall clock at a moment of a run.
pub(super) fn wall_at(start: Duration, jumps: &[ClockJump], moment: Duration) -> Duration {
    jumps.iter().filter(|jump| jump.at <= moment).fold(start + moment, |wall, jump| {
        let by = Duration::from_millis(jump.by_ms.unsigned_abs());
        if jump.by_ms < 0 { wall.saturating_sub(by) } else { wall + by }
    })
}

impl Clock for Clocks {
    fn wall(&self) -> Duration {
        self.wall_at(self.now())
    }

    fn monotonic(&self) -> Duration {
        self.now()
    }
}

/// What is the case at a moment, of values that change in steps.
pub(super) fn step_at(steps: &[Step], moment: Duration, before: f64) -> f64 {
    steps.iter().rev().find(|step| step.at <= moment).map_or(before, |step| step.value)
}

/// A number from -1 to 1 that only the seed and its place decide.
fn chance(seed: u64, place: u64, number: u64) -> f64 {
    let mut random = Pcg64Mcg::seed_from_u64(seed ^ place.rotate_left(40) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // The upper 53 bits: as many as an f64 tells apart.
    (random.next_u64() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

/// Values over time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// (moment, value), in order of time.
    pub points: Vec<(Duration, f64)>,
}

/// What runs in the world, shared by database, handlers and samplers.
#[derive(Debug)]
pub(super) struct World {
    pub(super) clocks: Clocks,
    pub(super) seed: u64,
    load: Load,
    stalls: Vec<Span>,
    signals: Vec<Signal>,
    state: Mutex<ModelState>,
    /// Told where the statement in hand is to be given up.
    pub(super) interrupted: Notify,
}

#[derive(Debug)]
struct ModelState {
    /// When batches ran, in order of time.
    batches: Vec<Span>,
    /// When the one that runs began.
    running: Option<Duration>,
    foreground: Sampler,
    samplers: Vec<Sampler>,
}

/// What was read of one signal so far.
#[derive(Debug, Default)]
struct Sampler {
    series: Series,
    /// The number of the next reading.
    next: u32,
    /// What items have added and time has not taken away, and when that was so.
    backlog: (Duration, f64),
}

impl World {
    pub(super) fn new(scenario: &Scenario, seed: u64) -> Arc<Self> {
        let sampler =
            |name: &str| Sampler { series: Series { name: name.to_owned(), points: Vec::new() }, ..Sampler::default() };
        Arc::new(Self {
            clocks: Clocks::new(scenario),
            seed,
            load: scenario.load.clone(),
            stalls: scenario.stalls.clone(),
            signals: scenario.signals.clone(),
            state: Mutex::new(ModelState {
                batches: Vec::new(),
                running: None,
                foreground: sampler("foreground latency"),
                samplers: scenario.signals.iter().map(|signal| sampler(&signal.name)).collect(),
            }),
            interrupted: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, ModelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the database answers anybody.
    pub(super) async fn answer(&self) {
        let now = self.clocks.now();
        if let Some(stall) = self.stalls.iter().find(|stall| stall.holds(now)) {
            tokio::time::sleep_until(self.clocks.instant(stall.until)).await;
        }
    }

    /// How far chance takes a cost from what it should be.
    pub(super) fn noise(&self, place: u64, number: u64, reach: f64) -> f64 {
        if reach == 0.0 { 1.0 } else { (1.0 + reach * chance(self.seed, place, number)).max(0.0) }
    }

    /// Does work that would take so many milliseconds on a server with nothing else to do. False where it is to be given
    /// up before it is done.
    pub(super) async fn work(&self, ms: f64) -> bool {
        let begun = self.clocks.now();
        self.state().running = Some(begun);
        let running = Running(self);
        let until = self.done_at(begun, ms);
        let done = tokio::select! {
            biased;
            () = self.interrupted.notified() => false,
            () = pass(self.clocks.instant(until)) => true,
        };
        drop(running);
        done
    }

    /// When work is done that begins at a moment.
    fn done_at(&self, begun: Duration, ms: f64) -> Duration {
        let (mut now, mut left) = (begun, Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::MAX));
        loop {
            let change = self.next_change(now);
            let speed = self.speed(now);
            let needed = left.as_secs_f64() / speed;
            match change {
                // Beyond a lifetime: the run is ended long before.
                None if speed == 0.0 => return now + Duration::from_secs(u32::MAX.into()),
                Some(change) if speed == 0.0 || now.as_secs_f64() + needed > change.as_secs_f64() => {
                    left = left.saturating_sub((change - now).mul_f64(speed));
                    now = change;
                }
                _ => return now + Duration::try_from_secs_f64(needed).unwrap_or(Duration::from_secs(u32::MAX.into())),
            }
        }
    }

    /// What a batch has of the server.
    fn speed(&self, moment: Duration) -> f64 {
        if self.stalls.iter().any(|stall| stall.holds(moment)) {
            return 0.0;
        }
        1.0 - step_at(&self.load.steps, moment, 0.0).clamp(0.0, BUSIEST)
    }

    /// When the load changes next.
    fn next_change(&self, after: Duration) -> Option<Duration> {
        let edges = self.stalls.iter().flat_map(|stall| [stall.from, stall.until]);
        self.load.steps.iter().map(|step| step.at).chain(edges).filter(|at| *at > after).min()
    }

    /// Takes note of a batch that was committed.
    pub(super) fn commit(&self, items: u64) {
        let now = self.clocks.now();
        self.sample_until(now);
        let mut state = self.state();
        for (signal, sampler) in self.signals.iter().zip(&mut state.samplers) {
            sampler.backlog = (now, sampler.backlog_at(signal, now) + signal.per_item * items as f64);
        }
    }

    /// Takes all readings that are due by now.
    fn sample_until(&self, now: Duration) {
        let mut state = self.state();
        let ModelState { batches, running, foreground, samplers } = &mut *state;
        let latency = |span: Span| self.latency(batches, *running, span);
        foreground.sample(FOREGROUND_INTERVAL, now, |span| Some(latency(span)));
        for (place, (signal, sampler)) in self.signals.iter().zip(samplers).enumerate() {
            let backlog = sampler.backlog;
            sampler.sample(signal.every, now, |span| {
                let at = span.until;
                if signal.losses.iter().any(|loss| loss.span.holds(at)) {
                    return None;
                }
                let number = at.as_millis() as u64;
                let own = step_at(&signal.steps, at, 0.0);
                let own = own * self.noise(place as u64 + 1, number, signal.noise);
                let added = drained(backlog, signal.drain_per_s, at);
                Some(own + added + if signal.foreground { latency(span) } else { 0.0 })
            });
        }
    }

    /// The foreground's mean latency over a time, in milliseconds.
    fn latency(&self, batches: &[Span], running: Option<Duration>, over: Span) -> f64 {
        let first = batches.partition_point(|batch| batch.until <= over.from);
        let last = running.map(|from| Span { from, until: Duration::MAX });
        let active: Vec<Span> =
            batches[first..].iter().take_while(|batch| batch.from < over.until).copied().chain(last).collect();
        let edges = active.iter().chain(&self.stalls).flat_map(|span| [span.from, span.until]);
        let steps = self.load.steps.iter().map(|step| step.at);
        let within = |at: &Duration| over.from < *at && *at < over.until;
        let mut edges: Vec<Duration> = edges.chain(steps).filter(within).chain([over.until]).collect();
        edges.sort_unstable();
        let (mut from, mut sum) = (over.from, 0.0);
        for until in edges {
            let stalled = self.stalls.iter().any(|stall| stall.holds(from));
            let batch = active.iter().any(|batch| batch.holds(from));
            let share = if batch { self.load.batch_share } else { 0.0 };
            let used = if stalled { BUSIEST } else { step_at(&self.load.steps, from, 0.0) + share };
            sum += (until - from).as_secs_f64() * self.load.latency_ms / (1.0 - used.clamp(0.0, BUSIEST));
            from = until;
        }
        let length = (over.until.saturating_sub(over.from)).as_secs_f64();
        if length > 0.0 { sum / length } else { self.load.latency_ms }
    }

    /// What the host's own probe would tell of the foreground, where the scenario has a signal that feels it: as old as that
    /// one's readings. The model knows means alone.
    fn foreground(&self, name: &str, now: Duration) -> Option<Reading> {
        let disturbed = match name {
            FOREGROUND_LATENCY => true,
            FOREGROUND_UNDISTURBED => false,
            _ => return None,
        };
        let probe = self.signals.iter().position(|signal| signal.foreground)?;
        let Reading { age, .. } = self.latest(probe, now)?;
        let until = now.saturating_sub(age);
        let over = Span { from: until.saturating_sub(FOREGROUND_WINDOW), until };
        let state = self.state();
        let value = match disturbed {
            true => self.latency(&state.batches, state.running, over),
            false => self.latency(&[], None, over),
        };
        Some(Reading { value, age })
    }

    /// The latest reading of one of the scenario's signals.
    fn latest(&self, place: usize, now: Duration) -> Option<Reading> {
        self.sample_until(now);
        if self.signals.get(place)?.losses.iter().any(|loss| loss.gone && loss.span.holds(now)) {
            return None;
        }
        let state = self.state();
        let (at, value) = *state.samplers.get(place)?.series.points.last()?;
        Some(Reading { value, age: now.saturating_sub(at) })
    }

    /// All that was read, the foreground's latency first.
    pub(super) fn series(&self) -> (Series, Vec<Series>) {
        self.sample_until(self.clocks.now());
        let state = self.state();
        (state.foreground.series.clone(), state.samplers.iter().map(|sampler| sampler.series.clone()).collect())
    }
}

/// What is left of a backlog later on.
fn drained((since, value): (Duration, f64), drain_per_s: f64, at: Duration) -> f64 {
    (value - drain_per_s * at.saturating_sub(since).as_secs_f64()).max(0.0)
}

impl Sampler {
    fn backlog_at(&self, signal: &Signal, at: Duration) -> f64 {
        drained(self.backlog, signal.drain_per_s, at)
    }

    /// Takes the readings that are due; each is shown the time since the one before.
    fn sample(&mut self, every: Duration, now: Duration, read: impl Fn(Span) -> Option<f64>) {
        while every * self.next <= now {
            let until = every * self.next;
            if let Some(value) = read(Span { from: until.saturating_sub(every), until }) {
                self.series.points.push((until, value));
            }
            self.next += 1;
        }
    }
}

impl SignalReader for World {
    fn read(&self, _database_name: &str, signal: &str) -> Option<Reading> {
        let now = self.clocks.now();
        match self.signals.iter().position(|known| known.name == signal) {
            Some(place) => self.latest(place, now),
            None => self.foreground(signal, now),
        }
    }
}

/// Notes the end of a batch, however it ends: its work may be dropped half way.
struct Running<'a>(&'a World);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let until = self.0.clocks.now();
        let mut state = self.0.state();
        if let Some(from) = state.running.take() {
            state.batches.push(Span { from, until });
        }
    }
}

/// Lets time pass up to a moment, exactly: tokio's timers only know whole milliseconds, and come late.
async fn pass(until: Instant) {
    const TICK: Duration = Duration::from_millis(1);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match left {
            Duration::ZERO => return,
            left if left > 2 * TICK => tokio::time::sleep(left - TICK).await,
            left => tokio::time::advance(left).await,
        }
    }
}
