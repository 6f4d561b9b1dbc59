//! What a guest read once, read again: by another guest, in the same order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

use tidegate::controller::Inputs;
use tidegate::controller::shadow::Prompt;
use tidegate::controller::witness::SignalRead;
use tidegate_wasm::{Chance, Clock, Reading, SignalReader};

/// Answers a guest's reads with what was read before, call by call.
///
/// What is read of a signal beyond that is the last reading that was played of it, or what another reader says. Clocks
/// stand where they were read last, and random numbers beyond those recorded grow from a fixed seed.
pub struct Playback {
    state: Mutex<PlaybackState>,
    /// Who knows signals that were not played.
    beside: Option<Arc<dyn SignalReader>>,
}

struct PlaybackState {
    signals: Vec<SignalRead>,
    wall_clock: VecDeque<Duration>,
    monotonic_clock: VecDeque<u64>,
    random: VecDeque<u8>,
    random_seed: u128,
    /// By database and signal, what was played last.
    last: HashMap<(String, String), Option<(f64, Duration)>>,
    last_wall_clock: Duration,
    last_monotonic_clock: u64,
    more_random: Pcg64Mcg,
    /// By signal, how often it was read where it had not been.
    unrecorded: BTreeMap<String, u64>,
}

impl Default for Playback {
    fn default() -> Self {
        let state = PlaybackState {
            signals: Vec::new(),
            wall_clock: VecDeque::new(),
            monotonic_clock: VecDeque::new(),
            random: VecDeque::new(),
            random_seed: 0,
            last: HashMap::new(),
            last_wall_clock: Duration::ZERO,
            last_monotonic_clock: 0,
            more_random: Pcg64Mcg::seed_from_u64(0),
            unrecorded: BTreeMap::new(),
        };
        Self { state: Mutex::new(state), beside: None }
    }
}

impl Playback {
    /// Plays signals, and asks `reader` for those that were not played.
    pub fn beside(reader: Arc<dyn SignalReader>) -> Self {
        Self { beside: Some(reader), ..Self::default() }
    }

    /// Has the next call read this. `at` is when it was made, since the Unix epoch.
    pub fn play(&self, inputs: &Inputs, at: Duration) {
        let mut state = self.state();
        state.end_call();
        state.signals.clone_from(&inputs.signals);
        state.wall_clock = inputs.wall_clock.iter().copied().collect();
        state.monotonic_clock = inputs.monotonic_clock.iter().copied().collect();
        state.random = inputs.random.iter().copied().collect();
        state.random_seed = inputs.random_seed.unwrap_or_default();
        state.last_wall_clock = state.last_wall_clock.max(at);
    }

    /// By signal, how often it was read in a call in which it had not been; counted anew from now on.
    pub fn take_unrecorded(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.state().unrecorded)
    }

    fn state(&self) -> MutexGuard<'_, PlaybackState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PlaybackState {
    /// What the last call left unread counts as read.
    fn end_call(&mut self) {
        for SignalRead { database_name, signal, reading } in self.signals.drain(..) {
            self.last.insert((database_name, signal), reading);
        }
        self.last_wall_clock = self.wall_clock.drain(..).next_back().unwrap_or(self.last_wall_clock);
        self.last_monotonic_clock = self.monotonic_clock.drain(..).next_back().unwrap_or(self.last_monotonic_clock);
    }

    fn played(&mut self, database_name: &str, signal: &str) -> Option<Option<(f64, Duration)>> {
        let is_it = |read: &SignalRead| read.database_name == database_name && read.signal == signal;
        let SignalRead { database_name, signal, reading } = self.signals.remove(self.signals.iter().position(is_it)?);
        self.last.insert((database_name, signal), reading);
        Some(reading)
    }
}

impl SignalReader for Playback {
    fn read(&self, database_name: &str, signal: &str) -> Option<Reading> {
        let mut state = self.state();
        let reading = match (state.played(database_name, signal), &self.beside) {
            (Some(reading), _) => reading,
            (None, Some(reader)) => {
                drop(state);
                return reader.read(database_name, signal);
            }
            (None, None) => {
                *state.unrecorded.entry(signal.to_owned()).or_default() += 1;
                state.last.get(&(database_name.to_owned(), signal.to_owned())).copied().flatten()
            }
        };
        reading.map(|(value, age)| Reading { value, age })
    }
}

impl Prompt for Playback {
    fn prompt(&self, inputs: &Inputs) {
        self.play(inputs, Duration::ZERO);
    }
}

impl Clock for Playback {
    fn wall(&self) -> Duration {
        let mut state = self.state();
        state.last_wall_clock = state.wall_clock.pop_front().unwrap_or(state.last_wall_clock);
        state.last_wall_clock
    }

    fn monotonic(&self) -> Duration {
        let mut state = self.state();
        state.last_monotonic_clock = state.monotonic_clock.pop_front().unwrap_or(state.last_monotonic_clock);
        Duration::from_nanos(state.last_monotonic_clock)
    }
}

impl Chance for Playback {
    fn fill(&self, bytes: &mut [u8]) {
        let state = &mut *self.state();
        for byte in bytes {
            *byte = state.random.pop_front().unwrap_or_else(|| state.more_random.next_u32().to_le_bytes()[0]);
        }
    }

    fn seed(&self) -> u128 {
        self.state().random_seed
    }
}
