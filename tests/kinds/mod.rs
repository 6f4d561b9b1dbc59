//! The kinds of update, each on each database: what they do to the rows, and what they refuse.

mod conformance;
mod constraints;
mod create_index;
mod large;
mod matrix;
mod parts;
mod postgres;
mod problems;
mod program;
mod reach;
mod replaced;
mod schemas;
mod settings;
mod statements;
pub mod subject;
mod verify;
mod walk;
