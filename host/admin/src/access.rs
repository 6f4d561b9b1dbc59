//! Who may do what: tokens, known by their digests alone.

use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tidegate::scheduler::ledger::Actor;

/// What somebody may do. Whoever may do more may do less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Look and steer.
    Admin,
}

impl Role {
    /// The word for it in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token that opens the API, without the token itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is called, e.g. after whoever has it.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// Its SHA-256 digest.
    pub sha256: [u8; 32],
}

/// The tokens that open the API.
#[derive(Debug, Clone, Default)]
pub struct Access {
    tokens: Vec<Token>,
}

impl Access {
    /// Those of `tokens`.
    pub fn new(tokens: Vec<Token>) -> Self {
        Self { tokens }
    }

    /// True where no token is configured: then everybody who can connect may look, and nobody may steer.
    pub fn is_without_tokens(&self) -> bool {
        self.tokens.is_empty()
    }

    /// True where a request with these headers may look: it has a token that is known, or there is none to be had.
    pub fn may_look(&self, headers: &HeaderMap) -> bool {
        self.is_without_tokens() || bearer(headers).is_some_and(|token| self.role_of(token).is_some())
    }

    /// What a token allows. How long this takes depends on how many tokens there are, and on nothing else.
    pub fn role_of(&self, token: &str) -> Option<Role> {
        self.role_of_digest(&digest(token))
    }

    /// As [`Access::role_of`], for whoever kept the token's digest.
    pub fn role_of_digest(&self, digest: &[u8; 32]) -> Option<Role> {
        self.of_digest(digest).map(|token| token.role)
    }

    /// Whom the ledger names where somebody with this token acts.
    pub fn actor(&self, token: &str) -> Option<Actor> {
        self.actor_of_digest(&digest(token))
    }

    /// As [`Access::actor`], for whoever kept the token's digest.
    pub fn actor_of_digest(&self, digest: &[u8; 32]) -> Option<Actor> {
        self.of_digest(digest).map(|token| Actor::token(&token.name))
    }

    fn of_digest(&self, digest: &[u8; 32]) -> Option<&Token> {
        let mut found = 0;
        for (place, known) in (1_u64..).zip(&self.tokens) {
            let same: Choice = known.sha256.ct_eq(digest);
            found = u64::conditional_select(&found, &place, same);
        }
        // 0 is nobody.
        let place = usize::try_from(found).ok()?.checked_sub(1)?;
        self.tokens.get(place)
    }
}

/// The token of `Authorization: Bearer …`, where a request has exactly one.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// What stands for a token in a configuration.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// A new token: 256 random bits, in hexadecimal.
///
/// # Errors
/// Where the operating system has no random numbers to give.
pub fn new_token() -> Result<String, getrandom::Error> {
    random().map(|digits| format!("tidegate_{digits}"))
}

/// 256 random bits, in hexadecimal.
///
/// # Errors
/// Where the operating system has no random numbers to give.
pub(super) fn random() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_digest() {
        let (viewer, admin) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(viewer, admin);
        let token = |token: &str, role| Token { name: "x".to_owned(), role, sha256: digest(token) };
        let access = Access::new(vec![token(&viewer, Role::Viewer), token(&admin, Role::Admin)]);
        assert_eq!(access.role_of(&viewer), Some(Role::Viewer));
        assert_eq!(access.role_of(&admin), Some(Role::Admin));
        assert_eq!(access.role_of(""), None);
        assert_eq!(access.role_of(&hex(&digest(&admin))), None);
        assert_eq!(Access::default().role_of(&admin), None);
    }
}
