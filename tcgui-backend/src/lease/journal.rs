//! Leases on disk. Each lease has its own file, so a damaged file does not affect other leases.
//!
//! ```text
//! STATE/lock                 locked (flock) by the daemon, or by `tcgui-backend restore`
//! STATE/leases/*.json        named by the kernel's identities alone
//! STATE/leases/*.damaged*    files that could not be read, kept for people
//! ```
//!
//! A file is complete or absent, also after a power failure: it is written under another name, synchronised and
//! renamed, and the directory is synchronised. The calls block until the disk has finished.
//!
//! A lease instructs the daemon to change an interface. So directories and files that another user could have written
//! are refused ([`PrivateDir`]).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::{Home, Lease, LeaseNetns};
use crate::kernel::private_dir::{Distrust, PrivateDir, PrivateDirError};

/// The version of the format. A file with another version is set aside without a change.
const VERSION: u32 = 1;
/// The largest file in bytes that is written, and therefore the largest one that is read.
const LARGEST: usize = 64 * 1024;
/// The largest number of damaged files that are kept for one name.
const ASIDE: u32 = 100;

/// The reasons why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another user could have changed the directory or a file in it.
    #[error("the state directory cannot be used")]
    Distrust(#[source] Distrust),
    /// The directory does not exist and must not be created.
    #[error(
        "there is no state directory {directory:?}: no daemon has run with it; name the daemon's with --state-dir"
    )]
    Missing {
        /// The directory.
        directory: PathBuf,
    },
    /// A lease is too large to be read again.
    #[error("the lease would have {size} bytes, more than the limit of {LARGEST}")]
    TooLarge {
        /// The size of its file in bytes.
        size: usize,
    },
    /// The directory does not exist and cannot be created.
    #[error("cannot create the state directory {directory:?}")]
    Create {
        /// The directory.
        directory: PathBuf,
        /// The error from the kernel.
        #[source]
        err: io::Error,
    },
    /// The lock file cannot be opened.
    #[error("cannot lock the state directory {directory:?}")]
    Lock {
        /// The directory.
        directory: PathBuf,
        /// The error from the kernel.
        #[source]
        err: io::Error,
    },
    /// A daemon, or the command `restore`, uses the directory.
    #[error("another tcgui-backend uses the state directory {directory:?}")]
    Held {
        /// The directory.
        directory: PathBuf,
    },
    /// The files cannot be listed.
    #[error("cannot list the leases in {directory:?}")]
    List {
        /// The directory.
        directory: PathBuf,
        /// The error from the kernel.
        #[source]
        err: io::Error,
    },
    /// A lease cannot be written. The earlier content of its file is unchanged.
    #[error("cannot write the lease {file:?}")]
    Write {
        /// Its file.
        file: PathBuf,
        /// The error from the kernel.
        #[source]
        err: io::Error,
    },
    /// The file of a lease that has ended cannot be removed.
    #[error("cannot remove the lease {file:?}")]
    Erase {
        /// Its file.
        file: PathBuf,
        /// The error from the kernel.
        #[source]
        err: io::Error,
    },
}

/// The content of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    boot_id: String,
    lease: Lease,
}

/// A file that does not contain a valid lease.
#[derive(Debug)]
pub struct Damaged {
    /// Its current path.
    pub file: PathBuf,
    /// The reason why it is invalid.
    pub err: io::Error,
}

/// The content of the directory at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The leases of this boot.
    pub leases: Vec<Lease>,
    /// The number of leases of other boots. Their files are removed.
    pub discarded: usize,
    /// The files that could not be read.
    pub damaged: Vec<Damaged>,
}

/// A change of a file that is made later, unless a newer change of the file is made first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeferredWrite {
    /// Remove the file, because the lease has ended.
    Erase,
    /// Write only the references to the namespace and the name of the interface.
    Amend(Whereabouts),
}

/// The parts of a lease that may change without a change of the qdisc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// The references to the namespace in addition to the first one.
    pub also: Vec<LeaseNetns>,
    /// The name of the interface, as on the wire.
    pub ifname: String,
}

impl Whereabouts {
    /// Returns these parts of a lease.
    pub fn of(lease: &Lease) -> Self {
        Self {
            also: lease.also.clone(),
            ifname: lease.ifname.clone(),
        }
    }
}

/// The leases of one state directory. Only this process uses the directory.
#[derive(Debug)]
pub struct Journal {
    leases: PrivateDir,
    home: Home,
    /// Held for writing while a file is read and written again, so that no other change of a file comes in between.
    amending: RwLock<()>,
    /// The pending changes, by file name.
    late: Mutex<HashMap<String, DeferredWrite>>,
    /// The lock is released when the file is closed.
    _lock: File,
}

