//! Controllers, what they can read, and the reload that takes the configuration in anew.

use axum::{Json, extract};

use super::caller::{Admin, Viewer};
use super::extract::{AtController, AtDatabase, ControllerPath, DatabasePath};
use super::problem::{Kind, Looking, LookingAt, Problem, Reloading, SteeringIfPossible};
use super::view::{Controllers, Signals};
use crate::State;

/// The controllers: which are live, what they use, what was wrong with them
#[utoipa::path(
    get,
    path = "/controllers",
    tag = "controllers",
    responses((status = 200, description = "The controllers.", body = Controllers), Looking)
)]
pub(super) async fn controllers(_: Viewer, extract::State(state): extract::State<State>) -> Json<Controllers> {
    Json(Controllers::of(&state))
}

/// Reload one controller
///
/// Reads its file again, with the settings that are in force, and ends its fallback. 409 where it cannot be loaded: then
/// all stays as it was.
#[utoipa::path(
    post,
    path = "/controllers/{controller}/reload",
    tag = "controllers",
    params(ControllerPath),
    responses((status = 200, description = "It was reloaded.", body = Controllers), SteeringIfPossible)
)]
pub(super) async fn reload_one(
    _: Admin,
    AtController(name): AtController,
    extract::State(state): extract::State<State>,
) -> Result<Json<Controllers>, Problem> {
    answer(&state, state.reload_controller(&name).await)
}

/// Reload the configuration and all controllers
///
/// All of it comes into force between two iterations, or nothing does: 409 then, and `errors` names what is wrong.
#[utoipa::path(
    post,
    path = "/reload",
    tag = "host",
    responses((status = 200, description = "All was reloaded.", body = Controllers), Reloading)
)]
pub(super) async fn reload(
    _: Admin,
    extract::State(state): extract::State<State>,
) -> Result<Json<Controllers>, Problem> {
    answer(&state, state.reload().await)
}

fn answer(state: &State, reloaded: Result<(), Vec<String>>) -> Result<Json<Controllers>, Problem> {
    reloaded.map(|()| Json(Controllers::of(state))).map_err(|errors| {
        Problem::new(Kind::NotReloaded, errors.join("; "))
            .hint("what was in force stays in force; mend what `errors` names, and reload again")
            .errors(errors)
    })
}

/// The latest reading of each signal
///
/// With its age, and with the reason where there is no newer one.
#[utoipa::path(
    get,
    path = "/signals",
    tag = "controllers",
    responses((status = 200, description = "The signals.", body = Signals), Looking)
)]
pub(super) async fn signals(_: Viewer, extract::State(state): extract::State<State>) -> Json<Signals> {
    Json(Signals::of(state.live().signals.all()))
}

/// The signals that a controller can read for a database
///
/// Its own, then those of the machine.
#[utoipa::path(
    get,
    path = "/databases/{database}/signals",
    tag = "controllers",
    params(DatabasePath),
    responses((status = 200, description = "The signals.", body = Signals), LookingAt)
)]
pub(super) async fn signals_of(
    _: Viewer,
    AtDatabase(site): AtDatabase,
    extract::State(state): extract::State<State>,
) -> Json<Signals> {
    Json(Signals::of(state.live().signals.of(&site.name)))
}
