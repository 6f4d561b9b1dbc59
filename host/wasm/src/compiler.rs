//! Compiling in a process apart, which may use so much memory and so much time and no more.
//!
//! A compiler's needs are no matter of a component's size: one function of 700 kilobytes can take all of a machine's
//! memory. Nothing within a process can take that back, so another process compiles, under limits of the system, and
//! leaves what it made in a cache, where this one finds it.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;
use wasmtime::component::Component;

use super::engine;
use super::fault;
use super::limits::Limits;
use tidegate::controller::{Callback, Fault, FaultKind};

/// How long a compilation may take. A compiler that was built without optimisation takes several times as long.
const TIME: Duration = Duration::from_secs(if cfg!(debug_assertions) { 300 } else { 60 });
/// The memory that it may have, in bytes of address space. The guest in Python, of 18 MB, has the compiler take 430 MB.
const MEMORY: u64 = 4 << 30;
/// What is read of the words that it leaves behind.
const MOST_WORDS: u64 = 16 << 10;

/// A program that compiles in a process apart.
#[derive(Debug, Clone)]
pub struct Compiler {
    program: PathBuf,
    arguments: Vec<OsString>,
    time: Duration,
}

impl Compiler {
    /// Compiles by `program`, which calls [`compile_from_stdin`] where it is given these arguments and, behind them, the
    /// stack in bytes, whether fuel is counted, and the cache's directory.
    pub fn new(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = OsString>) -> Self {
        Self { program: program.into(), arguments: arguments.into_iter().collect(), time: TIME }
    }

    /// The same with another time that a compilation may take; 60 s where nothing is said, 300 s in a debug build.
    pub fn within(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// Has a component compiled into a cache.
    pub(super) async fn compile(
        &self,
        bytes: &[u8],
        limits: &Limits,
        metered: bool,
        cache: &Path,
    ) -> Result<(), Fault> {
        let failed = |message: String| Fault { kind: FaultKind::Compilation, callback: Callback::Load, message };
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg(limits.stack_bytes.to_string()).arg(metered.to_string()).arg(cache);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|error| failed(format!("the compiler's process cannot be started: {error}")))?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let work = async {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // A child that ends early closes its end; it says why.
                    let _ = stdin.write_all(bytes).await;
                }
            };
            let read = async {
                let mut words = Vec::new();
                if let Some(stderr) = stderr {
                    let _ = stderr.take(MOST_WORDS).read_to_end(&mut words).await;
                }
                String::from_utf8_lossy(&words).into_owned()
            };
            let (status, (), words) = tokio::join!(child.wait(), write, read);
            (status, words)
        };
        let Ok((status, words)) = timeout(self.time, work).await else {
            return Err(failed(format!("it had not ended after {} s", self.time.as_secs())));
        };
        match status.map_err(|error| failed(format!("the compiler's process was lost: {error}")))? {
            status if status.success() => Ok(()),
            // What the compiler itself refuses, in its words.
            status if status.code() == Some(REFUSED) => {
                Err(fault::incompatible(&format!("the component cannot be compiled: {}", words.trim())))
            }
            status => Err(failed(self.ended(status))),
        }
    }

    /// How a process ended that its limits ended.
    fn ended(&self, status: ExitStatus) -> String {
        let (memory, time) = (MEMORY >> 20, self.time.as_secs());
        format!("the compiler's process ended ({status}); it may have {memory} MiB of memory and {time} s")
    }
}

/// The exit code of a compiler that refuses a component.
const REFUSED: i32 = 7;

/// What the process apart does: compiles the component on its standard input into a cache.
///
/// # Errors
/// The words that it is to leave on its standard error, and the code that it is to exit with.
pub fn compile_from_stdin(stack_bytes: usize, metered: bool, cache: &Path) -> Result<(), (String, i32)> {
    limit();
    let mut bytes = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|error| (format!("the component cannot be read: {error}"), 1))?;
    let limits = Limits { stack_bytes, ..Limits::default() };
    let compiled =
        engine::new(&limits, metered, Some(cache)).and_then(|engine| Component::from_binary(&engine, &bytes));
    compiled.map(drop).map_err(|error| (format!("{error:#}"), REFUSED))
}

/// Takes on the limits. What is allocated beyond them ends the process.
#[cfg(unix)]
fn limit() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let set = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    // Where the parent is gone, nobody else ends it. Several threads use up the time together.
    let _ = set(Resource::Cpu, TIME.as_secs() * 4);
    let _ = set(Resource::As, MEMORY);
    let _ = set(Resource::Core, 0);
}

#[cfg(not(unix))]
fn limit() {}
