//! The lease on an SQLite database: an exclusive lock on a file beside it, and an epoch in the database.
//!
//! The lock is gone when its holder is. A holder that is stopped keeps it: so it also counts in the file, about once a
//! second. Whoever has found the same count there for [`TERM`], by the clock of its own process that only goes forward,
//! takes the lease over: it raises the epoch, in a transaction, and puts a file of its own, which it has locked, in the
//! place of the other. No two machines' clocks are compared, nor is the wall clock ever read: one that jumps changes
//! nothing. Each batch compares the epoch once its transaction has begun, when nobody else can write: so a holder that is
//! woken commits nothing. One that was stopped amid a transaction keeps the database's write lock, and nobody can take
//! the lease over until it goes on or ends.
//!
//! The file stays when the lease is given up: whoever removed it could remove it from under another host that has just
//! locked it, and a third would then lock a new one. It holds the last holder as JSON, and what is in that one's way
//! where the database will not take a word of it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior, sleep};

use super::file::{Identity, Watch, identity};
use tidegate::scheduler::database::{Holder, Lease};
use tidegate::update::sql::{ErrorClass, SqlError};
use tidegate_driver::fence::{self, Apart, Fence, OVERTAKEN, RENEWAL, TERM};

/// How often a holder looks whether the file that it locked is still the one in place.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A lock that is taken is tried again this often: a command that asks who holds it locks it for an instant.
const ATTEMPTS: u32 = 3;
/// The time between these attempts.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(10);

/// What the lock file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Held {
    #[serde(flatten)]
    pub(super) holder: Holder,
    /// What its holder counts up; hosts of before did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beat: Option<u64>,
    /// What is in its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trouble: Option<String>,
}

/// The lock file of a database.
pub(super) struct Place<'a> {
    /// The database's file.
    pub(super) path: &'a Path,
    /// What tells the lock file of this queue table from others.
    pub(super) suffix: Option<&'a str>,
    /// What another's holder was last seen to have counted.
    pub(super) seen: &'a Mutex<Option<Seen>>,
}

/// What another's holder has counted, and since when it has not gone on.
#[derive(Debug)]
pub(super) struct Seen {
    of: (Identity, Holder, u64),
    since: Instant,
}

/// What came of an attempt to lock the file.
pub(super) enum Attempt {
    Locked(Locked),
    /// Another host has it, and is alive, or not known not to be.
    Taken(Option<Holder>),
    /// Another host has it, and gives no sign of life.
    Stale(Stale),
}

/// A lock file that this host has locked.
pub(super) struct Locked {
    file: File,
    path: PathBuf,
    identity: Identity,
    held: Held,
}

/// A lock file that is locked by a host which gives no sign of life.
pub(super) struct Stale {
    path: PathBuf,
    identity: Identity,
    holder: Holder,
    beat: u64,
    since: Instant,
}

impl Place<'_> {
    /// Tries to lock the file.
    pub(super) async fn try_lock(&self, holder: &Holder) -> Result<Attempt, SqlError> {
        let lock_file = lock_file(self.path, self.suffix).await?;
        for attempt in 1..=ATTEMPTS {
            let to_lock = lock_file.clone();
            let held = Held { holder: holder.clone(), beat: Some(0), trouble: None };
            let written = held.clone();
            let locked = blocking(&lock_file, move || lock(&to_lock, &written)).await?;
            if let Some((file, identity)) = locked {
                // Of the file that the lock is beside, and of no other.
                if self::lock_file(self.path, self.suffix).await? != lock_file {
                    continue;
                }
                return Ok(Attempt::Locked(Locked { file, path: lock_file, identity, held }));
            }
            if attempt < ATTEMPTS {
                sleep(ATTEMPT_INTERVAL).await;
            }
        }
        let path = lock_file.clone();
        let (identity, held) = blocking(&lock_file, move || {
            let mut file = File::open(&path)?;
            let found = file.metadata()?;
            Ok(((found.dev(), found.ino()), read(&mut file)?))
        })
        .await?;
        Ok(match self.is_stale(identity, held.as_ref()) {
            Some((holder, beat, since)) => Attempt::Stale(Stale { path: lock_file, identity, holder, beat, since }),
            None => Attempt::Taken(held.map(|held| held.holder)),
        })
    }

    /// Who has not counted on for as long as a lease lasts, and since when.
    fn is_stale(&self, identity: Identity, held: Option<&Held>) -> Option<(Holder, u64, Instant)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // What is just being written is a sign of life.
        let found = held.and_then(|held| Some((identity, held.holder.clone(), held.beat?)));
        match (&*seen, found) {
            (Some(Seen { of, since }), Some(found)) if *of == found => {
                (since.elapsed() >= TERM).then_some((found.1, found.2, *since))
            }
            (_, found) => {
                *seen = found.map(|of| Seen { of, since: Instant::now() });
                None
            }
        }
    }
}

impl Locked {
    /// The lease, once the epoch that it is held under is known.
    pub(super) fn lease(self, watch: &Watch, fence: &Fence, queue: &Arc<str>, epoch: i64) -> FileLease {
        fence.raise(queue, epoch, Instant::now());
        FileLease::new(self, watch.clone(), fence.clone(), epoch)
    }
}

