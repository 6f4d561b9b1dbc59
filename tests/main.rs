//! Behaviour through the public surface, by topic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(missing_docs, unreachable_pub)]

mod database;
mod kinds;
mod supervisor;
mod support;
