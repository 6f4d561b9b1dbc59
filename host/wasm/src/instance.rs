//! A running instance: every call into a guest goes through here, and none goes unmetered.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::poll_immediate;
use wasmtime::component::ResourceAny;
use wasmtime::{Engine, Result, Store, UpdateDeadline};

use super::artifact::Artifact;
use super::bindings::Controller as Guest;
use super::bindings::default_batch_size::exports::tidegate::controller::default_batch_size;
use super::bindings::exports::tidegate::controller::pacing;
use super::bindings::min_batch_size::exports::tidegate::controller::min_batch_size;
use super::fault;
use super::host_state::HostState;
use super::limits::{Exceeded, Limits};
use super::surroundings::Noted;
use tidegate::controller::{Call, CallObserver, Callback, Fault, FaultKind, Subject, Usage};

/// One instance of a component and the store it lives in.
pub(super) struct Live {
    store: Store<HostState>,
    guest: Guest,
    default_batch_size: Option<default_batch_size::Guest>,
    min_batch_size: Option<min_batch_size::Guest>,
    limits: Limits,
    metered: bool,
    /// Why it can never be called again. Set while a call runs, so that it stays where a call is given up half way:
    /// wasmtime does not let anybody into an instance that was left in the middle of something.
    lost: Option<Fault>,
    /// When the call in hand began.
    begun: Instant,
    /// Memory that was held then, in bytes.
    memory_before: u64,
    /// Who is shown each call, and the database that it is made for.
    calls: Option<(Arc<dyn CallObserver>, String)>,
    /// Shared with the controller, which is asked for it without waiting for a call to end.
    usage: Arc<Mutex<Usage>>,
}

impl Live {
    /// Starts an instance.
    pub(super) async fn start(
        artifact: &Artifact,
        state: HostState,
        calls: Option<(Arc<dyn CallObserver>, String)>,
    ) -> Result<Live, Fault> {
        let (program, limits) = (artifact.program(), artifact.limits());
        let failed = |error, last_words: &str| fault::of_call(&error, Callback::Start, limits, last_words);
        let wrong_types = |error| fault::incompatible_because("its exports do not have the contract's types", &error);
        let mut store = new_store(program.pre.engine(), limits, state);
        let metered = artifact.is_metered();
        let begun = Instant::now();
        allow(&mut store, limits, metered, begun).map_err(|error| failed(error, ""))?;
        let started = within(limits.deadline, program.pre.instance_pre().instantiate_async(&mut store)).await;
        store.data_mut().end_call();
        let instance = started.map_err(|error| failed(error, &store.data().last_words()));
        if let Some((observer, database_name)) = &calls {
            let lost = instance.as_ref().err().map(|fault| fault.kind);
            observer.see(database_name, &measured(&store, limits, metered, Callback::Start, 0, begun, lost));
        }
        let instance = instance?;
        let guest = Guest::new(&mut store, &instance).map_err(wrong_types)?;
        let default_batch_size = program.default_batch_size.as_ref().map(|found| found.load(&mut store, &instance));
        let default_batch_size = default_batch_size.transpose().map_err(wrong_types)?;
        let min_batch_size = program.min_batch_size.as_ref().map(|found| found.load(&mut store, &instance));
        let min_batch_size = min_batch_size.transpose().map_err(wrong_types)?;
        Ok(Live {
            default_batch_size: default_batch_size.map(|world| world.tidegate_controller_default_batch_size().clone()),
            min_batch_size: min_batch_size.map(|world| world.tidegate_controller_min_batch_size().clone()),
            begun,
            memory_before: 0,
            calls,
            usage: Arc::default(),
            store,
            guest,
            limits: limits.clone(),
            metered,
            lost: None,
        })
    }

    /// Where what the last call read is noted.
    pub(super) fn inputs(&self) -> Noted {
        self.store.data().inputs()
    }

    /// Where what is used is added up.
    pub(super) fn usage(&self) -> Arc<Mutex<Usage>> {
        self.usage.clone()
    }

    pub(super) async fn on_update(&mut self, subject: &Subject) -> Result<ResourceAny, Fault> {
        let callback = Callback::OnUpdate;
        self.begin(callback)?;
        let Subject { update_name, database_name, one_shot } = subject;
        let pacing = self.guest.tidegate_controller_pacing();
        let call = pacing.call_on_update(&mut self.store, update_name, database_name, *one_shot);
        let answer = within(self.limits.deadline, call).await;
        self.end(callback, answer)?.map_err(|message| fault::returned(&message, callback))
    }

    pub(super) async fn enter(&mut self, iteration: ResourceAny) -> Result<pacing::Admission, Fault> {
        let callback = Callback::Enter;
        self.begin(callback)?;
        let resource = self.guest.tidegate_controller_pacing().iteration();
        let call = resource.call_enter(&mut self.store, iteration);
        let answer = within(self.limits.deadline, call).await;
        self.end(callback, answer)?.map_err(|message| fault::returned(&message, callback))
    }

    pub(super) async fn exit(&mut self, iteration: ResourceAny, outcome: &pacing::Outcome) -> Result<(), Fault> {
        let callback = Callback::Exit;
        self.begin(callback)?;
        let resource = self.guest.tidegate_controller_pacing().iteration();
        let call = resource.call_exit(&mut self.store, iteration, outcome);
        let answer = within(self.limits.deadline, call).await;
        self.end(callback, answer)?.map_err(|message| fault::returned(&message, callback))
    }

