//! The machine that figures were made on, as Linux tells it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::Outcome;
use super::place::Place;

/// What figures depend on besides the program.
#[derive(Serialize, Deserialize)]
pub(super) struct Machine {
    date: String,
    /// The commit, and whether files were changed since.
    commit: String,
    processor: String,
    processors: usize,
    memory_gib: f64,
    kernel: String,
    /// The file system below each database, and what it lies on.
    disks: Vec<String>,
    sqlite: String,
    postgres: String,
}

impl Machine {
    pub(super) async fn look(places: &[Place]) -> Outcome<Self> {
        let mut disks = Vec::new();
        let mut postgres = String::new();
        for place in places {
            disks.push(format!("{}: {}", place.name(), disk(&place.folder())));
            if let Place::Postgres { .. } = place {
                postgres = place.fresh().await?.version().await?;
            }
        }
        Ok(Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            commit: commit(),
            processor: field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0)
                / f64::from(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease"),
            disks,
            sqlite: rusqlite::version().to_owned(),
            postgres,
        })
    }

    /// A line for each thing.
    pub(super) fn describe(&self) -> Vec<String> {
        let Self { date, commit, processor, processors, memory_gib, kernel, disks, sqlite, postgres } = self;
        vec![
            format!("{date}, commit {commit}"),
            format!("{processor}, {processors} processors, {memory_gib:.0} GiB of memory, Linux {kernel}"),
            format!("Disks: {}", disks.join("; ")),
            format!("SQLite {sqlite}, PostgreSQL {postgres}"),
        ]
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// What stands behind a name and a colon.
fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let found = text.lines().find_map(|line| line.split_once(':').filter(|(found, _)| found.trim() == name));
    found.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").current_dir(super::repository()).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let hash = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|files| !files.is_empty());
    if changed { format!("{hash}, and changes") } else { hash }
}

/// The file system of a folder, and whether its device turns.
fn disk(folder: &Path) -> String {
    let mounts = read("/proc/mounts");
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, at, kind) = (words.next()?, words.next()?, words.next()?);
        folder.starts_with(at).then_some((at.len(), device, kind))
    });
    let Some((_, device, kind)) = mounted.max_by_key(|(length, ..)| *length) else { return "unknown".to_owned() };
    let Some(name) = device.strip_prefix("/dev/") else { return kind.to_owned() };
    // A partition's queue is its disk's.
    let disk = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let turns = [name, disk].into_iter().map(|name| read(&format!("/sys/block/{name}/queue/rotational")));
    match turns.into_iter().find(|turns| !turns.is_empty()).as_deref() {
        Some("0") => format!("{kind} on {name}, which does not turn"),
        Some(_) => format!("{kind} on {name}, which turns or does not tell"),
        None => format!("{kind} on {name}"),
    }
}
