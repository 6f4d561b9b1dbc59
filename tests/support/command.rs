//! The program as an operator runs it: in a folder of its own, to its end.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::binary::Process;

/// Longer than any of these commands takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A folder with a `tidegate.toml` in it.
pub struct Site {
    folder: tempfile::TempDir,
    /// Where compiled components are kept.
    cache: PathBuf,
}

/// How a command ended.
pub struct Told {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Site {
    pub fn new(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Self { cache: folder.path().join("cache"), folder };
        site.write("tidegate.toml", configuration);
        site
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps what is compiled where other sites do, too: for many sites with one large component.
    pub fn sharing_what_is_compiled(self) -> Self {
        Self { cache: Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"), ..self }
    }

    /// Puts a file into the folder.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.folder.path().join(name), contents).unwrap();
    }

    /// Runs `tidegate` to its end.
    pub async fn tidegate(&self, arguments: &[&str]) -> Told {
        self.told(self.command(arguments), arguments).await
    }

    /// The same as somebody whom rights to files mean something: root may write anywhere.
    pub async fn tidegate_without_privileges(&self, arguments: &[&str]) -> Told {
        let built = env!("CARGO_BIN_EXE_tidegate");
        let Some((uid, gid)) = super::postgres::unprivileged_user() else { return self.tidegate(arguments).await };
        std::fs::set_permissions(self.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        // Where the program is built they may not look.
        let here = self.path().join("tidegate");
        if !here.exists() {
            std::fs::hard_link(built, &here).or_else(|_| std::fs::copy(built, &here).map(drop)).unwrap();
        }
        let mut command = self.command_of(&here, arguments);
        command.uid(uid).gid(gid);
        self.told(command, arguments).await
    }

    async fn told(&self, command: Command, arguments: &[&str]) -> Told {
        let mut command = tokio::process::Command::from(command);
        let ended = tokio::time::timeout(DEADLINE, command.kill_on_drop(true).output()).await;
        let output = ended.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("what is printed is UTF-8");
        let code = output.status.code().unwrap_or_else(|| panic!("{arguments:?} was ended by a signal"));
        let told = Told { code, out: text(output.stdout), err: text(output.stderr) };
        assert!(!told.err.contains("panicked"), "{}", told.all());
        told
    }

    /// Starts `tidegate`.
    pub fn start(&self, arguments: &[&str]) -> Process {
        Process::start(self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_tidegate")), arguments)
    }

    fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        // Nothing of the machine's is to matter: neither what was compiled before nor how wide its terminal is.
        command.env("XDG_CACHE_HOME", &self.cache).env_remove("CACHE_DIRECTORY");
        command.env("COLUMNS", "100").env_remove("RUST_LOG");
        command
    }
}

impl Told {
    /// Everything, as a terminal would show it.
    pub fn all(&self) -> String {
        format!("{}{}exit code {}", self.out, self.err, self.code)
    }
}

/// Compares with a snapshot, what differs from run to run masked: `masks` are pairs of a regular expression and what to
/// show instead.
#[macro_export]
macro_rules! assert_told {
    ($masks:expr, $name:expr, $told:expr) => {{
        let told = $told;
        let mut settings = insta::Settings::clone_current();
        for (pattern, shown) in $crate::support::command::MASKS.iter().chain($masks) {
            settings.add_filter(pattern, *shown);
        }
        settings.bind(|| insta::assert_snapshot!($name, told));
    }};
}

/// What differs from run to run whatever the test.
pub const MASKS: &[(&str, &str)] = &[
    (r"process \d+ on \S+?(,|\n| works)", "process [pid] on [host]$1"),
    (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "[time]"),
    (r"(?:/[\w.-]+)+/\.tmp\w+", "[folder]"),
    (r"127\.0\.0\.1:\d+", "[server]"),
    (r"\b[0-9a-f]{64}\b", "[digest]"),
    // What was measured, or was not yet.
    (r"  signals: [^\n]*\n", ""),
];
