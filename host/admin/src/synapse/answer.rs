//! Answers in Matrix's shapes, with Synapse's headers.

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONTENT_TYPE, HeaderMap,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    errcode: &'static str,
    error: String,
    soft_logout: Option<bool>,
}

/// The body of an error.
#[derive(Serialize)]
struct ErrorBody<'a> {
    errcode: &'a str,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    soft_logout: Option<bool>,
}

impl Refusal {
    fn new(status: StatusCode, errcode: &'static str, error: impl Into<String>) -> Self {
        Self { status, errcode, error: error.into(), soft_logout: None }
    }

    pub(super) fn unknown_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "Unrecognized request")
    }

    pub(super) fn unknown_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "Unrecognized request")
    }

    pub(super) fn missing_token(error: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", error)
    }

    pub(super) fn unknown_token() -> Self {
        let refusal = Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", "Invalid access token passed.");
        Self { soft_logout: Some(false), ..refusal }
    }

    pub(super) fn not_admin() -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", "You are not a server admin")
    }

    pub(super) fn without_tokens() -> Self {
        let error = "No token is configured, so that nobody may change anything: `tidegate token new --role admin` \
                     makes one";
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", error)
    }

    pub(super) fn unreadable() -> Self {
        Self::invalid("Error reading JSON content.")
    }

    pub(super) fn not_json() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", "Content not JSON.")
    }

    pub(super) fn not_an_object() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", "Content must be a JSON object.")
    }

    /// `limit` is in bytes.
    pub(super) fn too_large(limit: usize) -> Self {
        let error = format!("Request content is too large (>{limit})");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", error)
    }

    pub(super) fn missing(parameters: &[impl AsRef<str>]) -> Self {
        let names: Vec<String> = parameters.iter().map(|name| format!("'{}'", name.as_ref())).collect();
        let error = format!("Missing params: [{}]", names.join(", "));
        Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", error)
    }

    /// What Synapse has no code of its own for.
    pub(super) fn invalid(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", error)
    }

    /// The request was in order, and the host could not do it.
    pub(super) fn failed(error: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", error)
    }
}

/// A value as the body of an answer.
///
/// # Errors
/// A value that is not to be written as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<String, Refusal> {
    serde_json::to_string(value).map_err(|error| Refusal::failed(format!("the answer is not JSON: {error}")))
}

/// The answer with this body, or with this error.
pub(super) fn of(body: Result<String, Refusal>, any_origin: bool) -> Response {
    let (status, body) = match body {
        Ok(body) => (StatusCode::OK, body),
        Err(Refusal { status, errcode, error, soft_logout }) => {
            let body = json(&ErrorBody { errcode, error: &error, soft_logout });
            (status, body.unwrap_or_else(|_| "{}".to_owned()))
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    allow_origins(headers, any_origin);
    response
}

/// What a browser asks before it lets a page send the request proper.
pub(super) fn preflight(any_origin: bool) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    allow_origins(response.headers_mut(), any_origin);
    response
}

/// Synapse's, since no cookie counts here; the origins only where `any_origin` says so.
fn allow_origins(headers: &mut HeaderMap, any_origin: bool) {
    if any_origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    let allowed = HeaderValue::from_static("X-Requested-With, Content-Type, Authorization, Date");
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Synapse-Trace-Id, Server"));
}
