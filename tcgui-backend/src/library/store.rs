//! Scenarios that came over the bus, on disk: one file each, written whole or not at all.
//!
//! Synchronous; the actor calls it on a blocking thread, one call at a time. Directories and files that another
//! user could have written are refused ([`PrivateDir`]).

use std::io;
use std::path::{Path, PathBuf};

use tcgui_shared::scenario::{ErrorCategory, NetworkScenario};

use super::files::{self, ReadError};
use crate::kernel::private_dir::{Distrust, PrivateDir, PrivateDirError};
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
            let is = |extension| name.extension().is_some_and(|it| it == extension);
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

    /// Checks that no other user could have written what is stored.
    ///
    /// # Errors
    /// What is not trusted, and how to repair it. What cannot be read for another reason is reported by
    /// [`Self::read`].
    pub(super) fn check(&self) -> Result<(), Distrust> {
        let directory = match PrivateDir::open(&self.directory) {
            Ok(directory) => directory,
            Err(PrivateDirError::Distrust(distrust)) => return Err(distrust),
            Err(PrivateDirError::Open { .. }) => return Ok(()),
        };
        for name in directory.names().unwrap_or_default() {
            if Path::new(&name)
                .extension()
                .is_none_or(|it| it != EXTENSION)
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

    /// Opens the directory; `None` if there is none.
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

    /// Writes a scenario over what is stored under its id. After a crash, the old one is there or the
    /// new one, whole.
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

    /// Removes what is stored under an id, and returns whether there was anything.
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

/// Returns the names of all entries in order.
fn names(directory: &PrivateDir) -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<_> = directory.names()?.into_iter().map(PathBuf::from).collect();
    names.sort_unstable();
    Ok(names)
}

fn count(directory: &PrivateDir) -> usize {
    let names = names(directory).unwrap_or_default();
    let scenario = |name: &&PathBuf| name.extension().is_some_and(|it| it == EXTENSION);
    names.iter().filter(scenario).count()
}

fn replace(directory: &PrivateDir, name: &str, bytes: &[u8]) -> io::Result<()> {
    let written = directory
        .write_file(UNFINISHED, bytes)
        .and_then(|()| directory.rename(UNFINISHED, name))
        .and_then(|()| directory.sync());
    if written.is_err() {
        // Frees the space of a half-written file; what cannot be removed is overwritten next time.
        directory.remove(UNFINISHED).ok();
    }
    written
}

/// Renames a damaged file to a free name beside it.
fn set_aside(directory: &PrivateDir, name: &Path) -> io::Result<PathBuf> {
    for number in 1..=MAX_STORED {
        let aside = name.with_extension(format!("{number}.{ASIDE}"));
        // Links, unlike a rename, never replace what is there.
        match directory.link(name, &aside) {
            Ok(()) => return directory.remove(name).map(|()| aside),
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
