//! The host and its databases, as they are kept in memory: asking often costs no database anything.

use axum::{Json, extract};

use super::caller::Viewer;
use super::extract::{AtDatabase, DatabasePath};
use super::problem::{Looking, LookingAt};
use super::view;
use crate::State;
use tidegate::scheduler::database::{Holder, unix_ms};

/// The host that answers
#[utoipa::path(
    get,
    path = "/host",
    tag = "host",
    responses((status = 200, description = "The host.", body = view::Host), Looking)
)]
pub(super) async fn host(Viewer(role): Viewer, extract::State(state): extract::State<State>) -> Json<view::Host> {
    Json(view::Host {
        product: "tidegate".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        process: Holder::this_process().into(),
        started_at_ms: unix_ms(state.started_at()),
        enabled: state.control().is_enabled(),
        stopping: state.control().is_stopping(),
        role,
    })
}

/// All databases: what runs on each, how far it is, what holds it
#[utoipa::path(
    get,
    path = "/databases",
    tag = "databases",
    responses((status = 200, description = "The databases.", body = view::Databases), Looking)
)]
pub(super) async fn databases(_: Viewer, extract::State(state): extract::State<State>) -> Json<view::Databases> {
    Json(view::Databases::of(&state))
}

/// One database
#[utoipa::path(
    get,
    path = "/databases/{database}",
    tag = "databases",
    params(DatabasePath),
    responses((status = 200, description = "The database.", body = view::Database), LookingAt)
)]
pub(super) async fn database(
    _: Viewer,
    AtDatabase(site): AtDatabase,
    extract::State(state): extract::State<State>,
) -> Json<view::Database> {
    Json(view::Database::of(&state, &site))
}
