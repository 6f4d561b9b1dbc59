//! What the API answers where it does not do what it was asked: problem details, as RFC 9457 has them.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::{ContentBuilder, Object, Ref, RefOr, ResponseBuilder, Type};

use tidegate::update::SqlError;

/// The media type of problem details.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What `type` begins with.
const TYPE: &str = "urn:tidegate:problem:";

/// Why a request was not carried out (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "type": "urn:tidegate:problem:unknown-update",
    "title": "There is no such update",
    "status": 404,
    "detail": "update \"fill_serch_body\" is not queued on database \"master\"",
    "hint": "GET /api/v1/databases/master/updates tells what is"
}))]
pub struct Problem {
    /// Which kind of problem: `urn:tidegate:problem:` and a name that never changes.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words, the same each time.
    #[schema(value_type = String)]
    pub title: Box<str>,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What was wrong this time.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub hint: Option<Box<str>>,
    /// Each thing that was wrong, where there are several: the configuration's mistakes, the updates in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// The kinds of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NotJson,
    BadQuery,
    NoToken,
    UnknownToken,
    NotAllowed,
    AnotherHost,
    UnknownPath,
    UnknownDatabase,
    UnknownUpdate,
    UnknownController,
    WrongMethod,
    DependentsInTheWay,
    /// An update runs in one go, and has not left off.
    StillRuns,
    /// It was asked for that an update goes on which cannot.
    CannotGoOn,
    WholeHostPaused,
    NothingInHand,
    NotReloaded,
    TooLarge,
    NotSentAsJson,
    Invalid,
    Database,
    TooSlow,
}

