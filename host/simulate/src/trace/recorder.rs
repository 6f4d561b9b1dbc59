//! Writing a trace. Calls go through a bounded buffer to a thread of its own, so that no disk holds a batch up: what
//! does not fit, or cannot be written, is lost, and the trace says so in its place.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::format::{CallLine, ControllerFacts, Header, Line, unix_ms};
use tidegate::controller::{Exchange, Witness};

/// Calls that may wait to be written: about a second of the fastest iterations there are.
const BUFFERED: usize = 8_192;

/// Bytes that are written at once, at most.
const AT_ONCE: usize = 64 << 10;

/// How long a disk that would not take anything is left alone.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes down every call that it sees. Clones write to the same file.
#[derive(Clone)]
pub struct Recorder {
    path: PathBuf,
    sender: Sender<Message>,
    /// Calls that found no room since the last that did.
    missed: Arc<AtomicU64>,
}

/// What goes to the thread that writes, with the calls that are missing before it.
struct Message {
    missed: u64,
    content: Content,
}

enum Content {
    Call(Arc<Exchange>),
    Reload(Vec<ControllerFacts>),
    End(oneshot::Sender<Finished>),
}

/// Why no trace can be written.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is a file of that name.
    #[error("there is a file {} already", .0.display())]
    Exists(PathBuf),
    /// The system says so.
    #[error(transparent)]
    Io(io::Error),
}

/// What became of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Finished {
    /// Calls in it.
    pub calls: u64,
    /// Calls that are missing.
    pub lost: u64,
    /// Why it could not be written to its end, where it could not.
    pub error: Option<String>,
}

impl Recorder {
    /// Begins a trace in a file that only this user can read: settings of controllers may be secret.
    ///
    /// # Errors
    /// [`CreateError::Exists`] unless `overwrite`, and whatever the system says.
    pub fn create(path: &Path, overwrite: bool, controllers: Vec<ControllerFacts>) -> Result<Self, CreateError> {
        const PRIVATE: u32 = 0o600;
        let mut options = OpenOptions::new();
        options.write(true).mode(PRIVATE);
        if overwrite {
            options.create(true).truncate(true)
        } else {
            options.create_new(true)
        };
        let file = options.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => CreateError::Exists(path.to_owned()),
            _ => CreateError::Io(error),
        })?;
        if file.metadata().map_err(CreateError::Io)?.is_file() {
            file.set_permissions(Permissions::from_mode(PRIVATE)).map_err(CreateError::Io)?;
        }
        let mut writer = Writer::new(path.to_owned(), file);
        writer.add(&Line::Header(Header::new(controllers)), 0);
        writer.flush();
        if let Some(error) = writer.error.take() {
            return Err(CreateError::Io(error));
        }
        let (sender, receiver) = mpsc::channel(BUFFERED);
        // Not one of the runtime's own: a disk that never answers must not keep the process from ending.
        let thread = thread::Builder::new().name("trace-writer".to_owned());
        thread.spawn(move || writer.run(receiver)).map_err(CreateError::Io)?;
        Ok(Self { path: path.to_owned(), sender, missed: Arc::default() })
    }

    /// Notes that the configuration was read again.
    pub fn reload(&self, controllers: Vec<ControllerFacts>) {
        self.send(Content::Reload(controllers), 0);
    }

    /// Ends the trace, and waits for it to be written, `patience` at most.
    pub async fn finish(&self, patience: Duration) -> Finished {
        let (done, finished) = oneshot::channel();
        let end = async {
            let permit = self.sender.reserve().await.ok()?;
            permit.send(Message { missed: self.missed.swap(0, Ordering::Relaxed), content: Content::End(done) });
            finished.await.ok()
        };
        let error = || Finished { error: Some("the disk does not take it in time".to_owned()), ..Finished::default() };
        timeout(patience, end).await.ok().flatten().unwrap_or_else(error)
    }

    /// Hands something on. Where there is no room it counts as so many calls that are missing.
    fn send(&self, content: Content, calls: u64) {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        if self.sender.try_send(Message { missed, content }).is_ok() {
            return;
        }
        let before = self.missed.fetch_add(missed + calls, Ordering::Relaxed);
        if before + missed == 0 {
            let path = self.path.display();
            tracing::warn!(%path, "the trace cannot be written as fast as calls are made: it will lack some");
        }
    }
}

