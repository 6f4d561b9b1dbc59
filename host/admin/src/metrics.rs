//! `/metrics`: what the host does, in Prometheus' text format and base units (seconds, bytes, items).
//!
//! Counters are fed by every event as it happens; what only the database knows (how long its queue is) is asked when a
//! monitor asks, for a second at most, and left out where there is no answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};
use tokio::time::timeout;

use super::state::{Site, State};
use tidegate::controller::{Fault, ShadowNotice};
use tidegate::scheduler::Lanes;
use tidegate::scheduler::board::{DatabaseBoard, LeaseState};
use tidegate::scheduler::database::Record;
use tidegate::scheduler::event::{Event, EventKind, Observer};
use tidegate::scheduler::report::{Doing, accepts_skipped};
use tidegate::scheduler::update_state::{Stand, Stands, UpdateState};

/// How long a database may take to say how long its queue is.
const QUEUE_LIMIT: Duration = Duration::from_millis(1_000);

/// Upper bounds of the buckets of batch durations in seconds: around the target durations that there are, 100 ms the
/// default, to the longest one that is the default's limit.
const DURATION_BUCKETS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Classes of reasons that are told apart for one controller; what comes after is "other".
const REASON_CLASSES: usize = 20;

/// Characters of a class.
const CLASS_LENGTH: usize = 48;

/// The metrics of a host; clones are the same ones.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

/// The families that events feed.
struct Families {
    registry: Registry,
    iterations: IntCounterVec,
    items: IntCounterVec,
    failures: IntCounterVec,
    durations: HistogramVec,
    batch_size: IntGaugeVec,
    target: GaugeVec,
    rate: GaugeVec,
    calls: IntCounterVec,
    call_seconds: CounterVec,
    fuel: IntCounterVec,
    in_the_way: IntGaugeVec,
    peak_fuel: IntGaugeVec,
    peak_memory: IntGaugeVec,
    faults: IntCounterVec,
    tries: IntCounterVec,
    returns: IntCounterVec,
    shadow_decisions: IntCounterVec,
    shadow_faults: IntCounterVec,
    shadow_dropped: IntCounterVec,
    shadow_fuel: IntCounterVec,
    waits: IntCounterVec,
    wait_seconds: CounterVec,
    /// By controller, the classes that were met.
    classes: Mutex<HashMap<String, Vec<String>>>,
}

impl Metrics {
    /// Metrics that have counted nothing yet.
    ///
    /// # Errors
    /// Two metrics of one name.
    pub fn new() -> prometheus::Result<Self> {
        const UPDATE: &[&str] = &["database", "update"];
        const CONTROLLER: &[&str] = &["database", "controller"];
        let registry = Registry::new();
        let add = Adder(&registry);
        let durations = HistogramOpts::new(
            "tidegate_batch_duration_seconds",
            "How long committed batches took, their commits included, waiting not.",
        );
        let durations = HistogramVec::new(durations.buckets(DURATION_BUCKETS.to_vec()), UPDATE)?;
        registry.register(Box::new(durations.clone()))?;
        let families = Families {
            iterations: add.count(
                "tidegate_iterations_total",
                "Iterations by outcome: completed, finished, failed, cancelled.",
                &["database", "update", "outcome"],
            )?,
            items: add.count("tidegate_items_total", "Items of committed batches.", UPDATE)?,
            failures: add.count(
                "tidegate_failures_total",
                "Failures of batches by class: transient (tried again), permanent (counted), quarantined (given up).",
                &["database", "update", "class"],
            )?,
            durations,
            batch_size: add.whole("tidegate_batch_size_items", "Items that the last batch was asked for.", UPDATE)?,
            target: add.gauge("tidegate_target_duration_seconds", "The last batch's target duration.", UPDATE)?,
            rate: add.gauge(
                "tidegate_rate_items_per_second",
                "The estimate that batch sizes are made from: Synapse's average_items_per_ms times 1000.",
                UPDATE,
            )?,
            calls: add.count("tidegate_controller_calls_total", "Calls into a controller.", CONTROLLER)?,
            call_seconds: add.seconds(
                "tidegate_controller_call_duration_seconds_total",
                "How long calls into a controller took.",
                CONTROLLER,
            )?,
            fuel: add.count("tidegate_controller_fuel_total", "Fuel that a controller consumed.", CONTROLLER)?,
            in_the_way: add.whole(
                "tidegate_batch_waits_for",
                "Sessions, prepared transactions and standbys that keep the batch in hand waiting.",
                &["database"],
            )?,
            peak_fuel: add.whole(
                "tidegate_controller_peak_fuel",
                "The most fuel that one call into a controller consumed.",
                CONTROLLER,
            )?,
            peak_memory: add.whole(
                "tidegate_controller_peak_memory_bytes",
                "The most linear memory that a controller held.",
                CONTROLLER,
            )?,
            faults: add.count(
                "tidegate_controller_faults_total",
                "Faults of a controller by kind.",
                &["database", "controller", "fault"],
            )?,
            tries: add.count(
                "tidegate_controller_tries_total",
                "How often a controller was tried again while its fallback was in force.",
                CONTROLLER,
            )?,
            returns: add.count(
                "tidegate_controller_returns_total",
                "How often a controller came back, so that its fallback was over.",
                CONTROLLER,
            )?,
            shadow_decisions: add.count(
                "tidegate_shadow_decisions_total",
                "Decisions of a shadow by whether they were the live controller's: same, different.",
                &["database", "controller", "decision"],
            )?,
            shadow_faults: add.count(
                "tidegate_shadow_faults_total",
                "Faults of a shadow by kind.",
                &["database", "controller", "fault"],
            )?,
            shadow_dropped: add.count(
                "tidegate_shadow_dropped_calls_total",
                "Calls that a shadow was not asked, because it was behind.",
                CONTROLLER,
            )?,
            shadow_fuel: add.count("tidegate_shadow_fuel_total", "Fuel that a shadow consumed.", CONTROLLER)?,
            waits: add.count(
                "tidegate_controller_waits_total",
                "Answers to wait, by the class of the reason: what stands before its first colon or number.",
                &["database", "controller", "reason"],
            )?,
            wait_seconds: add.seconds(
                "tidegate_controller_wait_seconds_total",
                "How long the controller asked to wait.",
                CONTROLLER,
            )?,
            classes: Mutex::default(),
            registry,
        };
        Ok(Self(Arc::new(families)))
    }

