//! The PostgreSQL driver.
//!
//! Connections for the work, each made when it is first needed: one for the lease, one for the batches and one-shots of each
//! lane, one for the queue, one for what is noted and estimated beside the work; samplers have others of their own. Each
//! tells the server by its `application_name` who it is.

mod batch;
mod cancel;
mod connection;
mod dialect;
mod error;
mod held;
mod inspect;
mod lag;
mod lease;
mod name;
mod obstacles;
mod options;
mod pooler;
mod sampler;
mod settings;
mod surroundings;
mod tls;
mod trial;
mod url;
mod value;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::batch::Batch;
use self::connection::Connection;
use self::dialect::PostgresDialect;
use self::held::{Held, Slot};
use self::lease::{Attempt, Key, Line, Site};
use self::name::Role;
pub use self::options::{Postgres, PostgresOptions, open, samplers, sql_sampler};
use self::sampler::{Access, Own, Probe, Statistics};
use self::settings::{Isolation, Settings};
use self::url::Target;
use tidegate::scheduler::database::OpenError;
use tidegate::scheduler::database::{Begin, Holder, LeaseAttempt, Planned, Remark, Session, Stands, TrialTransaction};
use tidegate::update::Opening;
use tidegate::update::sql::{Dialect, Sql, SqlError, Value};
use tidegate_driver::driver::{self, Control};
use tidegate_driver::fence::{self, Fence};
use tidegate_driver::handle;
use tidegate_driver::ledger::Notes;
use tidegate_driver::tables::Tables;
pub use tidegate_driver::{Options, SamplerOptions, TableInHand};

/// One database of a PostgreSQL server.
pub(crate) struct Driver {
    target: Target,
    holder: Holder,
    queue_table: String,
    tables: Tables,
    /// The settings of every session.
    settings: Settings,
    batches: Batches,
    control: Slot,
    aside: Slot,
    /// The connection for the lease, from one attempt at it to the next.
    lease: Mutex<Option<Box<Line>>>,
    site: Site,
    /// The connections that were made for the queue and for batches, so that one can be cut that hangs.
    made: std::sync::Mutex<Vec<Weak<Connection>>>,
    /// How long the server may take for a statement on the queue before it counts as silent.
    answer_limit: Option<Duration>,
    /// How each transaction of a batch calls itself in whatever session it is given; `None` where sessions are the host's own.
    batch_name: std::sync::Mutex<Option<String>>,
    #[cfg(feature = "test-switches")]
    switches: tidegate_driver::Switches,
}

/// The connections for batches, by lane.
#[derive(Default)]
struct Batches(std::sync::Mutex<BTreeMap<String, Arc<BatchLine>>>);

/// A lane's connection for batches.
#[derive(Default)]
struct BatchLine {
    slot: Slot,
    /// The server's process behind it, which is not to be taken for a predecessor's.
    backend: AtomicI64,
}

impl Batches {
    fn of(&self, lane: &str) -> Arc<BatchLine> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.get(lane) {
            Some(line) => Arc::clone(line),
            None => Arc::clone(lines.entry(lane.to_owned()).or_default()),
        }
    }

    fn all(&self) -> Vec<Arc<BatchLine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The processes behind all of them.
    fn backends(&self) -> Vec<i64> {
        self.all().iter().map(|line| line.backend.load(Ordering::SeqCst)).filter(|backend| *backend != 0).collect()
    }
}

/// A policy that would hide rows is an error: an update must not leave out in silence what a definition speaks of.
const ROW_SECURITY: (&str, &str) = ("row_security", "off");
/// How long after a statement's time limit a server that has not answered counts as silent.
const SILENCE: Duration = Duration::from_secs(10);
/// How long whoever uses a connection is waited for before it is cut.
const CLOSING: Duration = Duration::from_secs(1);
/// What a one-shot is free of.
const LIMITS: [&str; 2] = ["statement_timeout", "lock_timeout"];

