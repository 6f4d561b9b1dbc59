//! tidegate runs *background updates* over SQLite and PostgreSQL: slow changes to a database, done in small batches at
//! a pace that a *controller* sets. Each batch commits together with the progress that records it, so that a host killed
//! at any instant loses no row and does none twice.
//!
//! The `tidegate` program is one user of this crate; any Rust program can be another. It needs a driver, which is a crate
//! beside this one (`tidegate-sqlite`, `tidegate-postgres`), and four things.
//!
//! **A queue.** The table `background_updates` in the database itself; an application's schema migration queues an
//! update by inserting a row. The host makes the table where it is missing.
//!
//! **Updates.** What is to be done for a row of that name: one of the kinds in [`update`], such as
//! [`Backfill`](update::Backfill), or a [`Handler`](update::Handler) of your own. A handler is given a position, a budget
//! and a transaction, does a part of the work, and says how far it came.
//!
//! **A pace.** Without any word about it, the [built-in policy](controller::BuiltIn): a sleep of 1,000 ms, then a batch
//! that aims at 100 ms. Or a [`Controller`](controller::Controller): one written in Rust, by way of
//! [`controller::Native`], or a WebAssembly component, which the crate `tidegate-wasm` loads.
//!
//! **A host**, built with [`Host::builder`] and run until it is asked to stop.
//!
//! ```
//! use std::time::Duration;
//! use tidegate::controller::BuiltIn;
//! use tidegate::scheduler::End;
//! use tidegate::update::{Backfill, BackfillDefinition};
//! use tidegate::{DatabaseSpec, Host};
//! use tidegate_sqlite::Sqlite;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("app.db");
//! // What the application and its migration did.
//! let application = rusqlite::Connection::open(&path)?;
//! application.execute_batch(
//!     "CREATE TABLE items (id INTEGER PRIMARY KEY, a TEXT NOT NULL, b TEXT);
//!      INSERT INTO items (a) VALUES ('one'), ('two'), ('three');
//!      CREATE TABLE background_updates (
//!          update_name TEXT NOT NULL UNIQUE, progress_json TEXT NOT NULL, depends_on TEXT,
//!          ordering INT NOT NULL DEFAULT 0
//!      );
//!      INSERT INTO background_updates (update_name, progress_json) VALUES ('fill_b', '{}');",
//! )?;
//!
//! let fill_b = Backfill::new(BackfillDefinition {
//!     table: "items".into(),
//!     key: vec!["id".to_owned()],
//!     set: "b = upper(a)".to_owned(),
//!     filter: None,
//! });
//! let host = Host::builder()
//!     .database(
//!         DatabaseSpec::new("master", Sqlite::at(&path))
//!             .update("fill_b", fill_b)
//!             .built_in(BuiltIn { sleep: None, target: Duration::from_millis(100) }),
//!     )
//!     .until_done()
//!     .build()?;
//! let summaries = host.run(std::future::pending()).await;
//!
//! assert_eq!(summaries[0].end, End::Done { remaining: vec![] });
//! let filled: i64 = application.query_row("SELECT count(*) FROM items WHERE b = upper(a)", [], |row| row.get(0))?;
//! assert_eq!(filled, 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Seeing and steering
//!
//! [`Host::events`] has everything that happens, as one stream of typed events; [`Host::control`] pauses a host, wakes it
//! and asks it to stop. Both are taken before [`Host::run`], which consumes the host and ends once all is in good order:
//! the batch in hand committed or rolled back, the controller told, the right to be the one runner given up.
//!
//! A program that opens a database by itself (`Box::new(Sqlite::at(path)).open(&Holder::this_process())`, by the trait
//! [`Open`](scheduler::database::Open)) gives the host a clone of it, and can queue updates, read the queue and its history, and store a pause through the
//! [`Database`](scheduler::database::Database) that it keeps.
//!
//! # Testing a controller
//!
//! The crate `tidegate-simulate` runs the scheduler on virtual time against a modelled database. The crate
//! `tidegate-testing` loads a component, calls it callback by callback, and runs it through scenarios.
//!
//! # Signals
//!
//! What a controller is to decide by can be measured in the background: the function `samplers` of
//! a driver's crate gives the samplers of a database, and you can write a [`Sampler`](signal::Sampler) for anything else.
//! [`signal::Sampling`] asks each at its interval. [`signal::Signals`] has the latest readings: give them to a
//! `tidegate_wasm::ComponentSource` (`with_signals`), to a controller in Rust, and to `status`
//! ([`Control::tell_signals`](scheduler::Control::tell_signals)).
//!
//! # What to rely on
//!
//! Hosts share no state: any number of them may run in a process, on one tokio runtime or on several. (The drivers' hosts share a
//! counter that numbers connections, and the thread that renews leases.) The crate prints
//! nothing (it logs by `tracing`), turns panics in handlers and native controllers into failures and faults, and installs no
//! signal handler. `tidegate-postgres` reads the environment variables by which rustls finds the system's certificates
//! (`SSL_CERT_FILE`, `SSL_CERT_DIR`), and no other crate reads any. `tidegate-wasm` makes log targets for controllers, which
//! `tracing` never gives back, and installs wasmtime's signal handlers, which see to traps, once a component is loaded.
//!
//! It needs a tokio runtime with time and IO enabled. On a runtime of several threads each database gets a thread and a runtime,
//! on which its handlers and native controllers run. On a runtime of one thread these stay there; SQLite's connections, and
//! the renewal of leases, have threads of their own in any case.
//!
//! A handler waits for its statements and for nothing else. Where a batch runs too long, the host interrupts the statement in
//! hand; if the handler does not return within 5 s, the host drops its future at the `await` where it stands, rolls the batch
//! back, and tries again. Give every other wait a limit, well below the target duration.
//! Durations are [`Duration`](std::time::Duration)s; what is stored or shown in milliseconds says so in its name.
//!
//! Runnable examples are in the folder `host/examples` of the repository: `native_handler`, `native_controller` and
//! `events_and_stop`.

pub mod controller;
pub mod embed;
pub mod pace;
pub mod scheduler;
pub mod signal;
pub mod update;

pub use embed::{BuildError, DatabaseSpec, HostBuilder};
pub use scheduler::Host;
