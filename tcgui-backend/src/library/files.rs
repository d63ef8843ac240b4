//! Lists and reads directories of files within limits.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::document::MAX_SIZE;
use crate::kernel::private_dir::open_foreign;

/// The file name extension.
pub(super) const EXTENSION: &str = "json5";
/// Maximum number of files read from one directory.
const MAX_FILES: usize = 4096;

/// Why a file or directory was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The directory exists but cannot be read.
    #[error("cannot read the directory")]
    Directory(#[source] io::Error),
    /// The directory has too many files. The rest was not read.
    #[error("more than {MAX_FILES} files, the rest is not read")]
    TooMany,
    /// The file cannot be opened.
    #[error("cannot open the file")]
    Open(#[source] io::Error),
    /// The path is a directory, a pipe or a device.
    #[error("is not a regular file")]
    Kind,
    /// The file cannot be read.
    #[error("cannot read the file")]
    Read(#[source] io::Error),
}

/// Returns the files of a directory sorted by name. The list is empty if the directory does not exist.
pub(super) fn list(directory: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(err) if is_absent(&err) => return Ok(Vec::new()),
        Err(err) => return Err(ReadError::Directory(err)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(ReadError::Directory)?.path();
        // Skip hidden files: editors and package managers create them temporarily.
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == EXTENSION)
        {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Returns the paths to read, and an error if there are more than the limit.
pub(super) fn bounded(paths: &[PathBuf]) -> (&[PathBuf], Option<ReadError>) {
    match paths.get(..MAX_FILES) {
        Some(first) if paths.len() > MAX_FILES => (first, Some(ReadError::TooMany)),
        _ => (paths, None),
    }
}

/// Reads at most one byte more than the limit, so that the caller can detect a file that is too long. Other users may control the
/// directory. Therefore pipes and devices are not opened, and a symbolic link is not followed to a file that its owner could not
/// read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let file = open_foreign(path).map_err(|err| match err.kind() {
        io::ErrorKind::InvalidInput => ReadError::Kind,
        _ => ReadError::Open(err),
    })?;
    read_open(file, MAX_SIZE)
}

/// Reads at most one byte more than the limit from an open file.
pub(super) fn read_open(file: File, limit: usize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(ReadError::Read)?;
    Ok(bytes)
}

/// Returns whether the error means that the path does not exist.
pub(super) fn is_absent(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
