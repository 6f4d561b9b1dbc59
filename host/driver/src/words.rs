//! What of a database's words goes further than the operator's log: no values of rows.

/// In the place of words that the database did not choose itself.
pub const WITHHELD: &str =
    "a function, trigger or extension of the database raised an error, whose words stand in the host's log";

/// The message without what may be values of rows: what stands between quotation marks, from the first to the last, and
/// what begins with a digit. A server may speak any language, and a value may hold quotation marks of its own.
pub fn masked(message: &str) -> String {
    const MARKS: &str = "\"'`«»‹›“”„‟‘’‚‛「」『』＂";
    const MASK: &str = "…";
    let is_mark = |character: char| MARKS.contains(character);
    let first = message.char_indices().find(|(_, character)| is_mark(*character));
    let last = message.char_indices().rev().find(|(_, character)| is_mark(*character));
    match (first, last) {
        (Some((first, opening)), Some((last, closing))) => {
            let before = message.get(..first).unwrap_or_default();
            let after = message.get(last + closing.len_utf8()..).unwrap_or_default();
            let closing = if first == last { String::new() } else { closing.to_string() };
            // A mark alone may be an apostrophe, or the rest may be cut off: what follows is not known to be no value.
            let after = if first == last { String::new() } else { without_numbers(after) };
            format!("{}{opening}{MASK}{closing}{after}", without_numbers(before))
        }
        _ => without_numbers(message),
    }
}

/// The text with each word that begins with a digit replaced; signs before and after stay.
fn without_numbers(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let (mut inside_word, mut inside_number) = (false, false);
    for character in text.chars() {
        let of_word = character.is_alphanumeric() || character == '_';
        inside_number = match inside_number {
            // A point, or a sign of an exponent, goes on with a number; a full stop at its end is lost with it.
            true => of_word || matches!(character, '.' | ',' | ':' | '-' | '+'),
            false => !inside_word && character.is_numeric(),
        };
        match inside_number {
            true if !result.ends_with('…') => result.push('…'),
            true => {}
            false => result.push(character),
        }
        inside_word = of_word;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn values_are_masked_in_any_language() {
        let cases = [
            ("invalid input syntax for type integer: \"a\" b \"c\"", "invalid input syntax for type integer: \"…\""),
            ("value \"99999999999\" is out of range for type integer", "value \"…\" is out of range for type integer"),
            ("date/time field value out of range: \"2020-13-45\"", "date/time field value out of range: \"…\""),
            ("date field value out of range: 2020-13-45", "date field value out of range: …"),
            (
                "invalid byte sequence for encoding \"UTF8\": 0xe2 0x28 0xa1",
                "invalid byte sequence for encoding \"…\": … … …",
            ),
            ("ungültige Eingabesyntax für Typ integer: »a«", "ungültige Eingabesyntax für Typ integer: »…«"),
            ("syntaxe en entrée invalide pour l'integer : « a »", "syntaxe en entrée invalide pour l'…»"),
            ("it isn't a value", "it isn'…"),
            ("numeric field overflow", "numeric field overflow"),
            ("division by zero", "division by zero"),
            ("setval: value -7.5e-3 is out of bounds for int4", "setval: value -… is out of bounds for int4"),
            ("value too long for type character varying(5)", "value too long for type character varying(…)"),
            ("", ""),
        ];
        for (message, expected) in cases {
            assert_eq!(masked(message), expected, "{message}");
        }
    }
}
