//! What can be in the way of writing to an SQLite database where it lies: rights, room on the disk, another's lock.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::fs::{Access, access, statvfs};

use tidegate::update::sql::SqlError;

/// With less room than this a batch of any size is likely to fail: SQLite writes a journal beside what it changes. Some
/// pages, of 4 KiB where nobody chose another size.
const LITTLE_ROOM: u64 = 64 << 10;

/// The kernel's list of locks counts for so many times as long as it took to read it: some milliseconds at most, but on
/// machines with thousands of locks.
const LIST_HOLDS: u32 = 10;

/// The byte of the database file that a writer locks who waits for readers to leave: `PENDING_BYTE` of SQLite's file format,
/// section 1.3.
const PENDING_BYTE: u64 = 0x4000_0000;
/// The byte that a writer locks: `RESERVED_BYTE`.
const RESERVED_BYTE: u64 = PENDING_BYTE + 1;
/// The first of the bytes that readers lock: `SHARED_FIRST`.
const SHARED_BYTE: u64 = PENDING_BYTE + 2;
/// The byte of the `-shm` file that a writer locks in WAL mode: `WAL_WRITE_LOCK` of SQLite's WAL format, section 2.3.1.
const WAL_WRITE_BYTE: u64 = 120;

/// Refuses a file that this user may not write to, and a folder that SQLite's journal and the lease's file cannot be
/// made in. What is not there is somebody else's to tell.
pub(super) fn refuse_read_only(path: &Path) -> Result<(), SqlError> {
    let Ok(file) = fs::canonicalize(path) else { return Ok(()) };
    let is_writable = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    let (what, path) = match file.parent() {
        _ if !is_writable(&file) => ("database file", &*file),
        Some(folder) if !is_writable(folder) => ("database's folder", folder),
        _ => return Ok(()),
    };
    let message = format!("the {what} \"{}\" is read-only for this user", path.display());
    Err(SqlError::permanent(message).with_code("SQLITE_READONLY"))
}

/// What keeps this user from writing, seen from the filesystem.
pub(super) fn obstacle(path: &Path, wal: bool) -> Option<String> {
    let file = fs::canonicalize(path).ok()?;
    if access(&file, Access::WRITE_OK).is_err() {
        return Some(format!("the file \"{}\" is read-only, at least for this user", file.display()));
    }
    let folder = file.parent()?;
    // In WAL mode the files beside it are there already.
    if !wal && access(folder, Access::WRITE_OK).is_err() {
        let folder = folder.display();
        return Some(format!(
            "the folder \"{folder}\", where SQLite's journal has to be, is read-only, at least for this user"
        ));
    }
    let disk = statvfs(&file).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    (free < LITTLE_ROOM).then(|| format!("the disk is full: {} KiB are free", free >> 10))
}

/// Whether the process holds a writer's lock on the database. The locks are read where the kernel lists them: whoever
/// opened the file to ask would give up all locks of its own process on it when closing it again.
pub(super) fn is_written_by(path: &Path, pid: u32) -> bool {
    Locks::on(path).is_some_and(|locks| locks.writers().any(|writer| writer == pid))
}

/// Who keeps this process from writing to the database, in words: whoever holds a writer's lock, and whoever reads where a
/// commit waits for readers to leave. Empty where nobody does, and where the kernel does not say who.
pub(super) fn in_the_way(path: &Path) -> Vec<String> {
    let Some(locks) = Locks::on(path) else { return Vec::new() };
    let own = std::process::id();
    let waits_for_readers = locks.shared.is_none() && locks.hold(|lock| lock.write, PENDING_BYTE).any(|pid| pid == own);
    let readers = locks.hold(|lock| !lock.write, SHARED_BYTE).filter(|_| waits_for_readers);
    let mut pids: Vec<u32> =
        locks.writers().chain(readers).filter(|pid| *pid != own && locks.may_be_of(*pid)).collect();
    pids.sort_unstable();
    pids.dedup();
    pids.into_iter().map(described).collect()
}

/// A process by its number and its program, where that can be read.
fn described(pid: u32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(program) => format!("process {pid} ({})", program.trim()),
        // One of another namespace has no number here.
        Err(_) if pid == 0 => "a process that cannot be seen from here".to_owned(),
        Err(_) => format!("process {pid}"),
    }
}

/// The locks on a database file and on what its log is shared by.
struct Locks {
    all: Vec<Lock>,
    /// Device and inode.
    file: (u64, u64),
    shared: Option<(u64, u64)>,
}

