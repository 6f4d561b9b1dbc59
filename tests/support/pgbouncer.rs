//! PgBouncer before a test's PostgreSQL server, started from the installed program. Like the servers, it does not outlive
//! its tests: a small shell waits at a pipe whose other end this process holds, and ends it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::postgres::{free_port, unprivileged_user};

/// A running PgBouncer.
pub struct Pooler {
    port: u16,
    folder: tempfile::TempDir,
    watchdog: Child,
}

impl Pooler {
    /// Starts one in this `pool_mode` before the server of the database at `url`, with more lines of its configuration.
    pub fn start(url: &str, mode: &str, lines: &str) -> Self {
        let server = url.split(['@', '/']).find(|part| part.starts_with("127.0.0.1:")).expect("a server of the tests");
        let server = server.rsplit(':').next().unwrap();
        // Between finding a free port and using it, another process may take it.
        let mut attempts = 0;
        loop {
            match Self::try_start(server, mode, lines) {
                Ok(pooler) => return pooler,
                Err(problem) => {
                    attempts += 1;
                    assert!(attempts < 3, "PgBouncer does not start: run `make setup`; {problem}");
                }
            }
        }
    }

    fn try_start(server: &str, mode: &str, lines: &str) -> Result<Self, String> {
        let port = free_port();
        let folder = tempfile::Builder::new().prefix("tg-pgb").tempdir().unwrap();
        let path = folder.path();
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {0}/users\nlogfile = {0}/log\npool_mode = {mode}\n{lines}\n",
            path.display()
        );
        fs::write(path.join("pgbouncer.ini"), configuration).unwrap();
        fs::write(path.join("users"), "\"postgres\" \"\"\n\"matrix_role\" \"\"\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut shell = Command::new("/bin/sh");
        // PgBouncer refuses root.
        if let Some((uid, gid)) = unprivileged_user() {
            chown(path, Some(uid), Some(gid)).unwrap();
            shell.uid(uid).gid(gid);
        }
        let script = "PATH=$PATH:/usr/sbin pgbouncer -q \"$1\" 2>\"$2\" & read -r _; kill $!; wait";
        shell.args(["-c", script, "sh"]).arg(path.join("pgbouncer.ini")).arg(path.join("said")).current_dir("/");
        // In a group of its own, so that a Ctrl-C at the terminal leaves it to do its work.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let watchdog = shell.spawn().expect("/bin/sh");
        let pooler = Self { port, folder, watchdog };
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if since.elapsed() > Duration::from_secs(20) {
                return Err(format!("{}{}", said(pooler.folder.path(), "said"), said(pooler.folder.path(), "log")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(pooler)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL through the pooler of the database at `url`.
    pub fn url(&self, url: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, url.rsplit('/').next().unwrap_or_default())
    }
}

fn said(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_default()
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}