    /// All of it as a monitor reads it.
    async fn render(&self, state: &State) -> prometheus::Result<String> {
        let now = Registry::new();
        momentary(&now, state).await?;
        let mut families = self.0.registry.gather();
        families.extend(now.gather());
        TextEncoder::new().encode_to_string(&families)
    }
}

/// Makes families and registers them.
struct Adder<'a>(&'a Registry);

impl Adder<'_> {
    fn count(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        let family = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<CounterVec> {
        let family = CounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn whole(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        let family = GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

impl Observer for Metrics {
    fn see(&self, event: &Event) {
        let database = event.database.as_str();
        let families = &*self.0;
        match &event.kind {
            EventKind::BatchStarted { update_name, batch_size, target, .. } => {
                let labels = [database, update_name];
                families.batch_size.with_label_values(&labels).set(i64::try_from(*batch_size).unwrap_or(i64::MAX));
                if let Some(target) = target {
                    families.target.with_label_values(&labels).set(target.as_secs_f64());
                }
            }
            EventKind::IterationEnded { record, items_per_ms } => families.iteration(database, record, *items_per_ms),
            EventKind::InTheWay { who, .. } => {
                let number = i64::try_from(who.len()).unwrap_or(i64::MAX);
                families.in_the_way.with_label_values(&[database]).set(number);
            }
            EventKind::TransientFailure { update_name, .. } => families.failure(database, update_name, "transient"),
            EventKind::Failure { update_name, retry_in, .. } => {
                let class = if retry_in.is_some() { "permanent" } else { "quarantined" };
                families.failure(database, update_name, class);
            }
            EventKind::Held { controller, duration, reason, .. } => {
                let class = families.class(controller, reason);
                families.waits.with_label_values(&[database, controller, &class]).inc();
                families.wait_seconds.with_label_values(&[database, controller]).inc_by(duration.as_secs_f64());
            }
            EventKind::ControllerUsed { controller, usage } => {
                let labels = [database, controller];
                families.calls.with_label_values(&labels).inc_by(usage.calls);
                families.call_seconds.with_label_values(&labels).inc_by(usage.duration.as_secs_f64());
                families.fuel.with_label_values(&labels).inc_by(usage.fuel);
                raise(&families.peak_fuel, &labels, usage.peak_fuel);
                raise(&families.peak_memory, &labels, usage.peak_memory);
            }
            EventKind::ControllerFault { controller, fault, .. } => {
                families.faults.with_label_values(&[database, controller, &label(fault)]).inc();
            }
            EventKind::ControllerTried { controller, .. } => {
                families.tries.with_label_values(&[database, controller]).inc();
            }
            EventKind::ControllerBack { controller } => {
                families.returns.with_label_values(&[database, controller]).inc();
            }
            EventKind::Shadow { controller, notice } => families.shadow(database, controller, notice),
            _ => {}
        }
    }
}

impl Families {
    fn iteration(&self, database: &str, record: &Record, items_per_ms: Option<f64>) {
        let labels = [database, &record.update_name];
        self.iterations.with_label_values(&[database, &record.update_name, record.outcome.as_str()]).inc();
        if record.is_committed() {
            self.items.with_label_values(&labels).inc_by(record.items);
            self.durations.with_label_values(&labels).observe(record.duration_ms / 1e3);
        }
        if let Some(rate) = items_per_ms {
            self.rate.with_label_values(&labels).set(rate * 1e3);
        }
    }

    fn shadow(&self, database: &str, controller: &str, notice: &ShadowNotice) {
        let labels = [database, controller];
        match notice {
            ShadowNotice::Decided { differs, .. } => {
                let decision = if *differs { "different" } else { "same" };
                self.shadow_decisions.with_label_values(&[database, controller, decision]).inc();
            }
            ShadowNotice::Fault { fault, .. } => {
                self.shadow_faults.with_label_values(&[database, controller, &label(fault)]).inc();
            }
            ShadowNotice::Behind { calls } => self.shadow_dropped.with_label_values(&labels).inc_by(*calls),
            ShadowNotice::Used(usage) => self.shadow_fuel.with_label_values(&labels).inc_by(usage.fuel),
            ShadowNotice::GivenUp { .. } | ShadowNotice::Back => {}
        }
    }

    fn failure(&self, database: &str, update_name: &str, class: &str) {
        self.failures.with_label_values(&[database, update_name, class]).inc();
    }

    /// The class of a reason: a controller may put numbers and times into its words, and a label must not have as many
    /// values as there are words.
    fn class(&self, controller: &str, reason: &str) -> String {
        let end = reason.find(|c: char| c == ':' || c.is_ascii_digit()).unwrap_or(reason.len());
        let class: String = reason[..end].trim().chars().take(CLASS_LENGTH).collect();
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = classes.entry(controller.to_owned()).or_default();
        if class.is_empty() {
            return "other".to_owned();
        }
        if !known.contains(&class) {
            if known.len() >= REASON_CLASSES {
                return "other".to_owned();
            }
            known.push(class.clone());
        }
        class
    }
}

/// A fault's kind as a label.
fn label(fault: &Fault) -> String {
    fault.kind.to_string().replace(' ', "_")
}

/// Sets a gauge to a number where it is higher.
fn raise(gauge: &IntGaugeVec, labels: &[&str; 2], number: u64) {
    let gauge = gauge.with_label_values(labels);
    gauge.set(gauge.get().max(i64::try_from(number).unwrap_or(i64::MAX)));
}

/// What is so at this moment.
async fn momentary(registry: &Registry, state: &State) -> prometheus::Result<()> {
    let add = Adder(registry);
    let build = add.whole("tidegate_build_info", "The version of tidegate; always 1.", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let lease = add.whole(
        "tidegate_lease_state",
        "Whether this host is the database's runner, stands by, or neither: 1 for the state that it is in.",
        &["database", "state"],
    )?;
    let up = add.whole("tidegate_database_up", "1 where the database answered when last asked.", &["database"])?;
    let paused = add.whole("tidegate_paused", "1 while the database's updates are paused.", &["database"])?;
    let age = add.gauge(
        "tidegate_last_progress_age_seconds",
        "How long ago a batch was last committed; since the start of the host where none was.",
        &["database"],
    )?;
    let fallback = add.whole(
        "tidegate_controller_fallback",
        "1 while a controller's fallback sets the database's pace, or holds its updates.",
        &["database"],
    )?;
    let lane_busy =
        add.whole("tidegate_lane_busy", "1 while the lane has an update in hand.", &["database", "lane"])?;
    let lane_fallback = add.whole(
        "tidegate_lane_fallback",
        "1 while a controller's fallback sets the lane's pace, or holds its updates.",
        &["database", "lane"],
    )?;
    let retry = add.gauge(
        "tidegate_controller_retry_timestamp_seconds",
        "When a controller whose fallback is in force is tried again, in Unix time; in the past while it is.",
        &["database"],
    )?;
    let skipped = add.whole(
        "tidegate_skipped",
        "Keys whose rows the database refused and that an update skipped, as long as they are not done.",
        &["database", "update"],
    )?;
    let rows = add.whole("tidegate_queue_rows", "Rows of the queue by state.", &["database", "state"])?;
    let (boards, enabled) = (state.board().read(Clone::clone), state.control().is_enabled());
    let unknown = DatabaseBoard::default();
    for site in state.sites() {
        let board = boards.get(&site.name).unwrap_or(&unknown);
        let name = site.name.as_str();
        let current = match board.lease {
            LeaseState::Runner => "runner",
            LeaseState::StandingBy(_) => "standby",
            LeaseState::None => "none",
        };
        for which in ["runner", "standby", "none"] {
            lease.with_label_values(&[name, which]).set(i64::from(which == current));
        }
        up.with_label_values(&[name]).set(i64::from(board.unavailable.is_none() && current != "none"));
        paused.with_label_values(&[name]).set(i64::from(board.pause.is_some() || !enabled));
        let since = board.last_progress.unwrap_or(state.started_at());
        age.with_label_values(&[name]).set(SystemTime::now().duration_since(since).unwrap_or_default().as_secs_f64());
        let fallbacks = || board.all_lanes().filter_map(|(_, lane)| lane.controller.fallback.as_ref());
        fallback.with_label_values(&[name]).set(i64::from(fallbacks().next().is_some()));
        for (which, lane) in board.all_lanes() {
            let labels = [name, which.unwrap_or(Lanes::FIRST)];
            lane_busy.with_label_values(&labels).set(i64::from(lane.in_hand.is_some()));
            lane_fallback.with_label_values(&labels).set(i64::from(lane.controller.fallback.is_some()));
        }
        if let Some(next) = fallbacks().filter_map(|fallback| fallback.retry.as_ref()).min_by_key(|retry| retry.at) {
            retry
                .with_label_values(&[name])
                .set(next.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        }
        if let Ok(Some((states, keys))) = timeout(QUEUE_LIMIT, queue(state, site, board)).await {
            for (update, keys) in keys {
                skipped.with_label_values(&[name, &update]).set(i64::try_from(keys).unwrap_or(i64::MAX));
            }
            for (which, count) in states {
                rows.with_label_values(&[name, which.spelling()]).set(count);
            }
        }
    }
    signals(&add, state)
}

/// The latest readings.
fn signals(add: &Adder<'_>, state: &State) -> prometheus::Result<()> {
    const LABELS: &[&str] = &["database", "signal"];
    let value = add.gauge(
        "tidegate_signal_value",
        "The latest reading of a signal, in its own unit; the database is empty where it is the machine's.",
        LABELS,
    )?;
    let age = add.gauge("tidegate_signal_age_seconds", "How old that reading is.", LABELS)?;
    for signal in state.live().signals.all() {
        let labels = [signal.database.as_deref().unwrap_or_default(), signal.definition.name.as_str()];
        if let Some(reading) = signal.reading {
            value.with_label_values(&labels).set(reading.value);
            age.with_label_values(&labels).set(reading.age.as_secs_f64());
        }
    }
    Ok(())
}

/// How many rows of a queue are in which state, and how many keys each update has skipped; `None` where the database does
/// not say.
async fn queue(state: &State, site: &Site, board: &DatabaseBoard) -> Option<Counted> {
    let mut queue = site.database.look().await.ok()?.unwrap_or_default();
    let live = state.live();
    let handlers = live.handlers.get(&site.name);
    queue.accept_skipped(&|name| handlers.is_some_and(|handlers| accepts_skipped(handlers, name)));
    let doing = Doing::seen(board);
    let pause = state.pause_in_force(&site.name, board, queue.pause.as_ref());
    let stands = Stands::new(&doing, pause.as_ref())
        .of_all(&queue.rows, &|name| handlers.is_some_and(|handlers| handlers.contains_key(name)));
    let mut counts: BTreeMap<UpdateState, i64> = UpdateState::ALL.into_iter().map(|state| (state, 0)).collect();
    for Stand { state, .. } in stands {
        *counts.entry(state).or_default() += 1;
    }
    Some((counts, queue.skipped))
}

/// Rows by state, and keys skipped by update.
type Counted = (BTreeMap<UpdateState, i64>, BTreeMap<String, u64>);

/// The routes.
pub(super) fn routes(metrics: Metrics) -> Router<State> {
    Router::new().route("/metrics", get(move |state, headers| serve(metrics.clone(), state, headers)))
}

async fn serve(metrics: Metrics, extract::State(state): extract::State<State>, headers: HeaderMap) -> Response {
    if !state.live().access.may_look(&headers) {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge, "a viewer's or an admin's token is needed\n").into_response();
    }
    match metrics.render(&state).await {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