impl Driver {
    pub(crate) fn new(
        url: &str,
        options: &Options,
        postgres: &PostgresOptions,
        tables: Tables,
    ) -> Result<Self, OpenError> {
        #[cfg_attr(not(feature = "test-switches"), expect(unused_mut))]
        let mut target = Target::parse(url, postgres)?;
        #[cfg(feature = "test-switches")]
        (target.trusting = options.switches.trust_sessions);
        let mut values = settings(postgres);
        values.push((ROW_SECURITY.0, ROW_SECURITY.1.to_owned()));
        #[cfg(feature = "test-switches")]
        values.retain(|(name, _)| !options.switches.policies_hide || *name != ROW_SECURITY.0);
        let besides = format!("do $$ begin {} end $$", url::server_side()).into();
        let settings = Settings { values: values.into(), besides, writes: None };
        let site = Site {
            target: target.clone(),
            settings: settings.clone(),
            queue_table: options.queue_table.clone(),
            fence: Fence::default(),
        };
        Ok(Self {
            target,
            holder: options.holder.clone(),
            queue_table: options.queue_table.clone(),
            tables,
            settings,
            batches: Batches::default(),
            control: Slot::default(),
            aside: Slot::default(),
            lease: Mutex::default(),
            site,
            made: std::sync::Mutex::default(),
            answer_limit: (!postgres.statement_timeout.is_zero()).then(|| postgres.statement_timeout + SILENCE),
            batch_name: std::sync::Mutex::default(),
            #[cfg(feature = "test-switches")]
            switches: options.switches,
        })
    }

    /// Waits for a connection, and opens it where it is closed.
    async fn take(&self, slot: &Slot, holder: &Holder, role: Role) -> Result<Held, SqlError> {
        let mut turn = Arc::clone(slot).lock_owned().await;
        let usable = turn.as_ref().filter(|connection| !connection.is_closed());
        let connection = match usable {
            Some(connection) => Arc::clone(connection),
            None => {
                // One that is not fit for use is gone, whatever comes of the next.
                turn.take();
                let connection = Arc::clone(turn.insert(Arc::new(self.connect(holder, role).await?)));
                let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
                made.retain(|made| made.strong_count() > 0);
                made.push(Arc::downgrade(&connection));
                connection
            }
        };
        // What a batch waits for ends with the lease; a script may take its time.
        let limit = if matches!(role, Role::Control | Role::Aside) { self.answer_limit } else { None };
        Ok(Held::new(turn, connection, limit))
    }

    /// Waits for a lane's connection for batches.
    async fn take_batch(&self, lane: &str) -> Result<Held, SqlError> {
        let line = self.batches.of(lane);
        let held = self.take(&line.slot, &self.holder, Role::Batch).await?;
        line.backend.store(held.connection().backend, Ordering::SeqCst);
        Ok(held)
    }

    async fn connect(&self, holder: &Holder, role: Role) -> Result<Connection, SqlError> {
        let name = name::of(holder, role, None);
        let mut connection = Connection::open(&self.target, &name, &self.settings).await?;
        if role == Role::Batch {
            // The key is known to the server only: which schema the queue table is in.
            let key = Key::find(&connection, &self.queue_table).await?;
            let name = name::of(holder, role, Some(&key));
            connection.rename(name.clone()).await?;
            let shared = connection.sharing.is_some().then_some(name);
            *self.batch_name.lock().unwrap_or_else(PoisonError::into_inner) = shared;
        }
        Ok(connection)
    }

