//! Reads Podman's events file as soon as Podman writes to it.
//!
//! Without a journal, Podman writes its events to a file and reads the file every 250 ms, so subscribers wait up
//! to 250 ms. inotify reports the write at once. A line of the file is a doorbell, like the event that follows
//! over the socket. So no event is lost if the file is missing, is not the one in use, or has another format.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;
use notify::{Config, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::answers::{self, Event};
use super::limits::MAX_UNREAD;
use super::lines::{LineTooLong, Lines};
use super::session::{News, Reporter};
use crate::blocking;

/// The events file of root's Podman. Files of users are not read, because root must not read a file that a user
/// controls.
pub(super) const ROOTS: &str = "/run/libpod/events/events.log";

/// An open events file.
struct EventsFile {
    path: PathBuf,
    file: File,
    at: u64,
    lines: Lines,
    file_changed: Arc<Notify>,
    _watcher: RecommendedWatcher,
}

/// The events that were read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    events: Vec<Event>,
    /// Lines were skipped.
    lost: bool,
}

/// Reports the events that are written to the file from now on, until the file cannot be read any more.
pub(super) async fn follow(path: PathBuf, reporter: Reporter) {
    let Ok(mut file) = blocking::run(move || EventsFile::open(&path)).await else {
        return;
    };
    let file_changed = Arc::clone(&file.file_changed);
    loop {
        file_changed.notified().await;
        let read = blocking::run(move || {
            let read = file.read();
            (file, read)
        });
        let (back, Ok(read)) = read.await else {
            return;
        };
        file = back;
        if !read.events.is_empty() {
            reporter.send(News::Events(read.events)).await;
        }
        if read.lost {
            reporter.send(News::Flooding).await;
        }
    }
}

impl EventsFile {
    /// Opens the file, and starts at its current end.
    fn open(path: &Path) -> io::Result<Self> {
        // Usually the file does not exist, and this check costs less than a watch.
        fs::symlink_metadata(path)?;
        let file_changed = Arc::new(Notify::new());
        let directory = path.parent().unwrap_or(path);
        let watcher =
            watch(directory, path, Arc::clone(&file_changed)).map_err(io::Error::other)?;
        // Open the file after the watch is placed, so that every later write is reported.
        let file = open(path)?;
        Ok(Self {
            path: path.to_owned(),
            at: file.metadata()?.len(),
            file,
            lines: Lines::default(),
            file_changed,
            _watcher: watcher,
        })
    }

    /// Reads the new lines, up to [`MAX_UNREAD`] bytes.
    fn read(&mut self) -> io::Result<Read> {
        let mut read = Read::default();
        let (now, known) = (fs::metadata(&self.path)?, self.file.metadata()?);
        let replaced = (now.dev(), now.ino()) != (known.dev(), known.ino());
        if replaced {
            self.file = open(&self.path)?;
        }
        let len = self.file.metadata()?.len();
        if replaced || len < self.at || len - self.at > MAX_UNREAD {
            self.at = len;
            self.lines = Lines::default();
            read.lost = true;
        }
        let mut piece = [0; 8192];
        // Stop at the length read above: a fast writer could otherwise keep this loop running.
        while self.at < len {
            let got = self.file.read_at(&mut piece, self.at)?;
            if got == 0 {
                break;
            }
            self.at += got as u64;
            let lines = self.lines.feed(&piece[..got], |line| {
                read.events.extend(answers::logged_event(line));
                Ok::<_, LineTooLong>(())
            });
            lines.map_err(io::Error::other)?;
        }
        Ok(read)
    }
}

/// Opens a regular file of this user. Anything else is an error.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.uid() == nix::unistd::geteuid().as_raw() {
        Ok(file)
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidInput))
    }
}

