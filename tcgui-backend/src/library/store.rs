//! Stores scenarios that clients send, one file for each. Each write is atomic.
//!
//! Synchronous: the actor calls it on a blocking thread, one call at a time. Directories and files that another user could have
//! written are refused ([`PrivateDir`]).

use std::io;
use std::path::{Path, PathBuf};

use tcgui_shared::scenario::{ErrorCategory, NetworkScenario};

use super::files::{self, ReadError};
use crate::kernel::private_dir::{Distrust, PrivateDir, PrivateDirError};
use crate::scenario;

/// Maximum number of stored scenarios.
const MAX_STORED: usize = 1000;
/// Maximum size of a stored file in bytes: ten thousand steps in wire format.
const MAX_SIZE: usize = 16 * 1024 * 1024;
/// The file name extension.
const EXTENSION: &str = "json";
/// The file name during a write. No id maps to a name that begins with a dot.
const UNFINISHED: &str = ".unfinished";
/// The suffix of a damaged file that was set aside.
const ASIDE: &str = "damaged";

/// Why a scenario was not stored or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The state directory cannot be created.
    #[error("cannot make the directory {}", directory.display())]
    Create {
        directory: PathBuf,
        #[source]
        err: io::Error,
    },
    /// The file was not written. The earlier content is unchanged.
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
    /// The scenario cannot be serialised.
    #[error("cannot write the scenario as JSON")]
    Encode(#[source] serde_json::Error),
    /// The maximum number of scenarios is stored.
    #[error("{MAX_STORED} scenarios are stored, which is the maximum: remove one first")]
    Full,
    /// The directory or a file cannot be read now.
    #[error(transparent)]
    Read(ReadError),
    /// The damaged file was renamed and is not loaded.
    #[error("damaged, set aside as {}", aside.display())]
    SetAside {
        aside: PathBuf,
        #[source]
        err: DamageError,
    },
    /// The damaged file could not be renamed.
    #[error("damaged, and cannot be set aside ({moving})")]
    Stuck {
        moving: io::Error,
        #[source]
        err: DamageError,
    },
    /// The file was set aside by an earlier run.
    #[error("was damaged and set aside: repair and rename it, or remove it")]
    Aside,
}

/// Why a stored file is damaged.
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
    /// Returns the error category for the client.
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

/// The directory of stored scenarios.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

impl Store {
    /// Creates a store. The directory need not exist. It is created with the first stored scenario.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Returns the path of the file of a scenario.
    pub(super) fn path(&self, id: &str) -> PathBuf {
        self.directory.join(file_name(id))
    }

