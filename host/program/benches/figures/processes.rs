//! The program as an operator starts it: how long until its first batch, and how much memory it holds.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::place::{Database, Place};
use super::report::{FiguresReport, unix_ms};
use super::{Outcome, component, median};

/// Each start is measured so many times; the median counts.
const STARTS: usize = 3;
/// The rows that each of them fills.
const ROWS: i64 = 50_000;
/// How long a process may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was seen of a process.
struct Seen {
    /// From its start to its first batch, in milliseconds.
    start: f64,
    /// Its resident memory once the work was done, in MiB.
    resident: f64,
    /// The most that it ever was, in MiB.
    peak: f64,
}

pub(super) async fn measure(report: &mut FiguresReport, place: &Place) -> Outcome<()> {
    let bare = several(place, Program::Bare).await?;
    let built_in = several(place, Program::Tidegate { controller: None, cache: None }).await?;
    let mut all = vec![("tidegate, built-in policy".to_owned(), built_in)];
    for name in ["rust-steady", "c-fixed"] {
        let mut cold = Vec::new();
        let cache = tempfile::tempdir()?;
        for _ in 0..STARTS {
            let empty = tempfile::tempdir()?;
            cold.push(once(place, Program::Tidegate { controller: Some(name), cache: Some(&empty) }).await?);
        }
        once(place, Program::Tidegate { controller: Some(name), cache: Some(&cache) }).await?;
        let warm = several(place, Program::Tidegate { controller: Some(name), cache: Some(&cache) }).await?;
        all.push((format!("tidegate, {name}, not cached"), cold));
        all.push((format!("tidegate, {name}, cached"), warm));
    }
    let mut add = |figure, unit, value: fn(&Seen) -> f64| {
        let of = |seen: &[Seen]| median(&seen.iter().map(value).collect::<Vec<_>>());
        let mut section = report.section(figure, unit, place.name());
        let baseline = section.baseline("bare loop of 10000, a process", of(&bare));
        for (name, seen) in &all {
            section.add(name, of(seen), &baseline);
        }
    };
    add("start to first batch", "ms", |seen| seen.start);
    add("resident memory, work done", "MiB", |seen| seen.resident);
    add("resident memory, peak", "MiB", |seen| seen.peak);
    Ok(())
}

/// What is started.
#[derive(Clone, Copy)]
enum Program<'a> {
    /// This benchmark, as a bare loop.
    Bare,
    /// `tidegate run`.
    Tidegate { controller: Option<&'static str>, cache: Option<&'a TempDir> },
}

async fn several(place: &Place, program: Program<'_>) -> Outcome<Vec<Seen>> {
    let mut seen = Vec::new();
    for _ in 0..STARTS {
        seen.push(once(place, program).await?);
    }
    Ok(seen)
}

async fn once(place: &Place, program: Program<'_>) -> Outcome<Seen> {
    let database = place.fresh().await?;
    database.make_items(ROWS).await?;
    database.enqueue("bench").await?;
    match program {
        Program::Bare => bare_process(&database),
        Program::Tidegate { controller, cache } => tidegate(&database, controller, cache).await,
    }
}

/// Starts this program as the baseline.
fn bare_process(database: &Database) -> Outcome<Seen> {
    let began = unix_ms();
    let output = Command::new(std::env::current_exe()?).args(["--bare", &database.url]).output()?;
    if !output.status.success() {
        return Err(format!("the bare loop ended with {}", output.status).into());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |name: &str| -> Outcome<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.ok_or_else(|| format!("the bare loop does not tell its {name}: {text}"))?.trim().parse()?)
    };
    Ok(Seen { start: number("first")? - began as f64, resident: number("resident")?, peak: number("peak")? })
}

/// What this program does as the baseline.
pub(super) async fn bare(url: &str) -> Outcome<()> {
    let bare = super::bare::Bare::connect(url).await?;
    bare.fill(10_000, || println!("first {}", unix_ms())).await?;
    let (resident, peak) = memory("self")?;
    println!("resident {resident}\npeak {peak}");
    Ok(())
}

/// Starts the program, waits until its work is done, looks at it and ends it.
async fn tidegate(database: &Database, controller: Option<&str>, cache: Option<&TempDir>) -> Outcome<Seen> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("tidegate.toml"), configuration(&database.url, controller)?)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(&folder).arg("run").env_remove("CACHE_DIRECTORY");
    command.env("XDG_CACHE_HOME", cache.map_or(folder.path(), TempDir::path));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = unix_ms();
    let mut process = Process(command.spawn()?);
    let deadline = Instant::now() + PATIENCE;
    while database.number("SELECT count(*) FROM background_updates").await? != Some(0) {
        if let Some(status) = process.0.try_wait()? {
            return Err(format!("tidegate ended with {status} before its work was done").into());
        }
        if Instant::now() > deadline {
            return Err("tidegate does not get its work done".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (resident, peak) = memory(&process.0.id().to_string())?;
    process.end()?;
    let first = database.number("SELECT min(started_ms) FROM tidegate_history").await?;
    let first = first.ok_or("tidegate left no history")?;
    Ok(Seen { start: first as f64 - began as f64, resident, peak })
}

/// A process that does not outlive this one's interest in it.
pub(super) struct Process(pub(super) Child);

impl Process {
    /// True once it has ended.
    pub(super) fn is_over(&mut self) -> Outcome<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Ends it in good order.
    pub(super) fn end(&mut self) -> Outcome<ExitStatus> {
        Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]).status()?;
        Ok(self.0.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn configuration(url: &str, controller: Option<&str>) -> Outcome<String> {
    // Text in TOML is quoted as JSON quotes it.
    let quoted = |text: &str| serde_json::to_string(text);
    let controller = match controller {
        None => String::new(),
        Some(name) => format!(
            "[[controller]]\nname = {}\npath = {}\n[controller.settings]\nsleep_enabled = \"false\"\n",
            quoted(name)?,
            quoted(&component(name)?.to_string_lossy())?,
        ),
    };
    Ok(format!(
        "[background_updates]\nsleep_enabled = false\n[[database]]\nurl = {}\n{controller}\
         [[update]]\nname = \"bench\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"b = upper(a)\"\n",
        quoted(url)?,
    ))
}

/// A process's resident memory and its peak, in MiB, as Linux tells them.
pub(super) fn memory(process: &str) -> Outcome<(f64, f64)> {
    let status = fs::read_to_string(Path::new("/proc").join(process).join("status"))?;
    let of = |name: &str| -> Outcome<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.ok_or_else(|| format!("the system does not tell {name} of a process"))?;
        let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes / 1024.0)
    };
    Ok((of("VmRSS:")?, of("VmHWM:")?))
}
