//! Leases on disk: one file each, so that none can damage another.
//!
//! ```text
//!  STATE/lock                 held (flock) by the daemon, or by `tcgui-backend restore`
//!  STATE/leases/*.json        named by the kernel's identities alone
//!  STATE/leases/*.damaged*    what could not be read, set aside for people
//! ```
//!
//! A file is complete or absent, also after a power cut: it is written beside its place, synchronised,
//! renamed, and so is the directory. Blocks for as long as the disk takes.
//!
//! A lease tells the daemon what to do to an interface, so directories and files that another user could
//! have written are refused ([`PrivateDir`]).

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

/// Of the format; a file of another one is not touched but set aside.
const VERSION: u32 = 1;
/// The largest file that is written, and so the largest one that is read.
const LARGEST: usize = 64 * 1024;
/// How many damaged files of one name are kept apart.
const ASIDE: u32 = 100;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another user could have changed it, or a file in it.
    #[error("the state directory cannot be used")]
    Distrust(#[source] Distrust),
    /// There is none, and none is to be made.
    #[error(
        "there is no state directory {directory:?}: no daemon has run with it; name the daemon's with --state-dir"
    )]
    Missing {
        /// Which.
        directory: PathBuf,
    },
    /// A lease that would be too large to be read again.
    #[error("the lease would have {size} bytes, more than the limit of {LARGEST}")]
    TooLarge {
        /// Its size as it would be written.
        size: usize,
    },
    /// It is not there and cannot be made.
    #[error("cannot create the state directory {directory:?}")]
    Create {
        /// Which.
        directory: PathBuf,
        /// What the kernel said.
        #[source]
        err: io::Error,
    },
    /// Its lock file cannot be opened.
    #[error("cannot lock the state directory {directory:?}")]
    Lock {
        /// Which.
        directory: PathBuf,
        /// What the kernel said.
        #[source]
        err: io::Error,
    },
    /// A daemon runs on it, or somebody restores by hand.
    #[error("another tcgui-backend uses the state directory {directory:?}")]
    Held {
        /// Which.
        directory: PathBuf,
    },
    /// Its files cannot be listed.
    #[error("cannot list the leases in {directory:?}")]
    List {
        /// Which.
        directory: PathBuf,
        /// What the kernel said.
        #[source]
        err: io::Error,
    },
    /// A lease cannot be written; the one that was there still is.
    #[error("cannot write the lease {file:?}")]
    Write {
        /// Its file.
        file: PathBuf,
        /// What the kernel said.
        #[source]
        err: io::Error,
    },
    /// A lease that ended cannot be removed.
    #[error("cannot remove the lease {file:?}")]
    Erase {
        /// Its file.
        file: PathBuf,
        /// What the kernel said.
        #[source]
        err: io::Error,
    },
}

/// What is written of a lease.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    boot_id: String,
    lease: Lease,
}

/// A file that is no lease.
#[derive(Debug)]
pub struct Damaged {
    /// Where it is now.
    pub file: PathBuf,
    /// What is wrong with it.
    pub err: io::Error,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The leases of this boot.
    pub leases: Vec<Lease>,
    /// How many were of another boot; they are removed.
    pub discarded: usize,
    /// What could not be read.
    pub damaged: Vec<Damaged>,
}

/// What is to be done to the file of a lease at some time, unless something newer is done to it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeferredWrite {
    /// Remove it: nothing is left of the lease.
    Erase,
    /// Write where the interface is to be found, and nothing else.
    Amend(Whereabouts),
}

/// What may change in a lease without a change of the qdisc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// The ways that lead to the namespace beside the first one.
    pub also: Vec<LeaseNetns>,
    /// The name of the interface, as on the wire.
    pub ifname: String,
}

impl Whereabouts {
    /// Returns those of a lease.
    pub fn of(lease: &Lease) -> Self {
        Self {
            also: lease.also.clone(),
            ifname: lease.ifname.clone(),
        }
    }
}

