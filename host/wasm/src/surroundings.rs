//! The time and the chance that a guest meets: the machine's own, what a simulation makes of them, or what another guest
//! met before. Whatever a guest is told of them is noted.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng, TryRng};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};

use tidegate::controller::Inputs;

/// What guests are told of the time.
pub trait Clock: Send + Sync {
    /// The wall clock: the time since the Unix epoch.
    fn wall(&self) -> Duration;

    /// The time since some moment, which never goes back.
    fn monotonic(&self) -> Duration;
}

/// Where guests' random numbers come from.
pub trait Chance: Send + Sync {
    /// Fills this with random bytes.
    fn fill(&self, bytes: &mut [u8]);

    /// What an instance that starts is given as a seed that need not be secret.
    fn seed(&self) -> u128;
}

/// A clock and chance in the place of the machine's, for a run that is to come out the same each time.
///
/// Fuel alone bounds what a call computes then. A deadline that the machine's own clock strikes says more of the machine
/// than of the guest: the call fails as it does in production, and [`Surroundings::overran`] tells that what came of the
/// run is worth nothing. Time that a guest sleeps is the clock's own where that is tokio's paused one, and so is the
/// deadline that ends it.
pub struct Surroundings {
    clock: Arc<dyn Clock>,
    chance: Origin,
    /// Instances started so far: each has numbers of its own.
    instances: AtomicU64,
    overran: AtomicBool,
    /// True where others are let run in the middle of a guest's call.
    yields: bool,
}

/// Where chance comes from.
enum Origin {
    Seed(u64),
    Given(Arc<dyn Chance>),
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("instances", &self.instances).finish_non_exhaustive()
    }
}

impl Surroundings {
    /// Guests see this clock, and chance that comes from this seed.
    pub fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self::of(clock, Origin::Seed(seed))
    }

    /// Guests see this clock, and this chance.
    pub fn given(clock: Arc<dyn Clock>, chance: Arc<dyn Chance>) -> Self {
        Self::of(clock, Origin::Given(chance))
    }

    /// The same for every instance and at any time: the clock stands still, and chance comes from one seed. For a guest whose
    /// answers are to depend on what it is asked alone; each instance is to have surroundings of its own.
    pub(super) fn still() -> Self {
        Self { yields: true, ..Self::of(Arc::new(StillClock), Origin::Seed(0)) }
    }

    fn of(clock: Arc<dyn Clock>, chance: Origin) -> Self {
        Self { clock, chance, instances: AtomicU64::new(0), overran: AtomicBool::new(false), yields: false }
    }

    /// True where others are let run in the middle of a guest's call.
    pub(super) fn yields(&self) -> bool {
        self.yields
    }

    /// True once a call was ended because it took longer than its deadline by the machine's own clock.
    pub fn overran(&self) -> bool {
        self.overran.load(Ordering::Relaxed)
    }

    pub(super) fn note_overrun(&self) {
        self.overran.store(true, Ordering::Relaxed);
    }

    /// Puts clock and chance into the context of one more instance, and notes what it reads of them.
    pub(super) fn apply(&self, context: &mut WasiCtxBuilder, noted: &Noted) {
        let instance = self.instances.fetch_add(1, Ordering::Relaxed);
        match &self.chance {
            Origin::Seed(seed) => {
                let random = Pcg64Mcg::seed_from_u64(seed ^ instance.rotate_left(32));
                meet(context, &self.clock, Arc::new(Seeded(Mutex::new(random))), noted);
            }
            Origin::Given(chance) => meet(context, &self.clock, chance.clone(), noted),
        }
    }
}

/// Where what a guest reads is noted.
pub(super) type Noted = Arc<Mutex<Inputs>>;

/// Has the guest of a context meet the machine's own time and chance, and notes what it reads of them.
pub(super) fn meet_machine(context: &mut WasiCtxBuilder, noted: &Noted) {
    let clock: Arc<dyn Clock> = Arc::new(MachineClock(Instant::now()));
    meet(context, &clock, Arc::new(MachineChance), noted);
}

fn meet(context: &mut WasiCtxBuilder, clock: &Arc<dyn Clock>, chance: Arc<dyn Chance>, noted: &Noted) {
    let seed = chance.seed();
    noted.lock().unwrap_or_else(PoisonError::into_inner).random_seed = Some(seed);
    let time = || Seen { of: clock.clone(), noted: noted.clone() };
    let random = || Seen { of: chance.clone(), noted: noted.clone() };
    context
        .wall_clock(time())
        .monotonic_clock(time())
        .insecure_random(random())
        .insecure_random_seed(seed)
        .secure_random(random());
}

/// Random numbers that grow from a seed.
struct Seeded(Mutex<Pcg64Mcg>);

impl Chance for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }

    fn seed(&self) -> u128 {
        let mut random = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())
    }
}

/// A clock that stands still.
struct StillClock;

impl Clock for StillClock {
    fn wall(&self) -> Duration {
        Duration::ZERO
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// The machine's clocks; the second counts from when it was made.
struct MachineClock(Instant);

impl Clock for MachineClock {
    fn wall(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The machine's random numbers.
struct MachineChance;

impl Chance for MachineChance {
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            // No system that a host runs on is without them; a controller's do not guard any secret.
            tracing::error!(%error, "the system has no random numbers: a controller is given zeros");
        }
    }

    fn seed(&self) -> u128 {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}

/// A clock, or chance, as WASI asks for it; what it answers is noted.
struct Seen<T: ?Sized> {
    noted: Noted,
    of: Arc<T>,
}

impl<T: ?Sized> Seen<T> {
    fn note(&self, note: impl FnOnce(&mut Inputs)) {
        note(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What both clocks can tell apart.
const RESOLUTION: Duration = Duration::from_nanos(1);

impl HostWallClock for Seen<dyn Clock> {
    fn resolution(&self) -> Duration {
        RESOLUTION
    }

    fn now(&self) -> Duration {
        let now = self.of.wall();
        self.note(|inputs| inputs.note_wall_clock(now));
        now
    }
}

impl HostMonotonicClock for Seen<dyn Clock> {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        let now = u64::try_from(self.of.monotonic().as_nanos()).unwrap_or(u64::MAX);
        self.note(|inputs| inputs.note_monotonic_clock(now));
        now
    }
}

impl TryRng for Seen<dyn Chance> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.of.fill(bytes);
        self.note(|inputs| inputs.note_random(bytes));
        Ok(())
    }
}
