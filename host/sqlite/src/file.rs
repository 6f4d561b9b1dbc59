//! The file that is worked on, and whether it still is what its path leads to.
//!
//! An open connection goes on with the file that it opened, whatever happens to that file's name. So the file and the
//! write-ahead log beside it are compared with what is found under their names before a transaction reads, before it
//! commits, and before anybody hears that it did. Once they differ, nothing is done any more until all is closed: what is
//! there then is another database, with a queue of its own.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use tidegate::update::sql::{ErrorClass, SqlError};

/// What tells a file from another that took its place: device and inode.
pub(super) type Identity = (u64, u64);

/// How much of a write-ahead log says whose it is: its header, with the salt that changes each time it is begun anew.
const LOG_HEADER: usize = 32;

/// What is known of the file behind a path; the same for all clones.
#[derive(Clone)]
pub(super) struct Watch(Arc<Inner>);

struct Inner {
    path: PathBuf,
    state: Mutex<FileState>,
    /// Why nothing is done any more, once that is so.
    lost: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct FileState {
    open: Option<Open>,
    /// The log of a file that is gone from here, where the log was left behind.
    orphan: Option<[u8; LOG_HEADER]>,
}

/// The file that is worked on.
struct Open {
    identity: Identity,
    /// Tells where the file is now.
    pin: Option<Pin>,
    /// Where its log is, which is beside the file itself, whatever links lead there.
    log_path: PathBuf,
    /// The log that the connection has open, once that is known.
    log: Option<Identity>,
    /// What is to be done about the log when the connection is closed.
    farewell: Farewell,
}

/// What is to be done about a log when its connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Farewell {
    /// Nothing.
    #[default]
    None,
    /// To write what it holds into its database, as long as both are open, and empty it: its name is gone, or its database
    /// is, and another would be taken to be its own.
    Save,
    /// To let what has its name now alone.
    Spare,
}

impl Watch {
    pub(super) fn new(path: &Path) -> Self {
        let inner = Inner { path: path.to_owned(), state: Mutex::default(), lost: watch::Sender::new(None) };
        Self(Arc::new(inner))
    }

    fn state(&self) -> MutexGuard<'_, FileState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails where the file was lost; nothing is looked at.
    pub(super) fn known(&self) -> Result<(), SqlError> {
        self.0.lost.borrow().as_deref().map_or(Ok(()), |reason| Err(lost(reason)))
    }

    /// What is under the path, to be compared once it was opened. Fails where what lies beside it would spoil it.
    pub(super) fn before_opening(&self) -> Result<Identity, SqlError> {
        self.known()?;
        let found = identity(&self.0.path).map_err(|error| self.unreadable(&error))?;
        let state = self.state();
        let Some(orphan) = &state.orphan else { return Ok(found) };
        let log = log_path(&self.0.path);
        if log_header(&log).is_some_and(|header| header == *orphan) {
            let message = format!(
                "the write-ahead log \"{}\" is that of the database file that was here before, and would be written \
                 into the one that is here now: move it to where the old file is and give it that one's name with \
                 \"-wal\" behind it, or delete it where the old file is not needed any more",
                log.display()
            );
            return Err(SqlError::new(ErrorClass::Connection, message));
        }
        Ok(found)
    }

    /// Takes note of what was opened: true where the path led to the same file before and after.
    pub(super) fn opened(&self, before: Identity) -> Result<bool, SqlError> {
        let after = identity(&self.0.path).map_err(|error| self.unreadable(&error))?;
        if after != before {
            return Ok(false);
        }
        let mut state = self.state();
        match &mut state.open {
            // Another connection has another log: whoever closed the last one deleted it.
            Some(open) if open.identity == after => open.log = None,
            Some(_) => {
                drop(state);
                self.check()?;
                return Ok(false);
            }
            None => state.open = Some(Open::new(&self.0.path, after)),
        }
        Ok(true)
    }

    /// Fails where the file, or its log, is not what its name leads to any more.
    pub(super) fn check(&self) -> Result<(), SqlError> {
        self.look(true)
    }

    /// The same of the file alone, and takes note of its log: once a transaction has begun that may write, the connection
    /// has it open, where there is one. The log is looked at before the commit: each look at a name costs an iteration
    /// some microseconds.
    pub(super) fn check_begun(&self) -> Result<(), SqlError> {
        self.note_log();
        self.look(false)
    }

    /// Takes note of the log that the connection has open, once it has read something.
    pub(super) fn note_log(&self) {
        if let Some(open) = &mut self.state().open
            && open.log.is_none()
        {
            open.log = identity(&open.log_path).ok();
        }
    }

