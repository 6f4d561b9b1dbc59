//! The token of a request, found as Synapse finds it.

use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use super::answer::Refusal;

/// The token that a request carries in its header or in its query.
///
/// # Errors
/// None, several, or one that is not written as it should be.
pub(super) fn of(parts: &Parts) -> Result<String, Refusal> {
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let in_query = in_query(parts.uri.query().unwrap_or_default());
    match (headers.next(), headers.next(), in_query) {
        (None, _, Some(token)) => Ok(token),
        (None, _, None) => Err(Refusal::missing_token("Missing access token")),
        (Some(_), _, Some(_)) => {
            Err(Refusal::missing_token("Mixing Authorization headers and access_token query parameters."))
        }
        (Some(_), Some(_), None) => Err(Refusal::missing_token("Too many Authorization headers.")),
        (Some(header), None, None) => {
            let token = header.to_str().ok().and_then(bearer);
            token.map(str::to_owned).ok_or_else(|| Refusal::missing_token("Invalid Authorization header."))
        }
    }
}

/// The token of a header: one word after one space.
fn bearer(header: &str) -> Option<&str> {
    header.strip_prefix("Bearer ").filter(|token| !token.contains(' '))
}

/// The first token of a query. As with Synapse a name without "=" is none.
fn in_query(query: &str) -> Option<String> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let mut pairs = query.split(['&', ';']).filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| decoded(name) == "access_token").map(|(_, value)| decoded(value))
}
