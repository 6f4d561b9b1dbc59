//! What the foreground feels, from what a probe takes: its latency of late, and what it is while no batch runs.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{BuiltIn, Definition, Sample};

/// The signal of what the foreground's latency is of late.
pub const FOREGROUND_LATENCY: &str = "foreground-latency";
/// The signal of what it is while no batch runs.
pub const FOREGROUND_UNDISTURBED: &str = "foreground-undisturbed";
const NAMES: [&str; 2] = [FOREGROUND_LATENCY, FOREGROUND_UNDISTURBED];

/// The part of the probes that took no longer than what is told: few enough are slower for what is told not to be chance,
/// and not so many that it would not show.
const QUANTILE: f64 = 0.95;
/// Less probes than these tell nothing.
const FEWEST: usize = 20;
/// What is told is about so many probes at least, and no shorter a time than that: of both signals the same, so that what
/// a service does by itself, or a neighbour on the machine, shows in both.
const WINDOW: (u32, Duration) = (50, Duration::from_secs(5));
/// Of the undisturbed probes of before so many are remembered where there are few within the window, and for so long.
const UNDISTURBED: (usize, Duration) = (50, Duration::from_secs(300));
/// A batch is felt for some time after its end: log to be written, caches to be filled again.
const SETTLING: Duration = Duration::from_millis(10);
/// The most probes that one is taken for which took as long as several.
const MOST_STOOD_FOR: u32 = 1_000;

/// What a host does on a database at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It has no update in hand.
    None,
    /// It has, and no batch ran for so long.
    Between(Duration),
    /// A batch runs.
    Batch,
}

/// Tells what a host does on a database.
pub type WorkInHand = Arc<dyn Fn() -> Work + Send + Sync>;

/// How the foreground is probed.
#[derive(Clone)]
pub struct Probing {
    /// From probe to probe while an update is in hand; at other times what the sampler's schedule says of the others.
    pub interval: Duration,
    /// From probe to probe while none is.
    pub idle_interval: Duration,
    /// What the host does.
    pub work: WorkInHand,
    /// Whether the probe is to wait for what writers wait for: SQLite's right to write, PostgreSQL's commit, which takes a
    /// table of its own; where that cannot be had, it only reads.
    pub waits_as_writers: bool,
}

impl fmt::Debug for Probing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interval, idle_interval, waits_as_writers, .. } = self;
        write!(f, "Probing {{ {interval:?}, {idle_interval:?}, waits_as_writers: {waits_as_writers} }}")
    }
}

/// Gathers what a probe takes.
pub struct Foreground {
    probing: Probing,
    /// When the last probe began.
    last: Option<Instant>,
    /// The last probes while an update was in hand, and what they took, in milliseconds.
    recent: VecDeque<(Instant, f64)>,
    undisturbed: VecDeque<(Instant, f64)>,
    /// How many probes there were.
    count: u32,
}

impl Foreground {
    /// Nothing gathered yet.
    pub fn new(probing: Probing) -> Self {
        Self { probing, last: None, recent: VecDeque::new(), undisturbed: VecDeque::new(), count: 0 }
    }

    /// The signals that it gives.
    pub fn definitions() -> Vec<Definition> {
        BuiltIn::definitions(&NAMES)
    }

    /// True where it is time for a probe.
    pub fn is_due(&self) -> bool {
        let Some(last) = self.last else { return true };
        (self.probing.work)() != Work::None || last.elapsed() >= self.probing.idle_interval
    }

    /// How long to wait before a probe, so that they do not keep step with batches: another part of half an interval each
    /// time, all of them as often.
    pub fn stagger(&mut self) -> Duration {
        self.count = self.count.wrapping_add(1);
        // The parts of the golden ratio's multiples are spread evenly.
        let part = (f64::from(self.count) * 0.618_033_988_749_895).fract();
        self.probing.interval.mul_f64(part / 2.0)
    }

    /// Takes note of what a probe took that began at a moment and is over now.
    pub fn note(&mut self, began: Instant, ms: f64) -> Vec<Sample> {
        let Probing { interval, work, .. } = &self.probing;
        let (interval, work) = (*interval, work());
        // One after a long time finds everything asleep, and says nothing of a service at work.
        let is_dense = self.last.replace(began).is_some_and(|last| began - last < interval * 5 + self.took(ms));
        if work == Work::None || !is_dense {
            return Vec::new();
        }
        let calm = match work {
            Work::Between(since) => since >= SETTLING + began.elapsed(),
            _ => false,
        };
        // Those that should have begun meanwhile would have waited for the same.
        let mut left = ms;
        for _ in 0..MOST_STOOD_FOR {
            self.recent.push_back((began, left));
            if calm {
                self.undisturbed.push_back((began, left));
            }
            left -= interval.as_secs_f64() * 1e3;
            if left <= 0.0 {
                break;
            }
        }
        self.forget(WINDOW.1.max(interval * WINDOW.0));
        let tell =
            |name, values: &VecDeque<(Instant, f64)>| Some(Sample::new(name, Ok::<_, String>(quantile(values)?)));
        // One without the other is of no use.
        match (tell(NAMES[0], &self.recent), tell(NAMES[1], &self.undisturbed)) {
            (Some(latency), Some(undisturbed)) => vec![latency, undisturbed],
            _ => Vec::new(),
        }
    }

