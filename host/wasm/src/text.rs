//! Text that came from a guest, made fit to be shown: short, on one line, without anything a terminal would obey.

/// Ends a text that was cut.
const MARK: &str = "… [cut]";

/// The text in at most `limit` bytes (but room for the mark), control characters escaped.
pub(super) fn printable(text: &str, limit: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(limit));
    // How much of `shown` can stay if the mark must follow.
    let mut fits_with_mark = 0;
    for character in text.chars() {
        if obeyed_by_terminals(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
        if shown.len() > limit {
            shown.truncate(fits_with_mark);
            shown.push_str(MARK);
            return shown;
        }
        if shown.len() + MARK.len() <= limit {
            fits_with_mark = shown.len();
        }
    }
    shown
}

/// Control characters, separators of lines and paragraphs, and what changes the direction of writing.
fn obeyed_by_terminals(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn text_that_fits_is_left_alone() {
        assert_eq!(printable("naïve – 100 %", 16), "naïve – 100 %");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(printable("a\nERROR b\r\x1b[2J\u{202e}", 100), r"a\nERROR b\r\u{1b}[2J\u{202e}");
    }

    #[test]
    fn a_cut_falls_between_characters_and_keeps_the_limit() {
        for limit in 10..40 {
            let cut = printable(&"€".repeat(100), limit);
            assert!(cut.len() <= limit && cut.ends_with("€… [cut]") || limit < 12, "{limit}: {cut}");
        }
    }
}
