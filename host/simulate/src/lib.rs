//! Controllers on the bench: called one by one, or run by the scheduler itself on virtual time against a database that
//! is only modelled. The same file, scenario and seed give the same result, to the byte.
//!
//! Time is tokio's paused clock, on a runtime and a thread of its own for each run: nothing waits, and everything that
//! happens has its moment. Guests see that clock, moved to the scenario's date, and chance that comes from the seed.

mod chart;
mod database;
mod dry;
pub mod figures;
mod handler;
pub mod judge;
pub mod model;
pub mod run;
pub mod scenario;
pub mod trace;
pub mod watch;

pub use chart::{svg, terminal};
pub use dry::{DryCall, DrySignals, dry_run};
pub use figures::{CallbackUse, Figures, callback_use, figures};
pub use judge::{Moment, Verdict, judge};
pub use model::Series;
pub use run::{Candidate, DATABASE, Run, SimulationError, simulate};
pub use scenario::Scenario;
pub use watch::Seen;