impl Journal {
    /// Opens and locks a state directory, and creates it if it is missing.
    ///
    /// The directory may be read-only, so that its leases can be restored.
    ///
    /// # Errors
    /// [`JournalError::Create`], [`JournalError::Distrust`], [`JournalError::Lock`], [`JournalError::Held`].
    pub fn open(state: &Path, home: Home) -> Result<Self, JournalError> {
        let opened = |opened: Result<_, PrivateDirError>| {
            opened.map_err(|err| JournalError::of_directory(state, err))
        };
        let directory = opened(PrivateDir::create(state))?;
        let leases = opened(PrivateDir::create(&state.join("leases")))?;
        let lock = lock_file(&directory).map_err(|err| match distrust(&err) {
            Some(distrust) => JournalError::Distrust(distrust),
            None => JournalError::Lock {
                directory: state.to_owned(),
                err,
            },
        })?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                leases,
                home,
                amending: RwLock::default(),
                late: Mutex::default(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(JournalError::Held {
                directory: state.to_owned(),
            }),
            Err(TryLockError::Error(err)) => Err(JournalError::Lock {
                directory: state.to_owned(),
                err,
            }),
        }
    }

    /// Opens and locks an existing state directory.
    ///
    /// # Errors
    /// [`JournalError::Missing`], and the errors of [`Self::open`].
    pub fn open_existing(state: &Path, home: Home) -> Result<Self, JournalError> {
        match PrivateDir::open(state) {
            Err(err) if err.is_absent() => Err(JournalError::Missing {
                directory: state.to_owned(),
            }),
            // Another error occurs again in this call, which returns it.
            _ => Self::open(state, home),
        }
    }

    /// Returns the boot and the namespace of this process.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Reads all leases. Removes the files of other boots. Renames files that cannot be read.
    ///
    /// # Errors
    /// [`JournalError::List`]. [`JournalError::Distrust`]: another user could have written a file.
    pub fn load(&self) -> Result<Loaded, JournalError> {
        let names = self.leases.names().map_err(|err| JournalError::List {
            directory: self.leases.path().to_owned(),
            err,
        })?;
        let mut loaded = Loaded::default();
        for name in names {
            let file = Path::new(&name);
            match file.extension().and_then(OsStr::to_str) {
                Some("json") => {}
                // A write was interrupted. The file that it was to replace is unchanged.
                Some("new") => {
                    self.leases.remove(file).ok();
                    continue;
                }
                _ => continue,
            }
            match self.read(file) {
                Ok(record) if record.boot_id != self.home.boot_id => {
                    // If the removal fails, the next start tries again, because the boot id still differs.
                    self.leases.remove(file).ok();
                    loaded.discarded += 1;
                }
                Ok(record) => loaded.leases.push(record.lease),
                Err(err) => match distrust(&err) {
                    Some(distrust) => return Err(JournalError::Distrust(distrust)),
                    None => loaded.damaged.push(self.set_aside(file, err)),
                },
            }
        }
        Ok(loaded)
    }