fn watch(
    directory: &Path,
    path: &Path,
    file_changed: Arc<Notify>,
) -> notify::Result<RecommendedWatcher> {
    let name = path.file_name().map(ToOwned::to_owned);
    // Without events for opening the file, because each read would cause one.
    let kinds = EventKindMask::CREATE
        | EventKindMask::REMOVE
        | EventKindMask::MODIFY_NAME
        | EventKindMask::MODIFY_DATA;
    let handler = move |event: notify::Result<notify::Event>| {
        let written = event.is_ok_and(|event| {
            let ours = |path: &PathBuf| path.file_name() == name.as_deref();
            event.need_rescan() || event.paths.iter().any(ours)
        });
        if written {
            file_changed.notify_one();
        }
    };
    let mut watcher = RecommendedWatcher::new(handler, Config::default().with_event_kinds(kinds))?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;
    use crate::containers::session::{Report, SessionId};

    const SOON: Duration = Duration::from_secs(5);

    fn line(number: u32) -> String {
        format!(
            "{{\"ID\":\"{number:064x}\",\"Name\":\"x\",\"Status\":\"start\",\"Type\":\"container\"}}\n"
        )
    }

    fn append(path: &Path, text: &str) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    struct Following {
        reports: mpsc::Receiver<Report>,
        child: JoinSet<()>,
    }

    impl Following {
        fn start(path: &Path) -> Self {
            let (sender, reports) = mpsc::channel(1);
            let session = SessionId {
                engine: 0,
                count: 1,
            };
            let mut child = JoinSet::new();
            child.spawn(follow(path.to_owned(), Reporter::new(session, sender)));
            Self { reports, child }
        }

        async fn next(&mut self) -> News {
            let report = timeout(SOON, self.reports.recv()).await;
            report.expect("in time").expect("it follows").news
        }

        /// Writes new lines until one is reported. From then on the file is followed.
        async fn settle(&mut self, path: &Path) {
            let followed = async {
                loop {
                    append(path, &line(0));
                    let pause = Duration::from_millis(20);
                    if timeout(pause, self.reports.recv()).await.is_ok() {
                        break;
                    }
                }
            };
            timeout(SOON, followed).await.expect("it follows");
        }

        /// Waits for an event of this container. Earlier events may arrive first.
        async fn expect(&mut self, number: u32) {
            let id = format!("{number:064x}");
            let is = |event: &Event| event.id.as_str() == id;
            loop {
                match self.next().await {
                    News::Events(events) if events.iter().any(is) => return,
                    News::Events(_) | News::Flooding => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn lines_are_reported_as_they_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.log");
        append(&path, &line(9));
        let mut following = Following::start(&path);
        following.settle(&path).await;
        append(&path, &line(1));
        following.expect(1).await;
        let text = line(2);
        let (begin, end) = text.split_at(20);
        append(&path, "no JSON\n{\"Type\":\"image\",\"Status\":\"tag\"}\n");
        append(&path, begin);
        append(&path, end);
        following.expect(2).await;

        // Log rotation.
        fs::write(directory.path().join("new"), line(3)).unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        while !matches!(following.next().await, News::Flooding) {}
        append(&path, &line(4));
        following.expect(4).await;
        // Far more than Podman writes at once.
        append(&path, &line(5).repeat(10_000));
        append(&path, &line(6));
        while !matches!(following.next().await, News::Flooding) {}
        append(&path, &line(7));
        following.expect(7).await;

        fs::remove_dir_all(directory.path()).unwrap();
        let ended = timeout(SOON, following.child.join_next()).await;
        ended.expect("it ends").unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_not_regular_or_not_ours_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("link")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        fs::write(path("foreign"), "").unwrap();
        std::os::unix::fs::chown(path("foreign"), Some(1), None).expect("tests need root");
        for name in ["fifo", "link", "directory", "foreign", "missing"] {
            let ended = timeout(SOON, Following::start(&path(name)).child.join_next()).await;
            ended.expect(name).unwrap().unwrap();
        }
    }
}
