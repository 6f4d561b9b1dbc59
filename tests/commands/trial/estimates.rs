//! What the whole is reckoned to come to, held against what it comes to.
