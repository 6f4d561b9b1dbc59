//! Who has logged in to the page: sessions in memory, known to a browser by a cookie that no script can read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::{COOKIE, HOST, ORIGIN};
use subtle::ConstantTimeEq;

use crate::access::{Access, Role, digest, random};
use tidegate::scheduler::ledger::Actor;

/// The cookie's name.
const NAME: &str = "tidegate_session";

/// How long a session lasts since it was last used.
const LIFETIME: Duration = Duration::from_secs(12 * 3_600);

/// Sessions that are kept; the one unused for longest gives way.
const MOST: usize = 1_000;

/// The sessions of a host; clones share the same.
#[derive(Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<HashMap<String, Session>>>);

#[derive(Clone)]
struct Session {
    /// The digest of the token that it was opened with: it ends with the token.
    token: [u8; 32],
    /// What a form of this session has to carry.
    seal: String,
    used: Instant,
    /// What the next page says, once.
    notice: Option<Notice>,
}

/// What a page says of the last action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub text: String,
    pub good: bool,
}

/// Whoever looks at the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visitor {
    pub role: Role,
    /// Whom the ledger names; nobody where nobody has to log in.
    pub actor: Option<Actor>,
    /// What the forms carry; `None` where nobody has to log in, and nobody can steer.
    pub seal: Option<String>,
    /// The session's identity.
    id: Option<String>,
}

impl Visitor {
    /// True where the visitor may steer.
    pub(super) fn steers(&self) -> bool {
        self.role == Role::Admin && self.seal.is_some()
    }
}

impl Sessions {
    /// Opens a session for whoever has this token; the value of the cookie comes back.
    pub(super) fn open(&self, access: &Access, token: &str, over_tls: bool) -> Option<String> {
        access.role_of(token)?;
        let (id, seal) = (random().ok()?, random().ok()?);
        let mut sessions = self.lock();
        sessions.retain(|_, session| session.used.elapsed() < LIFETIME);
        if sessions.len() >= MOST
            && let Some(oldest) = sessions.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| id.clone())
        {
            sessions.remove(&oldest);
        }
        let session = Session { token: digest(token), seal, used: Instant::now(), notice: None };
        sessions.insert(id.clone(), session);
        let secure = if over_tls { "; Secure" } else { "" };
        let seconds = LIFETIME.as_secs();
        Some(format!("{NAME}={id}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}"))
    }

    /// Ends a visitor's session; the value of the cookie comes back.
    pub(super) fn close(&self, headers: &HeaderMap) -> String {
        if let Some(id) = cookie(headers) {
            self.lock().remove(id);
        }
        format!("{NAME}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0")
    }

    /// Who asks; `None` where a token is needed first.
    pub(super) fn visitor(&self, access: &Access, headers: &HeaderMap) -> Option<Visitor> {
        if access.is_without_tokens() {
            return Some(Visitor { role: Role::Viewer, actor: None, seal: None, id: None });
        }
        let id = cookie(headers)?;
        let mut sessions = self.lock();
        let session = sessions.get_mut(id).filter(|session| session.used.elapsed() < LIFETIME)?;
        session.used = Instant::now();
        let (role, actor) = (access.role_of_digest(&session.token)?, access.actor_of_digest(&session.token));
        Some(Visitor { role, actor, seal: Some(session.seal.clone()), id: Some(id.to_owned()) })
    }

    /// Has the visitor's next page say something.
    pub(super) fn leave_notice(&self, visitor: &Visitor, notice: Notice) {
        let mut sessions = self.lock();
        if let Some(session) = visitor.id.as_ref().and_then(|id| sessions.get_mut(id)) {
            session.notice = Some(notice);
        }
    }

    /// What the visitor's page says, once.
    pub(super) fn take_notice(&self, visitor: &Visitor) -> Option<Notice> {
        self.lock().get_mut(visitor.id.as_ref()?)?.notice.take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session that a request's cookie names.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == NAME).map(|(_, value)| value).next()
}

/// True where a form was sent by a page of this session: it carries the session's seal, and the browser does not say
/// that another site sent it.
pub(super) fn is_sealed(visitor: &Visitor, seal: &str, headers: &HeaderMap) -> bool {
    let own = visitor.seal.as_deref().unwrap_or_default();
    is_same_origin(headers) && !own.is_empty() && bool::from(own.as_bytes().ct_eq(seal.as_bytes()))
}

/// True where a request does not say that it comes from another site. Browsers say where a form comes from; whoever
/// says nothing is no browser.
pub(super) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    if let Some(site) = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok())
        && !matches!(site, "same-origin" | "none")
    {
        return false;
    }
    match (text(ORIGIN), text(HOST)) {
        (None, _) => true,
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, origin)| origin == host),
        (Some(_), None) => false,
    }
}
