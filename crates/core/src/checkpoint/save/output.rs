//! The directory that a save writes into, and how it gets its name.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;

use super::SavedFile;
use crate::error::{Error, Result};

/// A place where a directory can be saved: nothing is there, or an empty directory.
pub(super) struct Output {
    out: PathBuf,
    name: OsString,
    /// The directory that `out` lies in.
    parent: PathBuf,
}

impl Output {
    /// Looks whether `out` can be saved to, where `source` is the directory that is saved.
    pub(super) fn check(out: &Path, source: Option<&Path>) -> Result<Self> {
        let refuse = |problem: &str| Error::Output { path: out.into(), problem: problem.to_owned() };
        let Some(name) = out.file_name() else {
            return Err(refuse("the path ends in no name that a directory could get"));
        };
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let real_parent = real(parent)?;
        if let Some(source) = source {
            let (source, out) = (real(source)?, real_parent.join(name));
            if out == source {
                return Err(refuse("it is the directory of the checkpoint that is saved"));
            }
            if out.starts_with(&source) {
                return Err(refuse("it lies in the directory of the checkpoint that is saved"));
            }
            if source.starts_with(&out) {
                return Err(refuse("the checkpoint that is saved lies in it"));
            }
        }
        let output = Self { out: out.into(), name: name.into(), parent: parent.into() };
        match fs::symlink_metadata(out) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(output),
            Err(source) => Err(Error::Io { path: out.into(), action: "look at", source }),
            Ok(found) if found.is_symlink() => Err(refuse("it is a symbolic link")),
            Ok(found) if !found.is_dir() => Err(refuse("it is a file")),
            Ok(_) => match fs::read_dir(out).map_err(io_error(out, "list"))?.count() {
                0 => Ok(output),
                1 => Err(refuse("it is a directory with a file in it")),
                count => Err(refuse(&format!("it is a directory with {count} files in it"))),
            },
        }
    }

    /// Makes the directory to write into.
    pub(super) fn create(self) -> Result<Staging> {
        // Opened now, so that one that cannot be is an error before anything is written.
        let parent = OpenDir::open(&self.parent)?;
        let process = process::id();
        let mut n = 0u32;
        loop {
            let path = self.parent.join(staging_name(&self.name, &format!("{process}-{n}")));
            match fs::create_dir(&path) {
                Ok(()) => {
                    return Ok(Staging { path, place: self, parent, files: Vec::new(), dirs: Vec::new() });
                }
                // Left by a process of the same number, or another thread's.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && n < u32::MAX => n += 1,
                Err(source) => {
                    return Err(Error::Io { path: self.parent, action: "make a directory in", source });
                }
            }
        }
    }

    /// Directories beside `out` that look like those of other saves to the same name.
    fn leftovers(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.parent) else { return Vec::new() };
        let prefix = staging_name(&self.name, "");
        let is_ours = |name: &OsStr| {
            let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
            rest.is_some_and(|rest| !rest.is_empty() && rest.iter().all(|c| c.is_ascii_digit() || *c == b'-'))
        };
        let mut found: Vec<_> = entries
            .filter_map(Result::ok)
            .filter(|entry| is_ours(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found
    }
}

fn staging_name(name: &OsStr, suffix: &str) -> OsString {
    let mut staging = OsString::from(".");
    staging.push(name);
    staging.push(".partial-");
    staging.push(suffix);
    staging
}

/// A directory that is being filled. It is removed when it is dropped, unless it got its name before.
pub(super) struct Staging {
    path: PathBuf,
    place: Output,
    /// The directory in which it gets its name.
    parent: OpenDir,
    files: Vec<SavedFile>,
    /// Directories inside it.
    dirs: Vec<PathBuf>,
}

/// What became of a directory that got its name.
pub(super) struct Finished {
    pub(super) files: Vec<SavedFile>,
    /// What killed saves to this name have left beside it.
    pub(super) leftovers: Vec<PathBuf>,
    /// What a person should know, although it is there.
    pub(super) note: Option<String>,
}

impl Staging {
    /// Where it is until it gets its name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The name that it will get.
    pub(super) fn out(&self) -> &Path {
        &self.place.out
    }

    /// Makes a directory in it.
    pub(super) fn create_dir(&mut self, name: &Path) -> Result<()> {
        let path = self.path.join(name);
        fs::create_dir(&path).map_err(io_error(&path, "create"))?;
        self.dirs.push(path);
        Ok(())
    }

    /// Writes a file in it.
    pub(super) fn write(&mut self, name: &Path, bytes: &[u8]) -> Result<()> {
        self.write_with(name, |file| file.write_all(bytes))
    }