impl Stale {
    /// Puts a file of this host's own, which it has locked, in the place of the other's, where that is still there.
    pub(super) async fn replace(self, holder: &Holder) -> Result<Option<Locked>, SqlError> {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}", holder.pid));
        let (own, path) = (PathBuf::from(name), self.path.clone());
        let held = Held { holder: holder.clone(), beat: Some(0), trouble: None };
        blocking(&path, move || {
            let replaced = lock(&own, &held).and_then(|locked| {
                let Some((file, found)) = locked.filter(|_| identity(&self.path).is_ok_and(|at| at == self.identity))
                else {
                    return Ok(None);
                };
                std::fs::rename(&own, &self.path)?;
                Ok(Some(Locked { file, path: self.path, identity: found, held }))
            });
            if !matches!(replaced, Ok(Some(_))) {
                let _ = std::fs::remove_file(&own);
            }
            replaced
        })
        .await
    }

    /// Tells whether the other's is still in place, and its holder has not counted on: it may have been woken since.
    pub(super) fn still_there(&self) -> impl FnOnce() -> bool + Send + 'static {
        let (path, is, beat) = (self.path.clone(), self.identity, self.beat);
        move || {
            let said = File::open(&path).and_then(|mut file| read(&mut file));
            identity(&path).is_ok_and(|found| found == is)
                && said.is_ok_and(|held| held.is_some_and(|held| held.beat == Some(beat)))
        }
    }

    /// What a host that stands by says where the database cannot be written to.
    pub(super) fn explain(&self, error: SqlError) -> SqlError {
        let Holder { host, pid } = &self.holder;
        let message = format!(
            "{}: process {pid} on {host}, which works on this database, has given no sign of life for {} s, and may have \
             been stopped with the write lock in its hands: let it go on (kill -CONT {pid}), or end it (kill -KILL {pid})",
            error.message,
            self.since.elapsed().as_secs()
        );
        SqlError { message, ..error }
    }
}

/// Who holds the lock on the database at `path`.
pub(super) async fn held(path: &Path, suffix: Option<&str>) -> Result<Option<Held>, SqlError> {
    let lock_file = lock_file(path, suffix).await?;
    let path = lock_file.clone();
    blocking(&lock_file, move || {
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => read(&mut file),
            Err(TryLockError::Error(error)) => Err(error),
        }
    })
    .await
}

/// Refuses filesystems on which neither SQLite's locks nor ours can be relied on.
pub(super) async fn refuse_network(path: &Path) -> Result<(), SqlError> {
    let shown = path.display().to_string();
    let path = path.to_owned();
    match blocking(&PathBuf::from(&shown), move || Ok(network_filesystem(&path))).await? {
        None => Ok(()),
        Some(name) => Err(SqlError::permanent(format!(
            "the database file \"{shown}\" is on a network filesystem ({name}), where locks cannot be relied on: move \
             it to a local disk"
        ))),
    }
}

/// The name of the network filesystem that `path` is on; `None` on any other, or where it cannot be told.
#[cfg(target_os = "linux")]
fn network_filesystem(path: &Path) -> Option<&'static str> {
    /// From the kernel's `linux/magic.h` and the filesystems' own headers.
    const KNOWN: &[(u64, &str)] = &[
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB2"),
        (0x5346_414f, "AFS"),
        (0x6b41_4653, "AFS"),
        (0x7375_7245, "Coda"),
        (0x0102_1997, "9p"),
        (0x564c, "NCP"),
        (0x00c3_6400, "Ceph"),
        (0x0bd0_0bd0, "Lustre"),
        (0x4750_4653, "GPFS"),
    ];
    // Some platforms give the number as a signed 32-bit one.
    let magic = rustix::fs::statfs(path).ok()?.f_type as u64 & 0xffff_ffff;
    KNOWN.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

#[cfg(not(target_os = "linux"))]
fn network_filesystem(_: &Path) -> Option<&'static str> {
    None
}

/// The file to lock: beside the database itself, whatever symbolic links lead there.
async fn lock_file(path: &Path, suffix: Option<&str>) -> Result<PathBuf, SqlError> {
    let canonical = tokio::fs::canonicalize(path).await.map_err(|error| failed(path, &error))?;
    let mut name = canonical.into_os_string();
    if let Some(suffix) = suffix {
        let plain = |c: char| if c.is_alphanumeric() || c == '_' { c.to_string() } else { format!("%{:x}", c as u32) };
        name.push(".");
        name.push(suffix.chars().map(plain).collect::<String>());
    }
    name.push(".tidegate-lock");
    Ok(PathBuf::from(name))
}

/// Locks the file and writes into it; `None` where another has it.
fn lock(path: &Path, held: &Held) -> io::Result<Option<(File, Identity)>> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let found = file.metadata()?;
    let locked = (found.dev(), found.ino());
    if identity(path)? != locked {
        // Replaced between opening and locking: the next attempt meets the new one.
        return Ok(None);
    }
    file.set_len(0)?;
    file.rewind()?;
    serde_json::to_writer(&mut file, held)?;
    file.flush()?;
    Ok(Some((file, locked)))
}

