//! Listening and serving, within limits on what a client may take.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use super::api::Problem;
use super::name::ReachedAt;

/// What a client may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Connections at once, over all listeners; more wait to be accepted.
    pub connections: usize,
    /// How long a request's head may take to arrive, and an idle connection stays open.
    pub header_timeout: Duration,
    /// How long an answer may take to begin, and a client to take what it is sent.
    pub request_timeout: Duration,
    /// How long open connections are waited for when the host stops.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 50 << 20,
            header_bytes: 64 << 10,
            connections: 1_024,
            header_timeout: Duration::from_millis(30_000),
            request_timeout: Duration::from_millis(60_000),
            shutdown_grace: Duration::from_millis(2_000),
        }
    }
}

/// Where clients connect.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP, at this address.
    Tcp(TcpListener, SocketAddr),
    /// Over a socket in the file system, removed when the listener is dropped.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens on an address; port 0 has the system choose one.
    ///
    /// # Errors
    /// E.g. an address in use.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Listener::Tcp(listener, address))
    }

    /// Listens on a Unix socket that only this user and this user's group can open. A socket that a killed host left
    /// behind is replaced.
    ///
    /// # Errors
    /// E.g. a socket that another process listens on, or a file there that is no socket.
    pub fn unix(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        if let Ok(metadata) = fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of that name"));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it"));
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        let file = SocketFile(path.to_owned());
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        Ok(Listener::Unix(listener, file))
    }

    /// Where it listens, for a person.
    pub fn describe(&self) -> String {
        match self {
            Listener::Tcp(_, address) => format!("http://{address}"),
            Listener::Unix(_, file) => format!("unix:{}", file.0.display()),
        }
    }
}

/// Serves on all listeners until `shutdown` resolves, then lets what is being answered be answered.
pub async fn serve(
    router: Router,
    listeners: Vec<Listener>,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send + Clone + 'static,
) {
    let router = router
        .layer(middleware::from_fn_with_state(limits.request_timeout, in_time))
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .layer(Extension(limits.clone()));
    let slots = Arc::new(Semaphore::new(limits.connections.min(connections_possible())));
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let router = match &listener {
            Listener::Tcp(_, address) => router.clone().layer(Extension(ReachedAt(address.ip()))),
            Listener::Unix(..) => router.clone(),
        };
        let (limits, slots) = (limits.clone(), slots.clone());
        let shutdown = shutdown.clone();
        tasks.spawn(accept(listener, router, limits, slots, shutdown));
    }
    while tasks.join_next().await.is_some() {}
}

/// Connections that leave the rest of the host the open files that it needs. As many files as the system lets this
/// process open are asked for first.
fn connections_possible() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// Files for databases, signals, controllers and logs.
    const OTHERS: u64 = 128;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Refused, it stays as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = getrlimit(Resource::Nofile).current;
    files.map_or(usize::MAX, |files| usize::try_from(files.saturating_sub(OTHERS).max(1)).unwrap_or(usize::MAX))
}

/// Answers in the handler's place where that takes too long.
async fn in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::too_slow(limit.as_millis()).into_response(),
    }
}

/// How often it is told that connections cannot be accepted.
const REFUSALS_TOLD: Duration = Duration::from_secs(10);

async fn accept(
    listener: Listener,
    router: Router,
    limits: Limits,
    slots: Arc<Semaphore>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut refused = None;
    loop {
        let next = async {
            let accepted = match &listener {
                Listener::Tcp(listener, _) => listener.accept().await.map(|(stream, _)| bounded(stream, &limits)),
                Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| bounded(stream, &limits)),
            };
            // Only who has a connection takes a slot, so that a listener nobody uses takes none. Nobody closes it.
            (slots.clone().acquire_owned().await.ok(), accepted)
        };
        tokio::select! {
            (slot, accepted) = next => match accepted {
                Ok(stream) => {
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(limits.header_timeout)
                        .max_buf_size(limits.header_bytes)
                        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
                    let connection = graceful.watch(connection);
                    connections.spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "a client's connection ended badly");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    if refused.is_none_or(|at: Instant| at.elapsed() >= REFUSALS_TOLD) {
                        tracing::warn!(%error, "connections cannot be accepted");
                        refused = Some(Instant::now());
                    }
                    // Most likely too many files are open: others have to be closed first.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            () = &mut shutdown => break,
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    if tokio::time::timeout(limits.shutdown_grace, graceful.shutdown()).await.is_err() {
        tracing::debug!("connections that stayed open were cut off");
    }
}

/// A connection whose client has to take what it is sent: who reads nothing would keep it open for ever.
fn bounded(stream: impl Stream + 'static, limits: &Limits) -> std::pin::Pin<Box<dyn Stream>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.request_timeout));
    Box::pin(stream)
}

/// What bytes go over.
trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}
