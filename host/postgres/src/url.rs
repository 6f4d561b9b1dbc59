//! A PostgreSQL URL: what `tokio-postgres` understands of it, and libpq's `sslmode` and `sslrootcert`, of which it
//! knows only a part.

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresOptions;
use super::tls::{self, Trust};
use tidegate::scheduler::database::OpenError;

/// Where a server is and how to speak with it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    /// True once it was seen that options of a session do not reach the server: a pooler is between.
    pub(super) takes_no_options: Arc<AtomicBool>,
    /// True once it was seen that each transaction runs in whatever session is free.
    pub(super) shares_sessions: Arc<AtomicBool>,
    /// True where no session is looked at: for tests alone.
    pub(super) trusting: bool,
}

/// Silence after which the other end is asked whether it is there still, and how often and how many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long what was sent may stay without an answer of the other end's network, unless the URL says otherwise.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// The same as the server is to have it: a host that is gone must not keep its locks. Where they are of no use, as on a
/// socket's file, they change nothing; where a server does not know them, it does without.
pub(super) fn server_side() -> String {
    let set = |name: &str, value: u128| format!("perform set_config('{name}', '{value}', false);");
    [
        set("tcp_keepalives_idle", KEEPALIVE_IDLE.as_secs().into()),
        set("tcp_keepalives_interval", KEEPALIVE_INTERVAL.as_secs().into()),
        set("tcp_keepalives_count", KEEPALIVE_RETRIES.into()),
        set("tcp_user_timeout", USER_TIMEOUT.as_millis()),
        // A look at the client while a statement runs: version 14 and later, on most systems.
        set("client_connection_check_interval", 2_000),
    ]
    .map(|set| format!("begin {set} exception when others then null; end;"))
    .join(" ")
}

impl Target {
    pub(super) fn parse(url: &str, options: &PostgresOptions) -> Result<Self, OpenError> {
        let (plain, ssl) = take_ssl_parameters(url)?;
        let mut config = Config::from_str(&plain).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            OpenError::Postgres(format!("{error}{}", cause.unwrap_or_default()))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(OpenError::Postgres(
                "it names no host: write one as in postgres://user@host/database, or a socket's folder as in \
                 postgres://user@%2Fvar%2Frun%2Fpostgresql/database"
                    .to_owned(),
            ));
        }
        let trust = ssl.trust()?;
        // As with libpq, encryption is no matter of a socket on the same machine.
        let local =
            !config.get_hosts().is_empty() && config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        config.ssl_mode(if local { SslMode::Disable } else { ssl.mode.on_the_wire() });
        if let (None, Some(password)) = (config.get_password(), &options.password) {
            config.password(password);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(options.connect_timeout);
        }
        if config.get_keepalives_idle() == Config::new().get_keepalives_idle() {
            config.keepalives_idle(KEEPALIVE_IDLE);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(KEEPALIVE_INTERVAL);
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(KEEPALIVE_RETRIES);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(USER_TIMEOUT);
        }
        let tls = tls::connector(&trust)?;
        Ok(Self { config, tls, takes_no_options: Arc::default(), shares_sessions: Arc::default(), trusting: false })
    }
}

impl Target {
    /// Where the server is, for messages.
    pub(super) fn server(&self) -> String {
        /// PostgreSQL's port where none is named.
        const PORT: u16 = 5432;
        let ports = self.config.get_ports();
        // One port may stand for all hosts.
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(PORT);
        let hosts = self.config.get_hosts().iter().enumerate().map(|(at, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(folder) => format!("{}, port {}", folder.display(), port(at)),
        });
        let addresses = self.config.get_hostaddrs().iter().enumerate().map(|(at, ip)| format!("{ip}:{}", port(at)));
        let named: Vec<String> = hosts.collect();
        if named.is_empty() { addresses.collect::<Vec<_>>().join(" or ") } else { named.join(" or ") }
    }
}

/// libpq's modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    fn parse(text: &str) -> Result<Self, OpenError> {
        Ok(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            other => {
                return Err(OpenError::Postgres(format!(
                    "sslmode \"{other}\" is not one of disable, prefer, require, verify-ca, verify-full"
                )));
            }
        })
    }

    /// Whether to encrypt: verifying is the connector's business.
    fn on_the_wire(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => SslMode::Require,
        }
    }
}

#[derive(Debug, Default)]
struct Ssl {
    mode: Mode,
    root_certificates: Option<String>,
}

impl Ssl {
    /// Whom to trust, as libpq has it.
    fn trust(&self) -> Result<Trust, OpenError> {
        let roots = match (self.mode, &self.root_certificates) {
            (Mode::Disable | Mode::Prefer, _) | (Mode::Require, None) => return Ok(Trust::Anybody),
            (_, Some(file)) if file != "system" => tls::roots_in_file(file)?,
            _ => tls::roots_of_system()?,
        };
        Ok(match self.mode {
            Mode::VerifyFull => Trust::Name(roots),
            _ => Trust::Chain(roots),
        })
    }
}

/// Takes the two parameters out of a URL's query.
fn take_ssl_parameters(url: &str) -> Result<(String, Ssl), OpenError> {
    let mut ssl = Ssl::default();
    let Some((before, query)) = url.split_once('?') else { return Ok((url.to_owned(), ssl)) };
    let mut others = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = percent_decode_str(value).decode_utf8();
        let value = value.map_err(|_| OpenError::Postgres(format!("the value of \"{key}\" is not UTF-8")))?;
        match key {
            "sslmode" => ssl.mode = Mode::parse(&value)?,
            "sslrootcert" => ssl.root_certificates = Some(value.into_owned()),
            "sslcert" | "sslkey" | "sslcrl" | "sslpassword" => {
                return Err(OpenError::Postgres(format!("\"{key}\" is not supported: leave it out")));
            }
            _ => others.push(parameter),
        }
    }
    if others.is_empty() {
        return Ok((before.to_owned(), ssl));
    }
    Ok((format!("{before}?{}", others.join("&")), ssl))
}
