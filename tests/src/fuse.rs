//! A file system that never replies: FUSE with a server that does not read its requests.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MsFlags, mount};

use crate::netns;

/// A mounted file system on which every call blocks until this value is dropped.
#[derive(Debug)]
pub struct Hung {
    target: PathBuf,
    /// The descriptor of the server. Requests are never read from it. When it is closed, the kernel fails all of them.
    _server: File,
}

impl Hung {
    /// Mounts the file system on an existing file or directory.
    ///
    /// # Errors
    ///
    /// When the kernel does not support FUSE or refuses the mount.
    pub fn mount(target: &Path) -> anyhow::Result<Self> {
        let server = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .context("open /dev/fuse: this test needs a kernel with FUSE")?;
        let mode = if target.is_dir() { "40000" } else { "100000" };
        let options = format!(
            "fd={},rootmode={mode},user_id=0,group_id=0",
            server.as_raw_fd()
        );
        mount(
            Some("hung"),
            target,
            Some("fuse"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .with_context(|| format!("mount a file system on {}", target.display()))?;
        Ok(Self {
            target: target.to_owned(),
            _server: server,
        })
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // The test may have unmounted it. It also ends with the mount namespace.
        netns::detach(&self.target).ok();
    }
}