impl Locks {
    /// `None` where the kernel does not list them.
    fn on(path: &Path) -> Option<Self> {
        let file = fs::canonicalize(path).ok()?;
        let mut shared = file.clone().into_os_string();
        shared.push("-shm");
        let identity = |file: &Path| fs::metadata(file).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        let (file, shared) = (identity(&file)?, identity(&PathBuf::from(shared)));
        let locks = listed()?;
        // By the inode alone: what the kernel calls the device is not on every filesystem what a look at the file gives.
        let of_these = |lock: &Lock| [Some(file.1), shared.map(|shared| shared.1)].contains(&Some(lock.inode));
        Some(Self { all: locks.iter().copied().filter(of_these).collect(), file, shared })
    }

    /// Who holds a lock of this kind on a byte of the database file.
    fn hold(&self, kind: impl Fn(&Lock) -> bool, byte: u64) -> impl Iterator<Item = u32> {
        let held = move |lock: &&Lock| lock.inode == self.file.1 && kind(lock) && lock.covers(byte);
        self.all.iter().filter(held).map(|lock| lock.pid)
    }

    /// Who holds a writer's lock.
    fn writers(&self) -> impl Iterator<Item = u32> {
        let shared = self.shared.map(|shared| shared.1);
        let log = move |lock: &&Lock| Some(lock.inode) == shared && lock.write && lock.covers(WAL_WRITE_BYTE);
        let log = self.all.iter().filter(log).map(|lock| lock.pid);
        self.hold(|lock| lock.write, RESERVED_BYTE).chain(self.hold(|lock| lock.write, SHARED_BYTE)).chain(log)
    }

    /// False where it can be seen that a process has none of the files open: a file of another disk may have the same inode.
    fn may_be_of(&self, pid: u32) -> bool {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return true };
        let files = [Some(self.file), self.shared];
        open.flatten().any(|file| {
            let found = fs::metadata(file.path()).map(|metadata| (metadata.dev(), metadata.ino())).ok();
            found.is_some() && files.contains(&found)
        })
    }
}

/// The locks that the kernel lists; `None` where it lists none. The list is of the whole machine, and long where a host has
/// many databases: all of them go by what one has read just now, and reading takes up no more than a part of the time.
fn listed() -> Option<Arc<[Lock]>> {
    static LAST: Mutex<Option<(Instant, Arc<[Lock]>)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((until, locks)) = &*last
        && Instant::now() < *until
    {
        return Some(Arc::clone(locks));
    }
    let began = Instant::now();
    let text = fs::read_to_string("/proc/locks").ok()?;
    let locks: Arc<[Lock]> = text.lines().filter_map(Lock::parse).collect();
    *last = Some((Instant::now() + began.elapsed() * LIST_HOLDS, Arc::clone(&locks)));
    Some(locks)
}

/// A lock, as a line of `/proc/locks` has it: proc(5).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Lock {
    /// True where it is one to write.
    write: bool,
    pid: u32,
    inode: u64,
    from: u64,
    to: u64,
}

impl Lock {
    /// From "1: POSIX  ADVISORY  WRITE 3548 08:01:13107 1073741824 1073742335"; `None` for other kinds, and for those
    /// who only wait.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().skip(1);
        if words.next()? != "POSIX" || words.next()? != "ADVISORY" {
            return None;
        }
        let write = words.next()? == "WRITE";
        let pid = words.next()?.parse().ok()?;
        let inode = words.next()?.rsplit(':').next()?.parse().ok()?;
        let from = words.next()?.parse().ok()?;
        let to = match words.next()? {
            "EOF" => u64::MAX,
            to => to.parse().ok()?,
        };
        Some(Self { write, pid, inode, from, to })
    }

    fn covers(&self, byte: u64) -> bool {
        (self.from..=self.to).contains(&byte)
    }
}

#[cfg(test)]
mod tests {
    use super::Lock;

    #[test]
    fn the_kernels_list_is_understood() {
        let lock = |from, to| Some(Lock { write: true, pid: 3548, inode: 13107, from, to });
        let cases = [
            ("1: POSIX  ADVISORY  WRITE 3548 08:01:13107 1073741824 1073742335", lock(1_073_741_824, 1_073_742_335)),
            ("2: POSIX  ADVISORY  WRITE 3548 fe:00:13107 0 EOF", lock(0, u64::MAX)),
            ("2: -> POSIX  ADVISORY  WRITE 3548 fe:00:13107 0 EOF", None),
            (
                "3: POSIX  ADVISORY  READ 3548 08:01:13107 128 128",
                Some(Lock { write: false, pid: 3548, inode: 13107, from: 128, to: 128 }),
            ),
            ("4: FLOCK  ADVISORY  WRITE 3548 08:01:13107 0 EOF", None),
            ("", None),
        ];
        for (line, parsed) in cases {
            assert_eq!(Lock::parse(line), parsed, "{line}");
        }
    }
}
