//! Accepted and refused directories and files, and the messages of refusals. Needs root, to create files of other
//! users.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::sync::mpsc;
use std::time::Duration;

use super::*;

const OTHER: u32 = 65534;
const SOON: Duration = Duration::from_secs(5);

struct Lab {
    root: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "tests need root");
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn directory(&self, name: &str, mode: u32, owner: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        set(&path, mode, owner);
        path
    }
}

fn set(path: &Path, mode: u32, owner: u32) {
    chown(path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn refusal(path: &Path) -> String {
    match PrivateDir::create(path) {
        Err(PrivateDirError::Distrust(distrust)) => distrust.to_string(),
        other => panic!("{} was not refused: {other:?}", path.display()),
    }
}

/// Runs `work` on another thread, and panics if it takes too long.
fn at_once<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || tx.send(work()).ok());
    rx.recv_timeout(SOON).expect("it does not wait")
}

#[test]
fn a_directory_and_its_ancestors_are_created_for_the_owner_only() {
    let lab = Lab::new();
    let path = lab.path("a/b/c");
    assert!(PrivateDir::open(&path).unwrap_err().is_absent());
    assert!(!path.exists(), "looking makes nothing");
    assert!(PrivateDir::open(Path::new("")).unwrap_err().is_absent());
    let directory = PrivateDir::create(&path).unwrap();
    for made in ["a", "a/b", "a/b/c"] {
        let mode = fs::metadata(lab.path(made)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700, "{made}");
    }
    directory.write_file("x", b"1").unwrap();
    directory.write_file("x", b"2").unwrap();
    assert_eq!(fs::read(path.join("x")).unwrap(), b"2");
    assert_eq!(fs::metadata(path.join("x")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(directory.names().unwrap(), ["x"]);
    PrivateDir::open(&path).unwrap();
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let lab = Lab::new();
    for mode in [0o777, 0o1777, 0o775, 0o757, 0o720] {
        let text = refusal(&lab.directory("state", mode, 0));
        assert!(text.contains("others may write to it"), "{text}");
        assert!(
            text.contains("chown root: /") && text.contains("chmod 700 /"),
            "{text}"
        );
    }
    for mode in [0o700, 0o755, 0o750, 0o500] {
        PrivateDir::create(&lab.directory("state", mode, 0)).unwrap();
    }
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let lab = Lab::new();
    let text = refusal(&lab.directory("state", 0o700, OTHER));
    assert!(text.contains("65534"), "{text}");
    assert!(text.contains("chown root: /"), "{text}");
}

#[test]
fn ancestors_that_others_may_replace_are_refused() {
    let lab = Lab::new();
    let inside = |name: &str| lab.path(name).join("state");
    for (name, mode, owner) in [("open", 0o777, 0), ("foreign", 0o755, OTHER)] {
        lab.directory(name, mode, owner);
        fs::create_dir(inside(name)).unwrap();
        set(&inside(name), 0o700, 0);
        let text = refusal(&inside(name));
        assert!(text.contains("parent") && text.contains("go-w"), "{text}");
    }
    // As in /tmp: other users cannot replace what root created there.
    lab.directory("sticky", 0o1777, 0);
    PrivateDir::create(&inside("sticky")).unwrap();
    check_parent(&lab.path("sticky")).unwrap();
    check_parent(&lab.path("open")).unwrap_err();
    check_parent(&lab.path("foreign")).unwrap_err();
    lab.directory("sticky/planted", 0o755, OTHER);
    refusal(&lab.path("sticky/planted"));
    refusal(&lab.path("sticky/planted/state"));
    // With an access control list, the right of another user to write appears in the group bits.
    lab.directory("group", 0o775, 0);
    refusal(&inside("group"));
    lab.directory("sticky-group", 0o1775, 0);
    PrivateDir::create(&inside("sticky-group")).unwrap();
}

#[test]
fn links_are_followed_only_if_root_made_them() {
    let lab = Lab::new();
    let target = lab.directory("private/tcgui", 0o700, 0);
    let link = lab.path("tcgui");
    // As systemd does for DynamicUser=: /var/lib/tcgui leads to private/tcgui.
    symlink("private/tcgui", &link).unwrap();
    PrivateDir::open(&link)
        .unwrap()
        .write_file("x", b"")
        .unwrap();
    assert!(target.join("x").exists());
    std::os::unix::fs::lchown(&link, Some(OTHER), None).unwrap();
    let text = refusal(&link);
    assert!(
        text.contains("symbolic link") && text.contains("rm "),
        "{text}"
    );
    // The target of a link is checked as any other directory.
    let open = lab.directory("open", 0o777, 0);
    symlink(&open, lab.path("to-open")).unwrap();
    refusal(&lab.path("to-open"));
    symlink("loop", lab.path("loop")).unwrap();
    let err = PrivateDir::open(&lab.path("loop")).unwrap_err();
    assert!(matches!(err, PrivateDirError::Open { .. }), "{err:?}");
    // Through a link and back.
    symlink("private", lab.path("aside")).unwrap();
    PrivateDir::open(&lab.path("aside/../private/tcgui/.")).unwrap();
}

#[test]
fn a_path_that_is_no_directory_is_refused_at_once() {
    let lab = Lab::new();
    fs::write(lab.path("file"), "").unwrap();
    nix::unistd::mkfifo(&lab.path("fifo"), Mode::S_IRWXU).unwrap();
    for name in ["file", "file/state", "fifo"] {
        let path = lab.path(name);
        let err = at_once(move || PrivateDir::create(&path)).unwrap_err();
        let PrivateDirError::Open { err, .. } = err else {
            panic!("{err:?}")
        };
        assert_eq!(err.kind(), io::ErrorKind::NotADirectory, "{name}");
    }
}

#[test]
fn foreign_files_links_and_fifos_are_refused_at_once() {
    let lab = Lab::new();
    let path = lab.directory("state", 0o700, 0);
    let target = lab.path("target");
    fs::write(path.join("good"), "1").unwrap();
    fs::write(path.join("foreign"), "").unwrap();
    set(&path.join("foreign"), 0o600, OTHER);
    fs::write(path.join("open"), "").unwrap();
    set(&path.join("open"), 0o666, 0);
    symlink(&target, path.join("link")).unwrap();
    nix::unistd::mkfifo(&path.join("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
    let directory = PrivateDir::open(&path).unwrap();
    directory.open_file("good").unwrap();
    for (name, word) in [
        ("foreign", "chown root: /"),
        ("open", "chmod 600 /"),
        ("link", "a symbolic link"),
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
    ] {
        let directory = PrivateDir::open(&path).unwrap();
        let err = at_once(move || directory.open_file(name)).unwrap_err();
        let distrust = Distrust::within(&err).expect(name).to_string();
        assert!(distrust.contains(word), "{distrust}");
    }
    assert!(!target.exists(), "nothing was made behind the link");
    directory.create_file("link").unwrap_err();
    directory.write_file("link", b"mine").unwrap();
    assert!(!target.exists(), "the link was replaced");
    let missing = directory.open_file("missing").unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn foreign_files_are_read_without_side_effects() {
    let lab = Lab::new();
    fs::write(lab.path("secret"), "").unwrap();
    set(&lab.path("secret"), 0o600, 0);
    fs::write(lab.path("own"), "").unwrap();
    set(&lab.path("own"), 0o600, OTHER);
    nix::unistd::mkfifo(&lab.path("fifo"), Mode::S_IRWXU).unwrap();
    for (link, target, owner) in [
        ("by-root", "secret", 0),
        ("by-other", "secret", OTHER),
        ("to-own", "own", OTHER),
        ("to-fifo", "fifo", 0),
    ] {
        symlink(target, lab.path(link)).unwrap();
        std::os::unix::fs::lchown(lab.path(link), Some(owner), None).unwrap();
    }
    for (name, expected) in [
        ("secret", true),
        ("own", true),
        ("by-root", true),
        ("to-own", true),
        ("by-other", false),
        ("fifo", false),
        ("to-fifo", false),
    ] {
        let path = lab.path(name);
        let opened = at_once(move || open_foreign(&path));
        assert_eq!(opened.is_ok(), expected, "{name}: {opened:?}");
    }
}

#[test]
fn a_link_that_another_user_replaces_is_not_followed() {
    use nix::fcntl::{RenameFlags, renameat2};
    use std::sync::atomic::{AtomicBool, Ordering};

    let lab = Lab::new();
    let [good, secret] = ["good", "secret"].map(|name| lab.path(name));
    fs::write(&good, "good").unwrap();
    set(&good, 0o644, OTHER);
    fs::write(&secret, "secret").unwrap();
    set(&secret, 0o600, 0);
    let [named, other] = ["named", "other"].map(|name| lab.path(name));
    // The link of root may be followed to any file, the link of the user only to files of that user.
    symlink(&good, &named).unwrap();
    symlink(&secret, &other).unwrap();
    std::os::unix::fs::lchown(&other, Some(OTHER), Some(OTHER)).unwrap();
    let directory = fs::File::open(lab.root.path()).unwrap();
    let stop = AtomicBool::new(false);
    let contents = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let exchange = RenameFlags::RENAME_EXCHANGE;
                renameat2(&directory, "named", &directory, "other", exchange).unwrap();
            }
        });
        let contents: Vec<_> = (0..50_000)
            .filter_map(|_| open_foreign(&named).ok())
            .map(|file| io::read_to_string(file).unwrap())
            .collect();
        stop.store(true, Ordering::Relaxed);
        contents
    });
    assert!(!contents.is_empty(), "the link of root was followed");
    let secrets = contents.iter().filter(|text| *text != "good").count();
    assert_eq!(secrets, 0, "of {} files", contents.len());
}
