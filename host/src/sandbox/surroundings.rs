//! The time and the chance that a guest meets: the machine's own, or what a simulation makes of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};

/// What guests are told of the time.
pub trait Clock: Send + Sync {
    /// The wall clock: the time since the Unix epoch.
    fn wall(&self) -> Duration;

    /// The time since some moment, which never goes back.
    fn monotonic(&self) -> Duration;
}

/// A clock and a seed in the place of the machine's, for a run that is to come out the same each time.
///
/// Fuel alone bounds what a call computes then. A deadline that the machine's own clock strikes says more of the machine
/// than of the guest: the call fails as it does in production, and [`Surroundings::overran`] tells that what came of the
/// run is worth nothing. Time that a guest sleeps is the clock's own where that is tokio's paused one, and so is the
/// deadline that ends it.
pub struct Surroundings {
    clock: Arc<dyn Clock>,
    seed: u64,
    /// Instances started so far: each has numbers of its own.
    instances: AtomicU64,
    overran: AtomicBool,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Surroundings {
    /// Guests see this clock, and chance that comes from this seed.
    pub fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self { clock, seed, instances: AtomicU64::new(0), overran: AtomicBool::new(false) }
    }

    /// True once a call was ended because it took longer than its deadline by the machine's own clock.
    pub fn overran(&self) -> bool {
        self.overran.load(Ordering::Relaxed)
    }

    pub(super) fn note_overrun(&self) {
        self.overran.store(true, Ordering::Relaxed);
    }

    /// Puts clock and chance into the context of one more instance.
    pub(super) fn apply(&self, context: &mut WasiCtxBuilder) {
        let instance = self.instances.fetch_add(1, Ordering::Relaxed);
        let mut random = Pcg64Mcg::seed_from_u64(self.seed ^ instance.rotate_left(32));
        let insecure_seed = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
        context
            .wall_clock(Seen(self.clock.clone()))
            .monotonic_clock(Seen(self.clock.clone()))
            .insecure_random(Pcg64Mcg::seed_from_u64(random.next_u64()))
            .insecure_random_seed(insecure_seed)
            .secure_random(random);
    }
}

/// A clock as WASI asks for it.
struct Seen(Arc<dyn Clock>);

/// What both clocks can tell apart.
const RESOLUTION: Duration = Duration::from_nanos(1);

impl HostWallClock for Seen {
    fn resolution(&self) -> Duration {
        RESOLUTION
    }

    fn now(&self) -> Duration {
        self.0.wall()
    }
}

impl HostMonotonicClock for Seen {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.monotonic().as_nanos()).unwrap_or(u64::MAX)
    }
}
