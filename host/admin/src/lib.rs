//! The host over HTTP: what it does can be seen and steered by programs, monitors and people.
//!
//! What is asked often is answered from the [`Board`](tidegate::scheduler::board::Board), so that no database notices; a
//! command writes to the database as the command line does, on a connection of the API's own, and wakes the host.

pub mod access;
pub mod api;
mod health;
pub mod jobs;
pub mod metrics;
mod name;
mod page;
pub mod server;
pub mod state;
mod synapse;

use axum::{Router, middleware};

pub use access::{Access, Role, Token};
pub use jobs::{Job, Jobs};
pub use metrics::Metrics;
pub use server::{Limits, Listener, serve};
pub use state::{Live, LoadedController, Reload, Site, State};

/// Everything that is served.
pub fn router(state: State, metrics: Metrics) -> Router {
    let page = page::routes(state.clone());
    let routes = Router::new()
        .merge(health::routes())
        .merge(api::routes())
        .merge(metrics::routes(metrics))
        .merge(synapse::routes());
    let routes = routes.fallback(synapse::elsewhere).with_state(state.clone()).merge(page);
    routes.layer(middleware::from_fn_with_state(state, name::is_ours))
}
