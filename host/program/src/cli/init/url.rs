//! The URL of the database, as it may stand in a file: without the password.

use std::path::{Path, absolute};

use crate::cli::error::CliError;

/// The variable that stands for a password.
const VARIABLE: &str = "TIDEGATE_DATABASE_PASSWORD";

/// A database's URL.
pub(super) struct Url {
    /// As the file has it.
    pub(super) written: String,
    /// The password that stood in it.
    pub(super) password: Option<String>,
}

impl Url {
    /// The URL of nobody's database.
    pub(super) fn example() -> Self {
        Self { written: "sqlite:app.db".to_owned(), password: None }
    }

    /// A URL as somebody typed it, for a file at `config`.
    pub(super) fn new(typed: &str, config: &Path) -> Result<Self, CliError> {
        if let Some(path) = typed.strip_prefix("sqlite:") {
            return Ok(Self { written: format!("sqlite:{}", from_folder_of(config, path)?), password: None });
        }
        let Some((before, password, after)) =
            split_at_password(typed).filter(|(_, password, _)| !is_variable(password))
        else {
            return Ok(Self { written: typed.to_owned(), password: None });
        };
        Ok(Self { written: format!("{before}${{{VARIABLE}}}{after}"), password: Some(password.to_owned()) })
    }

    /// True where it is SQLite's.
    pub(super) fn is_sqlite(&self) -> bool {
        self.written.starts_with("sqlite:")
    }

    /// The variable that stands for the password, where there was one.
    pub(super) fn variable(&self) -> Option<&'static str> {
        self.password.as_ref().map(|_| VARIABLE)
    }

    /// The value of that variable.
    pub(super) fn secret(&self, variable: &str) -> Option<String> {
        self.password.clone().filter(|_| variable == VARIABLE)
    }
}

/// A path that means the same in a file at `config` as here, where it was typed.
fn from_folder_of(config: &Path, path: &str) -> Result<String, CliError> {
    let is_here = config.parent().is_none_or(|folder| folder.as_os_str().is_empty());
    let is_plain = path.is_empty() || path.starts_with([':', '/', '$']);
    if is_here || is_plain {
        return Ok(path.to_owned());
    }
    let path = absolute(path).map_err(|error| CliError::failure("cannot tell the current folder").because(error))?;
    Ok(path.display().to_string())
}

/// What is before, in, and after the password: `scheme://user:password@host`, or the parameter `password`.
fn split_at_password(url: &str) -> Option<(&str, &str, &str)> {
    let start = url.find("://")? + 3;
    let end = url[start..].find(['/', '?']).map_or(url.len(), |end| start + end);
    if let Some(at) = url[start..end].rfind('@').map(|at| start + at)
        && let Some(colon) = url[start..at].find(':').map(|colon| start + colon)
    {
        return Some((&url[..=colon], &url[colon + 1..at], &url[at..]));
    }
    let query = url.find('?')? + 1;
    let parameter = url[query..].split('&').find(|parameter| parameter.starts_with("password="))?;
    // Both are parts of the one text.
    let from = parameter.as_ptr() as usize - url.as_ptr() as usize + "password=".len();
    let to = from + parameter.len() - "password=".len();
    Some((&url[..from], &url[from..to], &url[to..]))
}

/// True for `${NAME}`, which gives nothing away.
fn is_variable(password: &str) -> bool {
    password.is_empty() || (password.starts_with("${") && password.ends_with('}'))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Url;

    #[test]
    fn no_password_is_written_and_the_rest_is_kept() {
        let cases = [
            ("postgres://db/app", "postgres://db/app", None),
            ("postgres://me@db/app", "postgres://me@db/app", None),
            ("postgres://me:${PW}@db/app", "postgres://me:${PW}@db/app", None),
            (
                "postgres://me:a%2Fb@db:5433/app",
                "postgres://me:${TIDEGATE_DATABASE_PASSWORD}@db:5433/app",
                Some("a%2Fb"),
            ),
            ("postgres://me:p@q@db", "postgres://me:${TIDEGATE_DATABASE_PASSWORD}@db", Some("p@q")),
            (
                "postgresql://db:1/app?user=me&password=pw&sslmode=require",
                "postgresql://db:1/app?user=me&password=${TIDEGATE_DATABASE_PASSWORD}&sslmode=require",
                Some("pw"),
            ),
            ("sqlite:app.db", "sqlite:app.db", None),
        ];
        for (typed, written, password) in cases {
            let url = Url::new(typed, Path::new("tidegate.toml")).unwrap_or_else(|_| Url::example());
            assert_eq!((url.written.as_str(), url.password.as_deref()), (written, password), "{typed}");
        }
    }
}
