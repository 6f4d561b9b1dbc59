//! Reading a trace, line by line.

use std::io::{self, BufRead};

use serde_json::Value;

use super::format::{Header, Line, VERSION};

/// What is wrong with a trace, and on which line.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("line {line}: {source}")]
    Io {
        /// The line.
        line: u64,
        /// What the system says.
        source: io::Error,
    },
    /// The file is something else.
    #[error("line 1: this is no trace of tidegate's: {reason}")]
    NoTrace {
        /// What is missing.
        reason: String,
    },
    /// A newer tidegate wrote it.
    #[error("line 1: the trace is of version {found}, and this tidegate reads version {VERSION}")]
    Newer {
        /// Its version.
        found: u64,
    },
    /// A line is not what it should be.
    #[error("line {line}: {reason}")]
    Line {
        /// The line.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// It ends before its end.
    #[error("line {line}: the trace ends here without its last line")]
    Truncated {
        /// The line: the last that there is, or the one that is cut.
        line: u64,
    },
}

impl TraceError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            TraceError::Io { .. } => "see that the file is there and that this user may read it",
            TraceError::NoTrace { .. } => "`tidegate run --record FILE` writes a trace",
            TraceError::Newer { .. } => "read it with the tidegate that wrote it, or with a newer one",
            TraceError::Line { .. } => "the line was changed after it was written: take the file as it was",
            TraceError::Truncated { .. } => {
                "the host still writes it, or was killed; `--partial` has what is there replayed"
            }
        }
    }
}

/// Reads a trace: the header first, then what follows.
pub struct Reader<R> {
    source: R,
    header: Header,
    /// The number of the last line that was read.
    line: u64,
    /// True once the last line there should be was read.
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// What is not a trace, or one of a newer version.
    pub fn new(mut source: R) -> Result<Self, TraceError> {
        let text = match next_line(&mut source, 1)? {
            Some(Text { text, .. }) => text,
            None => return Err(TraceError::NoTrace { reason: "the file is empty".to_owned() }),
        };
        let value: Value = serde_json::from_str(&text)
            .map_err(|_| TraceError::NoTrace { reason: "its first line is not JSON".to_owned() })?;
        match value.get("tidegate_trace").and_then(Value::as_u64) {
            None => return Err(TraceError::NoTrace { reason: "its first line has no \"tidegate_trace\"".to_owned() }),
            Some(found) if found > VERSION => return Err(TraceError::Newer { found }),
            Some(_) => {}
        }
        match serde_json::from_value(value) {
            Ok(Line::Header(header)) => Ok(Self { source, header, line: 1, ended: false }),
            Ok(_) => Err(TraceError::NoTrace { reason: "its first line is not a header".to_owned() }),
            Err(error) => Err(TraceError::Line { line: 1, reason: error.to_string() }),
        }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next line with its number; `None` after the last.
    ///
    /// # Errors
    /// What cannot be read, a line that makes no sense, and [`TraceError::Truncated`] where the trace breaks off.
    pub fn next_line(&mut self) -> Result<Option<(u64, Line)>, TraceError> {
        let line = self.line + 1;
        let Some(Text { text, whole }) = next_line(&mut self.source, line)? else {
            return if self.ended { Ok(None) } else { Err(TraceError::Truncated { line: self.line }) };
        };
        if !whole {
            return Err(TraceError::Truncated { line });
        }
        if self.ended {
            return Err(TraceError::Line { line, reason: "the trace ended on the line before".to_owned() });
        }
        let read = serde_json::from_str(&text).map_err(|error| TraceError::Line { line, reason: error.to_string() })?;
        if matches!(read, Line::Header(_)) {
            return Err(TraceError::Line { line, reason: "there is a second header".to_owned() });
        }
        self.line = line;
        self.ended = matches!(read, Line::End { .. });
        Ok(Some((line, read)))
    }
}

/// A line, and whether it has its end.
struct Text {
    text: String,
    whole: bool,
}

fn next_line(source: &mut impl BufRead, line: u64) -> Result<Option<Text>, TraceError> {
    let mut text = String::new();
    match source.read_line(&mut text) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(Text { whole: text.ends_with('\n'), text })),
        Err(error) if error.kind() == io::ErrorKind::InvalidData && line == 1 => {
            Err(TraceError::NoTrace { reason: "it is not text".to_owned() })
        }
        Err(source) => Err(TraceError::Io { line, source }),
    }
}
