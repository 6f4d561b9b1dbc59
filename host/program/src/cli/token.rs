//! `tidegate token`.

use clap::ValueEnum;
use serde::Serialize;
use tidegate_admin::access::{Role, digest, hex, new_token};

use super::error::CliError;
use super::output;

/// Make tokens for the HTTP API
#[derive(Debug, clap::Args)]
pub(super) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    New(New),
}

/// Make a token, and print it with the lines to configure
///
/// The token is printed once, and kept nowhere: the configuration holds its SHA-256 digest. Nothing is changed until
/// the lines stand in the configuration and it is read, e.g. after SIGHUP.
#[derive(Debug, clap::Args)]
struct New {
    /// What it allows: to look, or to look and to steer
    #[arg(long, value_enum, default_value_t = RoleArgument::Viewer)]
    role: RoleArgument,

    /// What to call it, e.g. after whoever gets it; its role by default
    #[arg(long)]
    name: Option<String>,

    /// Print JSON: an object with `version` (1), `name`, `role`, `token` (shown this once) and `sha256`, its digest
    #[arg(long)]
    json: bool,
}

/// The shape of the JSON.
#[derive(Serialize)]
struct TokenReport {
    /// Grows when a key's meaning changes or a key goes; new keys may come at any time.
    version: u32,
    name: String,
    role: Role,
    token: String,
    /// The token's digest, for the configuration.
    sha256: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArgument {
    Viewer,
    Admin,
}

impl Token {
    /// Whether what is printed is for a program to read.
    pub(super) fn prints_json(&self) -> bool {
        let Command::New(new) = &self.command;
        new.json
    }

    pub(super) fn execute(self) -> Result<(), CliError> {
        let Command::New(new) = self.command;
        new.execute()
    }
}

impl New {
    fn execute(self) -> Result<(), CliError> {
        let role = match self.role {
            RoleArgument::Viewer => Role::Viewer,
            RoleArgument::Admin => Role::Admin,
        };
        let name = self.name.unwrap_or_else(|| role.to_string());
        if !is_plain(&name) {
            return Err(CliError::usage(format!("a token cannot be named {name}"))
                .hint("write it with letters, digits and -_.@, without a space"));
        }
        let token = new_token().map_err(|error| CliError::failure("cannot make a random token").because(error))?;
        let sha256 = hex(&digest(&token));
        if self.json {
            return output::print_json(&TokenReport { version: 1, name, role, token, sha256 });
        }
        output::print(&token)?;
        output::print(&format!("\n[[admin.token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\""))?;
        output::hint("keep the first line, which is shown this once, and put the others into the configuration");
        output::hint(&format!("in a file that `token_file` names it is one line: {name} {role} {sha256}"));
        Ok(())
    }
}

/// True for a name that needs no quoting, wherever it stands.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|character| character.is_alphanumeric() || "-_.@".contains(character))
}