impl Witness for Recorder {
    fn see(&self, exchange: &Arc<Exchange>) {
        self.send(Content::Call(exchange.clone()), 1);
    }
}

/// Writes lines, whole ones or none.
struct Writer {
    path: PathBuf,
    file: File,
    /// Bytes of the file that are whole lines.
    written: u64,
    /// Lines that are not written yet.
    pending: Vec<u8>,
    /// Calls among them.
    pending_calls: u64,
    /// Lost calls that they tell of.
    pending_told: u64,
    calls: u64,
    lost: u64,
    /// Lost calls that no line tells of yet.
    untold: u64,
    error: Option<io::Error>,
    /// When the last write failed.
    failed: Option<Instant>,
}

impl Writer {
    fn new(path: PathBuf, file: File) -> Self {
        Self {
            path,
            file,
            written: 0,
            pending: Vec::new(),
            pending_calls: 0,
            pending_told: 0,
            calls: 0,
            lost: 0,
            untold: 0,
            error: None,
            failed: None,
        }
    }

    /// Writes what comes until the end.
    fn run(mut self, mut receiver: Receiver<Message>) {
        while let Some(Message { missed, content }) = receiver.blocking_recv() {
            self.miss(missed);
            match content {
                Content::Call(exchange) => self.add(&Line::Call(Box::new(CallLine::from(&*exchange))), 1),
                Content::Reload(controllers) => {
                    self.add(&Line::Reload { at_ms: unix_ms(SystemTime::now()), controllers }, 0);
                }
                Content::End(done) => {
                    // Whoever waited may have given up.
                    let _ = done.send(self.end());
                    return;
                }
            }
            if receiver.is_empty() || self.pending.len() >= AT_ONCE {
                self.flush();
            }
        }
        self.end();
    }

    fn miss(&mut self, calls: u64) {
        self.lost = self.lost.saturating_add(calls);
        self.untold = self.untold.saturating_add(calls);
    }

    fn add(&mut self, line: &Line, calls: u64) {
        if self.failed.is_some_and(|at| at.elapsed() < PATIENCE) {
            return self.miss(calls);
        }
        let untold = std::mem::take(&mut self.untold);
        if untold > 0 {
            self.push(&Line::Lost { calls: untold });
            self.pending_told += untold;
        }
        self.push(line);
        self.pending_calls += calls;
    }

    fn push(&mut self, line: &Line) {
        // What is a line can be written as JSON.
        if serde_json::to_writer(&mut self.pending, line).is_ok() {
            self.pending.push(b'\n');
        }
    }

    /// Writes what is pending. Where that fails, nothing of it is left in the file.
    fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.pending);
        let calls = std::mem::take(&mut self.pending_calls);
        let told = std::mem::take(&mut self.pending_told);
        match self.file.write_all(&bytes) {
            Ok(()) => {
                self.written += bytes.len() as u64;
                self.calls += calls;
                self.failed = None;
            }
            Err(error) => {
                if self.failed.is_none() {
                    tracing::warn!(path = %self.path.display(), %error, "the trace cannot be written: it will lack calls");
                }
                // Where the file cannot be cut (a pipe), its reader sees half a line.
                let _ = self.file.set_len(self.written);
                let _ = self.file.seek(SeekFrom::Start(self.written));
                self.untold = self.untold.saturating_add(told);
                self.miss(calls);
                self.failed = Some(Instant::now());
                self.error = Some(error);
            }
        }
    }

    fn end(mut self) -> Finished {
        self.flush();
        // The last try: who frees room on a disk may have done so.
        self.failed = None;
        let (calls, lost) = (self.calls, self.lost);
        self.error = None;
        self.add(&Line::End { at_ms: unix_ms(SystemTime::now()), calls, lost }, 0);
        self.flush();
        Finished { calls, lost, error: self.error.map(|error| error.to_string()) }
    }
}
