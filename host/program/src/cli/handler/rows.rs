//! Rows as JSON: what is read from a file of them, and how values are told.

use std::path::Path;

use serde_json::{Value as Json, json};
use tidegate::update::{Cell, Cells};

use super::super::error::CliError;

/// How values are written.
pub(super) const HOW: &str = "write an array of rows, each an array of values: null, true, 7, 1.5, \"text\", {\"bytes\": \"c0ffee\"}, \
                   {\"type\": \"numeric\", \"text\": \"1.50\"}";

/// The rows of a file.
pub(super) fn read(path: &Path) -> Result<Vec<Cells>, CliError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::usage(format!("cannot read the rows in {shown}")).because(error))?;
    let wrong = |message: String| CliError::usage(format!("{shown}: {message}")).hint(HOW);
    let Json::Array(rows) = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))? else {
        return Err(wrong("it is no array".to_owned()));
    };
    let row = |(number, row): (usize, Json)| match row {
        Json::Array(values) => {
            let cells = values.into_iter().map(cell).collect::<Result<Cells, String>>();
            cells.map_err(|problem| wrong(format!("row {number}: {problem}")))
        }
        _ => Err(wrong(format!("row {number} is no array"))),
    };
    (1..).zip(rows).map(row).collect()
}

fn cell(value: Json) -> Result<Cell, String> {
    let text = |value: &Json, key: &str| value.get(key).and_then(Json::as_str).map(str::to_owned);
    match value {
        Json::Null => Ok(Cell::Null),
        Json::Bool(flag) => Ok(Cell::Boolean(flag)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Ok(Cell::Integer(number)),
            (None, Some(float)) if number.is_f64() => Ok(Cell::Float(float)),
            _ => Err(format!("{number} is no integer of 64 bits")),
        },
        Json::String(text) => Ok(Cell::Text(text)),
        Json::Array(_) => Err("a value is no array".to_owned()),
        Json::Object(_) => match (text(&value, "bytes"), text(&value, "type"), text(&value, "text")) {
            (Some(digits), None, None) => bytes(&digits).map(Cell::Bytes),
            (None, Some(type_name), Some(text)) => Ok(Cell::Other { type_name, text }),
            _ => Err(format!("{value} is neither bytes nor a value of another type")),
        },
    }
}

fn bytes(digits: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("\"{digits}\" is not in hexadecimal digits");
    if !digits.is_ascii() || digits.len() % 2 == 1 {
        return Err(wrong());
    }
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2).unwrap_or_default(), 16).map_err(|_| wrong());
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// A value as JSON.
pub(super) fn to_json(cell: &Cell) -> Json {
    match cell {
        Cell::Null => Json::Null,
        Cell::Boolean(flag) => json!(flag),
        Cell::Integer(number) => json!(number),
        // JSON has no infinities.
        Cell::Float(number) if number.is_finite() => json!(number),
        Cell::Float(number) => json!(number.to_string()),
        Cell::Text(text) => json!(text),
        Cell::Bytes(bytes) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "bytes": digits })
        }
        Cell::Other { type_name, text } => json!({ "type": type_name, "text": text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_as_it_was_told() {
        let cells = [
            Cell::Null,
            Cell::Boolean(true),
            Cell::Integer(i64::MIN),
            Cell::Float(0.1),
            Cell::Text("é".to_owned()),
            Cell::Bytes(vec![0, 0xc0]),
            Cell::Other { type_name: "numeric".to_owned(), text: "1.50".to_owned() },
        ];
        for written in cells {
            assert_eq!(cell(to_json(&written)), Ok(written.clone()), "{written:?}");
        }
        for wrong in ["{\"bytes\": \"abc\"}", "{\"bytes\": \"zz\"}", "[]", "{}", "18446744073709551615"] {
            assert!(cell(serde_json::from_str(wrong).unwrap()).is_err(), "{wrong}");
        }
    }
}
