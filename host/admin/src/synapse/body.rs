//! The bodies of requests, whatever type they say that they are of.

use axum::body::{Body, BodyDataStream};
use axum::http::request::Parts;
use futures_util::StreamExt;
use serde_json::{Map, Value};

use super::answer::Refusal;
use crate::Limits;

/// Bytes that are read of a body that nobody needs. A client reads no answer before it has sent all, and a connection
/// that is closed on it loses the answer; a client that sends more than this is not waited for.
const DISCARDED_AT_MOST: usize = 64 << 20;

/// Reads a body that has to be a JSON object.
///
/// # Errors
/// A body that is too large, is no JSON or is something else than an object.
pub(super) async fn object(parts: &Parts, body: Body) -> Result<Map<String, Value>, Refusal> {
    let limit =
        parts.extensions.get::<Limits>().map_or_else(|| Limits::default().body_bytes, |limits| limits.body_bytes);
    let bytes = read(body, limit).await?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Refusal::not_an_object()),
        Err(_) => Err(Refusal::not_json()),
    }
}

/// `limit` is in bytes.
async fn read(body: Body, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Refusal::unreadable())?;
        if bytes.len() + chunk.len() > limit {
            drop(bytes);
            discard(stream).await;
            return Err(Refusal::too_large(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Reads what is left of a body, for nothing.
pub(super) async fn discard(mut stream: BodyDataStream) {
    let mut discarded = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        discarded += chunk.len();
        if discarded > DISCARDED_AT_MOST {
            return;
        }
    }
}
