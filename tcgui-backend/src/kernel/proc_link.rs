//! Finds the process on which a symbolic link into `/proc/PID` depends.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The kernel follows at most 40 symbolic links in one path (`MAXSYMLINKS`, `include/linux/namei.h`).
const LINKS: u32 = 40;

/// A process or thread in `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcTask {
    /// `/proc/PID`: the first thread of a process, or another thread with this id.
    Process(i32),
    /// `/proc/PID/task/TID` of a thread other than the first one.
    Thread {
        /// The process.
        pid: i32,
        /// The thread.
        tid: i32,
    },
}

impl ProcTask {
    /// Returns the process or thread whose exit makes the symbolic link at `path` dangling. `None`: the path is
    /// outside `/proc`, or belongs to the calling process, which does not have to be watched.
    ///
    /// The links may change during the call: look at `path` again after the process is watched.
    pub fn behind(path: &Path) -> Option<Self> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            // The path as written comes first: `/proc/PID/root` leads out of `/proc`, but still depends on the
            // process.
            if let Some(found) = Self::of(&path) {
                return found.is_other().then_some(found);
            }
            let parent = path.parent()?.canonicalize().ok()?;
            let here = parent.join(path.file_name()?);
            if let Some(found) = Self::of(&here) {
                return found.is_other().then_some(found);
            }
            path = parent.join(fs::read_link(&here).ok()?);
        }
        None
    }

    /// Returns the task whose number is in the path.
    fn of(path: &Path) -> Option<Self> {
        if path
            .components()
            .any(|component| component == Component::ParentDir)
        {
            return None;
        }
        let below: PathBuf = path.strip_prefix("/proc").ok()?.into();
        let mut parts = below.iter().map(|part| part.to_str());
        let number = |part: Option<&str>| part?.parse::<i32>().ok();
        let pid = number(parts.next()?)?;
        let is_task = parts.next() == Some(Some("task"));
        let tid = parts.next().and_then(number).filter(|_| is_task);
        Some(match tid {
            Some(tid) if tid != pid => Self::Thread { pid, tid },
            _ => Self::Process(pid),
        })
    }

    fn is_other(self) -> bool {
        self != Self::Process(nix::unistd::getpid().as_raw())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_link_in_any_form_is_followed_to_its_process() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink(format!("/proc/{pid}/ns/net"), at("plain")).unwrap();
        symlink("plain", at("relative")).unwrap();
        symlink(at("relative"), at("chain")).unwrap();
        symlink("/proc", at("proc")).unwrap();
        symlink(format!("proc/{pid}/ns/net"), at("through")).unwrap();
        symlink(format!("/proc/1/../{pid}/ns/net"), at("dots")).unwrap();
        symlink(format!("/proc/{pid}/root/proc/self/ns/net"), at("root")).unwrap();
        symlink(format!("/proc/{pid}/task/{pid}/ns/net"), at("task")).unwrap();
        for name in [
            "plain", "relative", "chain", "through", "dots", "root", "task",
        ] {
            let found = ProcTask::behind(&at(name));
            assert_eq!(found, Some(ProcTask::Process(pid)), "{name}");
        }
        symlink(format!("/proc/{pid}/task/7/ns/net"), at("thread")).unwrap();
        let thread = ProcTask::behind(&at("thread"));
        assert_eq!(thread, Some(ProcTask::Thread { pid, tid: 7 }));

        symlink("/proc/self/ns/net", at("own")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink("/nowhere/at/all", at("dangling")).unwrap();
        symlink("/proc/sys/net", at("sys")).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink("file", at("to-file")).unwrap();
        for name in [
            "own", "loop", "dangling", "sys", "file", "to-file", "missing",
        ] {
            assert_eq!(ProcTask::behind(&at(name)), None, "{name}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
