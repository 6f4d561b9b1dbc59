//! The engine: how components are compiled, and the clock that interrupts them.

use std::path::Path;
use std::thread;
use std::time::Duration;

use wasmtime::{Cache, CacheConfig, Config, Engine, Error, Result};

use super::limits::Limits;

/// How often a running guest is interrupted to let others run and to look at its deadline.
const TICK: Duration = Duration::from_millis(10);

/// Stack left to host functions above what the guest may use: an overflow there would end the process.
const HOST_STACK_BYTES: usize = 1536 << 10;

/// Makes an engine. The stack is a setting of an engine and not of an instance, so each artifact has its own.
pub(super) fn new(limits: &Limits, metered: bool, cache_directory: Option<&Path>) -> Result<Engine> {
    let mut config = Config::new();
    config
        .consume_fuel(metered)
        .epoch_interruption(true)
        // The contract's functions are plain ones; support for concurrent ones would cost most of a call's time.
        .concurrency_support(false)
        .max_wasm_stack(limits.stack_bytes)
        .async_stack_size(limits.stack_bytes.saturating_add(HOST_STACK_BYTES))
        .cache(cache_directory.and_then(open_cache));
    let engine = Engine::new(&config)?;
    start_ticker(&engine)?;
    Ok(engine)
}

/// A cache only saves time, so one that cannot be opened is worth a warning and no more.
fn open_cache(directory: &Path) -> Option<Cache> {
    let open = || -> Result<Cache> {
        let mut config = CacheConfig::new();
        config.with_directory(std::path::absolute(directory)?);
        Cache::new(config)
    };
    open()
        .inspect_err(|error| {
            tracing::warn!(directory = %directory.display(), "controllers are compiled without a cache: {error:#}");
        })
        .ok()
}

/// Ticks until the engine and everything compiled with it is gone. Each pause follows the tick before it, so that a
/// busy machine makes ticks late and never many at once.
fn start_ticker(engine: &Engine) -> Result<()> {
    let engine = engine.weak();
    thread::Builder::new()
        .name("sandbox-ticker".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(TICK);
            }
        })
        .map_err(Error::from)?;
    Ok(())
}
