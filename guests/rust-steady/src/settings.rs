//! The operator's settings, read with a default; an error names the key and the value that does not parse.

use crate::bindings::tidegate::controller::settings;

/// A setting that is `true` or `false`.
pub fn flag(key: &str, default: bool) -> Result<bool, String> {
    let Some(value) = settings::get(key) else { return Ok(default) };
    value.trim().parse().map_err(|_| format!("setting `{key}` is \"{value}\", not true or false"))
}

/// A setting that is a number, below 2^31 as all numbers of the contract.
pub fn number(key: &str, default: u32) -> Result<u32, String> {
    let Some(value) = settings::get(key) else { return Ok(default) };
    match value.trim().parse::<u32>() {
        Ok(number) if number <= i32::MAX as u32 => Ok(number),
        _ => Err(format!("setting `{key}` is \"{value}\", not a number from 0 to {}", i32::MAX)),
    }
}
