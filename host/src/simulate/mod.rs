//! Controllers on the bench: called one by one, or run by the scheduler itself on virtual time against a database that
//! is only modelled. The same file, scenario and seed give the same result, to the byte.

mod dry;

pub use dry::{DryCall, dry_run};
