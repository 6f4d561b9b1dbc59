//! PostgreSQL servers for tests, started from installed binaries: one shared by all tests of a process, each with a
//! database of its own, and private ones for tests that stop or break them.
//!
//! A server must not outlive its tests, however these end. So a small shell, started first, waits at a pipe whose
//! other end this process holds; when that closes, by whatever cause, the shell stops the server and removes its files.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The server that all tests of this process share.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&Settings::default()))
}

/// How a server is set up.
#[derive(Default)]
pub struct Settings {
    /// True where what it commits has to survive the machine; slow.
    pub fsync: bool,
    /// Lines of `postgresql.conf`, as name and value.
    pub parameters: Vec<(&'static str, String)>,
    /// Files in the data directory, readable by the server alone.
    pub files: Vec<(&'static str, String)>,
}

/// A running PostgreSQL.
pub struct Server {
    programs: PathBuf,
    user: Option<User>,
    folder: PathBuf,
    pub port: u16,
    databases: AtomicU32,
    watchdog: Child,
}

/// Whom the server runs as, where this process is root: PostgreSQL refuses root.
#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl Server {
    /// Makes a cluster and starts it.
    pub fn start(settings: &Settings) -> Self {
        Self::start_with(|server| server.make_cluster(settings))
    }

    /// Makes a standby that streams from this server, with `pg_basebackup`, and starts it.
    pub fn replica(&self) -> Self {
        let source = self.url("postgres");
        Self::start_with(|server| {
            let mut backup = server.command("pg_basebackup");
            backup.args(["-d", &source, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-D"]).arg(server.data());
            finish(backup).expect("pg_basebackup");
        })
    }

    fn start_with(make: impl FnOnce(&Self)) -> Self {
        let programs = programs().expect("PostgreSQL's binaries were not found: run `make setup`");
        let user = unprivileged_user().map(|(uid, gid)| User { uid, gid });
        let folder = tempfile::Builder::new().prefix("tg-pg").tempdir().unwrap().keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        if let Some(User { uid, gid }) = user {
            chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        let watchdog = watchdog(&programs, user, &folder);
        let mut server = Self { programs, user, folder, port: 0, databases: AtomicU32::new(0), watchdog };
        make(&server);
        // Between finding a free port and using it, another process may take it.
        let mut attempts = 0;
        while let Err(problem) = server.try_start_at(free_port()) {
            attempts += 1;
            assert!(attempts < 5, "PostgreSQL does not start: {problem}");
        }
        server
    }

    fn make_cluster(&self, settings: &Settings) {
        let data = self.data();
        let mut initdb = self.command("initdb");
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        finish(initdb).expect("initdb");
        let mut lines =
            String::from("listen_addresses = '127.0.0.1'\nmax_connections = 200\ndeadlock_timeout = 50ms\n");
        lines += &format!("unix_socket_directories = '{}'\n", self.folder.display());
        if !settings.fsync {
            lines += "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n";
            // A gigabyte of old log by default.
            lines += "min_wal_size = 32MB\nmax_wal_size = 128MB\n";
        }
        for (name, value) in &settings.parameters {
            lines += &format!("{name} = '{value}'\n");
        }
        fs::write(data.join("postgresql.auto.conf"), lines).unwrap();
        for (name, contents) in &settings.files {
            let path = data.join(name);
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if let Some(User { uid, gid }) = self.user {
                chown(&path, Some(uid), Some(gid)).unwrap();
            }
        }
    }

    fn try_start_at(&mut self, port: u16) -> Result<(), String> {
        self.port = port;
        self.try_start()
    }

    fn try_start(&self) -> Result<(), String> {
        let mut start = self.command("pg_ctl");
        start.arg("start").arg("-D").arg(self.data()).arg("-l").arg(self.log());
        start.args(["-w", "-s", "-o", &format!("-p {}", self.port)]);
        finish(start).map_err(|problem| format!("{problem}\n{}", fs::read_to_string(self.log()).unwrap_or_default()))
    }

    /// One of PostgreSQL's own programs, e.g. "pgbench".
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Starts it again after [`Server::stop`] or [`Server::kill`].
    pub fn start_again(&self) {
        // The processes of a killed server may be dying still.
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(problem) = self.try_start() {
            assert!(Instant::now() < deadline, "PostgreSQL does not start again: {problem}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Gives a folder to the server.
    pub fn hand_over(&self, folder: &Path) {
        if let Some(User { uid, gid }) = self.user {
            chown(folder, Some(uid), Some(gid)).unwrap();
        }
    }

    /// Stops it in good order, ending all connections.
    pub fn stop(&self) {
        self.stop_in("fast");
    }

    /// Ends it as a crash would.
    pub fn kill(&self) {
        self.stop_in("immediate");
    }

    fn stop_in(&self, mode: &str) {
        let mut stop = self.command("pg_ctl");
        stop.arg("stop").arg("-D").arg(self.data()).args(["-w", "-s", "-m", mode]);
        finish(stop).expect("pg_ctl stop");
    }

    /// A new, empty database, there as long as the server.
    pub async fn database(&self) -> TestDatabase {
        TestDatabase { url: self.url(&self.create_database().await), removal: None }
    }

    /// A new, empty database, removed when what comes back is dropped: by then, this server has to answer.
    pub async fn passing_database(&self) -> TestDatabase {
        let name = self.create_database().await;
        let mut removal = self.command("dropdb");
        removal.args(["--force", "--host", "127.0.0.1", "--username", "postgres", "--port"]).arg(self.port.to_string());
        removal.arg(&name).env("PGCONNECT_TIMEOUT", "10").stdout(Stdio::null()).stderr(Stdio::null());
        TestDatabase { url: self.url(&name), removal: Some(removal) }
    }

    async fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        connect(&self.url("postgres")).await.batch_execute(&format!("create database {name}")).await.unwrap();
        name
    }

    /// The URL of the database on this server that has the name of another server's.
    pub fn url_of(&self, elsewhere: &str) -> String {
        self.url(elsewhere.rsplit('/').next().unwrap_or_default())
    }

    /// A connection to the database on this server that has the name of another server's.
    pub async fn connect_to(&self, elsewhere: &str) -> tokio_postgres::Client {
        connect(&self.url_of(elsewhere)).await
    }

    /// Runs `pgbench` on a database.
    pub fn pgbench(&self, url: &str, arguments: &[&str]) -> Child {
        let mut pgbench = self.command("pgbench");
        pgbench.args(arguments).arg(url).stdout(Stdio::null()).stderr(Stdio::null());
        pgbench.spawn().expect("pgbench")
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn command(&self, program: &str) -> Command {
        command(self.program(program), self.user)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// A database of a test's own.
pub struct TestDatabase {
    pub url: String,
    removal: Option<Command>,
}

impl TestDatabase {
    /// One that is there, and stays.
    pub fn at(url: String) -> Self {
        Self { url, removal: None }
    }

    /// A connection that owes nothing to the drivers.
    pub async fn connect(&self) -> tokio_postgres::Client {
        connect(&self.url).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Some(removal) = &mut self.removal {
            let _ = removal.status();
        }
    }
}

/// A connection that owes nothing to the drivers.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The folder of PostgreSQL's programs: `PG_BIN`, or the first of `PATH`, or the newest of Debian's.
fn programs() -> Option<PathBuf> {
    let here = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("pg_ctl").is_file();
    if let Some(folder) = std::env::var_os("PG_BIN") {
        return Some(PathBuf::from(folder)).filter(here);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // What is in `PATH` may be a link to one of them alone.
    let home = |folder: PathBuf| Some(fs::canonicalize(folder.join("initdb")).ok()?.parent()?.to_owned());
    let found = std::env::split_paths(&path).find(here).and_then(home).filter(here);
    found.or_else(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok).map(|entry| entry.path());
        let version = |path: &PathBuf| path.file_name().and_then(OsStr::to_str)?.parse::<u32>().ok();
        versions.map(|path| (version(&path), path.join("bin"))).filter(|(_, bin)| here(bin)).max().map(|(_, bin)| bin)
    })
}

/// The number and group of the user `postgres`, else `nobody`, where this process is root.
pub fn unprivileged_user() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    if fs::metadata("/proc/self").map_or(1, |process| process.uid()) != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let find = |name: &str| {
        let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = fields.find(|fields| fields.first() == Some(&name))?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("root needs a user `postgres` or `nobody`"))
}

/// A port on which nobody listens.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn watchdog(programs: &Path, user: Option<User>, folder: &Path) -> Child {
    let script = "read -r _; \"$1/pg_ctl\" stop -D \"$2/data\" -m immediate -w -s; rm -rf \"$2\"";
    let mut shell = command("/bin/sh", user);
    shell.args(["-c", script, "sh"]).arg(programs).arg(folder);
    // In a group of its own, so that a Ctrl-C at the terminal leaves it to do its work.
    shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().expect("/bin/sh")
}

fn command(program: impl AsRef<OsStr>, user: Option<User>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
    if let Some(User { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Runs a command to its end. What it says goes to a file: a server that it starts would keep a pipe open.
fn finish(mut command: Command) -> Result<(), String> {
    let said = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let copy = |file: &fs::File| -> io::Result<Stdio> { Ok(file.try_clone()?.into()) };
    let (out, err) = (copy(said.as_file()), copy(said.as_file()));
    command.stdout(out.map_err(|e| e.to_string())?).stderr(err.map_err(|e| e.to_string())?);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{status}: {}", fs::read_to_string(said.path()).unwrap_or_default())),
        Err(error) => Err(error.to_string()),
    }
}
