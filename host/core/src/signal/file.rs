//! A signal that somebody writes into a file.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::thread;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{Definition, Sample, Sampler};

/// The most bytes of a file that is to hold a number.
const MOST: u64 = 4_096;

/// A number in a file: whoever measures it writes a new file and renames it over the old one.
#[derive(Debug)]
pub struct File {
    definition: Definition,
    path: PathBuf,
}

impl File {
    /// The number in the file at `path`.
    pub fn new(definition: Definition, path: PathBuf) -> Self {
        Self { definition, path }
    }
}

#[async_trait]
impl Sampler for File {
    fn definitions(&self) -> Vec<Definition> {
        vec![self.definition.clone()]
    }

    async fn sample(&mut self) -> Vec<Sample> {
        let (path, (tell, told)) = (self.path.clone(), oneshot::channel());
        // A thread that nobody joins: a file system may hang, and the end of the process must not wait for it.
        let reader = thread::Builder::new().name("signal-file".to_owned()).spawn(move || {
            let _ = tell.send(read(&path));
        });
        let value = match reader {
            Ok(_) => told.await.unwrap_or_else(|_| Err("the reader ended without a word".to_owned())),
            Err(error) => Err(format!("there is no thread to read it with: {error}")),
        };
        vec![Sample::new(&self.definition.name, value)]
    }
}

fn read(path: &Path) -> Result<f64, String> {
    let unreadable = |error| format!("{} cannot be read: {error}", path.display());
    // Opening a pipe would wait for somebody to write.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let mut text = String::new();
    fs::File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text)).map_err(unreadable)?;
    number(&text).map_err(|problem| format!("{}: {problem}", path.display()))
}

/// The number that a text is. The error does not repeat the text: whoever may look at a host sees it, and the text may be a
/// value that they may not see.
pub(super) fn number(text: &str) -> Result<f64, String> {
    let text = text.trim();
    text.parse().map_err(|_| match text.chars().count() {
        0 => "there is no number, and nothing else".to_owned(),
        1 => "a text of 1 character is not a number".to_owned(),
        count => format!("a text of {count} characters is not a number"),
    })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_file_is_a_number_or_says_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signal");
        assert!(read(&path).unwrap_err().contains("cannot be read"));
        std::fs::write(&path, " 12.5\n").unwrap();
        assert_eq!(read(&path), Ok(12.5));
        std::fs::write(&path, "soon").unwrap();
        assert!(read(&path).unwrap_err().ends_with(": a text of 4 characters is not a number"));
        assert!(read(folder.path()).unwrap_err().ends_with("is not a file"));
    }
}
