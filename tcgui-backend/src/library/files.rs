//! Directories of files: what is in them, read within bounds.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::document::MAX_SIZE;
use crate::kernel::private_dir::open_foreign;

/// What files are called.
pub(super) const EXTENSION: &str = "json5";
/// The most files that are read from one directory.
const MAX_FILES: usize = 4096;

/// Why a file or directory was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The directory is there and closed.
    #[error("cannot read the directory")]
    Directory(#[source] io::Error),
    /// The rest of the directory was left unread.
    #[error("more than {MAX_FILES} files, the rest is not read")]
    TooMany,
    /// The file cannot be opened.
    #[error("cannot open the file")]
    Open(#[source] io::Error),
    /// A directory, a pipe, a device.
    #[error("is not a regular file")]
    Kind,
    /// The file cannot be read.
    #[error("cannot read the file")]
    Read(#[source] io::Error),
}

/// Returns the files of a directory by name; none if it does not exist.
pub(super) fn list(directory: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(err) if is_absent(&err) => return Ok(Vec::new()),
        Err(err) => return Err(ReadError::Directory(err)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(ReadError::Directory)?.path();
        // Hidden files are what editors and package managers leave behind.
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

/// Returns how many of the paths are to be read, and the error that stands for the rest.
pub(super) fn bounded(paths: &[PathBuf]) -> (&[PathBuf], Option<ReadError>) {
    match paths.get(..MAX_FILES) {
        Some(first) if paths.len() > MAX_FILES => (first, Some(ReadError::TooMany)),
        _ => (paths, None),
    }
}

/// Reads a file, one byte more than allowed if there are more. Other users may control its directory: a pipe or
/// device is not opened, and a link not followed that leads to what its owner could not read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let file = open_foreign(path).map_err(|err| match err.kind() {
        io::ErrorKind::InvalidInput => ReadError::Kind,
        _ => ReadError::Open(err),
    })?;
    read_open(file, MAX_SIZE)
}

/// Reads an open file, one byte more than the limit if there are more.
pub(super) fn read_open(file: File, limit: usize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(ReadError::Read)?;
    Ok(bytes)
}

/// Returns whether the error says that there is nothing at the path.
pub(super) fn is_absent(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
