//! Opening what a directory names as a file, which need not be one.
//!
//! Opening a named pipe waits for a writer that never comes, and a link to a device can be read without end. What
//! is no regular file is refused before it is opened.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Bytes of a JSON file. An index has a hundred bytes for each tensor.
const MAX_TEXT_BYTES: u64 = 100_000_000;

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