    /// Why there is no reading.
    pub fn fail(&mut self, error: &str) -> Vec<Sample> {
        self.last = Some(Instant::now());
        NAMES.iter().map(|name| Sample::new(name, Err(error))).collect()
    }

    fn took(&self, ms: f64) -> Duration {
        Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default()
    }

    fn forget(&mut self, window: Duration) {
        let is_old = |entry: Option<&(Instant, f64)>, age: Duration| entry.is_some_and(|(at, _)| at.elapsed() > age);
        while is_old(self.recent.front(), window) {
            self.recent.pop_front();
        }
        let (enough, longest) = UNDISTURBED;
        let is_superfluous = |values: &VecDeque<(Instant, f64)>| {
            is_old(values.front(), if values.len() > enough { window } else { longest.max(window) })
        };
        while is_superfluous(&self.undisturbed) {
            self.undisturbed.pop_front();
        }
    }
}

/// What most of them are no longer than, where there are enough.
fn quantile(values: &VecDeque<(Instant, f64)>) -> Option<f64> {
    if values.len() < FEWEST {
        return None;
    }
    let mut sorted: Vec<f64> = values.iter().map(|(_, ms)| *ms).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(((sorted.len() as f64 * QUANTILE).ceil() as usize).saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(20);

    struct Bench {
        foreground: Foreground,
        work: Arc<Mutex<Work>>,
    }

    impl Bench {
        fn new() -> Self {
            let work = Arc::new(Mutex::new(Work::None));
            let told = Arc::clone(&work);
            let probing = Probing {
                interval: INTERVAL,
                idle_interval: Duration::from_secs(1),
                work: Arc::new(move || *told.lock().unwrap()),
                waits_as_writers: false,
            };
            Self { foreground: Foreground::new(probing), work }
        }

        /// So many probes that take this; the last answer.
        async fn probe(&mut self, work: Work, times: u32, ms: f64) -> Vec<f64> {
            *self.work.lock().unwrap() = work;
            let mut told = Vec::new();
            for _ in 0..times {
                assert!(self.foreground.is_due());
                let began = Instant::now();
                tokio::time::advance(Duration::from_secs_f64(ms / 1e3)).await;
                let samples = self.foreground.note(began, ms);
                told = samples.into_iter().map(|sample| sample.value.unwrap()).collect();
                tokio::time::advance(INTERVAL).await;
            }
            told
        }
    }

    const CALM: Work = Work::Between(Duration::from_secs(1));

    #[tokio::test(start_paused = true)]
    async fn what_is_undisturbed_is_learned_while_no_batch_runs() {
        let mut bench = Bench::new();
        assert_eq!(bench.probe(CALM, 20, 1.0).await, [] as [f64; 0], "the first finds everything asleep");
        assert_eq!(bench.probe(CALM, 1, 1.0).await, [1.0, 1.0]);
        assert_eq!(bench.probe(Work::Batch, 250, 8.0).await, [8.0, 1.0]);
        assert_eq!(bench.probe(Work::Between(Duration::from_millis(5)), 250, 4.0).await, [4.0, 1.0], "just after one");
        // The undisturbed latency drifts, and is followed.
        assert_eq!(bench.probe(CALM, 300, 3.0).await, [3.0, 3.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_in_twenty_may_be_slow() {
        let mut bench = Bench::new();
        bench.probe(CALM, 61, 1.0).await;
        let told = bench.probe(Work::Batch, 3, 15.0).await;
        assert_eq!(told, [1.0, 1.0]);
        assert_eq!(bench.probe(Work::Batch, 1, 15.0).await, [15.0, 1.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_was_held_up_stands_for_those_that_could_not_begin() {
        let mut bench = Bench::new();
        bench.probe(CALM, 51, 1.0).await;
        // 100, 80, 60, 40 and 20 ms.
        let told = bench.probe(Work::Batch, 1, 100.0).await;
        assert_eq!(told, [60.0, 1.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_update_it_is_seldom_probed_and_nothing_is_learned() {
        let mut bench = Bench::new();
        assert_eq!(bench.probe(Work::None, 1, 1.0).await, [] as [f64; 0]);
        assert!(!bench.foreground.is_due());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(bench.foreground.is_due());
        *bench.work.lock().unwrap() = CALM;
        assert!(bench.foreground.is_due());
    }

    #[tokio::test(start_paused = true)]
    async fn probes_do_not_keep_step() {
        let mut bench = Bench::new();
        let mut waits: Vec<Duration> = (0..50).map(|_| bench.foreground.stagger()).collect();
        waits.sort();
        assert!(waits.windows(2).all(|pair| pair[1] - pair[0] < INTERVAL / 40), "{waits:?}");
        assert!(waits[49] < INTERVAL / 2);
    }
}
