//! What the scheduler may rely on, of SQLite and of PostgreSQL alike: one suite, run on both.

mod batch;
mod dialect;
mod lease;
mod postgres_faults;
mod postgres_only;
mod postgres_tls;
mod queue;
mod sqlite_only;

/// Makes, of each promise, a test on SQLite and a test on PostgreSQL.
macro_rules! promises {
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
use promises;
