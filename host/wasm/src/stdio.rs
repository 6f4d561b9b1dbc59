//! A guest's standard output and standard error, as lines of the log.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tracing::Level;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::log::{Log, LogSource};
use super::text::printable;

/// What a guest may write at once; it asks again for more.
const PERMIT_BYTES: usize = 64 << 10;

/// Lines of one call that are kept for whoever asks what a guest wrote last, and bytes of each.
const LAST_LINES: usize = 8;
const LAST_LINE_BYTES: usize = 500;

/// What Rust's panics end with, and nobody can follow in here.
const NO_HELP: &str = "note: run with `RUST_BACKTRACE=1`";

/// A stream of bytes that ends up in the log, line by line.
#[derive(Clone)]
pub(super) struct Lines(Arc<Mutex<Partial>>);

/// The line that has no end yet.
struct Partial {
    log: Log,
    source: LogSource,
    line: Vec<u8>,
    /// Bytes of a line that are kept; the log cuts it to as many, and marks the cut.
    limit: usize,
    /// The last lines of the call in hand.
    last: VecDeque<String>,
}

impl Lines {
    pub(super) fn new(log: Log, source: LogSource, line_bytes: usize) -> Lines {
        // A few more than will be shown, so that the log sees that there was more.
        let limit = line_bytes.saturating_add(4);
        Lines(Arc::new(Mutex::new(Partial { log, source, line: Vec::new(), limit, last: VecDeque::new() })))
    }

    fn push(&self, bytes: &[u8]) {
        let mut partial = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    partial.keep(end);
                    partial.send();
                }
                None => partial.keep(piece),
            }
        }
    }

    /// Forgets what was written last.
    pub(super) fn begin_call(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last.clear();
    }

    /// The last lines of the call, in one.
    pub(super) fn last_words(&self) -> String {
        let partial = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Vec::from_iter(partial.last.iter().map(String::as_str)).join(" ")
    }

    /// Ends a line that the guest left without an end.
    pub(super) fn finish(&self) {
        let mut partial = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !partial.line.is_empty() {
            partial.send();
        }
    }
}

impl Partial {
    fn keep(&mut self, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn send(&mut self) {
        let line = mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        self.log.write(Level::INFO, self.source, text.trim_end_matches('\r'));
        let words = text.trim();
        if !words.is_empty() && !words.starts_with(NO_HELP) {
            if self.last.len() == LAST_LINES {
                self.last.pop_front();
            }
            self.last.push_back(printable(words, LAST_LINE_BYTES));
        }
    }
}

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    /// The default goes through a task of its own, and the lines would come after the call that wrote them.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT_BYTES)
    }
}

impl AsyncWrite for Lines {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
