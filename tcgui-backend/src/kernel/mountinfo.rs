//! Parses the mount table: mount points, and whether mounts from other namespaces propagate there.
//!
//! The format is that of `man 5 proc_pid_mountinfo`. Spaces, tabs, newlines and backslashes in paths are written
//! as octal escapes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Limit of the text in bytes, more than the table of fifty thousand namespaces. The rest is not read.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The mount table of the caller's mount namespace at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo(Vec<u8>);

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mount<'a> {
    line: &'a [u8],
    mount_point: &'a [u8],
    /// The optional fields, as `shared:5 master:1`; empty for a private mount.
    propagation: &'a [u8],
    file_system: &'a [u8],
}

impl MountInfo {
    /// Reads the table.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn read() -> io::Result<Self> {
        let mut text = Vec::new();
        let file = File::open("/proc/self/mountinfo")?;
        file.take(LARGEST).read_to_end(&mut text)?;
        Ok(Self(text))
    }

    /// Returns a table of this text.
    #[cfg(test)]
    pub(crate) fn from_text(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }

    /// Returns the topmost mount at exactly this path.
    pub fn on(&self, path: &Path) -> Option<Mount<'_>> {
        let path = escaped(path);
        self.mounts()
            .filter(|mount| mount.mount_point == path)
            .last()
    }

    /// Returns the mount that contains this path, which does not have to exist.
    pub fn holding(&self, path: &Path) -> Option<Mount<'_>> {
        path.ancestors().find_map(|ancestor| self.on(ancestor))
    }

    /// Returns the mounts in the order of the table. A later mount covers an earlier one at the same path.
    fn mounts(&self) -> impl Iterator<Item = Mount<'_>> {
        self.0.split(|byte| *byte == b'\n').filter_map(Mount::parse)
    }
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let separator = line.windows(3).position(|window| window == b" - ")?;
        let (before, after) = (&line[..separator], &line[separator + 3..]);
        let mut fields = before.splitn(7, |byte| *byte == b' ');
        let mount_point = fields.nth(4)?;
        // All optional fields, between the options and the separator, as one string.
        let propagation = fields.nth(1).unwrap_or_default();
        Some(Self {
            line,
            mount_point,
            propagation,
            file_system: after.split(|byte| *byte == b' ').next()?,
        })
    }

    /// Returns the whole line.
    pub fn line(&self) -> String {
        String::from_utf8_lossy(self.line).into_owned()
    }

    /// Returns how mounts propagate here: `shared:N`, `master:N`, both, or `private`.
    pub fn propagation(&self) -> String {
        if self.propagation.is_empty() {
            return "private".to_owned();
        }
        String::from_utf8_lossy(self.propagation).into_owned()
    }

    /// Returns whether mounts of other namespaces can propagate here.
    pub fn receives(&self) -> bool {
        let mut tags = self.propagation.split(|byte| *byte == b' ');
        tags.any(|tag| tag.starts_with(b"shared:") || tag.starts_with(b"master:"))
    }

    /// Returns the type of the file system.
    pub fn file_system(&self) -> String {
        String::from_utf8_lossy(self.file_system).into_owned()
    }
}

/// Escapes a path as the kernel does (`show_mountinfo` in `fs/proc_namespace.c`).
fn escaped(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => {
                text.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            }
            _ => text.push(*byte),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use proptest::prelude::*;

    use super::*;

    const TABLE: &str = "\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /run rw,nosuid shared:5 master:2 - tmpfs tmpfs rw,size=10%
41 30 0:4 net:[4026532300] /run/netns/lab rw - nsfs nsfs rw
42 30 0:4 net:[4026532301] /run/netns/a\\040b\\134 rw shared:9 - nsfs nsfs rw
43 41 0:26 / /run/netns/lab rw,relatime - tmpfs over\\040it rw
garbage
44 30 0:4
";

    #[test]
    fn the_topmost_and_the_containing_mount_are_found() {
        let table = MountInfo::from_text(TABLE);
        let on = |path: &str| table.on(Path::new(path)).map(|it| it.file_system());
        assert_eq!(on("/run/netns/lab").as_deref(), Some("tmpfs"));
        assert_eq!(on("/run/netns/a b\\").as_deref(), Some("nsfs"));
        assert_eq!(on("/run/netns"), None);
        let holding = |path: &str| table.holding(Path::new(path)).unwrap();
        let run = holding("/run/netns/new");
        assert_eq!(run.propagation(), "shared:5 master:2");
        assert!(run.receives() && run.line().starts_with("30 22 "));
        let lab = holding("/run/netns/lab");
        assert_eq!(lab.propagation(), "private");
        assert!(!lab.receives());
        assert_eq!(holding("/home").file_system(), "ext4");
        let odd = Path::new(OsStr::from_bytes(b"/run/\xff"));
        assert_eq!(table.holding(odd), table.on(Path::new("/run")));
        assert_eq!(MountInfo::from_text("").holding(odd), None);
    }

    proptest! {
        #[test]
        fn any_path_is_found_again_in_any_table(
            name in proptest::collection::vec(1..=255_u8, 1..40),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let path = Path::new("/run/netns").join(OsStr::from_bytes(&name));
            let mut table = noise;
            table.extend_from_slice(b"\n41 30 0:4 net:[7] ");
            table.extend_from_slice(&escaped(&path));
            table.extend_from_slice(b" rw shared:1 - nsfs nsfs rw\n");
            let table = MountInfo(table);
            let found = table.on(&path).expect("it is there");
            prop_assert_eq!(found.file_system(), "nsfs");
            prop_assert!(found.receives());
        }
    }

    #[test]
    fn the_table_of_this_process_has_a_root() {
        let table = MountInfo::read().unwrap();
        assert!(table.holding(Path::new("/proc/self/ns")).is_some());
    }
}
