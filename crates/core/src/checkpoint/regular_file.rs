//! Opening what a directory names as a file, which need not be one.
//!
//! Opening a named pipe waits for a writer that never comes, and a link to a device can be read without end. What
//! is no regular file is refused before it is opened.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

use serde_json::Value;

use super::config::read_json;

/// Bytes of a JSON file. An index has a hundred bytes for each tensor.
const MAX_TEXT_BYTES: u64 = 100_000_000;

/// A text file of a checkpoint's directory, as it stands there; `None` where there is none.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io), also for a pipe or a device in its place, a link to nothing, more than 100 MB, and what
/// is not UTF-8.
pub fn text_file(path: &Path) -> crate::Result<Option<String>> {
    let Some(text) = side_file(path)? else { return Ok(None) };
    let text = String::from_utf8(text).map_err(|error| Error::new(ErrorKind::InvalidData, error));
    text.map(Some).map_err(|source| crate::Error::Io { path: path.to_owned(), action: "read", source })
}

/// A JSON file of a checkpoint's directory, `null` for the infinities and NaN that Python writes; `None` where there is none.
///
/// # Errors
/// As [`text_file`]; [`Error::ConfigSyntax`](crate::Error::ConfigSyntax).
pub fn json_file(path: &Path) -> crate::Result<Option<Value>> {
    let Some(text) = side_file(path)? else { return Ok(None) };
    let value = read_json(&text);
    value.map(Some).map_err(|source| crate::Error::ConfigSyntax { path: path.to_owned(), source })
}

fn side_file(path: &Path) -> crate::Result<Option<Vec<u8>>> {
    match read_text(path) {
        Ok(text) => Ok(Some(text)),
        // A link to a file that is gone is a broken download, not a file that was never meant to be there.
        Err(error) if error.kind() == ErrorKind::NotFound && path.symlink_metadata().is_err() => Ok(None),
        Err(source) => Err(crate::Error::Io { path: path.to_owned(), action: "read", source }),
    }
}

/// The file at `path`, or at the end of its links.
pub(super) fn open(path: &Path) -> Result<File> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "a pipe, a socket or a device, expected a regular file",
        ));
    }
    File::open(path)
}

/// The bytes of a configuration or an index.
pub(super) fn read_text(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    open(path)?.take(MAX_TEXT_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_TEXT_BYTES {
        let problem = format!("longer than {MAX_TEXT_BYTES} bytes, which no file of its kind is");
        return Err(Error::new(ErrorKind::FileTooLarge, problem));
    }
    Ok(text)
}
