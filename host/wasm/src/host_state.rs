//! What the host keeps for one instance, and the imports that it serves from there.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tracing::Level;
use wasmtime::Result;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::bindings::handler::tidegate::handler as handler_wit;
use super::bindings::tidegate::controller as wit;
use super::limits::{Accountant, Exceeded, Limits};
use super::log::{Log, LogSource};
use super::stdio::Lines;
use super::surroundings::{self, Noted, Surroundings};
use tidegate::controller::Inputs;
use tidegate::controller::witness::SignalRead;
use tidegate::signal::SignalReader;

/// The data of one store.
pub(super) struct HostState {
    pub(super) accountant: Accountant,
    /// When the running call has to be over; `None` where that is beyond what the clock can say.
    deadline: Option<Instant>,
    limits: Limits,
    /// Bytes that the running call may still pass.
    data_left: usize,
    /// The update that a handler works for; empty for a controller.
    update_name: String,
    settings: Arc<[(String, String)]>,
    signals: Arc<dyn SignalReader>,
    /// What the running call has read, or the last one, until somebody takes it.
    inputs: Noted,
    log: Log,
    stdout: Lines,
    stderr: Lines,
    /// `None` where the guest meets the machine's own clock and chance.
    surroundings: Option<Arc<Surroundings>>,
    wasi: WasiCtx,
    wasi_resources: ResourceTable,
}

impl HostState {
    pub(super) fn new(
        limits: &Limits,
        settings: Arc<[(String, String)]>,
        signals: Arc<dyn SignalReader>,
        log: Log,
        surroundings: Option<Arc<Surroundings>>,
    ) -> HostState {
        let stdout = Lines::new(log.clone(), LogSource::Stdout, limits.log_line_bytes);
        let stderr = Lines::new(log.clone(), LogSource::Stderr, limits.log_line_bytes);
        // A new context grants no files, arguments or environment; what it would grant of the network is taken back.
        let mut wasi = WasiCtx::builder();
        wasi.stdout(stdout.clone())
            .stderr(stderr.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .max_random_size(limits.data_bytes as u64);
        let inputs = Arc::default();
        match &surroundings {
            Some(surroundings) => surroundings.apply(&mut wasi, &inputs),
            None => surroundings::meet_machine(&mut wasi, &inputs),
        }
        HostState {
            accountant: Accountant::new(limits),
            deadline: None,
            limits: limits.clone(),
            data_left: 0,
            update_name: String::new(),
            settings,
            signals,
            inputs,
            log,
            stdout,
            stderr,
            surroundings,
            wasi: wasi.build(),
            // Its entries have handles in the guest, which are counted.
            wasi_resources: ResourceTable::new(),
        }
    }

    /// The same for a handler of this update.
    pub(super) fn of_update(self, update_name: &str) -> HostState {
        HostState { update_name: update_name.to_owned(), ..self }
    }

    /// Gives a call its allowances.
    pub(super) fn begin_call(&mut self, now: Instant) {
        self.deadline = now.checked_add(self.limits.deadline);
        self.data_left = self.limits.data_bytes;
        self.stderr.begin_call();
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        // Until somebody took the seed, it is the start of an instance.
        *inputs = Inputs { random_seed: inputs.random_seed, ..Inputs::default() };
    }

    /// Where what a call reads is noted.
    pub(super) fn inputs(&self) -> Noted {
        self.inputs.clone()
    }

    /// Refuses where the running call should be over.
    pub(super) fn check_deadline(&self) -> Result<()> {
        let limit = self.limits.deadline;
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => {
                if let Some(surroundings) = &self.surroundings {
                    surroundings.note_overrun();
                }
                Err(Exceeded::Deadline { limit }.into())
            }
            _ => Ok(()),
        }
    }

    /// True where the guest lives in a simulation, in which nobody else is to be let run in the middle of its call.
    pub(super) fn is_simulated(&self) -> bool {
        self.surroundings.as_ref().is_some_and(|surroundings| !surroundings.yields())
    }

    /// Brings out what a call has written and not ended.
    pub(super) fn end_call(&mut self) {
        self.stdout.finish();
        self.stderr.finish();
        self.log.catch_up();
    }

    /// What the guest wrote to standard error in the call that ended: of a panic, its text.
    pub(super) fn last_words(&self) -> String {
        self.stderr.last_words()
    }

    /// Books data that crosses the boundary. wasmtime bounds each crossing, this bounds their sum.
    fn pass(&mut self, bytes: usize) -> Result<()> {
        let limit = self.limits.data_bytes;
        self.data_left = self.data_left.checked_sub(bytes).ok_or(Exceeded::Data { limit })?;
        Ok(())
    }
}

/// Makes the linker: the contract's imports and WASI 0.2, and nothing else.
pub(super) fn linker(engine: &wasmtime::Engine) -> Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    super::bindings::Controller::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// Makes the linker for handlers.
pub(super) fn handler_linker(engine: &wasmtime::Engine) -> Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    super::bindings::handler::Transform::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |state| state)?;
    Ok(linker)
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.wasi_resources }
    }
}

impl wit::signals::Host for HostState {
    fn read(&mut self, database_name: String, signal: String) -> Result<Option<wit::signals::Reading>> {
        self.pass(database_name.len() + signal.len())?;
        let reading = self.signals.read(&database_name, &signal);
        let read = reading.map(|reading| (reading.value, reading.age));
        let read = SignalRead { database_name, signal, reading: read };
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner).note_signal(read);
        Ok(reading.map(|reading| wit::signals::Reading { value: reading.value, age: super::millis(reading.age) }))
    }
}

impl HostState {
    fn setting(&mut self, key: &str) -> Result<Option<String>> {
        let value = self.settings.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone());
        self.pass(key.len() + value.as_ref().map_or(0, String::len))?;
        Ok(value)
    }

    fn all_settings(&mut self) -> Result<Vec<(String, String)>> {
        self.pass(self.settings.iter().map(|(key, value)| key.len() + value.len()).sum())?;
        Ok(self.settings.to_vec())
    }

    fn write_line(&mut self, level: Level, message: &str) -> Result<()> {
        self.pass(message.len())?;
        self.log.write(level, LogSource::Log, message);
        Ok(())
    }
}

/// The settings and the log of a contract.
macro_rules! serve {
    ($wit:ident) => {
        impl $wit::settings::Host for HostState {
            fn get(&mut self, key: String) -> Result<Option<String>> {
                self.setting(&key)
            }

            fn get_all(&mut self) -> Result<Vec<(String, String)>> {
                self.all_settings()
            }
        }

        impl $wit::log::Host for HostState {
            fn write(&mut self, level: $wit::log::Level, message: String) -> Result<()> {
                let level = match level {
                    $wit::log::Level::Trace => Level::TRACE,
                    $wit::log::Level::Debug => Level::DEBUG,
                    $wit::log::Level::Info => Level::INFO,
                    $wit::log::Level::Warn => Level::WARN,
                    $wit::log::Level::Error => Level::ERROR,
                };
                self.write_line(level, &message)
            }
        }
    };
}
serve!(wit);
serve!(handler_wit);

impl handler_wit::update::Host for HostState {
    fn name(&mut self) -> Result<String> {
        self.pass(self.update_name.len())?;
        Ok(self.update_name.clone())
    }
}

/// Types alone.
impl handler_wit::values::Host for HostState {}