    fn look(&self, at_log: bool) -> Result<(), SqlError> {
        self.known()?;
        let mut state = self.state();
        let FileState { open: Some(open), orphan } = &mut *state else { return Ok(()) };
        let reason = match identity(&self.0.path) {
            Ok(found) if found == open.identity && !at_log => None,
            Ok(found) if found == open.identity => open.log_lost(),
            Ok(_) => {
                *orphan = open.header_of_log_left_behind();
                let now = open.pin.as_ref().and_then(Pin::place).map_or_else(String::new, |now| {
                    format!(" (the one that was worked on is \"{}\" now)", now.display())
                });
                Some(format!(
                    "the database file \"{}\" was replaced by another{now}: the new one is worked on as a database of \
                     its own; stop the host before you move a database",
                    self.0.path.display()
                ))
            }
            Err(error) if is_missing(&error) => {
                *orphan = open.header_of_log_left_behind();
                let what = match &open.pin {
                    Some(pin) if pin.is_deleted() => "was removed: restore it".to_owned(),
                    Some(pin) => {
                        let now = pin.place().map_or_else(String::new, |now| format!(", to \"{}\"", now.display()));
                        format!("was moved away{now}: put it back")
                    }
                    None => "was moved away or removed: put it back".to_owned(),
                };
                let path = self.0.path.display();
                Some(format!("the database file \"{path}\" {what}, or put in its place the one to be worked on"))
            }
            // Nothing is known of it, which may pass.
            Err(error) => return Err(self.unreadable(&error)),
        };
        drop(state);
        let Some(reason) = reason else { return Ok(()) };
        self.0.lost.send_replace(Some(reason.clone()));
        Err(lost(&reason))
    }

    /// True once the file was lost.
    pub(super) fn is_lost(&self) -> bool {
        self.0.lost.borrow().is_some()
    }

    /// What is to be done about the log that the connection has open, when it is closed.
    pub(super) fn farewell(&self) -> Farewell {
        self.state().open.as_ref().map(|open| open.farewell).unwrap_or_default()
    }

    /// Resolves, with the reason, once the file was lost.
    pub(super) async fn lost(&self) -> String {
        let mut lost = self.0.lost.subscribe();
        let reason = lost.wait_for(Option::is_some).await.map(|reason| reason.clone());
        // The sender is part of what is borrowed here: an error cannot be.
        reason.ok().flatten().unwrap_or_default()
    }

    /// Begins anew, once all connections are closed: with whatever file is there then.
    pub(super) fn forget(&self) {
        self.state().open = None;
        self.0.lost.send_replace(None);
    }

    fn unreadable(&self, error: &io::Error) -> SqlError {
        let message = format!("the database file \"{}\" cannot be looked at: {error}", self.0.path.display());
        SqlError::new(ErrorClass::Connection, message)
    }
}

impl Open {
    fn new(path: &Path, identity: Identity) -> Self {
        let pin = Pin::new(path).filter(|pin| pin.identity() == Some(identity));
        Self { identity, pin, log_path: log_path(path), log: None, farewell: Farewell::None }
    }

    /// Why the log is lost, where it is.
    fn log_lost(&mut self) -> Option<String> {
        let known = self.log?;
        let what = match identity(&self.log_path) {
            Ok(found) if found == known => return None,
            Ok(_) => {
                self.farewell = Farewell::Spare;
                "was replaced"
            }
            Err(error) if is_missing(&error) => {
                self.farewell = Farewell::Save;
                "was moved away or removed"
            }
            Err(_) => return None,
        };
        Some(format!(
            "the write-ahead log \"{}\" {what} while the database was in use: leave the files beside a database alone, \
             and see whether it is whole (PRAGMA integrity_check)",
            self.log_path.display()
        ))
    }

    /// The beginning of this file's log, where that lies where it was, and there is something in it.
    fn header_of_log_left_behind(&mut self) -> Option<[u8; LOG_HEADER]> {
        let known = self.log?;
        let header = identity(&self.log_path).is_ok_and(|found| found == known).then(|| log_header(&self.log_path));
        if header.is_some() {
            self.farewell = Farewell::Save;
        }
        header.flatten()
    }
}

/// A handle on a file that reads and locks nothing: closing it gives up no lock that SQLite holds on the file.
struct Pin(File);

#[cfg(target_os = "linux")]
impl Pin {
    fn new(path: &Path) -> Option<Self> {
        use rustix::fs::{Mode, OFlags, open};
        open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok().map(|handle| Self(handle.into()))
    }

    /// Where the file is now, where the kernel tells.
    fn place(&self) -> Option<PathBuf> {
        use std::os::fd::AsRawFd as _;
        let place = fs::read_link(format!("/proc/self/fd/{}", self.0.as_raw_fd())).ok()?;
        // One of several names may be gone.
        (identity(&place).ok() == self.identity()).then_some(place)
    }
}

#[cfg(not(target_os = "linux"))]
impl Pin {
    fn new(_: &Path) -> Option<Self> {
        None
    }

    fn place(&self) -> Option<PathBuf> {
        None
    }
}

impl Pin {
    fn identity(&self) -> Option<Identity> {
        self.0.metadata().ok().map(|found| (found.dev(), found.ino()))
    }

    /// True where no name leads to the file any more.
    fn is_deleted(&self) -> bool {
        self.0.metadata().is_ok_and(|found| found.nlink() == 0)
    }
}

/// What the path leads to, whatever links it has.
pub(super) fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn log_path(path: &Path) -> PathBuf {
    let mut log = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    log.push("-wal");
    PathBuf::from(log)
}

fn log_header(path: &Path) -> Option<[u8; LOG_HEADER]> {
    let mut header = [0; LOG_HEADER];
    File::open(path).ok()?.read_exact(&mut header).ok()?;
    Some(header)
}

fn lost(reason: &str) -> SqlError {
    SqlError::new(ErrorClass::Replaced, reason)
}