    /// Drops an iteration, which runs its destructor. In an instance that is lost nothing is left to drop.
    pub(super) async fn drop_iteration(&mut self, iteration: ResourceAny) -> Result<(), Fault> {
        if self.lost.is_some() {
            return Ok(());
        }
        let callback = Callback::Drop;
        self.begin(callback)?;
        let call = iteration.resource_drop_async(&mut self.store);
        let answer = within(self.limits.deadline, call).await;
        self.end(callback, answer)
    }

    pub(super) async fn default_batch_size(&mut self, update: &str, database: &str) -> Result<Option<u32>, Fault> {
        let callback = Callback::DefaultBatchSize;
        let Some(exported) = self.default_batch_size.clone() else { return Ok(None) };
        self.begin(callback)?;
        let call = exported.call_default_batch_size(&mut self.store, update, database);
        let answer = within(self.limits.deadline, call).await;
        self.end(callback, answer).map(Some)
    }

    pub(super) async fn min_batch_size(&mut self, update: &str, database: &str) -> Result<Option<u32>, Fault> {
        let callback = Callback::MinBatchSize;
        let Some(exported) = self.min_batch_size.clone() else { return Ok(None) };
        self.begin(callback)?;
        let call = exported.call_min_batch_size(&mut self.store, update, database);
        let answer = within(self.limits.deadline, call).await;
        self.end(callback, answer).map(Some)
    }

    /// Opens a call: gives it its allowances, and holds the instance for lost until the call has ended well.
    fn begin(&mut self, callback: Callback) -> Result<(), Fault> {
        if let Some(first) = &self.lost {
            return Err(fault::lost(first, callback));
        }
        self.begun = Instant::now();
        allow(&mut self.store, &self.limits, self.metered, self.begun)
            .map_err(|error| fault::of_call(&error, callback, &self.limits, ""))?;
        let message = "the host gave the call up before it ended".to_owned();
        self.lost = Some(Fault { kind: FaultKind::Deadline, callback, message });
        self.memory_before = self.store.data().accountant.memory_bytes();
        Ok(())
    }

    /// Closes a call: whatever went wrong in it costs the instance.
    fn end<T>(&mut self, callback: Callback, answer: Result<T>) -> Result<T, Fault> {
        self.store.data_mut().end_call();
        let last_words = || self.store.data().last_words();
        let answer = answer.map_err(|error| fault::of_call(&error, callback, &self.limits, &last_words()));
        self.lost = answer.as_ref().err().cloned();
        self.measure(callback);
        answer
    }

    fn measure(&mut self, callback: Callback) {
        let lost = self.lost.as_ref().map(|fault| fault.kind);
        let (limits, before) = (&self.limits, self.memory_before);
        let call = measured(&self.store, limits, self.metered, callback, before, self.begun, lost);
        if let Some((observer, database_name)) = &self.calls {
            observer.see(database_name, &call);
        }
        let used = Usage {
            calls: 1,
            fuel: call.fuel,
            peak_fuel: call.fuel,
            peak_memory: call.memory_bytes,
            duration: call.duration,
        };
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).add(used);
    }
}

/// What a call that is over has used.
fn measured(
    store: &Store<HostState>,
    limits: &Limits,
    metered: bool,
    callback: Callback,
    memory_before: u64,
    begun: Instant,
    lost: Option<FaultKind>,
) -> Call {
    let used = |left| limits.fuel_per_call.saturating_sub(left);
    let memory_bytes = store.data().accountant.memory_bytes();
    Call {
        callback,
        fuel: if metered { used(store.get_fuel().unwrap_or_default()) } else { 0 },
        memory_bytes,
        grown_bytes: memory_bytes.saturating_sub(memory_before),
        duration: begun.elapsed(),
        lost,
    }
}

/// A store in which an instance may use so much.
pub(super) fn new_store(engine: &Engine, limits: &Limits, state: HostState) -> Store<HostState> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.accountant);
    store.set_hostcall_fuel(limits.data_bytes);
    store.set_max_component_handles(limits.handles);
    store.epoch_deadline_callback(|store| {
        store.data().check_deadline()?;
        Ok(if store.data().is_simulated() { UpdateDeadline::Continue(1) } else { UpdateDeadline::Yield(1) })
    });
    store
}

/// Fuel bounds a call's work, the epoch the time until it lets others run and looks at its deadline.
pub(super) fn allow(store: &mut Store<HostState>, limits: &Limits, metered: bool, now: Instant) -> Result<()> {
    if metered {
        store.set_fuel(limits.fuel_per_call)?;
    }
    store.set_epoch_deadline(1);
    store.data_mut().begin_call(now);
    Ok(())
}

/// Bounds a call that sleeps: the epoch only sees code that runs. Most calls do not, and need no timer.
pub(super) async fn within<T>(limit: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    let mut call = pin!(call);
    if let Some(answer) = poll_immediate(call.as_mut()).await {
        return answer;
    }
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(Exceeded::Deadline { limit }.into()))
}
