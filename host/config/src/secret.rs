//! Values that must not be shown, and how they get into a configuration without standing in it.

use std::fmt;

/// A text that its `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where the values of variables are had: the library itself reads no environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces each `${NAME}` by the variable's value. `$${` stands for a plain `${`; any other `$` stands for itself,
/// as SQL's `$1` and `$$` must.
///
/// # Errors
/// In words: a variable that is not set, or something between the braces that is no name.
pub(super) fn expand(text: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, reference) = rest.split_at(start);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = &reference[2..];
            continue;
        }
        let Some((name, after)) = reference[2..].split_once('}') else {
            return Err("\"${\" without a \"}\" after it".to_owned());
        };
        if !is_variable_name(name) {
            return Err(format!("\"{name}\" between \"${{\" and \"}}\" is not a variable's name"));
        }
        expanded.push_str(before);
        expanded.push_str(&environment(name).ok_or_else(|| format!("environment variable \"{name}\" is not set"))?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|character| character == '_' || character.is_ascii_alphanumeric())
}
