//! The host over HTTP: what it does can be seen and steered by programs, monitors and people.
//!
//! What is asked often is answered from the [`Board`](crate::scheduler::board::Board), so that no database notices; a
//! command writes to the database as the command line does, on a connection of the API's own, and wakes the host.

pub mod access;
pub mod api;
mod health;
pub mod server;
pub mod state;

use axum::Router;

pub use access::{Access, Role, Token};
pub use server::{Limits, Listener, serve};
pub use state::{Live, LoadedController, Reload, Site, State};

/// Everything that is served.
pub fn router(state: State) -> Router {
    Router::new().merge(health::routes()).merge(api::routes()).with_state(state)
}