/// What a lock file says; `None` where it is just being written.
fn read(file: &mut File) -> io::Result<Option<Held>> {
    let mut json = String::new();
    file.read_to_string(&mut json)?;
    Ok(serde_json::from_str(&json).ok())
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SqlError> {
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| failed(path, &error)),
        Err(error) => Err(failed(path, &io::Error::other(error))),
    }
}

fn failed(path: &Path, error: &io::Error) -> SqlError {
    let class = match error.kind() {
        io::ErrorKind::NotFound => ErrorClass::Connection,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorClass::Permanent,
        _ => ErrorClass::Transient,
    };
    SqlError::new(class, format!("cannot use \"{}\" for the lease: {error}", path.display()))
}

/// A lease that is held.
pub(super) struct FileLease {
    file: Arc<LockFile>,
    /// The database's file, of which the same is true.
    watch: Watch,
    check: Interval,
    fence: Fence,
    epoch: i64,
    /// Gives the signs of life.
    _beats: Apart<()>,
}

/// The lock file: with another in its place, the lock says nothing of the database.
struct LockFile {
    /// Closed, it is unlocked.
    file: File,
    path: PathBuf,
    identity: Identity,
    /// What it says.
    held: Mutex<Held>,
}

impl LockFile {
    /// Changes what it says. On a disk that is full there is room for what takes the place of something else, as long as
    /// that is not given up first.
    fn write(&self, change: impl FnOnce(&mut Held)) -> io::Result<()> {
        let mut held = self.held();
        change(&mut held);
        let json = serde_json::to_vec(&*held)?;
        self.file.write_all_at(&json, 0)?;
        self.file.set_len(json.len() as u64)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is not what its name leads to any more, where that is so.
    fn lost(&self) -> Option<String> {
        let reason = match identity(&self.path) {
            Ok(found) if found == self.identity => return None,
            Ok(_) => {
                let other = File::open(&self.path).and_then(|mut file| read(&mut file));
                match other {
                    Ok(Some(Held { holder: Holder { host, pid }, beat: Some(_), .. })) => {
                        return Some(format!("{OVERTAKEN} (process {pid} on {host})"));
                    }
                    _ => "was moved or replaced".to_owned(),
                }
            }
            Err(error) => format!("is gone: {error}"),
        };
        Some(format!("the file \"{}\" {reason}", self.path.display()))
    }
}

impl FileLease {
    fn new(locked: Locked, watch: Watch, fence: Fence, epoch: i64) -> Self {
        let mut check = tokio::time::interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let Locked { file, path, identity, held } = locked;
        let file = Arc::new(LockFile { file, path, identity, held: Mutex::new(held) });
        let beats = beat(Arc::clone(&file), fence.clone(), epoch);
        Self { file, watch, check, fence, epoch, _beats: Apart(fence::thread().spawn(beats)) }
    }
}

/// Gives signs of life.
async fn beat(file: Arc<LockFile>, fence: Fence, epoch: i64) {
    loop {
        sleep(RENEWAL).await;
        let since = Instant::now();
        let file = Arc::clone(&file);
        let written = spawn_blocking(move || {
            file.write(|held| held.beat = held.beat.map(|beat| beat.wrapping_add(1)))?;
            Ok::<_, io::Error>(file.lost().is_none())
        });
        match written.await {
            Ok(Ok(true)) => fence.renew(epoch, since),
            // What is lost is told elsewhere.
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "no sign of life could be given beside the database"),
            Err(error) => tracing::debug!(%error, "no sign of life could be given"),
        }
    }
}

#[async_trait]
impl Lease for FileLease {
    async fn lost(&mut self) -> String {
        loop {
            tokio::select! {
                biased;
                reason = self.watch.lost() => return reason,
                _ = self.check.tick() => {}
            }
            let (watch, file) = (self.watch.clone(), Arc::clone(&self.file));
            let looked = spawn_blocking(move || {
                // What is lost is told above.
                let _ = watch.check();
                file.lost()
            });
            match looked.await {
                Ok(None) => {}
                _ if self.watch.is_lost() => {}
                Ok(Some(reason)) => return reason,
                Err(error) => return format!("the file \"{}\" cannot be looked at: {error}", self.file.path.display()),
            }
        }
    }

    async fn note(&mut self, trouble: Option<&str>) {
        if self.file.held().trouble.as_deref() == trouble {
            return;
        }
        // A few bytes into a file that is open: not worth a thread of its own.
        if let Err(error) = self.file.write(|held| held.trouble = trouble.map(str::to_owned)) {
            tracing::debug!(%error, "what is in the way could not be noted beside the database");
        }
    }

    async fn release(self: Box<Self>) {
        // One that is lost is nobody's to give up.
        if self.file.lost().is_none() && !self.watch.is_lost() {
            self.fence.lower(self.epoch);
        }
        // Closing alone would do; a process that inherited the file would keep the lock, though.
        let _ = self.file.file.unlock();
    }
}
