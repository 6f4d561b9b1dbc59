//! What several topics need.

pub mod place;
pub mod postgres;

use std::time::{Duration, Instant};

/// Waits until `holds`, looking often; panics with `what` where it takes too long.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
