//! A guest's standard output and standard error, as lines of the log.

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

/// What a guest may write at once; it asks again for more.
const PERMIT_BYTES: usize = 64 << 10;

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
}

impl Lines {
    pub(super) fn new(log: Log, source: LogSource, line_bytes: usize) -> Lines {
        // A few more than will be shown, so that the log sees that there was more.
        let limit = line_bytes.saturating_add(4);
        Lines(Arc::new(Mutex::new(Partial { log, source, line: Vec::new(), limit })))
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