/// The leases of one state directory, held by this process alone.
#[derive(Debug)]
pub struct Journal {
    leases: PrivateDir,
    home: Home,
    /// Whoever reads a lease in order to change it keeps all others from changing any.
    amending: RwLock<()>,
    /// What is still to be done to which file.
    late: Mutex<HashMap<String, DeferredWrite>>,
    /// Locked until it is closed.
    _lock: File,
}

impl Journal {
    /// Takes a state directory, which is made if it is missing.
    ///
    /// A read-only one can be opened, too: what is in it can be restored.
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

    /// Takes a state directory that a daemon has used.
    ///
    /// # Errors
    /// [`JournalError::Missing`], and as [`Self::open`].
    pub fn open_existing(state: &Path, home: Home) -> Result<Self, JournalError> {
        match PrivateDir::open(state) {
            Err(err) if err.is_absent() => Err(JournalError::Missing {
                directory: state.to_owned(),
            }),
            // Any other error is found again.
            _ => Self::open(state, home),
        }
    }

    /// Returns the boot and the namespace that this process is in.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Reads all leases. Those of another boot are removed, what cannot be read is set aside.
    ///
    /// # Errors
    /// [`JournalError::List`]; [`JournalError::Distrust`] for a file that another user could have written.
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
                // Of a write that was cut off: what it was to replace is still there.
                Some("new") => {
                    self.leases.remove(file).ok();
                    continue;
                }
                _ => continue,
            }
            match self.read(file) {
                Ok(record) if record.boot_id != self.home.boot_id => {
                    // What cannot be removed is of another boot the next time, too.
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

    /// Returns whether leases can be written.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn probe(&self) -> Result<(), JournalError> {
        // Several may ask at the same time.
        static PROBES: AtomicU64 = AtomicU64::new(0);
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let file = beside(&format!("probe-{number}"));
        let content = [0; 4096];
        let written = self.leases.write_file(&file, &content);
        self.leases.remove(&file).ok();
        written.map_err(|err| self.not_written(&file, err))
    }

    /// Writes a lease, in place of the one of the same interface.
    ///
    /// # Errors
    /// [`JournalError::Write`], [`JournalError::TooLarge`].
    pub fn write(&self, lease: &Lease) -> Result<(), JournalError> {
        let _others_too = self.amending.read().unwrap_or_else(PoisonError::into_inner);
        self.take_late(lease);
        self.replace(lease)
    }

    /// Notes what is to be done to the file of a lease, for [`Self::catch_up`]. Does not block for the disk.
    pub fn intend(&self, lease: &Lease, late: DeferredWrite) {
        let mut all = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(file_name(lease), late);
    }

    /// Does what was intended last for the file of a lease, if nothing was written or removed since.
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

    /// Writes where the interface of a lease is to be found, if the lease is still there, and nothing else of it:
    /// it may have changed since.
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

    /// Removes a lease; one that is not there is removed.
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

    /// Renames a file that is no lease, to a name that is free.
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

/// Returns why a file cannot be trusted. A directory in its place holds no lease, and is as good as damaged.
fn distrust(err: &io::Error) -> Option<Distrust> {
    let distrust = Distrust::within(err);
    distrust.filter(|it| !it.is_about_a_directory()).cloned()
}

/// Returns the name of the file of a lease.
fn file_name(lease: &Lease) -> String {
    // Numbers alone: no name of a namespace or interface can lead elsewhere.
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

/// Opens the lock file, which is made if it is missing. For reading, which is enough to lock it: open for
/// writing, it would keep the administrator from mounting the disk read-only.
fn lock_file(state: &PrivateDir) -> io::Result<File> {
    let made = state.create_file("lock");
    state.open_file("lock").map_err(|err| match made {
        Err(made) if err.kind() == io::ErrorKind::NotFound => made,
        _ => err,
    })
}

/// Returns the name under which a file is written before it is renamed.
fn beside(file: &str) -> String {
    match file.strip_suffix(".json") {
        Some(stem) => format!("{stem}.new"),
        None => format!("{file}.new"),
    }
}
