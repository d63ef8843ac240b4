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

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::{Home, Lease, LeaseNetns};

/// Of the format; a file of another one is not touched but set aside.
const VERSION: u32 = 1;
/// The largest file that is read; those that are written are far smaller.
const LARGEST: u64 = 64 * 1024;
/// How many damaged files of one name are kept apart.
const ASIDE: u32 = 100;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
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
pub enum Late {
    /// Remove it: nothing is left of the lease.
    Erase,
    /// Write that these ways lead to the namespace too, and nothing else.
    Amend(Vec<LeaseNetns>),
}

/// The leases of one state directory, held by this process alone.
#[derive(Debug)]
pub struct Journal {
    state: PathBuf,
    leases: PathBuf,
    home: Home,
    /// Whoever reads a lease in order to change it keeps all others from changing any.
    amending: RwLock<()>,
    /// What is still to be done to which file.
    late: Mutex<HashMap<PathBuf, Late>>,
    /// Locked until it is closed.
    _lock: File,
}

impl Journal {
    /// Takes a state directory, which is made if it is missing.
    ///
    /// A read-only one can be opened, too: what is in it can be restored.
    ///
    /// # Errors
    /// [`JournalError::Create`], [`JournalError::Lock`], [`JournalError::Held`].
    pub fn open(state: &Path, home: Home) -> Result<Self, JournalError> {
        let leases = state.join("leases");
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&leases);
        made.map_err(|err| JournalError::Create {
            directory: state.to_owned(),
            err,
        })?;
        let lock = lock_file(state).map_err(|err| JournalError::Lock {
            directory: state.to_owned(),
            err,
        })?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                state: state.to_owned(),
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

    /// Returns the boot and the namespace that this process is in.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Reads all leases. Those of another boot are removed, what cannot be read is set aside.
    ///
    /// # Errors
    /// [`JournalError::List`].
    pub fn load(&self) -> Result<Loaded, JournalError> {
        let list = |err| JournalError::List {
            directory: self.leases.clone(),
            err,
        };
        let mut loaded = Loaded::default();
        for entry in fs::read_dir(&self.leases).map_err(list)? {
            let file = entry.map_err(list)?.path();
            match file.extension().and_then(OsStr::to_str) {
                Some("json") => {}
                // Of a write that was cut off: what it was to replace is still there.
                Some("new") => {
                    fs::remove_file(&file).ok();
                    continue;
                }
                _ => continue,
            }
            match read(&file) {
                Ok(record) if record.boot_id != self.home.boot_id => {
                    // What cannot be removed is of another boot the next time, too.
                    fs::remove_file(&file).ok();
                    loaded.discarded += 1;
                }
                Ok(record) => loaded.leases.push(record.lease),
                Err(err) => loaded.damaged.push(set_aside(file, err)),
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
        let file = self.leases.join(format!("probe-{number}"));
        let content = [0; 4096];
        let written = write_beside(&file, &content);
        fs::remove_file(beside(&file)).ok();
        written.map_err(|err| JournalError::Write { file, err })
    }

    /// Writes a lease, in place of the one of the same interface.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn write(&self, lease: &Lease) -> Result<(), JournalError> {
        let _others_too = self.amending.read().unwrap_or_else(PoisonError::into_inner);
        self.take_late(lease);
        self.replace(lease)
    }

    /// Notes what is to be done to the file of a lease, for [`Self::catch_up`]. Does not block for the disk.
    pub fn intend(&self, lease: &Lease, late: Late) {
        let mut all = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(self.file(lease), late);
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
            Some(Late::Erase) => self.remove(lease),
            Some(Late::Amend(also)) => self.amend(lease, also),
        }
    }

    fn take_late(&self, lease: &Lease) -> Option<Late> {
        let mut all = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.file(lease))
    }

    /// Writes which ways lead to the namespace of a lease, if it is still there, and nothing else of it: it
    /// may have changed since.
    fn amend(&self, lease: &Lease, also: Vec<LeaseNetns>) -> Result<(), JournalError> {
        match read(&self.file(lease)) {
            Ok(record) => self.replace(&Lease {
                also,
                ..record.lease
            }),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(err) => Err(JournalError::Write {
                file: self.file(lease),
                err,
            }),
        }
    }

    fn replace(&self, lease: &Lease) -> Result<(), JournalError> {
        let file = self.file(lease);
        let record = Record {
            version: VERSION,
            boot_id: self.home.boot_id.clone(),
            lease: lease.clone(),
        };
        let replace = || {
            let content = serde_json::to_vec(&record)?;
            let written = write_beside(&file, &content)
                .and_then(|()| fs::rename(beside(&file), &file))
                .and_then(|()| self.sync());
            if written.is_err() {
                fs::remove_file(beside(&file)).ok();
            }
            written
        };
        replace().map_err(|err| JournalError::Write { file, err })
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
        let file = self.file(lease);
        let removed = match fs::remove_file(&file) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed,
        };
        removed
            .and_then(|()| self.sync())
            .map_err(|err| JournalError::Erase { file, err })
    }

    /// Returns the state directory.
    pub fn directory(&self) -> &Path {
        &self.state
    }

    fn file(&self, lease: &Lease) -> PathBuf {
        // Numbers alone: no name of a namespace or interface can lead elsewhere.
        let name = match lease.netns {
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
        };
        self.leases.join(name)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.leases)?.sync_all()
    }
}

/// Opens the lock file, which is made if it is missing. For reading, which is enough to lock it: open for
/// writing, it would keep the administrator from mounting the disk read-only.
fn lock_file(state: &Path) -> io::Result<File> {
    let file = state.join("lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let made = options.open(&file).map(drop);
    File::open(&file).map_err(|err| made.err().unwrap_or(err))
}

fn beside(file: &Path) -> PathBuf {
    file.with_extension("new")
}

/// Writes a file beside its place, for nobody else to read. A link that lies there is not followed.
fn write_beside(file: &Path, content: &[u8]) -> io::Result<()> {
    let beside = beside(file);
    let create = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
    };
    let mut new = create().or_else(|err| match err.kind() {
        io::ErrorKind::AlreadyExists => fs::remove_file(&beside).and_then(|()| create()),
        _ => Err(err),
    })?;
    new.write_all(content)?;
    new.sync_all()
}

fn read(file: &Path) -> io::Result<Record> {
    if !fs::symlink_metadata(file)?.is_file() {
        // Opening a FIFO would never end.
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file"));
    }
    let mut content = Vec::new();
    File::open(file)?.take(LARGEST).read_to_end(&mut content)?;
    let record: Record = serde_json::from_slice(&content)?;
    if record.version == VERSION {
        Ok(record)
    } else {
        let text = format!("version {} of the format is not known", record.version);
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

/// Renames a file that is no lease, to a name that is free.
fn set_aside(file: PathBuf, err: io::Error) -> Damaged {
    let free = (0..ASIDE)
        .map(|number| match number {
            0 => file.with_extension("json.damaged"),
            _ => file.with_extension(format!("json.damaged{number}")),
        })
        .find(|free| !free.exists());
    let aside = free.filter(|free| fs::rename(&file, free).is_ok());
    Damaged {
        file: aside.unwrap_or(file),
        err,
    }
}
