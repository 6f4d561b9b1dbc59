//! The languages that there is a template for.

use clap::ValueEnum;

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    Rust,
    C,
    #[value(name = "javascript")]
    JavaScript,
    Python,
    #[value(name = "assemblyscript")]
    AssemblyScript,
    Go,
    Zig,
    Wat,
}

impl Language {
    /// As people write it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Language::Rust => "Rust",
            Language::C => "C",
            Language::JavaScript => "JavaScript",
            Language::Python => "Python",
            Language::AssemblyScript => "AssemblyScript",
            Language::Go => "Go",
            Language::Zig => "Zig",
            Language::Wat => "WebAssembly text",
        }
    }

    /// The folder of its template.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::C => "c",
            Language::JavaScript => "javascript",
            Language::Python => "python",
            Language::AssemblyScript => "assemblyscript",
            Language::Go => "go",
            Language::Zig => "zig",
            Language::Wat => "wat",
        }
    }

    /// The file to change.
    pub(super) fn policy(self) -> &'static str {
        match self {
            Language::Rust => "src/lib.rs",
            Language::C => "controller.c",
            Language::JavaScript => "controller.js",
            Language::Python => "controller.py",
            Language::AssemblyScript => "policy.ts",
            Language::Go => "policy.go",
            Language::Zig => "policy.zig",
            Language::Wat => "controller.wat",
        }
    }

    /// What has to be installed; everything else the build fetches.
    pub(super) fn needs(self) -> &'static str {
        match self {
            Language::Rust => "rustup's target wasm32-unknown-unknown",
            Language::C => "clang 19 and wasi-libc, make and Python 3",
            Language::JavaScript | Language::AssemblyScript => "Node.js 20 or newer",
            Language::Python | Language::Go | Language::Zig | Language::Wat => "make and Python 3",
        }
    }

    /// The commands that build it, in its folder.
    pub(super) fn build(self) -> &'static [&'static str] {
        match self {
            Language::Rust => &["cargo build --release"],
            Language::JavaScript | Language::AssemblyScript => &["npm install", "npm run build"],
            Language::C | Language::Python | Language::Go | Language::Zig | Language::Wat => &["make"],
        }
    }

    /// Where the build puts the component.
    pub(super) fn component(self, name: &str) -> String {
        match self {
            Language::Rust => format!("target/wasm32-unknown-unknown/release/{}.wasm", name.replace('-', "_")),
            _ => format!("{name}.wasm"),
        }
    }
}