    /// Makes a file in it and has `fill` write it. When this returns, the file's bytes are on disk.
    pub(super) fn write_with(
        &mut self,
        name: &Path,
        fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<()> {
        let path = self.path.join(name);
        let file = File::create_new(&path).map_err(io_error(&path, "create"))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let write = fill(&mut file).and_then(|()| file.flush());
        write.map_err(io_error(&path, "write"))?;
        let file = file.get_ref();
        file.sync_all().map_err(io_error(&path, "sync"))?;
        let bytes = file.metadata().map_err(io_error(&path, "look at"))?.len();
        self.files.push(SavedFile { name: name.into(), bytes });
        Ok(())
    }

    /// Copies the file at `from` into it.
    pub(super) fn copy(&mut self, from: &Path, name: &Path) -> Result<()> {
        let mut source = File::open(from).map_err(io_error(from, "open"))?;
        let path = self.path.join(name);
        // Not through the buffer: file to file, the system copies by itself where it can.
        let mut file = File::create_new(&path).map_err(io_error(&path, "create"))?;
        let bytes = io::copy(&mut source, &mut file).map_err(io_error(&path, "write"))?;
        file.sync_all().map_err(io_error(&path, "sync"))?;
        self.files.push(SavedFile { name: name.into(), bytes });
        Ok(())
    }

    /// Gives it its name, for good.
    pub(super) fn finish(mut self) -> Result<Finished> {
        for dir in self.dirs.iter().chain([&self.path]) {
            OpenDir::open(dir)?.sync().map_err(io_error(dir, "sync"))?;
        }
        let out = &self.place.out;
        // Where a directory cannot take the place of an empty one.
        #[cfg(not(unix))]
        match fs::remove_dir(out) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(in_the_way(out, error)),
            _ => {}
        }
        fs::rename(&self.path, out).map_err(|error| in_the_way(out, error))?;
        // From here on there is nothing to remove.
        self.path = PathBuf::new();
        // It is there, complete: no error can say otherwise.
        let note = self.parent.sync().err().map(|error| {
            format!(
                "{}: saved, but a power failure may take its name back: {} cannot be synced: {error}",
                out.display(),
                self.place.parent.display()
            )
        });
        if let Some(note) = &note {
            tracing::warn!("{note}");
        }
        Ok(Finished { files: std::mem::take(&mut self.files), leftovers: self.place.leftovers(), note })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!("{}: cannot be removed after a save that failed: {error}", self.path.display());
        }
    }
}

/// The error of a rename: somebody made something of this name while the save was under way, or the system failed.
fn in_the_way(out: &Path, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory => Error::Output {
            path: out.into(),
            problem: "something of this name appeared while it was being saved".into(),
        },
        _ => Error::Io { path: out.into(), action: "rename the saved directory to", source: error },
    }
}

/// A directory whose names can be made to last.
#[cfg(unix)]
struct OpenDir(File);

#[cfg(unix)]
impl OpenDir {
    fn open(dir: &Path) -> Result<Self> {
        File::open(dir).map(Self).map_err(io_error(dir, "open"))
    }

    fn sync(&self) -> io::Result<()> {
        match self.0.sync_all() {
            // Some file systems keep directories in order by themselves and have no such call.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
            synced => synced,
        }
    }
}

/// There is no such call here.
#[cfg(not(unix))]
struct OpenDir;

#[cfg(not(unix))]
impl OpenDir {
    fn open(_: &Path) -> Result<Self> {
        Ok(Self)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn real(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(io_error(path, "open"))
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { path: path.into(), action, source }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    /// A file opened so can be named, and neither read nor synced.
    const O_PATH: i32 = 0o10_000_000;

    #[test]
    fn a_sync_that_fails_when_all_is_there_is_a_note_and_no_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let out = dir.path().join("out");
        let output = Output::check(&out, None).unwrap_or_else(|error| panic!("{}", error.report()));
        let mut staging = output.create().unwrap_or_else(|error| panic!("{}", error.report()));
        staging.write(Path::new("file"), b"all of it").unwrap_or_else(|error| panic!("{}", error.report()));
        let parent = fs::OpenOptions::new().read(true).custom_flags(O_PATH).open(dir.path());
        staging.parent = OpenDir(parent.expect("a directory that is there"));

        let finished = staging.finish().unwrap_or_else(|error| panic!("{}", error.report()));
        let note = finished.note.expect("it cannot be synced");
        assert!(note.contains("saved") && note.contains(&*dir.path().to_string_lossy()), "{note}");
        assert_eq!(fs::read(out.join("file")).expect("it is there"), b"all of it");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "nothing is left beside it");
    }
}
