//! The program itself, run as a user runs it: in a folder with a configuration, watched by what it prints, ended by
//! signals.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::place::Place;

/// How often a program is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// A folder with a configuration.
pub struct Folder {
    folder: tempfile::TempDir,
    /// Whom commands run as, where not as the tests themselves.
    user: Option<(u32, u32)>,
}

impl Folder {
    /// With one database, `master`, at this place. `background` is what stands under `[background_updates]`, `database`
    /// what stands under `[[database]]` beside its name and URL, `updates` the rest of the file.
    pub fn new(place: &Place, background: &str, database: &str, updates: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = toml::Value::from(place.url.as_str());
        let text = format!(
            "[background_updates]\n{background}\n[[database]]\nname = \"master\"\nurl = {url}\n{database}\n{updates}"
        );
        std::fs::write(folder.path().join("tidegate.toml"), text).unwrap();
        Self { folder, user: None }
    }

    /// The same, its commands run by somebody whom rights to files mean something: root may write anywhere.
    pub fn without_privileges(mut self) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(self.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        self.user = super::postgres::unprivileged_user();
        if self.user.is_some() {
            // Where the program is built they may not look.
            let (built, here) = (env!("CARGO_BIN_EXE_tidegate"), self.folder.path().join("tidegate"));
            std::fs::hard_link(built, &here).or_else(|_| std::fs::copy(built, &here).map(drop)).unwrap();
        }
        self
    }

    /// Gives a file or folder to whom commands run as.
    pub fn hand_over(&self, path: &std::path::Path) {
        if let Some((uid, gid)) = self.user {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    /// Puts one text into the configuration in place of another.
    pub fn reconfigure(&self, from: &str, to: &str) {
        let file = self.path().join("tidegate.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(file, text.replace(from, to)).unwrap();
    }

    /// Puts a file into the folder.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), contents).unwrap();
    }

    /// Runs a command to its end; returns what it printed, and its exit code.
    pub async fn tidegate(&self, arguments: &[&str]) -> (String, i32) {
        let mut process = self.start(arguments);
        let code = process.end(Duration::from_secs(30)).await;
        (process.said(), code)
    }

    /// Starts a command.
    pub fn start(&self, arguments: &[&str]) -> Process {
        self.start_with(arguments, &[])
    }

    /// Starts a command with variables in its environment.
    pub fn start_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        Process::start(command)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration as it is now.
    pub fn configuration(&self) -> String {
        std::fs::read_to_string(self.path().join("tidegate.toml")).unwrap()
    }

    /// Writes another configuration.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.path().join("tidegate.toml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let own = self.folder.path().join("tidegate");
        let mut command = if own.exists() { Command::new(own) } else { Command::new(env!("CARGO_BIN_EXE_tidegate")) };
        command.current_dir(self.folder.path()).args(arguments).env("COLUMNS", "100").stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// Gathers the lines of a stream.
fn listen(stream: impl Read + Send + 'static, said: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            said.lock().unwrap().push(line);
        }
    })
}

/// A running program. Dropped, it is killed.
pub struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    listeners: Vec<JoinHandle<()>>,
}

impl Process {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::default();
        let listeners = vec![listen(child.stdout.take().unwrap(), &said), listen(child.stderr.take().unwrap(), &said)];
        Self { child, said, listeners }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// How it ended, once it has; all that it printed is gathered by then.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap()?;
        self.listeners.drain(..).for_each(|listener| listener.join().unwrap());
        Some(status)
    }

    /// Waits for it to print something.
    pub async fn says(&mut self, words: &str, within: Duration) {
        self.repeats(words, 1, within).await;
    }

    /// Waits for it to have printed something so many times.
    pub async fn repeats(&mut self, words: &str, times: usize, within: Duration) {
        let since = Instant::now();
        loop {
            let ended = self.ended();
            if self.said().matches(words).count() >= times {
                return;
            }
            assert!(ended.is_none(), "ended without \"{words}\", {}: {}", ended.unwrap(), self.said());
            assert!(since.elapsed() < within, "no \"{words}\" within {within:?}: {}", self.said());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name: `TERM`, `INT`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.id());
        assert!(Command::new("/bin/sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
    }

    /// Waits until it ends by itself; returns its exit code.
    pub async fn end(&mut self, within: Duration) -> i32 {
        let since = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status.code().unwrap_or_else(|| panic!("{status}: {}", self.said()));
            }
            assert!(since.elapsed() < within, "no end within {within:?}: {}", self.said());
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
