//! Whom it disturbs, what it refuses, and what it says of itself.
