//! How a Rust program makes a host of its own: the parts put together, and looked at before anything runs.
//!
//! ```no_run
//! # async fn example(fill_b: impl tidegate::update::Handler + 'static) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use tidegate::{DatabaseSpec, Host};
//! use tidegate_sqlite::Sqlite;
//!
//! let host = Host::builder()
//!     .database(DatabaseSpec::new("master", Sqlite::at("app.db")).update("fill_b", fill_b))
//!     .poll_interval(Duration::from_millis(500))
//!     .build()?;
//! let control = host.control();
//! // `control.stop()`, from wherever it is called, ends this as well.
//! host.run(async {
//!     let _ = tokio::signal::ctrl_c().await;
//! })
//! .await;
//! # Ok(())
//! # }
//! ```

mod builder;
mod error;
mod spec;

pub use builder::HostBuilder;
pub use error::BuildError;
pub use spec::DatabaseSpec;
