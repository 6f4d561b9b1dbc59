//! The page: what every database does, live, and buttons for whoever may steer.
//!
//! It is rendered here and readable without a script; the script only puts newer HTML in place of older, which comes
//! over a stream. Whoever has a token logs in with it once, and is known by a cookie afterwards; what changes
//! something is a form that carries the session's seal.

mod action;
mod chart;
mod render;
mod session;
mod view;

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Form, FromRef, State as Extracted};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};
use futures_util::stream::{self, Stream};
use maud::Markup;
use tokio::time::sleep;

use super::state::State;
use session::{Sessions, is_same_origin};
use view::Viewer;

/// How often what is shown is looked at anew.
const INTERVAL: Duration = Duration::from_secs(1);

/// Nothing from elsewhere, no script and no style but the page's own, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What the page's handlers share.
#[derive(Clone)]
struct Page {
    state: State,
    sessions: Sessions,
    viewer: Viewer,
}

impl FromRef<Page> for State {
    fn from_ref(page: &Page) -> State {
        page.state.clone()
    }
}

/// The most bytes of a form: it holds a token, or names.
const LONGEST_FORM: usize = 16 << 10;

/// The routes.
pub(super) fn routes(state: State) -> Router {
    let page = Page { state, sessions: Sessions::default(), viewer: Viewer::default() };
    Router::new()
        .route("/", get(index))
        .route("/login", get(show_login).post(login))
        .route("/logout", post(logout))
        .route("/page/events", get(events))
        .route("/do/{what}", post(action::act))
        .route("/assets/page.css", asset("text/css; charset=utf-8", include_str!("page.css")))
        .route("/assets/page.js", asset("text/javascript; charset=utf-8", include_str!("page.js")))
        .route("/assets/icon.svg", asset("image/svg+xml", include_str!("icon.svg")))
        .layer(DefaultBodyLimit::max(LONGEST_FORM))
        .layer(middleware::map_response(protect))
        .with_state(page)
}

/// The headers of every answer of the page.
async fn protect(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let value = axum::http::HeaderValue::from_static;
    headers.insert(CONTENT_SECURITY_POLICY, value(POLICY));
    headers.insert("x-content-type-options", value("nosniff"));
    headers.insert("x-frame-options", value("DENY"));
    // With less, browsers would not tell whether a form is from here.
    headers.insert("referrer-policy", value("same-origin"));
    headers.insert("cross-origin-opener-policy", value("same-origin"));
    headers.insert("cross-origin-resource-policy", value("same-origin"));
    headers.entry(CACHE_CONTROL).or_insert(value("no-store"));
    response
}

fn asset(kind: &'static str, text: &'static str) -> MethodRouter<Page> {
    get(async move || ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text))
}

async fn index(Extracted(page): Extracted<Page>, headers: HeaderMap) -> Response {
    let Some(visitor) = page.sessions.visitor(&page.state.live().access, &headers) else {
        return Redirect::to("/login").into_response();
    };
    let view = page.viewer.view(&page.state).await;
    let notice = page.sessions.take_notice(&visitor);
    render::page(&view, &visitor, notice.as_ref()).into_response()
}

async fn show_login(Extracted(page): Extracted<Page>, headers: HeaderMap) -> Response {
    match page.sessions.visitor(&page.state.live().access, &headers) {
        Some(_) => Redirect::to("/").into_response(),
        None => render::login(None).into_response(),
    }
}

/// What the login form sends.
#[derive(serde::Deserialize)]
struct Credentials {
    token: String,
}

async fn login(
    Extracted(page): Extracted<Page>,
    headers: HeaderMap,
    Form(Credentials { token }): Form<Credentials>,
) -> Response {
    if !is_same_origin(&headers) {
        return refuse("This login was sent by another site.");
    }
    let over_tls = headers.get("x-forwarded-proto").is_some_and(|protocol| protocol == "https");
    match page.sessions.open(&page.state.live().access, token.trim(), over_tls) {
        Some(cookie) => ([(SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
        None => (StatusCode::FORBIDDEN, render::login(Some("That token is not known."))).into_response(),
    }
}

async fn logout(Extracted(page): Extracted<Page>, headers: HeaderMap) -> Response {
    if !is_same_origin(&headers) {
        return refuse("This was sent by another site.");
    }
    ([(SET_COOKIE, page.sessions.close(&headers))], Redirect::to("/login")).into_response()
}

/// A request that is not what the page sends.
fn refuse(why: &str) -> Response {
    (StatusCode::FORBIDDEN, render::refusal(why)).into_response()
}

/// What the page shows, whenever that has changed.
async fn events(Extracted(page): Extracted<Page>, headers: HeaderMap) -> Response {
    if page.sessions.visitor(&page.state.live().access, &headers).is_none() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    let buffering = [(HeaderName::from_static("x-accel-buffering"), "no")];
    (buffering, Sse::new(changes(page, headers)).keep_alive(keep_alive)).into_response()
}

/// Ends once the visitor's session has, and with the host.
fn changes(page: Page, headers: HeaderMap) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(Some((page, headers, String::new())), async |state| {
        let (page, headers, shown) = state?;
        loop {
            if page.state.control().is_stopping() {
                return None;
            }
            let Some(visitor) = page.sessions.visitor(&page.state.live().access, &headers) else {
                return Some((Ok(Event::default().event("bye").data("")), None));
            };
            let view = page.viewer.view(&page.state).await;
            let now = one_line(render::content(&view, &visitor));
            if now != shown {
                let event = Event::default().event("content").data(&now);
                return Some((Ok(event), Some((page, headers, now))));
            }
            let control = page.state.control().clone();
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = control.stopped() => return None,
            }
        }
    })
}

/// HTML without the ends of lines that an event cannot hold; to HTML they are spaces.
fn one_line(markup: Markup) -> String {
    markup.into_string().replace(['\r', '\n'], " ")
}