    /// Opens the transaction of a batch with this isolation, or as its handler needs it, and reads the update's row with what
    /// `read` says for a host that holds a lease, or none.
    async fn open(
        &self,
        batch: &Planned<'_>,
        stands: Stands<'_>,
        isolation: Isolation,
        read: &(dyn Fn(bool) -> String + Send + Sync),
    ) -> Result<Begin, SqlError> {
        const SERIALIZATION_FAILURE: &str = "40001";
        let Planned { lane, update_name, opening, .. } = *batch;
        let mut held = self.take_batch(lane).await?;
        #[cfg(feature = "test-switches")]
        let opening = if self.switches.without_snapshot { Opening::EachStatement } else { opening };
        let isolation = match opening {
            Opening::EachStatement => isolation,
            // What is stricter by default does as well.
            Opening::Snapshot | Opening::Rebuild if held.connection().serializable => Isolation::Usual,
            Opening::Snapshot | Opening::Rebuild => Isolation::Snapshot,
        };
        let mut values = vec![Value::from(update_name)];
        let hold = self.site.fence.hold();
        if let Some(hold) = &hold {
            values.extend([Value::from(&*hold.queue), hold.epoch.into()]);
        }
        let read = read(hold.is_some());
        let own = held.connection().backend;
        let rows = loop {
            match held.begin_with(isolation, &read, &values).await {
                // Somebody committed a change to the row while we waited for it: it is read anew.
                Err(error) if error.code.as_deref() == Some(SERIALIZATION_FAILURE) => held.end("rollback").await?,
                Err(error) if error::is_wait_given_up(&error) => {
                    held.end("rollback").await?;
                    return Ok(Begin::Failed(error));
                }
                begun => break begun?,
            }
        };
        let row = rows.into_iter().next();
        let process = row.as_ref().and_then(|row| row.get(2)).and_then(Value::as_integer);
        if held.shares_session() {
            self.batches.of(lane).backend.store(process.unwrap_or(0), Ordering::SeqCst);
        } else if row.is_some() && process != Some(own) {
            held.give_up();
            return Err(pooler::strayed("the batch's transaction was begun in another session than its connection's"));
        }
        if row.as_ref().and_then(|row| row.get(3)) == Some(&Value::Null) {
            held.end("rollback").await?;
            return Err(fence::overtaken());
        }
        let found = match row.and_then(|row| row.into_iter().next()) {
            None => None,
            Some(Value::Text(text)) => Some(text),
            Some(_) => {
                held.end("rollback").await?;
                return Ok(Begin::Failed(handle::progress_is_no_text(update_name)));
            }
        };
        if !found.as_deref().is_some_and(stands) {
            held.end("rollback").await?;
            return Ok(Begin::Moved(found));
        }
        let tidied = held.connection().tidied();
        Ok(Begin::Ready(Box::new(Batch {
            held,
            foreign: false,
            marked: false,
            notes: Notes::of(update_name, self.tables.by.clone()),
            tables: self.tables.clone(),
            update_name: update_name.to_owned(),
            tidied,
            write: self.tables.write_locked_row(),
            delete: self.tables.delete_locked_row(),
            lock: self.tables.lock_row(),
        })))
    }

    /// Whether a batch planned from `planned` can go on from `found`.
    fn goes_on(&self, planned: &str, found: &str) -> bool {
        #[cfg(feature = "test-switches")]
        if self.switches.skip_progress_comparison {
            return true;
        }
        planned == found
    }
}

/// The settings of every session. Texts have to say the same whatever a role or a database has been set to.
fn settings(options: &PostgresOptions) -> Vec<(&'static str, String)> {
    let limit = |limit: Duration| limit.as_millis().to_string();
    let word = str::to_owned;
    vec![
        ("lock_timeout", limit(options.lock_timeout)),
        ("statement_timeout", limit(options.statement_timeout)),
        ("idle_in_transaction_session_timeout", limit(options.idle_in_transaction_timeout)),
        ("datestyle", word("'ISO'")),
        ("intervalstyle", word("'postgres'")),
        ("extra_float_digits", word("3")),
        ("bytea_output", word("'hex'")),
        ("standard_conforming_strings", word("on")),
    ]
}

#[async_trait]
impl driver::Driver for Driver {
    fn dialect(&self) -> Arc<dyn Dialect> {
        Arc::new(PostgresDialect)
    }

    async fn check_place(&self) -> Result<(), SqlError> {
        Ok(())
    }

    async fn control(&self) -> Result<Box<dyn Control>, SqlError> {
        Ok(Box::new(self.take(&self.control, &self.holder, Role::Control).await?))
    }

    async fn aside(&self) -> Result<Box<dyn Control>, SqlError> {
        Ok(Box::new(self.take(&self.aside, &self.holder, Role::Aside).await?))
    }

    async fn observe(&self) -> Result<Box<dyn Session>, SqlError> {
        Ok(Box::new(self.take(&self.aside, &self.holder, Role::Aside).await?))
    }

    fn observes_meanwhile(&self) -> bool {
        true
    }

    async fn try_lease(&self, holder: &Holder) -> Result<LeaseAttempt, SqlError> {
        #[cfg(feature = "test-switches")]
        if self.switches.lease_always {
            return Ok(LeaseAttempt::Held(Box::new(handle::NoLease)));
        }
        let mut kept = self.lease.lock().await;
        let (site, holder) = (self.site.clone(), holder.clone());
        let shares = self.target.shares_sessions.load(Ordering::Relaxed);
        // A session that others use too may be in a predecessor's hands by now.
        let ours = if shares { Vec::new() } else { self.batches.backends() };
        match fence::apart(lease::attempt(site, holder, kept.take(), ours)).await? {
            Attempt::Held(lease) => Ok(LeaseAttempt::Held(Box::new(lease))),
            Attempt::Taken(holder, line) => {
                *kept = Some(line);
                Ok(LeaseAttempt::Taken(holder))
            }
        }
    }

