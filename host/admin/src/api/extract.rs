//! What a request says, taken out of it; what is wrong with it becomes a problem.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use utoipa::IntoParams;

use super::caller;
use super::problem::{Kind, Problem};
use crate::{Site, State};
use tidegate::scheduler::operations::check_name;

/// A path that names a database.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DatabasePath {
    /// The database's name in the configuration.
    #[param(example = "master", min_length = 1)]
    database: String,
}

/// A path that names an update of a database.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct UpdatePath {
    /// The database's name in the configuration.
    #[param(example = "master", min_length = 1)]
    database: String,
    /// The update's name, percent-encoded where it has to be.
    #[param(example = "messages_search_body", min_length = 1)]
    update: String,
}

/// A path that names a controller.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ControllerPath {
    /// The controller's name in the configuration.
    #[param(example = "steady", min_length = 1)]
    pub controller: String,
}

/// The database that a path names.
pub(super) struct AtDatabase(pub Site);

impl FromRequestParts<State> for AtDatabase {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let DatabasePath { database } = path(parts, state).await?;
        Ok(Self(site_of(parts, state, &database)?))
    }
}

/// The update that a path names, and its database.
pub(super) struct AtUpdate(pub Site, pub String);

impl FromRequestParts<State> for AtUpdate {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let UpdatePath { database, update } = path(parts, state).await?;
        let site = site_of(parts, state, &database)?;
        // A database could not be asked for these.
        match name("update", &update) {
            Ok(()) => Ok(Self(site, update)),
            Err(wrong) => Err(Problem::new(Kind::UnknownUpdate, wrong.detail)),
        }
    }
}

/// The controller that a path names.
pub(super) struct AtController(pub String);

impl FromRequestParts<State> for AtController {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let ControllerPath { controller } = path(parts, state).await?;
        let known: Vec<String> = state.live().controllers.iter().map(|known| known.name.clone()).collect();
        if known.contains(&controller) {
            return Ok(Self(controller));
        }
        Err(Problem::new(Kind::UnknownController, format!("there is no [[controller]] named {controller:?}"))
            .hint(there_is(&known)))
    }
}

async fn path<T: DeserializeOwned + Send>(parts: &mut Parts, state: &State) -> Result<T, Problem> {
    let path = extract::Path::<T>::from_request_parts(parts, state).await;
    // The path was matched, so that all it can be is no UTF-8.
    path.map(|extract::Path(path)| path).map_err(|rejection| Problem::new(Kind::UnknownPath, rejection.body_text()))
}

/// The database of that name, on which whoever asks acts under their own name.
fn site_of(parts: &Parts, state: &State, name: &str) -> Result<Site, Problem> {
    let site = site(state, name)?;
    Ok(caller::actor(parts, state).map_or_else(|| site.clone(), |actor| site.known_as(actor)))
}

/// The database of that name.
pub(super) fn site<'a>(state: &'a State, name: &str) -> Result<&'a Site, Problem> {
    state.site(name).ok_or_else(|| {
        let known: Vec<String> = state.sites().iter().map(|site| site.name.clone()).collect();
        Problem::new(Kind::UnknownDatabase, format!("there is no [[database]] named {name:?}")).hint(there_is(&known))
    })
}

/// A hint that names what there is.
pub(super) fn there_is(known: &[String]) -> String {
    const MOST: usize = 20;
    match known.len() {
        0 => "there is none".to_owned(),
        1..=MOST => format!("there is {}", known.join(", ")),
        more => format!("there is {}, and {} more", known[..MOST].join(", "), more - MOST),
    }
}

/// What speaks against a name in the queue.
pub(super) fn name(what: &str, name: &str) -> Result<(), Problem> {
    check_name(name).map_err(|why| Problem::new(Kind::Invalid, format!("the name of the {what} {why}")))
}

/// What speaks against a text that a database is to keep: PostgreSQL knows no NUL.
pub(super) fn text(what: &str, text: &str) -> Result<(), Problem> {
    match text.contains('\0') {
        true => Err(Problem::new(Kind::Invalid, format!("the {what} has a NUL character in it"))),
        false => Ok(()),
    }
}

/// The parameters behind the path.
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<State> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &State) -> Result<Self, Problem> {
        extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|extract::Query(query)| Self(query))
            .map_err(|rejection| Problem::new(Kind::BadQuery, rejection.body_text()))
    }
}

/// A body of JSON; where there may be none, the default.
pub(super) struct Body<T>(pub T);

impl<T: Wanted> FromRequest<State> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &State) -> Result<Self, Problem> {
        let sent_as_json = is_json(request.headers());
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unread(&rejection))?;
        if bytes.is_empty()
            && let Some(default) = T::without_body()
        {
            return Ok(Self(default));
        }
        if !sent_as_json {
            return Err(Problem::new(Kind::NotSentAsJson, "the header `Content-Type` is not `application/json`")
                .hint("send the header `Content-Type: application/json`"));
        }
        parse(&bytes).map(Self)
    }
}

/// What can be a body.
pub(super) trait Wanted: DeserializeOwned {
    /// What counts where no body was sent; `None` where one has to be.
    fn without_body() -> Option<Self> {
        None
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn unread(rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Kind::TooLarge, "the body is larger than this host takes")
            .hint("`max_body_bytes` in [admin] allows more"),
        _ => Problem::new(Kind::NotJson, format!("the body could not be read: {}", rejection.body_text())),
    }
}

/// What to do about a body that does not fit.
const DESCRIBED: &str = "GET /api/v1/openapi.json describes the body";

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text =
        str::from_utf8(bytes).map_err(|error| Problem::new(Kind::NotJson, format!("the body is no UTF-8: {error}")))?;
    // Every body is an object, and serde would take an array for the values of its fields.
    if text.trim_start().starts_with('[') && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return Err(Problem::new(Kind::Invalid, "the body is an array, and no object").hint(DESCRIBED));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize(&mut json);
    let wrong = match read {
        Ok(value) => match json.end() {
            Ok(()) => return Ok(value),
            Err(error) => return Err(Problem::new(Kind::NotJson, format!("the body is not JSON: {error}"))),
        },
        Err(wrong) => wrong,
    };
    let path = wrong.path().to_string();
    let error = wrong.into_inner();
    // What does not fit is only looked at where all of it is JSON.
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return Err(Problem::new(Kind::NotJson, format!("the body is not JSON: {error}")));
    }
    if error.classify() != serde_json::error::Category::Data {
        return Err(Problem::new(Kind::NotJson, format!("the body is not JSON: {error}")));
    }
    // Of the whole body the path is ".".
    let detail = if path == "." { error.to_string() } else { format!("\"{path}\": {error}") };
    Err(Problem::new(Kind::Invalid, detail).hint(DESCRIBED))
}
