//! The lease on an SQLite database: an exclusive lock on a file beside it.
//!
//! The file stays when the lease is given up: whoever removed it could remove it from under another host that has just
//! locked it, and a third would then lock a new one. It holds the last holder as JSON, and what is in that one's way
//! where the database will not take a word of it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior};

use super::file::{Identity, Watch, identity};
use crate::scheduler::database::{Holder, Lease, LeaseAttempt};
use crate::update::sql::{ErrorClass, SqlError};

/// How often a holder looks whether the file that it locked is still the one in place.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// A lock that is taken is tried again this often: a command that asks who holds it locks it for an instant.
const ATTEMPTS: u32 = 3;
/// The time between these attempts.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(10);

/// What the lock file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Held {
    #[serde(flatten)]
    pub(super) holder: Holder,
    /// What is in its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trouble: Option<String>,
}

/// Tries to lock the file of the database at `path`.
pub(super) async fn try_lease(
    path: &Path,
    watch: &Watch,
    suffix: Option<&str>,
    holder: &Holder,
) -> Result<LeaseAttempt, SqlError> {
    let lock_file = lock_file(path, suffix).await?;
    for attempt in 1..=ATTEMPTS {
        let (to_lock, holder_of_lock) = (lock_file.clone(), holder.clone());
        let written = holder_of_lock.clone();
        let locked = blocking(&lock_file, move || lock(&to_lock, &written)).await?;
        if let Some((file, identity)) = locked {
            // Of the file that the lock is beside, and of no other.
            if self::lock_file(path, suffix).await? != lock_file {
                continue;
            }
            watch.check()?;
            let held = Held { holder: holder_of_lock, trouble: None };
            return Ok(LeaseAttempt::Held(Box::new(FileLease::new(file, (lock_file, identity), watch.clone(), held))));
        }
        if attempt < ATTEMPTS {
            tokio::time::sleep(ATTEMPT_INTERVAL).await;
        }
    }
    let path = lock_file.clone();
    let held = blocking(&lock_file, move || read(&mut File::open(&path)?)).await?;
    Ok(LeaseAttempt::Taken(held.map(|held| held.holder)))
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

/// Locks the file and writes the holder into it; `None` where another has it.
fn lock(path: &Path, holder: &Holder) -> io::Result<Option<(File, Identity)>> {
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
    serde_json::to_writer(&mut file, holder)?;
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

struct FileLease {
    /// Closed, it is unlocked.
    file: File,
    /// The lock file: with another in its place, the lock says nothing of the database.
    lock_file: (PathBuf, Identity),
    /// The database's file, of which the same is true.
    watch: Watch,
    check: Interval,
    /// What it says.
    held: Held,
}

impl FileLease {
    fn new(file: File, lock_file: (PathBuf, Identity), watch: Watch, held: Held) -> Self {
        let mut check = tokio::time::interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { file, lock_file, watch, check, held }
    }

    /// Writes over what it says. On a disk that is full there is room for what takes the place of something else, as long
    /// as that is not given up first.
    fn write(&self) -> io::Result<()> {
        let json = serde_json::to_vec(&self.held)?;
        self.file.write_all_at(&json, 0)?;
        self.file.set_len(json.len() as u64)
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
            let (watch, path) = (self.watch.clone(), self.lock_file.0.clone());
            let looked = spawn_blocking(move || {
                // What is lost is told above.
                let _ = watch.check();
                identity(&path)
            });
            let reason = match looked.await {
                Ok(Ok(found)) if found == self.lock_file.1 => continue,
                _ if self.watch.is_lost() => continue,
                Ok(Ok(_)) => "was moved or replaced".to_owned(),
                Ok(Err(error)) => format!("is gone: {error}"),
                Err(error) => format!("cannot be looked at: {error}"),
            };
            return format!("the file \"{}\" {reason}", self.lock_file.0.display());
        }
    }

    async fn note(&mut self, trouble: Option<&str>) {
        if self.held.trouble.as_deref() == trouble {
            return;
        }
        self.held.trouble = trouble.map(str::to_owned);
        // A few bytes into a file that is open: not worth a thread of its own.
        if let Err(error) = self.write() {
            tracing::debug!(%error, "what is in the way could not be noted beside the database");
        }
    }

    async fn release(self: Box<Self>) {
        // Closing alone would do; a process that inherited the file would keep the lock, though.
        let _ = self.file.unlock();
    }
}
