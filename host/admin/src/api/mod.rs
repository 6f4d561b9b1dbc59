//! tidegate's own API, `/api/v1/`: what the host does can be seen by whoever may look, and steered by whoever may steer.
//! Its OpenAPI document is made from the same declarations as its routes.

mod caller;
mod controllers;
mod databases;
mod events;
mod extract;
mod ledger;
mod pause;
mod problem;
mod updates;
pub mod view;

use std::sync::LazyLock;

use axum::Router;
use axum::http::{Method, Uri, header};
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use problem::{CONTENT_TYPE as PROBLEM, Problem};

use super::State;
use problem::Kind;

/// Where it is.
pub const ROOT: &str = "/api/v1";

/// What the document says of the whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "tidegate",
        description = "What a running tidegate does, and how it is steered.\n\n\
            Durations end in `_ms`, points in time in `_at_ms` or are called `since_ms`; both are milliseconds, the latter \
            since the Unix epoch, in UTC. What is not known is `null`. New keys, kinds of event and kinds of problem may \
            come at any time.\n\n\
            A token has a role: `viewer` may use GET, `admin` all. Where no token is configured, whoever can connect may \
            use GET, and nobody the rest. A request is checked in this order: path, method, token, role, names in the \
            path, query, body.\n\n\
            Bodies are at most `max_body_bytes` of [admin] long (50 MiB where nothing is said), heads `max_header_bytes` \
            (64 KiB); an answer begins within `request_timeout_ms` (60,000)."
    ),
    tags(
        (name = "host", description = "The host as a whole."),
        (name = "databases", description = "Databases and their pauses."),
        (name = "updates", description = "Queues and the updates in them."),
        (name = "controllers", description = "Who sets the pace, and what they can read."),
    ),
    components(schemas(Problem)),
    security(("token" = [])),
    modifiers(&Shared),
)]
struct Whole;

/// What operations refer to.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.responses.extend(problem::described());
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token of [[admin.token]]; `tidegate token new` makes one."));
        components.add_security_scheme("token", SecurityScheme::Http(bearer.build()));
    }
}

/// Everything below [`ROOT`], and its document.
fn declared() -> (Router<State>, utoipa::openapi::OpenApi) {
    let (router, paths) = OpenApiRouter::new()
        .routes(routes!(databases::host))
        .routes(routes!(document))
        .routes(routes!(events::events))
        .routes(routes!(databases::databases))
        .routes(routes!(databases::database))
        .routes(routes!(updates::queue, updates::enqueue))
        .routes(routes!(updates::update, updates::cancel))
        .routes(routes!(updates::retry))
        .routes(routes!(updates::accept))
        .routes(routes!(updates::approve))
        .routes(routes!(updates::unkeep))
        .routes(routes!(updates::run_now))
        .routes(routes!(ledger::ledger))
        .routes(routes!(ledger::require))
        .routes(routes!(pause::pause))
        .routes(routes!(pause::resume))
        .routes(routes!(pause::pause_all))
        .routes(routes!(pause::resume_all))
        .routes(routes!(controllers::controllers))
        .routes(routes!(controllers::reload_one))
        .routes(routes!(controllers::reload))
        .routes(routes!(controllers::signals))
        .routes(routes!(controllers::signals_of))
        .split_for_parts();
    let router = router.fallback(unknown_path).method_not_allowed_fallback(wrong_method);
    (Router::new().nest(ROOT, router), Whole::openapi().nest(ROOT, paths))
}

/// The routes.
pub(super) fn routes() -> Router<State> {
    declared().0
}

/// The OpenAPI document as JSON, with a newline at its end.
pub fn openapi() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        // It is made of texts and numbers, and all keys are texts: nothing in it can fail to be JSON.
        let json = declared().1.to_pretty_json().unwrap_or_default();
        format!("{json}\n")
    });
    &DOCUMENT
}

/// This document
///
/// No token is needed.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "host",
    security(()),
    responses((status = 200, description = "An OpenAPI 3.1 document.", body = Object), problem::Open)
)]
async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi())
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::new(Kind::UnknownPath, format!("there is nothing at {}", uri.path()))
        .hint(format!("{ROOT}/openapi.json tells what there is"))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(Kind::WrongMethod, format!("{} has no method {method}", uri.path()))
        .hint("the header `Allow` names those that it has")
}
