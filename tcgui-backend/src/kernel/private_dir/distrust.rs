//! The rules of [`super::PrivateDir`]: the flaws of an inode, and how to repair them. Pure.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::geteuid;

const ROOT: libc::uid_t = 0;

/// The properties of an inode that the rules use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    pub(super) kind: SFlag,
    pub(super) owner: libc::uid_t,
    pub(super) mode: Mode,
}

/// The use of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A directory above the private one.
    Ancestor,
    /// The private directory itself.
    Directory,
    /// A symbolic link in the path.
    Link,
    /// A file in the directory.
    File,
    /// A directory with files that other users may read.
    SharedDirectory,
    /// A file that other users may read.
    SharedFile,
}

/// Why an inode cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It belongs to another user, with this id.
    Owner(libc::uid_t),
    /// Users other than its owner may write to it.
    Writable(Mode),
    /// It is not a regular file but of this kind.
    Kind(&'static str),
}

impl Inode {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            kind: SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT,
            owner: stat.st_uid,
            mode: Mode::from_bits_truncate(stat.st_mode),
        }
    }

    /// Returns the flaw of the private directory or of one above it.
    pub(super) fn flaw_as_directory(self, role: Role) -> Option<Flaw> {
        self.foreign_owner().or_else(|| match role {
            Role::Ancestor if self.mode.contains(Mode::S_ISVTX) => None,
            // Even if the group is root's: with an access control list, the group bits include the rights of other
            // users.
            _ => self.writable(Mode::S_IWGRP | Mode::S_IWOTH),
        })
    }

    /// Returns the flaw of a symbolic link that is to be followed.
    pub(super) fn flaw_as_link(self) -> Option<Flaw> {
        self.foreign_owner()
    }

    /// Returns the flaw of a file in a private directory.
    pub(super) fn flaw_as_file(self) -> Option<Flaw> {
        let kind = match self.kind {
            SFlag::S_IFREG => None,
            SFlag::S_IFDIR => Some("a directory"),
            SFlag::S_IFIFO => Some("a FIFO"),
            SFlag::S_IFLNK => Some("a symbolic link"),
            SFlag::S_IFSOCK => Some("a socket"),
            _ => Some("a device"),
        };
        kind.map(Flaw::Kind)
            .or_else(|| self.foreign_owner())
            .or_else(|| self.writable(Mode::S_IWGRP | Mode::S_IWOTH))
    }

    fn foreign_owner(self) -> Option<Flaw> {
        let is_trusted = self.owner == ROOT || self.owner == geteuid().as_raw();
        (!is_trusted).then_some(Flaw::Owner(self.owner))
    }

    fn writable(self, by: Mode) -> Option<Flaw> {
        let is_writable = self.mode.intersects(by);
        is_writable.then_some(Flaw::Writable(self.mode))
    }
}

/// A file or directory that another user could change. Its text contains the repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distrust {
    path: PathBuf,
    role: Role,
    flaw: Flaw,
}

impl Distrust {
    pub(super) fn new(path: PathBuf, role: Role, flaw: Flaw) -> Self {
        Self { path, role, flaw }
    }

    /// Returns the refusal that an error contains.
    pub fn within(err: &io::Error) -> Option<&Self> {
        err.get_ref()?.downcast_ref()
    }

    /// Returns whether the entry is a directory instead of a file. Then there is no content that another user
    /// could have written.
    pub fn is_about_a_directory(&self) -> bool {
        self.flaw == Flaw::Kind("a directory")
    }

    /// Returns the path of the file or directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn repair(&self) -> String {
        let path = quoted(&self.path);
        let owner = match geteuid().as_raw() {
            ROOT => "root".to_owned(),
            uid => uid.to_string(),
        };
        match (self.role, self.flaw) {
            (_, Flaw::Kind(_)) | (Role::Link, _) => {
                format!("check what it is, then run: rm {path}")
            }
            (Role::Directory, _) => {
                format!("check what is in it, then run: chown {owner}: {path} && chmod 700 {path}")
            }
            (Role::Ancestor, Flaw::Owner(_)) => format!(
                "choose another directory, or run: chown {owner}: {path} && chmod go-w {path}"
            ),
            (Role::Ancestor, Flaw::Writable(_)) => {
                format!("choose another directory, or run: chmod go-w {path}")
            }
            (Role::File, _) => {
                format!("check what is in it, then run: chown {owner}: {path} && chmod 600 {path}")
            }
            (Role::SharedDirectory | Role::SharedFile, _) => {
                format!("check what is in it, then run: chown {owner}: {path} && chmod go-w {path}")
            }
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.role {
            Role::Ancestor => "the parent directory",
            Role::Directory | Role::SharedDirectory => "the directory",
            Role::Link => "the symbolic link",
            Role::File | Role::SharedFile => "the file",
        };
        write!(f, "{what} {:?} is not trusted: ", self.path)?;
        match self.flaw {
            Flaw::Owner(uid) => write!(f, "it belongs to the user with the id {uid}")?,
            Flaw::Writable(mode) => {
                write!(f, "others may write to it (mode {:04o})", mode.bits())?;
            }
            Flaw::Kind(kind) => write!(f, "it is {kind} and not a regular file")?,
        }
        write!(f, "; {}", self.repair())
    }
}

impl Error for Distrust {}

impl From<Distrust> for io::Error {
    fn from(distrust: Distrust) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, distrust)
    }
}

/// Returns a path quoted for a shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte);
    if text.bytes().all(is_plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
