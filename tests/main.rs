//! Behaviour, through the public surface, by topic.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod database;
mod support;
