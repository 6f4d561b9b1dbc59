//! What commands print: results to standard output, everything about them to standard error; and how numbers and
//! durations are written for people.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anstream::{stderr, stdout};
use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{HumanCount, HumanDuration, MultiProgress};
use serde::Serialize;

use super::error::CliError;

/// Says whether to colour what is printed.
pub(super) fn set_color(choice: ColorChoice) {
    let choice = match choice {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    };
    choice.write_global();
}

/// True where what is written to standard error is to be JSON, a log line each.
static AS_JSON: AtomicBool = AtomicBool::new(false);

/// Has all that is written to standard error written as lines of the log, which are JSON.
pub(super) fn log_everything() {
    AS_JSON.store(true, Ordering::Relaxed);
}

/// True where standard error is a log in JSON.
pub(super) fn is_logged() -> bool {
    AS_JSON.load(Ordering::Relaxed)
}

/// Whether standard error is coloured.
pub(super) fn colors_errors() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// A text without what a terminal would obey: names and errors come from databases, and anybody may have written them.
/// Lines stay lines: for texts of our own, whose parts went through [`inline`].
pub(super) fn visible(text: &str) -> String {
    escaped(text, |character| character != '\n')
}

/// A name, a reason or an error as a part of a line: what a terminal would obey and what would break the line is shown
/// as in a string of Rust's.
pub(super) fn inline(text: &str) -> String {
    escaped(text, |_| true)
}

fn escaped(text: &str, escapes: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_obeyed(character) && escapes(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// True for what moves a terminal's cursor, breaks a line, turns the order of what is shown around or cannot be seen:
/// controls, separators of lines, and Unicode's invisible format characters.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Prints a result.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    print_raw(&format!("{}\n", visible(text)))
}

/// Prints a text of our own as it is, for a program to read.
pub(super) fn print_raw(text: &str) -> Result<(), CliError> {
    match stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has read enough: `tidegate status | head -1`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| CliError::failure("cannot write to standard output").because(error)),
    }
}

/// Prints a result as JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value);
    print(&json.map_err(|error| CliError::failure("cannot write the result as JSON").because(error))?)
}

/// Prints a result as JSON on one line.
pub(super) fn print_json_line(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string(value);
    print(&json.map_err(|error| CliError::failure("cannot write the result as JSON").because(error))?)
}

/// Prints something to standard error as one line of JSON, under this key.
pub(super) fn json_line(key: &str, value: &impl Serialize) {
    if let Ok(value) = serde_json::to_value(value) {
        line(&serde_json::Value::Object([(key.to_owned(), value)].into_iter().collect()).to_string());
    }
}

pub(super) fn error(text: &str) {
    if is_logged() {
        return tracing::error!(target: "tidegate::run", "{}", visible(text));
    }
    labelled(AnsiColor::Red, "error", text);
}

pub(super) fn warn(text: &str) {
    if is_logged() {
        return tracing::warn!(target: "tidegate::run", "{}", visible(text));
    }
    labelled(AnsiColor::Yellow, "warning", text);
}

pub(super) fn note(text: &str) {
    labelled(AnsiColor::Blue, "note", text);
}

pub(super) fn hint(text: &str) {
    labelled(AnsiColor::Cyan, "hint", text);
}

fn labelled(color: AnsiColor, label: &str, text: &str) {
    let style = Style::new().bold().fg_color(Some(color.into()));
    line(&format!("{style}{label}{style:#}: {}", visible(text)));
}

/// Writes a line to standard error.
pub(super) fn line(text: &str) {
    if is_logged() {
        return tracing::info!(target: "tidegate::run", "{}", visible(text));
    }
    // There is nowhere left to tell that standard error is gone.
    let _ = writeln!(stderr().lock(), "{text}");
}

/// Writes a line to standard error while progress bars may be shown there. The log takes them away by itself, and would wait
/// for ever for a lock on them that is held here.
pub(super) fn line_beside(bars: &MultiProgress, text: &str) {
    if is_logged() {
        line(text);
    } else {
        bars.suspend(|| line(text));
    }
}

/// A table without borders, under these headings.
pub(super) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(headings);
    table
}

/// A part of a whole, as "42 %".
pub(super) fn percent(part: f64) -> String {
    // Rounded down: 100 % is said of what is done, and of nothing else.
    format!("{:.0} %", (part.clamp(0.0, 1.0) * 100.0).floor())
}

/// Items per millisecond, as "12,300/s".
pub(super) fn rate(items_per_ms: f64) -> String {
    let per_second = items_per_ms * 1_000.0;
    if per_second < 10.0 { format!("{per_second:.1}/s") } else { format!("{}/s", count(per_second as u64)) }
}

/// A number with its thousands set apart.
pub(super) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// A duration in one unit, as "250ms", "2.0s", "48s" or "3m".
pub(super) fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        1..10 => format!("{:.1}s", duration.as_secs_f64()),
        _ => format!("{:#}", HumanDuration(duration)),
    }
}

/// The one of `known` that was probably meant.
pub(super) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    tidegate_config::nearest(written, &known.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::{inline, visible};

    #[test]
    fn nothing_that_is_printed_is_obeyed_by_a_terminal() {
        assert_eq!(visible("a\u{1b}[2Jb\r\nç – 100 %"), "a\\u{1b}[2Jb\\r\nç – 100 %");
        assert_eq!(inline("a\r\nb\tc\u{9b}d\u{202e}e – 'ç'"), "a\\r\\nb\\tc\\u{9b}d\\u{202e}e – 'ç'");
    }
}
