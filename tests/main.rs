//! Behaviour, through the public surface, by topic.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod admin;
mod book;
mod cli;
mod commands;
mod config;
mod configured;
mod controllers;
mod crash;
mod database;
mod demo;
mod embedding;
mod extremes;
mod faults;
mod guests;
mod house;
mod keep;
mod kinds;
mod ledger;
mod sandbox;
mod scheduler;
mod security;
mod signals;
mod simulate;
mod skipped;
mod supervisor;
mod support;
mod synapse;
mod templates;
mod traces;
mod transform;