impl Kind {
    /// Its name, the status that it comes with, and its title.
    fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Kind::NotJson => ("not-json", StatusCode::BAD_REQUEST, "The body is not JSON"),
            Kind::BadQuery => ("bad-query", StatusCode::BAD_REQUEST, "A query parameter is wrong"),
            Kind::NoToken => ("no-token", StatusCode::UNAUTHORIZED, "A token is needed"),
            Kind::UnknownToken => ("unknown-token", StatusCode::UNAUTHORIZED, "The token is not known"),
            Kind::NotAllowed => ("not-allowed", StatusCode::FORBIDDEN, "The token does not allow this"),
            Kind::AnotherHost => ("another-host", StatusCode::MISDIRECTED_REQUEST, "The request is for another host"),
            Kind::UnknownPath => ("unknown-path", StatusCode::NOT_FOUND, "There is nothing at this path"),
            Kind::UnknownDatabase => ("unknown-database", StatusCode::NOT_FOUND, "There is no such database"),
            Kind::UnknownUpdate => ("unknown-update", StatusCode::NOT_FOUND, "There is no such update"),
            Kind::UnknownController => ("unknown-controller", StatusCode::NOT_FOUND, "There is no such controller"),
            Kind::WrongMethod => ("wrong-method", StatusCode::METHOD_NOT_ALLOWED, "The path has no such method"),
            Kind::StillRuns => ("still-runs", StatusCode::CONFLICT, "It runs in one go, and has not left off"),
            Kind::CannotGoOn => ("cannot-go-on", StatusCode::CONFLICT, "It cannot go on as it is defined now"),
            Kind::DependentsInTheWay => ("dependents", StatusCode::CONFLICT, "Other updates depend on it"),
            Kind::WholeHostPaused => ("whole-host-paused", StatusCode::CONFLICT, "The whole host is paused"),
            Kind::NothingInHand => ("nothing-in-hand", StatusCode::CONFLICT, "This host has nothing in hand there"),
            Kind::NotReloaded => ("not-reloaded", StatusCode::CONFLICT, "Nothing was reloaded"),
            Kind::TooLarge => ("too-large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Kind::NotSentAsJson => {
                ("not-sent-as-json", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not sent as JSON")
            }
            Kind::Invalid => ("invalid", StatusCode::UNPROCESSABLE_ENTITY, "The request says something that cannot be"),
            Kind::Database => ("database", StatusCode::SERVICE_UNAVAILABLE, "The database did not do it"),
            Kind::TooSlow => ("too-slow", StatusCode::SERVICE_UNAVAILABLE, "The answer took too long"),
        }
    }
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (name, status, title) = kind.parts();
        Self {
            kind: format!("{TYPE}{name}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            hint: None,
            errors: Vec::new(),
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<Box<str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn errors(mut self, errors: Vec<String>) -> Self {
        self.errors = errors;
        self
    }

    /// Where a database refused or did not answer.
    pub(super) fn database(name: &str, error: &SqlError) -> Self {
        Self::new(Kind::Database, format!("database \"{name}\": {error}"))
            .hint("nothing that the answer does not name was done; see whether the database runs and can be reached")
    }

    /// Where a request names a host that this is not, and anybody who can connect may look.
    pub(crate) fn another_host(name: &str) -> Self {
        Self::new(Kind::AnotherHost, format!("the header `Host` is {name:?}, which is no address of this host"))
            .hint("ask for localhost or the address in `listen`; with a token ([[admin.token]]) any name will do")
    }

    /// Where an answer took longer than the configuration allows.
    pub(crate) fn too_slow(limit_ms: u128) -> Self {
        Self::new(Kind::TooSlow, format!("no answer within {limit_ms} ms"))
            .hint("ask again; `request_timeout_ms` in [admin] allows more time")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let challenge = (status == StatusCode::UNAUTHORIZED).then(|| match self.kind.ends_with("unknown-token") {
            true => r#"Bearer realm="tidegate", error="invalid_token""#,
            false => r#"Bearer realm="tidegate""#,
        });
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

/// Every problem that the document describes, once: name, status, description.
const DESCRIBED: [(&str, &str, &str); 11] = [
    ("BadRequest", "400", "The body is not JSON, or a query parameter is wrong."),
    ("Unauthorized", "401", "No token came along, or one that is not known."),
    ("Forbidden", "403", "The token allows to look and not to steer; or no token is configured, and nobody may steer."),
    ("NotFound", "404", "There is no database, update or controller of that name."),
    ("Conflict", "409", "What is asked for goes against how things stand; the detail says how."),
    ("TooLarge", "413", "The body is larger than `max_body_bytes` in [admin] (50 MiB where nothing is said)."),
    ("UnsupportedMediaType", "415", "The body is not sent as `application/json`."),
    ("Misdirected", "421", "No token is configured, and `Host` names neither localhost nor an address of this host."),
    ("Invalid", "422", "The body is JSON, and says something that cannot be."),
    ("Unavailable", "503", "A database did not do it, or the answer took longer than `request_timeout_ms` in [admin]."),
    ("MethodNotAllowed", "405", "The path has no such method; `Allow` names those that it has."),
];

/// The problems of the document, by name.
pub(super) fn described() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let described = DESCRIBED.iter().map(|(name, status, description)| {
        let schema = Ref::from_schema_name("Problem");
        let mut response = ResponseBuilder::new()
            .description(*description)
            .content(CONTENT_TYPE, ContentBuilder::new().schema(Some(schema)).build());
        let header = match *status {
            "401" => Some(("WWW-Authenticate", "How to say who one is: `Bearer`.")),
            "405" => Some(("Allow", "The methods that the path has.")),
            _ => None,
        };
        if let Some((header, description)) = header {
            let text = Object::with_type(Type::String);
            response =
                response.header(header, HeaderBuilder::new().schema(Some(text)).description(Some(description)).build());
        }
        ((*name).to_owned(), response.build().into())
    });
    described.collect()
}

/// The document's responses for these statuses.
fn responses(statuses: &[&str]) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let described = DESCRIBED.iter().filter(|(_, status, _)| statuses.contains(status));
    described.map(|(name, status, _)| ((*status).to_owned(), Ref::from_response_name(*name).into())).collect()
}

/// Declares, under a name, which problems an operation may answer with.
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: $($status:literal),+;)+) => {
        $(
            $(#[$doc])*
            pub(super) struct $name;

            impl utoipa::IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
                    responses(&[$($status),+])
                }
            }
        )+
    };
}

problems! {
    /// Whoever asks for what is always the same.
    Open: "421", "503";
    /// Whoever looks at what is in memory.
    Looking: "401", "421", "503";
    /// Whoever looks at something of a name.
    LookingAt: "401", "404", "421", "503";
    /// Whoever looks with parameters.
    Searching: "400", "401", "404", "421", "503";
    /// Whoever steers the whole host, with a body.
    SteeringAll: "400", "401", "403", "413", "415", "421", "422", "503";
    /// Whoever steers something of a name, with a body.
    SteeringWithBody: "400", "401", "403", "404", "413", "415", "421", "422", "503";
    /// Whoever steers something of a name, and may find that it cannot be.
    SteeringIfPossible: "401", "403", "404", "409", "421", "503";
    /// The same with parameters.
    SteeringWithQuery: "400", "401", "403", "404", "409", "421", "503";
    /// Whoever steers the whole host, with nothing to say.
    SteeringHost: "401", "403", "421", "503";
    /// Whoever reloads all.
    Reloading: "401", "403", "409", "421", "503";
}
