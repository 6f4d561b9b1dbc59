//! The names that a host answers to, where anybody who can connect may look.
//!
//! A page from elsewhere can have a browser take its own name for this machine (DNS rebinding), and would then read what
//! the host serves. Such a request has that name in its header `Host`; one that was meant for this host has an address
//! of this machine there, or "localhost".

use std::net::IpAddr;

use axum::extract::{Request, State as Extracted};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api::Problem;
use super::state::State;

/// The address that a request came in at, where it came over TCP. A Unix socket no browser can reach.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReachedAt(pub(super) IpAddr);

/// Refuses requests under another name, where no token is asked for.
pub(super) async fn is_ours(Extracted(state): Extracted<State>, request: Request, next: Next) -> Response {
    let reached = request.extensions().get::<ReachedAt>().copied();
    if let Some(ReachedAt(address)) = reached
        && state.live().access.is_without_tokens()
    {
        let in_path = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let named =
            request.headers().get_all(HOST).iter().map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
        if let Some(strange) = named.chain(in_path).find(|name| !is_this_machine(name, address)) {
            return Problem::another_host(&strange).into_response();
        }
    }
    next.run(request).await
}

/// True for "localhost", for addresses of the loopback, and for the address that was reached; with any port.
fn is_this_machine(name: &str, reached: IpAddr) -> bool {
    let Ok(authority) = name.parse::<Authority>() else { return false };
    let host = authority.host();
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    literal.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || address == reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        let reached = IpAddr::from([192, 0, 2, 7]);
        for name in ["localhost", "LocalHost:9290", "127.0.0.1:1", "127.9.9.9", "[::1]:9290", "[::1]", "192.0.2.7:80"] {
            assert!(is_this_machine(name, reached), "{name}");
        }
        for name in [
            "",
            "evil.example",
            "evil.example:9290",
            "localhost.evil.example",
            "192.0.2.8",
            "127.0.0.1.nip.io",
            "[::2]",
        ] {
            assert!(!is_this_machine(name, reached), "{name}");
        }
    }
}
