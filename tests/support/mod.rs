//! What several topics need.

pub mod api;
pub mod binary;
pub mod browser;
pub mod command;
pub mod components;
pub mod diary;
pub mod disk;
pub mod pgbouncer;
pub mod place;
pub mod postgres;
pub mod proxy;
pub mod recorder;
pub mod results;
pub mod run;
pub mod trips;
pub mod tutorial;

use std::time::{Duration, Instant};

/// Waits until `holds`, looking often; panics with `what` where it takes too long.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Makes, of each promise, a test on SQLite and a test on PostgreSQL.
macro_rules! on_both {
    ($($(#[$attribute:meta])* async fn $name:ident($place:ident: Place) $body:block)*) => {
        $( $(#[$attribute])* async fn $name($place: &Place) $body )*

        mod sqlite {
            $( #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(&super::Place::sqlite()).await;
            } )*
        }

        mod postgres {
            $( #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(&super::Place::postgres().await).await;
            } )*
        }
    };
}
pub(crate) use on_both;