    /// Returns the stored scenarios by file, and the errors by path. Damaged files are renamed.
    pub(super) fn read(&self) -> Vec<(PathBuf, Result<NetworkScenario, StoreError>)> {
        let opened = self.open().and_then(|directory| match directory {
            Some(directory) => Ok(Some((names(&directory)?, directory))),
            None => Ok(None),
        });
        let (names, directory) = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return Vec::new(),
            Err(err) => {
                let err = StoreError::Read(ReadError::Directory(err));
                return vec![(self.directory.clone(), Err(err))];
            }
        };
        let mut found = Vec::new();
        for name in names {
            let is = |extension| name.extension().is_some_and(|found| found == extension);
            let result = if is(EXTENSION) {
                self.read_one(&directory, &name)
            } else if is(ASIDE) {
                Err(StoreError::Aside)
            } else {
                continue;
            };
            found.push((self.directory.join(name), result));
        }
        found
    }

    /// Checks that other users cannot write to the directory and its files.
    ///
    /// # Errors
    /// The untrusted path and how to repair it. Other read errors are reported by [`Self::read`].
    pub(super) fn check(&self) -> Result<(), Distrust> {
        let directory = match PrivateDir::open(&self.directory) {
            Ok(directory) => directory,
            Err(PrivateDirError::Distrust(distrust)) => return Err(distrust),
            Err(PrivateDirError::Open { .. }) => return Ok(()),
        };
        for name in directory.names().unwrap_or_default() {
            if Path::new(&name)
                .extension()
                .is_none_or(|extension| extension != EXTENSION)
            {
                continue;
            }
            if let Err(err) = directory.open_file(&name)
                && let Some(distrust) = Distrust::within(&err)
            {
                return Err(distrust.clone());
            }
        }
        Ok(())
    }

    /// Opens the directory. Returns `None` if it does not exist.
    fn open(&self) -> io::Result<Option<PrivateDir>> {
        match PrivateDir::open(&self.directory).map_err(PrivateDirError::into_io) {
            Ok(directory) => Ok(Some(directory)),
            Err(err) if files::is_absent(&err) => Ok(None),
            Err(err) => Err(err),
        }
    }

    fn read_one(&self, directory: &PrivateDir, name: &Path) -> Result<NetworkScenario, StoreError> {
        let opened = directory.open_file(name).map_err(ReadError::Open);
        let bytes = opened.and_then(|file| files::read_open(file, MAX_SIZE));
        let path = self.directory.join(name);
        self.decode(&path, &bytes.map_err(StoreError::Read)?)
            .map_err(|err| match set_aside(directory, name) {
                Ok(aside) => StoreError::SetAside {
                    aside: self.directory.join(aside),
                    err,
                },
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

    /// Writes a scenario and replaces the stored one with the same id. After a crash the file has either the old or the new
    /// content.
    pub(super) fn write(&self, scenario: &NetworkScenario) -> Result<(), StoreError> {
        let json = serde_json::to_vec_pretty(scenario).map_err(StoreError::Encode)?;
        let name = file_name(&scenario.id);
        let created = PrivateDir::create(&self.directory).map_err(PrivateDirError::into_io);
        let directory = created.map_err(|err| StoreError::Create {
            directory: self.directory.clone(),
            err,
        })?;
        if !directory.has(&name) && count(&directory) >= MAX_STORED {
            return Err(StoreError::Full);
        }
        replace(&directory, &name, &json).map_err(|err| StoreError::Write {
            path: self.path(&scenario.id),
            err,
        })
    }

    /// Removes the scenario with this id. Returns whether it existed.
    pub(super) fn remove(&self, id: &str) -> Result<bool, StoreError> {
        let removed = self.open().and_then(|directory| match directory {
            Some(directory) => {
                directory.remove(file_name(id))?;
                directory.sync()?;
                Ok(true)
            }
            None => Ok(false),
        });
        match removed {
            Err(err) if files::is_absent(&err) => Ok(false),
            removed => removed.map_err(|err| StoreError::Remove {
                path: self.path(id),
                err,
            }),
        }
    }
}

/// Returns the sorted names of all entries.
fn names(directory: &PrivateDir) -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<_> = directory.names()?.into_iter().map(PathBuf::from).collect();
    names.sort_unstable();
    Ok(names)
}

fn count(directory: &PrivateDir) -> usize {
    let names = names(directory).unwrap_or_default();
    let scenario = |name: &&PathBuf| {
        name.extension()
            .is_some_and(|extension| extension == EXTENSION)
    };
    names.iter().filter(scenario).count()
}

fn replace(directory: &PrivateDir, name: &str, bytes: &[u8]) -> io::Result<()> {
    let written = directory
        .write_file(UNFINISHED, bytes)
        .and_then(|()| directory.rename(UNFINISHED, name))
        .and_then(|()| directory.sync());
    if written.is_err() {
        // Frees the space of the unfinished file. If that fails, the next write replaces the file.
        directory.remove(UNFINISHED).ok();
    }
    written
}

/// Renames a damaged file to an unused name in the same directory.
fn set_aside(directory: &PrivateDir, name: &Path) -> io::Result<PathBuf> {
    for number in 1..=MAX_STORED {
        let aside = name.with_extension(format!("{number}.{ASIDE}"));
        // Use link(2): unlike rename(2), it never replaces an existing file.
        match directory.link(name, &aside) {
            Ok(()) => return directory.remove(name).map(|()| aside),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            Err(err) => return Err(err),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Returns the file name for an id. An id that is valid on every file system is used unchanged. Otherwise the name is `=` and the
/// base64 form of the id (RFC 4648 §5). The mapping is injective, and no name leaves the directory.
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