    /// Checks that leases can be written.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn probe(&self) -> Result<(), JournalError> {
        // Several threads may probe at the same time.
        static PROBES: AtomicU64 = AtomicU64::new(0);
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let file = beside(&format!("probe-{number}"));
        let content = [0; 4096];
        let written = self.leases.write_file(&file, &content);
        self.leases.remove(&file).ok();
        written.map_err(|err| self.not_written(&file, err))
    }

    /// Writes a lease. It replaces the earlier lease of the same interface.
    ///
    /// # Errors
    /// [`JournalError::Write`], [`JournalError::TooLarge`].
    pub fn write(&self, lease: &Lease) -> Result<(), JournalError> {
        let _others_too = self.amending.read().unwrap_or_else(PoisonError::into_inner);
        self.take_late(lease);
        self.replace(lease)
    }

    /// Records a change of the file of a lease for [`Self::catch_up`]. Does not wait for the disk.
    pub fn intend(&self, lease: &Lease, late: DeferredWrite) {
        let mut all = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(file_name(lease), late);
    }

    /// Makes the last recorded change of the file of a lease, unless the file was written or removed since.
    ///
    /// # Errors
    /// [`JournalError::Write`], [`JournalError::Erase`].
    pub fn catch_up(&self, lease: &Lease) -> Result<(), JournalError> {
        let _alone = self
            .amending
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match self.take_late(lease) {
            None => Ok(()),
            Some(DeferredWrite::Erase) => self.remove(lease),
            Some(DeferredWrite::Amend(whereabouts)) => self.amend(lease, whereabouts),
        }
    }

    fn take_late(&self, lease: &Lease) -> Option<DeferredWrite> {
        let mut all = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&file_name(lease))
    }

    /// Writes the references and the interface name of a lease, if its file still exists. Keeps the rest of the file,
    /// because it may be newer.
    fn amend(&self, lease: &Lease, whereabouts: Whereabouts) -> Result<(), JournalError> {
        let file = file_name(lease);
        match self.read(Path::new(&file)) {
            Ok(record) => self.replace(&Lease {
                also: whereabouts.also,
                ifname: whereabouts.ifname,
                ..record.lease
            }),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(err) => Err(self.not_written(&file, err)),
        }
    }

    fn replace(&self, lease: &Lease) -> Result<(), JournalError> {
        let file = file_name(lease);
        let record = Record {
            version: VERSION,
            boot_id: self.home.boot_id.clone(),
            lease: lease.clone(),
        };
        let content = serde_json::to_vec(&record);
        let content = content.map_err(|err| self.not_written(&file, err.into()))?;
        let size = content.len();
        if size > LARGEST {
            return Err(JournalError::TooLarge { size });
        }
        let new = beside(&file);
        let written = self
            .leases
            .write_file(&new, &content)
            .and_then(|()| self.leases.rename(&new, &file))
            .and_then(|()| self.leases.sync());
        if written.is_err() {
            self.leases.remove(&new).ok();
        }
        written.map_err(|err| self.not_written(&file, err))
    }

    fn not_written(&self, file: &str, err: io::Error) -> JournalError {
        let file = self.leases.path_of(file);
        JournalError::Write { file, err }
    }

    /// Removes the file of a lease. A missing file is no error.
    ///
    /// # Errors
    /// [`JournalError::Erase`].
    pub fn erase(&self, lease: &Lease) -> Result<(), JournalError> {
        let _others_too = self.amending.read().unwrap_or_else(PoisonError::into_inner);
        self.take_late(lease);
        self.remove(lease)
    }

    fn remove(&self, lease: &Lease) -> Result<(), JournalError> {
        let file = file_name(lease);
        let removed = match self.leases.remove(&file) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed,
        };
        removed
            .and_then(|()| self.leases.sync())
            .map_err(|err| JournalError::Erase {
                file: self.leases.path_of(&file),
                err,
            })
    }

    fn read(&self, file: &Path) -> io::Result<Record> {
        let mut content = Vec::new();
        let most = u64::try_from(LARGEST).unwrap_or(u64::MAX).saturating_add(1);
        let file = self.leases.open_file(file)?;
        file.take(most).read_to_end(&mut content)?;
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
        if content.len() > LARGEST {
            return Err(invalid(format!("it has more than {LARGEST} bytes")));
        }
        let record: Record = serde_json::from_slice(&content)?;
        if record.version == VERSION {
            Ok(record)
        } else {
            let version = record.version;
            Err(invalid(format!(
                "version {version} of the format is not known"
            )))
        }
    }

    /// Renames an invalid file to an unused name.
    fn set_aside(&self, file: &Path, err: io::Error) -> Damaged {
        let free = (0..ASIDE)
            .map(|number| match number {
                0 => file.with_extension("json.damaged"),
                _ => file.with_extension(format!("json.damaged{number}")),
            })
            .find(|free| !self.leases.has(free));
        let aside = free.filter(|free| self.leases.rename(file, free).is_ok());
        let file = self.leases.path_of(aside.as_deref().unwrap_or(file));
        Damaged { file, err }
    }
}

impl JournalError {
    fn of_directory(state: &Path, err: PrivateDirError) -> Self {
        match err {
            PrivateDirError::Distrust(distrust) => Self::Distrust(distrust),
            PrivateDirError::Open { err, .. } => Self::Create {
                directory: state.to_owned(),
                err,
            },
        }
    }
}

/// Returns why a file is not trusted. A directory in place of a file contains no lease. It is treated like a damaged
/// file.
fn distrust(err: &io::Error) -> Option<Distrust> {
    let distrust = Distrust::within(err);
    distrust.filter(|it| !it.is_about_a_directory()).cloned()
}

/// Returns the file name of a lease.
fn file_name(lease: &Lease) -> String {
    // The name contains only numbers. So the name of a namespace or interface cannot change the path.
    match lease.netns {
        LeaseNetns::Own { device, inode, .. } => {
            format!("own-{device}-{inode}-{}.json", lease.ifindex)
        }
        LeaseNetns::Mounted {
            device,
            inode,
            ctime_s,
            ctime_ns,
            link: _,
        } => format!(
            "netns-{device}-{inode}-{ctime_s}-{ctime_ns}-{}.json",
            lease.ifindex
        ),
        LeaseNetns::Held {
            device,
            inode,
            pid,
            started,
        } => format!(
            "held-{device}-{inode}-{pid}-{started}-{}.json",
            lease.ifindex
        ),
    }
}

/// Opens the lock file, and creates it if it is missing. It is opened for reading, which is enough for a lock. A file
/// that is open for writing would prevent the administrator from mounting the file system read-only.
fn lock_file(state: &PrivateDir) -> io::Result<File> {
    let made = state.create_file("lock");
    state.open_file("lock").map_err(|err| match made {
        Err(made) if err.kind() == io::ErrorKind::NotFound => made,
        _ => err,
    })
}

/// Returns the temporary name of a file while it is written.
fn beside(file: &str) -> String {
    match file.strip_suffix(".json") {
        Some(stem) => format!("{stem}.new"),
        None => format!("{file}.new"),
    }
}
