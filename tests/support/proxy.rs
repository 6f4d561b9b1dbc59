//! A way to a server that can fall silent, as a network does that drops all packets: nothing is closed, and nothing
//! arrives.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What passes everything on until it is told not to.
pub struct Proxy {
    port: u16,
    silent: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts one before the server at this port of the loopback.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = Arc::new(watch::Sender::new(false));
        let told = Arc::clone(&silent);
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                let told = told.subscribe();
                tokio::spawn(async move {
                    let mut waiting = told.clone();
                    let _ = waiting.wait_for(|silent| !silent).await;
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let ((from, to), (back, answers)) = (client.into_split(), server.into_split());
                    tokio::join!(pass(from, answers, told.clone()), pass(back, to, told));
                });
            }
        });
        Self { port, silent, task }
    }

    /// The same URL by way of this.
    pub fn url(&self, url: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, url.rsplit('/').next().unwrap_or_default())
    }

    /// Passes nothing on any more, or all again, what was sent meanwhile first.
    pub fn silence(&self, silent: bool) {
        self.silent.send_replace(silent);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut silent: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 65_536];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        if silent.wait_for(|silent| !silent).await.is_err() {
            return;
        }
        if read == 0 || to.write_all(&bytes[..read]).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
