//! Who asks, and what that allows.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::problem::{Kind, Problem};
use crate::{Role, State};
use tidegate::scheduler::ledger::Actor;

/// What to write, where a token is missing.
const HINT: &str =
    "send the header `Authorization: Bearer` with a token of [[admin.token]]; `tidegate token new` makes one";

/// Somebody who may look.
pub(super) struct Viewer(pub Role);

/// Somebody who may steer.
pub(super) struct Admin(pub Actor);

impl FromRequestParts<State> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        role(parts, state).map(Viewer)
    }
}

impl FromRequestParts<State> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        if role(parts, state)? == Role::Admin
            && let Some(actor) = actor(parts, state)
        {
            return Ok(Admin(actor));
        }
        Err(match state.live().access.is_without_tokens() {
            true => Problem::new(Kind::NotAllowed, "no token is configured, and so nobody may steer this host")
                .hint("`tidegate token new` makes a token, and prints the lines to configure"),
            false => Problem::new(Kind::NotAllowed, "the role \"viewer\" may look, and not steer")
                .hint("use a token of the role \"admin\""),
        })
    }
}

/// What whoever asks may do. The one place that knows how somebody says who they are: another way, such as the page's
/// session, is added here.
fn role(parts: &Parts, state: &State) -> Result<Role, Problem> {
    let live = state.live();
    if live.access.is_without_tokens() {
        return Ok(Role::Viewer);
    }
    let token = bearer(&parts.headers)?;
    live.access.role_of(token).ok_or_else(|| Problem::new(Kind::UnknownToken, "the token is not known").hint(HINT))
}

/// Whom the ledger names for what this request does; nobody where no token came with it.
pub(super) fn actor(parts: &Parts, state: &State) -> Option<Actor> {
    state.live().access.actor(bearer(&parts.headers).ok()?)
}

/// The token of the header `Authorization`.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let refused = |detail: &str| Problem::new(Kind::NoToken, detail).hint(HINT);
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| refused("there is no header `Authorization`"))?;
    if values.next().is_some() {
        return Err(refused("there is more than one header `Authorization`"));
    }
    // RFC 9110, section 11.1: the scheme's case does not matter.
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    match (scheme.eq_ignore_ascii_case("bearer"), token.trim()) {
        (true, token) if !token.is_empty() => Ok(token),
        _ => Err(refused("the header `Authorization` is not `Bearer` and a token")),
    }
}
