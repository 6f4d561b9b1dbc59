//! What a controller writes: through `log.write`, and on standard output and standard error.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Level;

use super::limits::Limits;
use super::target;
use super::text::printable;

/// The window in which lines are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// A line that a controller wrote: one line indeed, with no control character in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The controller's name in the configuration.
    pub controller: String,
    /// The database whose updates it paces.
    pub database: String,
    /// How grave it is; what is printed has none of its own and counts as [`Level::INFO`].
    pub level: Level,
    /// Where it was written.
    pub source: LogSource,
    /// What it says.
    pub text: String,
}

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogSource {
    /// `log.write` of the contract.
    Log,
    /// WASI's standard output.
    Stdout,
    /// WASI's standard error.
    Stderr,
    /// The sandbox itself: how many lines it dropped.
    Sandbox,
}

impl fmt::Display for LogSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogSource::Log => "log",
            LogSource::Stdout => "stdout",
            LogSource::Stderr => "stderr",
            LogSource::Sandbox => "sandbox",
        })
    }
}

/// Takes the lines that controllers write. Called from inside a guest's call: it must not block.
pub trait LogSink: Send + Sync {
    /// Takes one line.
    fn line(&self, line: LogLine);
}

/// Hands lines on to `tracing`, each controller's with a target of its own: `tidegate::controller::` and its name.
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingSink;

impl LogSink for TracingSink {
    fn line(&self, line: LogLine) {
        target::trace(&line, "controller");
    }
}

/// Drops everything: for instances that are started only to see whether they start.
pub(super) struct Discard;

impl LogSink for Discard {
    fn line(&self, _line: LogLine) {}
}

/// One instance's way to the log; lets through as many lines a second as it may write.
#[derive(Clone)]
pub(super) struct Log(Arc<Mutex<Gate>>);

struct Gate {
    sink: Arc<dyn LogSink>,
    controller: String,
    database: String,
    lines_per_second: u32,
    line_bytes: usize,
    window_start: Instant,
    lines_in_window: u32,
    /// Lines that were dropped and are not told of yet.
    dropped: u64,
    /// True where dropped lines were told of in this window.
    told: bool,
}

impl Log {
    pub(super) fn new(sink: Arc<dyn LogSink>, controller: &str, database: &str, limits: &Limits) -> Log {
        Log(Arc::new(Mutex::new(Gate {
            sink,
            controller: controller.to_owned(),
            database: database.to_owned(),
            lines_per_second: limits.log_lines_per_second,
            line_bytes: limits.log_line_bytes,
            window_start: Instant::now(),
            lines_in_window: 0,
            dropped: 0,
            told: false,
        })))
    }

    pub(super) fn write(&self, level: Level, source: LogSource, text: &str) {
        self.gate(|gate| gate.write(Instant::now(), level, source, text));
    }

    /// Tells of the lines that a call dropped, now that it is over: its next one may be hours away. Once a second at most;
    /// what more is dropped in that second is told of later.
    pub(super) fn catch_up(&self) {
        self.gate(|gate| {
            // What time it is matters to nobody else.
            if gate.dropped > 0 {
                gate.catch_up(Instant::now());
            }
        });
    }

    fn gate(&self, work: impl FnOnce(&mut Gate)) {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Gate {
    fn write(&mut self, now: Instant, level: Level, source: LogSource, text: &str) {
        self.roll(now);
        if self.lines_in_window >= self.lines_per_second {
            self.dropped += 1;
            return;
        }
        self.lines_in_window += 1;
        self.send(level, source, printable(text, self.line_bytes));
    }

    /// Opens a new window where the last one is over.
    fn roll(&mut self, now: Instant) {
        if now.duration_since(self.window_start) < WINDOW {
            return;
        }
        self.window_start = now;
        self.lines_in_window = 0;
        self.told = false;
        self.tell_of_dropped();
    }

    fn catch_up(&mut self, now: Instant) {
        self.roll(now);
        if !self.told {
            self.tell_of_dropped();
        }
    }

    fn tell_of_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            self.told = true;
            let lines = if dropped == 1 { "line" } else { "lines" };
            let text = format!("… {dropped} {lines} dropped, more than {} in a second", self.lines_per_second);
            self.send(Level::WARN, LogSource::Sandbox, text);
        }
    }

    fn send(&self, level: Level, source: LogSource, text: String) {
        self.sink.line(LogLine {
            controller: self.controller.clone(),
            database: self.database.clone(),
            level,
            source,
            text,
        });
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.tell_of_dropped();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    impl LogSink for Kept {
        fn line(&self, line: LogLine) {
            self.0.lock().unwrap().push(line.text);
        }
    }

    fn log(lines_per_second: u32) -> (Arc<Kept>, Log) {
        let kept = Arc::new(Kept::default());
        let limits = Limits { log_lines_per_second: lines_per_second, ..Limits::default() };
        (kept.clone(), Log::new(kept, "paced", "master", &limits))
    }

    #[test]
    fn the_next_second_tells_how_many_lines_the_last_one_dropped() {
        let (kept, log) = log(2);
        log.gate(|gate| {
            let start = gate.window_start;
            for (ms, text) in [(0, "a"), (1, "b"), (2, "c"), (3, "d"), (1_500, "e")] {
                gate.write(start + Duration::from_millis(ms), Level::INFO, LogSource::Log, text);
            }
        });
        assert_eq!(*kept.0.lock().unwrap(), ["a", "b", "… 2 lines dropped, more than 2 in a second", "e"]);
    }

    #[test]
    fn an_instance_that_goes_away_leaves_no_dropped_line_untold() {
        let (kept, log) = log(0);
        log.write(Level::INFO, LogSource::Log, "a");
        drop(log);
        assert_eq!(*kept.0.lock().unwrap(), ["… 1 line dropped, more than 0 in a second"]);
    }

    #[test]
    fn the_end_of_a_call_tells_how_many_lines_it_dropped_once_a_second() {
        let (kept, log) = log(1);
        log.gate(|gate| {
            let start = gate.window_start;
            for ms in [0, 100, 200, 1_100] {
                let now = start + Duration::from_millis(ms);
                (0..3).for_each(|_| gate.write(now, Level::INFO, LogSource::Log, "a"));
                gate.catch_up(now);
            }
        });
        let (two, six) = ("… 2 lines dropped, more than 1 in a second", "… 6 lines dropped, more than 1 in a second");
        assert_eq!(*kept.0.lock().unwrap(), ["a", two, six, "a"]);
        drop(log);
        assert_eq!(kept.0.lock().unwrap().last().unwrap(), two);
    }

    #[test]
    fn a_line_reaches_tracing_with_its_level_and_who_wrote_it() {
        #[derive(Clone, Default)]
        struct Written(Arc<Mutex<Vec<u8>>>);

        impl std::io::Write for Written {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        let written = Written::default();
        let writer = written.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).without_time().finish();
        tracing::subscriber::with_default(subscriber, || {
            let log = Log::new(Arc::new(TracingSink), "paced", "master", &Limits::default());
            log.write(Level::WARN, LogSource::Stderr, "panicked");
        });
        let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written, " WARN tidegate::controller::paced: panicked database=\"master\" source=stderr\n");
    }
}
