//! Scenarios that came over the bus, on disk: one file each, written whole or not at all.
//!
//! Synchronous; the actor calls it on a blocking thread, one call at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tcgui_shared::scenario::{ErrorCategory, NetworkScenario};

use super::files::{self, ReadError};
use crate::scenario;

/// The most scenarios that are stored.
const MAX_STORED: usize = 1000;
/// The largest stored file: ten thousand steps as the wire has them.
const MAX_SIZE: usize = 16 * 1024 * 1024;
/// What the files are called.
const EXTENSION: &str = "json";
/// What a file is called while it is written; no id leads to a name that begins with a dot.
const UNFINISHED: &str = ".unfinished";
/// What is added to the name of a file that cannot be read.
const ASIDE: &str = "damaged";

/// Why something was not stored or not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The state directory cannot be made.
    #[error("cannot make the directory {}", directory.display())]
    Create {
        directory: PathBuf,
        #[source]
        err: io::Error,
    },
    /// The file was not written; what was there before still is.
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        err: io::Error,
    },
    /// The file was not removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        err: io::Error,
    },
    /// The scenario cannot be written as JSON.
    #[error("cannot write the scenario as JSON")]
    Encode(#[source] serde_json::Error),
    /// There are too many.
    #[error("{MAX_STORED} scenarios are stored, which is the most: remove one first")]
    Full,
    /// The directory or a file cannot be read now.
    #[error(transparent)]
    Read(ReadError),
    /// The file was set aside and counts no more.
    #[error("damaged, set aside as {}", aside.display())]
    SetAside {
        aside: PathBuf,
        #[source]
        err: DamageError,
    },
    /// The file should be set aside and stayed.
    #[error("damaged, and cannot be set aside ({moving})")]
    Stuck {
        moving: io::Error,
        #[source]
        err: DamageError,
    },
    /// Left from an earlier start.
    #[error("was damaged and set aside: repair and rename it, or remove it")]
    Aside,
}

/// What is wrong with a stored file.
#[derive(Debug, thiserror::Error)]
pub(super) enum DamageError {
    #[error("no scenario")]
    Decode(#[source] serde_json::Error),
    #[error("more than {MAX_SIZE} bytes")]
    Size,
    #[error("{0}")]
    Flaw(crate::preset::Flaw),
    #[error("holds the scenario {id:?}, which has another file name")]
    Name { id: String },
}

impl StoreError {
    /// Returns what the failure means to a client.
    pub(super) fn category(&self) -> ErrorCategory {
        let (Self::Create { err, .. } | Self::Write { err, .. } | Self::Remove { err, .. }) = self
        else {
            return match self {
                Self::Full => ErrorCategory::Permanent,
                _ => ErrorCategory::Internal,
            };
        };
        match err.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ErrorCategory::Permission
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCategory::Transient,
            _ => ErrorCategory::Internal,
        }
    }
}

/// The state directory's part for scenarios.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

impl Store {
    /// The directory need not exist; it is made when something is to be stored.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Returns the path of the file of a scenario.
    pub(super) fn path(&self, id: &str) -> PathBuf {
        self.directory.join(file_name(id))
    }

    /// Returns what is stored, by file, and what is wrong, by path. Damaged files are renamed.
    pub(super) fn read(&self) -> Vec<(PathBuf, Result<NetworkScenario, StoreError>)> {
        let entries = match self.entries() {
            Ok(entries) => entries,
            Err(err) => return vec![(self.directory.clone(), Err(StoreError::Read(err)))],
        };
        let mut found = Vec::new();
        for path in entries {
            let is = |extension| path.extension().is_some_and(|it| it == extension);
            let result = if is(EXTENSION) {
                self.read_one(&path)
            } else if is(ASIDE) {
                Err(StoreError::Aside)
            } else {
                continue;
            };
            found.push((path, result));
        }
        found
    }

