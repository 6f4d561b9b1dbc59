//! What is wrong with a configuration, and where: a message for a person, with its place in the file.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A place in the configuration file, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// An error or a warning about a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostic {
    /// The configuration file, as it was named to [`Config::load`](super::Config::load).
    pub file: PathBuf,
    /// Where in it; `None` where it is about the file as a whole.
    pub position: Option<Position>,
    /// What is wrong. Never holds the value of an environment variable or of a secret file.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// The text of a configuration file, which turns the parser's byte offsets into lines and columns.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub path: &'a Path,
    text: &'a str,
    /// Where the lines but the first begin: every key has its place, and a file may have a great many.
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, line_starts: text.match_indices('\n').map(|(newline, _)| newline + 1).collect() }
    }

    /// The place of a byte offset.
    pub(super) fn position(&self, offset: usize) -> Position {
        let lines_before = self.line_starts.partition_point(|start| *start <= offset);
        let line_start = lines_before.checked_sub(1).map_or(0, |last| self.line_starts[last]);
        let before = self.text.get(line_start..self.text.floor_char_boundary(offset)).unwrap_or_default();
        Position { line: 1 + lines_before, column: 1 + before.chars().count() }
    }

    /// What somebody wrote there, variables not yet replaced: the form in which a value may stand in a message.
    pub(super) fn written(&self, span: Range<usize>) -> &'a str {
        self.text.get(span).unwrap_or_default()
    }

    /// A diagnostic about what is at a byte offset.
    pub(super) fn diagnostic(&self, offset: usize, message: String, hint: Option<String>) -> Diagnostic {
        Diagnostic { file: self.path.to_owned(), position: Some(self.position(offset)), message, hint }
    }
}

#[cfg(test)]
mod tests {
    use super::{Path, Position, Source};

    #[test]
    fn places_are_counted_in_lines_and_characters() {
        for (text, places) in [
            ("", &[(0, 1, 1)][..]),
            ("x", &[(0, 1, 1), (1, 1, 2), (9, 1, 2)]),
            ("x\n", &[(1, 1, 2), (2, 2, 1), (9, 2, 1)]),
            ("a\r\né = 1\n\n", &[(1, 1, 2), (2, 1, 3), (3, 2, 1), (4, 2, 1), (5, 2, 2), (10, 3, 1), (11, 4, 1)]),
        ] {
            let source = Source::new(Path::new("tidegate.toml"), text);
            for (offset, line, column) in places.iter().copied() {
                assert_eq!(source.position(offset), Position { line, column }, "{text:?} at {offset}");
            }
        }
    }
}
