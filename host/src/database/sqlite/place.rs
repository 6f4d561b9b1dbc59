//! What can be in the way of writing to an SQLite database where it lies: rights, room on the disk, another's lock.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};

use crate::update::sql::SqlError;

/// With less room than this a batch of any size is likely to fail: SQLite writes a journal beside what it changes. Some
/// pages, of 4 KiB where nobody chose another size.
const LITTLE_ROOM: u64 = 64 << 10;

/// The byte of the database file that a writer locks: `RESERVED_BYTE` of SQLite's file format, section 1.3.
const RESERVED_BYTE: u64 = 0x4000_0001;
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
    let Ok(file) = fs::canonicalize(path) else { return false };
    let mut shared = file.clone().into_os_string();
    shared.push("-shm");
    let inode = |file: &Path| fs::metadata(file).map(|metadata| metadata.ino()).ok();
    let wanted = [(inode(&file), RESERVED_BYTE), (inode(&PathBuf::from(shared)), WAL_WRITE_BYTE)];
    let Ok(locks) = fs::read_to_string("/proc/locks") else { return false };
    locks.lines().filter_map(Lock::parse).any(|lock| {
        lock.pid == pid
            && wanted.iter().any(|(inode, byte)| *inode == Some(lock.inode) && (lock.from..=lock.to).contains(byte))
    })
}

/// A lock to write, as a line of `/proc/locks` has it: proc(5).
#[derive(Debug, PartialEq)]
struct Lock {
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
        if words.next()? != "POSIX" || words.next()? != "ADVISORY" || words.next()? != "WRITE" {
            return None;
        }
        let pid = words.next()?.parse().ok()?;
        let inode = words.next()?.rsplit(':').next()?.parse().ok()?;
        let from = words.next()?.parse().ok()?;
        let to = match words.next()? {
            "EOF" => u64::MAX,
            to => to.parse().ok()?,
        };
        Some(Self { pid, inode, from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::Lock;

    #[test]
    fn the_kernels_list_is_understood() {
        let lock = |from, to| Some(Lock { pid: 3548, inode: 13107, from, to });
        let cases = [
            ("1: POSIX  ADVISORY  WRITE 3548 08:01:13107 1073741824 1073742335", lock(1_073_741_824, 1_073_742_335)),
            ("2: POSIX  ADVISORY  WRITE 3548 fe:00:13107 0 EOF", lock(0, u64::MAX)),
            ("2: -> POSIX  ADVISORY  WRITE 3548 fe:00:13107 0 EOF", None),
            ("3: POSIX  ADVISORY  READ 3548 08:01:13107 128 128", None),
            ("4: FLOCK  ADVISORY  WRITE 3548 08:01:13107 0 EOF", None),
            ("", None),
        ];
        for (line, parsed) in cases {
            assert_eq!(Lock::parse(line), parsed, "{line}");
        }
    }
}