    fn entries(&self) -> Result<Vec<PathBuf>, ReadError> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(err) if files::is_absent(&err) => return Ok(Vec::new()),
            Err(err) => return Err(ReadError::Directory(err)),
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut paths: Vec<_> = paths
            .collect::<Result<_, _>>()
            .map_err(ReadError::Directory)?;
        paths.sort_unstable();
        Ok(paths)
    }

    fn read_one(&self, path: &Path) -> Result<NetworkScenario, StoreError> {
        let bytes = files::read_within(path, MAX_SIZE).map_err(StoreError::Read)?;
        self.decode(path, &bytes)
            .map_err(|err| match set_aside(path) {
                Ok(aside) => StoreError::SetAside { aside, err },
                Err(moving) => StoreError::Stuck { moving, err },
            })
    }

    fn decode(&self, path: &Path, bytes: &[u8]) -> Result<NetworkScenario, DamageError> {
        if bytes.len() > MAX_SIZE {
            return Err(DamageError::Size);
        }
        let scenario: NetworkScenario =
            serde_json::from_slice(bytes).map_err(DamageError::Decode)?;
        scenario::check(&scenario).map_err(DamageError::Flaw)?;
        if self.path(&scenario.id) != path {
            return Err(DamageError::Name { id: scenario.id });
        }
        Ok(scenario)
    }

    /// Writes a scenario over what is stored under its id. After a crash, the old one is there or the
    /// new one, whole.
    pub(super) fn write(&self, scenario: &NetworkScenario) -> Result<(), StoreError> {
        let json = serde_json::to_vec_pretty(scenario).map_err(StoreError::Encode)?;
        let path = self.path(&scenario.id);
        self.create()?;
        if !path.exists() && self.count() >= MAX_STORED {
            return Err(StoreError::Full);
        }
        self.replace(&path, &json)
            .map_err(|err| StoreError::Write { path, err })
    }

    fn count(&self) -> usize {
        let entries = self.entries().unwrap_or_default();
        let scenario = |path: &&PathBuf| path.extension().is_some_and(|it| it == EXTENSION);
        entries.iter().filter(scenario).count()
    }

    fn create(&self) -> Result<(), StoreError> {
        if self.directory.is_dir() {
            return Ok(());
        }
        let created = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.directory);
        // The names of the new directories must survive a power failure too.
        let mut above = self.directory.ancestors().skip(1).take(3);
        let synced = |path: &Path| File::open(path)?.sync_all();
        created
            .and_then(|()| above.try_for_each(synced))
            .map_err(|err| StoreError::Create {
                directory: self.directory.clone(),
                err,
            })
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.directory.join(UNFINISHED);
        let written = write_through(&unfinished, bytes)
            .and_then(|()| fs::rename(&unfinished, path))
            .and_then(|()| self.sync());
        if written.is_err() {
            // Frees the space of a half-written file; what cannot be removed is overwritten next time.
            fs::remove_file(&unfinished).ok();
        }
        written
    }

    /// Removes what is stored under an id, and returns whether there was anything.
    pub(super) fn remove(&self, id: &str) -> Result<bool, StoreError> {
        let path = self.path(id);
        match fs::remove_file(&path).and_then(|()| self.sync()) {
            Ok(()) => Ok(true),
            Err(err) if files::is_absent(&err) => Ok(false),
            Err(err) => Err(StoreError::Remove { path, err }),
        }
    }

    /// Makes a rename or removal survive a power failure.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A leftover is removed, not written into: it might be a link to somewhere else.
    match fs::remove_file(path) {
        Err(err) if !files::is_absent(&err) => return Err(err),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Renames a damaged file to a free name beside it.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    for number in 1..=MAX_STORED {
        let aside = path.with_extension(format!("{number}.{ASIDE}"));
        // Links, unlike a rename, never replace what is there.
        match fs::hard_link(path, &aside) {
            Ok(()) => return fs::remove_file(path).map(|()| aside),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            Err(err) => return Err(err),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Returns the file name of an id: the id itself if any file system takes it as it is, else `=` and
/// its bytes in base64 (RFC 4648 §5). No two ids have one name, and no name leads elsewhere.
pub(super) fn file_name(id: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if !id.is_empty() && id.bytes().all(plain) {
        format!("{id}.{EXTENSION}")
    } else {
        format!("={}.{EXTENSION}", base64(id.as_bytes()))
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |index| group.get(index).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..=group.len() {
            let index = bits >> (18 - 6 * digit) & 0x3f;
            text.push(char::from(DIGITS[index as usize]));
        }
    }
    text
}
