//! Properties of the machine that only the command `doctor` reads.

use std::io;
use std::mem;
use std::path::Path;

use nix::libc;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

/// Returns the space that is free for files in this directory, in bytes. Writes nothing.
///
/// # Errors
/// The directory does not exist, or no file can be written there, for example on a read-only file system.
pub fn free_space(directory: &Path) -> io::Result<u64> {
    access(directory, AccessFlags::W_OK)?;
    let found = statvfs(directory)?;
    Ok(found
        .blocks_available()
        .saturating_mul(found.fragment_size()))
}

/// Returns whether the kernel was told that the wall clock is right (`STA_UNSYNC` of `man 2 adjtimex`). `None`: it cannot be read.
pub fn is_clock_synchronised() -> Option<bool> {
    #[expect(unsafe_code, reason = "adjtimex has no safe wrapper")]
    // SAFETY: all fields are integers, for which zero is valid. With `modes` 0 the call only fills the structure.
    let (status, state) = unsafe {
        let mut time: libc::timex = mem::zeroed();
        let state = libc::adjtimex(&raw mut time);
        (time.status, state)
    };
    (state >= 0).then_some(status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_needs_a_directory_that_can_be_written() {
        let directory = tempfile::tempdir().unwrap();
        assert!(free_space(directory.path()).unwrap() > 0);
        let missing = free_space(&directory.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
