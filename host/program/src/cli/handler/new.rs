//! `tidegate handler new`.

use clap::ValueEnum;

use super::super::controller::new::template::of_handler;
use super::super::controller::new::{check_name, make, tell_files};
use super::super::error::CliError;
use super::super::output;

/// Make a folder with a transform to start from
///
/// It holds a small transform that works, the contract, a build file for the language's ordinary tool, rows to try it with,
/// and a README. It needs nothing of the folder that it is made in, and no database.
#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// The handler's name, and its folder's: small letters, digits and hyphens
    name: String,

    /// The language to write it in
    #[arg(long, value_enum)]
    language: Language,

    /// Print JSON: an object with `version` (1), `path` (the folder) and `files` (by their paths in it)
    #[arg(long)]
    pub(super) json: bool,
}

/// A language that there is a template for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
    Python,
    #[value(name = "javascript")]
    JavaScript,
}

impl Language {
    /// As people write it.
    fn title(self) -> &'static str {
        match self {
            Language::Rust => "Rust",
            Language::Python => "Python",
            Language::JavaScript => "JavaScript",
        }
    }

    /// The folder of its template.
    fn folder(self) -> &'static str {
        match self {
            Language::Rust => "transform/rust",
            Language::Python => "transform/python",
            Language::JavaScript => "transform/javascript",
        }
    }

    /// The file to change.
    fn source(self) -> &'static str {
        match self {
            Language::Rust => "src/lib.rs",
            Language::Python => "transform.py",
            Language::JavaScript => "transform.js",
        }
    }

    /// What has to be installed; everything else the build fetches.
    fn needs(self) -> &'static str {
        match self {
            Language::Rust => "rustup's target wasm32-unknown-unknown",
            Language::Python => "make and Python 3",
            Language::JavaScript => "Node.js 20 or newer",
        }
    }

    /// The commands that build it, in its folder.
    fn build(self) -> &'static [&'static str] {
        match self {
            Language::Rust => &["cargo build --release"],
            Language::Python => &["make"],
            Language::JavaScript => &["npm install", "npm run build"],
        }
    }

    /// Where the build puts the component.
    fn component(self, name: &str) -> String {
        match self {
            Language::Rust => format!("target/wasm32-unknown-unknown/release/{}.wasm", name.replace('-', "_")),
            Language::Python | Language::JavaScript => format!("{name}.wasm"),
        }
    }
}

impl New {
    pub(super) fn execute(self) -> Result<(), CliError> {
        check_name(&self.name)?;
        let files = of_handler(self.language.folder(), &self.language.component(&self.name), &self.name);
        make(&self.name, &files)?;
        if self.json {
            return tell_files(&self.name, &files);
        }
        output::print(&self.told(files.len()))
    }

    /// What was made, and what to type next.
    fn told(&self, files: usize) -> String {
        let (name, language) = (&self.name, self.language);
        let component = language.component(name);
        let build = language.build().iter().map(|command| format!("  {command}\n")).collect::<String>();
        format!(
            "{name}/: a transform in {}, {files} files; what it makes of a row is in {}\n\nNext, with {}:\n  cd {name}\n{build}  \
             tidegate handler check {component}\n  tidegate handler test {component} --rows rows.json\n\n\
             README.md in it tells where each tool comes from, and how to have an update use it.",
            language.title(),
            language.source(),
            language.needs(),
        )
    }
}
