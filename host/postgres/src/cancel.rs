//! A request to cancel a statement, over a connection of its own, which is left open until the other end has done with it.
//!
//! `tokio-postgres` closes it at once. PgBouncer 1.18 ends, for everybody, where a client is gone before it has passed the
//! request on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Where requests for a connection go to: where it went itself, if there is no choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The one server that is named by its host.
    pub(super) fn of(config: &Config) -> Option<Self> {
        match (config.get_hosts(), config.get_hostaddrs()) {
            ([Host::Tcp(host)], []) => {
                Some(Self { host: host.clone(), port: config.get_ports().first().copied().unwrap_or(5432) })
            }
            _ => None,
        }
    }
}

/// Asks for the statement in hand to be given up.
pub(super) async fn cancel(
    token: &CancelToken,
    address: Option<&Address>,
    mut tls: MakeRustlsConnect,
) -> Result<(), tokio_postgres::Error> {
    if let Some(Address { host, port }) = address
        && let Ok(stream) = TcpStream::connect((host.as_str(), *port)).await
        && let Ok(tls) = MakeTlsConnect::<Lingering>::make_tls_connect(&mut tls, host)
    {
        return token.cancel_query_raw(Lingering(stream), tls).await;
    }
    token.cancel_query(tls).await
}

/// A stream that is shut down once the other end has closed it.
struct Lingering(TcpStream);

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 64];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