    async fn lease_holder(&self) -> Result<Option<Holder>, SqlError> {
        let held = self.take(&self.control, &self.holder, Role::Control).await?;
        lease::holder(held.connection(), &self.queue_table).await
    }

    async fn obstacle(&self) -> Result<Option<String>, SqlError> {
        // Locks are on tables and rows: a host that meets one can still write down which.
        let select = "select case when pg_is_in_recovery() then 'the server is a standby, which can only be read' \
                      when current_setting('transaction_read_only') = 'on' \
                      then 'default_transaction_read_only is on, at least for this user' end";
        let mut held = self.take(&self.control, &self.holder, Role::Control).await?;
        let rows = held.query(select, &[]).await?;
        Ok(rows.first().and_then(|row| row.first()).and_then(Value::as_text).map(str::to_owned))
    }

    async fn begin(&self, batch: &Planned<'_>) -> Result<Begin, SqlError> {
        let stands = |found: &str| self.goes_on(batch.progress, found);
        let lock = |held: bool| if held { self.tables.lock_row_under_lease() } else { self.tables.lock_row() };
        self.open(batch, &stands, Isolation::Usual, &lock).await
    }

    fn takes_hands(&self) -> bool {
        true
    }

    async fn begin_part(&self, batch: &Planned<'_>, stands: Stands<'_>) -> Result<Begin, SqlError> {
        // Whatever the database's default: the row is to be read as the last one wrote it, once it is locked.
        self.open(batch, stands, Isolation::Committed, &|held| self.tables.read_row(held)).await
    }

    async fn session(&self, lane: &str) -> Result<Box<dyn Session>, SqlError> {
        let mut held = self.take_batch(lane).await?;
        for limit in LIMITS {
            held.adjust(limit, "0").await?;
        }
        Ok(Box::new(held))
    }

    async fn begin_trial(&self, opening: Opening) -> Result<Box<dyn TrialTransaction>, SqlError> {
        // Not as a batch's connection, which whoever takes the lease would end.
        let held = self.take(&self.control, &self.holder, Role::Control).await?;
        Ok(Box::new(trial::Trial::begin(held, opening).await?))
    }

    async fn inspect(&self) -> Result<Box<dyn Session>, SqlError> {
        Ok(Box::new(self.take(&self.control, &self.holder, Role::Control).await?))
    }

    async fn vetting(&self, lane: &str) -> Result<Box<dyn Session>, SqlError> {
        Ok(Box::new(self.take_batch(lane).await?))
    }

    fn asks_meanwhile(&self) -> bool {
        true
    }

    async fn in_the_way(&self, lane: &str, control: &mut dyn Sql) -> Result<Vec<String>, SqlError> {
        let name = self.batch_name.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = self.batches.of(lane).backend.load(Ordering::SeqCst);
        let process = match name {
            // Which process it was given is not known before its transaction has begun: none of another lane's.
            Some(name) if known == 0 => obstacles::process(control, &name, &self.batches.backends()).await?,
            _ => known,
        };
        match process {
            0 => Ok(Vec::new()),
            process => obstacles::of(control, process).await,
        }
    }

    async fn survey(&self) -> Result<Vec<Remark>, SqlError> {
        let mut held = self.take(&self.control, &self.holder, Role::Control).await?;
        inspect::survey(&mut held).await
    }

    fn check_lease(&self) -> Result<(), SqlError> {
        self.site.fence.check()
    }

    async fn close(&self) {
        let lines = self.batches.all();
        let slots = || lines.iter().map(|line| &line.slot).chain([&self.control, &self.aside]);
        let closed = async {
            for slot in slots() {
                slot.lock().await.take();
            }
        };
        if timeout(CLOSING, closed).await.is_err() {
            // Whoever waits for an answer hears that there will be none.
            let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
            made.iter().filter_map(Weak::upgrade).for_each(|connection| connection.cut());
            for slot in slots() {
                slot.lock().await.take();
            }
        }
        self.lease.lock().await.take();
    }
}
