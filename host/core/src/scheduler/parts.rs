//! What the scheduler asks of a database where several work on one update.

/// Whether the progress of a row is one that a batch can go on from.
pub type Stands<'a> = &'a (dyn Fn(&str) -> bool + Send + Sync);

/// The progress to be written, by what the row says now; `None` where nothing is to be written.
pub type Merge<'a> = &'a (dyn Fn(&str) -> Option<String> + Send + Sync);

/// What became of a batch of a part of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartCommit {
    /// It is committed; the progress that was written.
    Committed(String),
    /// Somebody else changed the row's progress, or removed the row (true): it is rolled back.
    Moved {
        /// True where the row is gone.
        gone: bool,
    },
}
