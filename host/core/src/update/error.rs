//! Why a step of an update failed.

use super::sql::{ErrorClass, SqlError};

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum UpdateError {
    /// The database refused.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The stored progress is not something that the handler can go on from. It is never taken for a fresh start.
    #[error("{problem}")]
    Progress {
        /// What is wrong with it.
        problem: String,
        /// The progress, shortened, and what may hold the keys of rows: for the operator's log.
        detail: Option<String>,
    },
    /// The definition is not the one that the update began with, and some rows are done under that one.
    #[error(
        "the definition is not the one that this update began with: {changes}. Put it back, then `tidegate retry`; or \
         have the rows that are left done under the new one: `tidegate accept`"
    )]
    Redefined {
        /// What is not as it was.
        changes: String,
    },
    /// Rows are not as the definition says, though all are done.
    #[error(
        "verification found {wrong} of {looked} rows that are not as the definition says{}{}. The update's progress in `tidegate \
         status --json` names the first. Have them done again: `tidegate verify --repair`; or mend them yourself, then \
         `tidegate retry`",
        besides(*skipped),
        done_again(*repaired)
    )]
    Unverified {
        /// Rows that were looked at.
        looked: u64,
        /// Those of them that are wrong.
        wrong: u64,
        /// Rows besides that were skipped, and are not as the definition says for that.
        skipped: u64,
        /// Rows that the look did again.
        repaired: u64,
        /// The keys of the first of them.
        keys: String,
    },
    /// More rows than may be left behind could not be done.
    #[error(
        "{problem}. The last said: {last}. `tidegate history NAME --skipped` names those that were skipped before; mend the \
         rows or raise max_skipped, then `tidegate retry`"
    )]
    TooManySkipped {
        /// How many, of how many, and how many may be.
        problem: String,
        /// What was said of the last.
        last: String,
        /// The database's own code for that.
        code: Option<String>,
    },
    /// The definition says that the update is not done by tidegate.
    #[error("tidegate does not do this update: {reason}")]
    Refused {
        /// Why not.
        reason: String,
    },
    /// The step returned the progress that it began with.
    #[error("the batch made no progress: it ended where it began")]
    NoProgress,
    /// The handler's own words. They are told to controllers and to all who look, and are not to hold values of rows.
    #[error("{0}")]
    Failed(String),
    /// The handler's own words, and what else there is to say to whoever reads the operator's log.
    #[error("{message}")]
    Detailed {
        /// What is told to controllers and to all who look.
        message: String,
        /// What may hold values of rows.
        detail: String,
    },
}

/// That others were skipped, and count as no wrong ones.
fn besides(skipped: u64) -> String {
    match skipped {
        0 => String::new(),
        skipped => format!(", besides {skipped} that were skipped"),
    }
}

/// That rows were done again and are wrong all the same.
fn done_again(repaired: u64) -> String {
    match repaired {
        0 => String::new(),
        repaired => {
            format!(", though {repaired} were done again: look for a trigger or a rule that changes what is written")
        }
    }
}

impl UpdateError {
    /// What can be done about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            UpdateError::Sql(error) => error.class,
            _ => ErrorClass::Permanent,
        }
    }

    /// True where the values of rows are to blame, see [`SqlError::of_rows`].
    pub fn is_of_rows(&self) -> bool {
        matches!(self, UpdateError::Sql(SqlError { of_rows: true, class: ErrorClass::Permanent, .. }))
    }

    /// See [`SqlError::is_of_size`].
    pub fn is_of_size(&self) -> bool {
        matches!(self, UpdateError::Sql(error) if error.is_of_size())
    }

    /// The database's own code, where it is the database's error.
    pub fn code(&self) -> Option<&str> {
        match self {
            UpdateError::Sql(error) => error.code.as_deref(),
            UpdateError::TooManySkipped { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// What the operator's log alone is told besides: it may hold values of rows.
    pub fn detail(&self) -> Option<&str> {
        match self {
            UpdateError::Sql(error) => error.detail.as_deref(),
            UpdateError::Progress { detail, .. } => detail.as_deref(),
            UpdateError::Detailed { detail, .. } | UpdateError::Unverified { keys: detail, .. } => Some(detail),
            UpdateError::Redefined { .. }
            | UpdateError::Refused { .. }
            | UpdateError::TooManySkipped { .. }
            | UpdateError::NoProgress
            | UpdateError::Failed(_) => None,
        }
    }

    /// The error with its [detail](UpdateError::detail), for whoever can read the rows as well.
    pub fn in_full(&self) -> String {
        match self.detail() {
            Some(detail) => format!("{self}: {detail}"),
            None => self.to_string(),
        }
    }

    /// The error as everybody is told it, controllers, viewers, the history and traces: a database's with its class and
    /// code, and without its [detail](UpdateError::detail).
    pub fn told(&self) -> String {
        match self {
            UpdateError::Sql(error) => error.told(),
            error => error.to_string(),
        }
    }
}
