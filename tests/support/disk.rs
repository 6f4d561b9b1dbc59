//! A disk so small that a test can fill it: a tmpfs of its own, which needs root, or `sudo` without a password.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A small disk. Dropped, it is unmounted.
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// One of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("tg-disk").tempdir().unwrap();
        let options = format!("size={bytes},mode=777");
        let mounted =
            run(&["mount", "-t", "tmpfs", "-o", &options, "tidegate-test", &folder.path().display().to_string()]);
        assert!(
            mounted,
            "a full disk can only be had by mounting a small one: run the tests as root, or let `sudo mount`"
        );
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).unwrap();
        let full = loop {
            if let Err(error) = ballast.write_all(&[b'x'; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    }

    /// Gives it back.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.folder.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever has a file open there still keeps it until its end; the mount itself goes at once.
        run(&["umount", "--lazy", &self.folder.path().display().to_string()]);
    }
}

fn run(command: &[&str]) -> bool {
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let prefix: &[&str] = if is_root { &[] } else { &["sudo", "-n"] };
    let words: Vec<&str> = prefix.iter().chain(command).copied().collect();
    let status = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
