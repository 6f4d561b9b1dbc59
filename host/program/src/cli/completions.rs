//! `tidegate completions`, and the hidden `tidegate reference`: what can be told from the definition of the command
//! line alone.

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;

use super::error::{CliError, EXIT_CODES};
use super::{Cli, output};

/// Print a script with which a shell completes this command line
///
/// For bash, as an example: `tidegate completions bash > /etc/bash_completion.d/tidegate`.
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

/// Print the reference of the command line, docs/cli.md
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct Reference {}

impl Completions {
    pub(super) fn execute(&self) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut shown(&Cli::command()), "tidegate", &mut script);
        output::print_raw(&String::from_utf8_lossy(&script))
    }
}

impl Reference {
    pub(super) fn execute(&self) -> Result<(), CliError> {
        output::print_raw(&reference())
    }
}

/// The command line without what is hidden, which the scripts would offer all the same.
fn shown(root: &Command) -> Command {
    let commands = root.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    Command::new("tidegate").args(root.get_arguments().cloned()).subcommands(commands)
}

/// The reference, as Markdown.
fn reference() -> String {
    let mut root = Cli::command();
    root.build();
    let mut parts = vec![
        "<!-- Made from the program by `INSTA_UPDATE=always cargo test the_reference`: change the help there. -->\n\n\
         # The command line"
            .to_owned(),
        format!("{}\n\n```text\n{}\n```", told(&root), root.render_usage()),
        "Options of every command:".to_owned(),
        list(&root, |argument| argument.is_global_set()),
    ];
    let shown = |command: &&mut Command| !command.is_hide_set() && command.get_name() != "help";
    for command in root.get_subcommands_mut().filter(shown) {
        parts.extend(section(command, "##"));
        for command in command.get_subcommands_mut().filter(shown) {
            parts.extend(section(command, "###"));
        }
    }
    let codes: Vec<&str> = EXIT_CODES.lines().skip(1).map(str::trim).collect();
    parts.push(format!("## Exit codes\n\n```text\n{}\n```", codes.join("\n")));
    parts.push(
        "## Output\n\nResults go to standard output, everything about them to standard error. What `--json` prints is \
         described in [json.md](json.md)."
            .to_owned(),
    );
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n") + "\n"
}

/// What there is to know of a command.
fn section(command: &mut Command, heading: &str) -> [String; 4] {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    [
        format!("{heading} `{name}`"),
        told(command),
        format!("```text\n{}\n```", command.render_usage()),
        list(command, |argument| !argument.is_global_set()),
    ]
}

/// What a command does, in its own words.
fn told(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about());
    about.map(ToString::to_string).unwrap_or_default().trim().to_owned()
}

/// A command's arguments, one a line.
fn list(command: &Command, wanted: impl Fn(&Arg) -> bool) -> String {
    let told = |argument: &Arg| !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version");
    let arguments = command.get_arguments().filter(|argument| told(argument) && wanted(argument));
    arguments.map(line).collect::<Vec<_>>().join("\n")
}

fn line(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line = format!("- `{argument}`: {}", help.trim_end_matches('.'));
    let values = argument.get_possible_values();
    if argument.get_action().takes_values() && !values.is_empty() {
        let values: Vec<String> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
        line += &format!("; one of {}", values.join(", "));
    }
    if let Some(default) = argument.get_default_values().first().filter(|_| argument.get_action().takes_values()) {
        line += &format!("; by default `{}`", default.to_string_lossy());
    }
    line
}
