//! Files that another user could have written, and sockets that must not be replaced.

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};
    use std::process::Output;
    use std::time::Duration;

    use anyhow::{Context, ensure};
    use serde_json::json;
    use tcgui_tests::client::Options;
    use tcgui_tests::frontend::Route;
    use tcgui_tests::scene::SOON;
    use tcgui_tests::{daemon, lab_test};

    /// Wide limit for start-up checks on any machine.
    const DEADLINE: Duration = Duration::from_secs(10);
    const OTHER: u32 = 65534;

    fn run(args: &[&OsStr]) -> anyhow::Result<Output> {
        daemon::run(&[], args, DEADLINE)
    }

    /// Checks that the daemon ends with status 1 and prints these words.
    fn refuses(args: &[&OsStr], words: &[&str]) -> anyhow::Result<()> {
        let output = run(args)?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{args:?}: {output:?}");
        for word in words {
            ensure!(text.contains(word), "{args:?}: no {word:?} in: {text}");
        }
        ensure!(!text.contains("panicked"), "{text}");
        Ok(())
    }

    fn set(path: &Path, mode: u32, owner: u32) -> anyhow::Result<()> {
        chown(path, Some(owner), Some(owner))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    fn fifo(path: &Path) -> anyhow::Result<()> {
        Ok(nix::unistd::mkfifo(
            path,
            nix::sys::stat::Mode::from_bits_truncate(0o600),
        )?)
    }

    /// An empty directory with access for root only, in a parent with access for all users.
    struct Place {
        root: tempfile::TempDir,
    }

    impl Place {
        fn new() -> anyhow::Result<Self> {
            let root = tempfile::tempdir()?;
            fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755))?;
            Ok(Self { root })
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn directory(&self, name: &str, mode: u32, owner: u32) -> anyhow::Result<PathBuf> {
            let path = self.path(name);
            fs::create_dir_all(&path)?;
            set(&path, mode, owner)?;
            Ok(path)
        }
    }

    fn state_dir(path: &Path) -> [&OsStr; 2] {
        [OsStr::new("--state-dir"), path.as_os_str()]
    }

    lab_test!(the_start_fails_with_an_untrusted_state_directory, |_| {
        let place = Place::new()?;
        let foreign = place.directory("foreign", 0o777, OTHER)?;
        refuses(&state_dir(&foreign), &["chown root: ", "chmod 700 "])?;
        let open = place.directory("open", 0o777, 0)?;
        refuses(&state_dir(&open), &["others may write", "chmod 700 "])?;
        let below = place.directory("open/state", 0o700, 0)?;
        refuses(&state_dir(&below), &["parent", "chmod go-w "])?;
        let leases = place.directory("leases-of-others/leases", 0o755, OTHER)?;
        let parent = leases.parent().context("it has one")?;
        refuses(&state_dir(parent), &["/leases", "65534"])?;
        for made in ["foreign/lock", "foreign/leases", "open/lock"] {
            ensure!(!place.path(made).exists(), "{made} was made");
        }

        place.directory("private", 0o700, 0)?;
        let link = place.path("link");
        symlink("private", &link)?;
        std::os::unix::fs::lchown(&link, Some(OTHER), None)?;
        refuses(&state_dir(&link), &["symbolic link", "rm "])
    });

    lab_test!(the_start_fails_with_untrusted_state_files, |_| {
        let place = Place::new()?;
        let state = place.directory("state", 0o700, 0)?;
        let target = place.path("target");
        let lock = state.join("lock");
        fifo(&lock)?;
        refuses(&state_dir(&state), &["/lock", "a FIFO", "rm "])?;
        fs::remove_file(&lock)?;
        symlink(&target, &lock)?;
        refuses(&state_dir(&state), &["/lock", "a symbolic link"])?;
        ensure!(!target.exists(), "the target of the link was made");
        fs::remove_file(&lock)?;

        let leases = place.directory("state/leases", 0o700, 0)?;
        let stored = place.directory("state/scenarios/default", 0o755, 0)?;
        for directory in [leases, stored] {
            let file = directory.join("planted.json");
            fs::write(&file, "{}")?;
            set(&file, 0o600, OTHER)?;
            refuses(&state_dir(&state), &["planted.json", "65534", "chmod 600"])?;
            set(&file, 0o666, 0)?;
            refuses(&state_dir(&state), &["planted.json", "others may write"])?;
            fs::remove_file(&file)?;
            symlink("/etc/passwd", &file)?;
            refuses(&state_dir(&state), &["planted.json", "a symbolic link"])?;
            fs::remove_file(&file)?;
            fifo(&file)?;
            refuses(&state_dir(&state), &["planted.json", "a FIFO"])?;
            fs::remove_file(&file)?;
        }
        set(&place.path("state/scenarios"), 0o777, 0)?;
        refuses(&state_dir(&state), &["/scenarios", "chmod go-w"])
    });

    lab_test!(a_state_directory_that_systemd_made_is_used, |scene| {
        // As with DynamicUser=: a symbolic link of root into a directory that other users cannot enter.
        let place = Place::new()?;
        place.directory("private", 0o700, 0)?;
        place.directory("private/tcgui", 0o755, 0)?;
        let link = place.path("tcgui");
        symlink("private/tcgui", &link)?;
        scene.start_with(&state_dir(&link))?;
        ensure!(place.path("private/tcgui/lock").is_file(), "it is not used");
        let log = scene.daemon()?.stderr();
        ensure!(!log.contains("no leases"), "{log}");
        Ok(())
    });

    fn restore(args: &[&OsStr]) -> anyhow::Result<Output> {
        run(&[args, &[OsStr::new("restore")]].concat())
    }

    lab_test!(restore_reports_a_missing_state_directory, |_| {
        let place = Place::new()?;
        let missing = place.path("missing");
        let output = restore(&state_dir(&missing))?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(
            text.contains("no state directory") && text.contains("--state-dir"),
            "{text}"
        );
        ensure!(!missing.exists(), "it was made");
        let hostile = place.directory("hostile", 0o777, 0)?;
        let output = restore(&state_dir(&hostile))?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(text.contains("chmod 700"), "{text}");
        Ok(())
    });

    /// Returns a command of the packaged unit with an operator's options, split as by systemd.
    fn command_of_unit(key: &str, options: &str) -> anyhow::Result<Vec<String>> {
        let unit = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tcgui-backend/assets/packaging/tcgui-backend.service"
        );
        let unit = fs::read_to_string(unit)?;
        let value = unit.lines().find_map(|line| line.strip_prefix(key));
        let value = value.with_context(|| format!("no {key} in the unit"))?;
        let mut words = Vec::new();
        for word in value.split_whitespace() {
            match word {
                "/usr/bin/tcgui-backend" => {}
                "$TCGUI_OPTIONS" => words.extend(options.split_whitespace().map(str::to_owned)),
                _ => words.push(word.to_owned()),
            }
        }
        Ok(words)
    }

    lab_test!(
        the_unit_restores_from_the_directory_of_the_daemon,
        |scene| {
            let place = Place::new()?;
            let state = place.path("elsewhere");
            let options = format!("--state-dir {}", state.display());
            scene.start_with(&command_of_unit("ExecStart=", &options)?)?;
            ensure!(state.join("lock").is_file(), "the daemon does not use it");
            scene.take_daemon()?.crash()?;
            // The default directory does not exist, which would be an error.
            ensure!(!Path::new("/var/lib/tcgui").exists(), "the lab has one");
            let command = command_of_unit("ExecStopPost=", &options)?;
            let output = run(&command.iter().map(OsStr::new).collect::<Vec<_>>())?;
            ensure!(output.status.code() == Some(0), "{output:?}");
            let none = command_of_unit("ExecStart=", "")?;
            ensure!(none.is_empty(), "{none:?}");
            Ok(())
        }
    );

    fn listen(path: &Path) -> [String; 2] {
        let endpoint = format!("unixsock-stream/{}", path.display());
        ["--zenoh-listen".to_owned(), endpoint]
    }

    fn refuses_to_listen(path: &Path, word: &str) -> anyhow::Result<()> {
        let args = listen(path);
        let args: Vec<_> = args.iter().map(OsStr::new).collect();
        let shown = path.display().to_string();
        refuses(&args, &[word, &shown])
    }

    lab_test!(only_a_stale_socket_is_replaced, |scene| {
        let place = Place::new()?;
        let path = |name: &str| place.path(name);
        fs::write(path("file"), "precious")?;
        refuses_to_listen(&path("file"), "a regular file")?;
        ensure!(fs::read(path("file"))? == b"precious", "it was changed");
        fs::create_dir(path("directory"))?;
        refuses_to_listen(&path("directory"), "a directory")?;
        fifo(&path("fifo"))?;
        refuses_to_listen(&path("fifo"), "a FIFO")?;
        symlink("file", path("link"))?;
        refuses_to_listen(&path("link"), "a symbolic link")?;
        let live = UnixListener::bind(path("live"))?;
        refuses_to_listen(&path("live"), "another process listens")?;
        drop(live);
        symlink("made", path("linked.lock"))?;
        refuses_to_listen(&path("linked"), "linked.lock")?;
        ensure!(!path("made").exists(), "the link of the lock was followed");
        let open = place.directory("open", 0o777, 0)?;
        refuses_to_listen(&open.join("socket"), "chmod go-w")?;
        for name in ["file", "directory", "fifo", "link", "live"] {
            ensure!(fs::symlink_metadata(path(name)).is_ok(), "{name} is gone");
            let lock = format!("{name}.lock");
            ensure!(!path(&lock).exists(), "{lock} was made");
        }

        // No process listens on it any more.
        scene.start_with(&listen(&path("live")))?;
        let kind = fs::symlink_metadata(path("live"))?.file_type();
        ensure!(kind.is_socket(), "no socket");
        let endpoint = format!("unixsock-stream/{}", path("live").display());
        let client = Options::default().route(Route::client(&endpoint)).open()?;
        client.wait_for("a list comes over the socket", SOON, |state| {
            state.list().is_some()
        })?;
        let (reply, _) = client.ask("scenario", &json!("List"))?;
        ensure!(reply["Listed"].is_object(), "{reply}");
        // While it is in use, another daemon does not replace it.
        refuses_to_listen(&path("live"), "another process listens")?;
        client.wait_for("it is still there", SOON, |state| state.alive())?;
        client.close()
    });

    lab_test!(files_of_users_do_not_block_the_daemon, |scene| {
        let place = Place::new()?;
        let presets = place.directory("presets", 0o777, OTHER)?;
        fifo(&presets.join("a.json5"))?;
        symlink("/dev/zero", presets.join("b.json5"))?;
        let secret = place.path("secret");
        fs::write(&secret, "{ root: 'only' }")?;
        set(&secret, 0o600, 0)?;
        symlink(&secret, presets.join("c.json5"))?;
        std::os::unix::fs::lchown(presets.join("c.json5"), Some(OTHER), Some(OTHER))?;
        let good = presets.join("d.json5");
        fs::write(&good, "{ id: 'mine', name: 'Mine', delay: { base_ms: 3 } }")?;
        set(&good, 0o644, OTHER)?;
        scene.start_with(&[OsStr::new("--preset-dir"), presets.as_os_str()])?;
        scene.wait_for("the good one is published", |state| {
            state
                .presets()
                .is_some_and(|presets| presets.to_string().contains("\"mine\""))
        })?;
        let (listed, _) = scene.client()?.ask("scenario", &json!("List"))?;
        let errors = listed["Listed"]["load_errors"].to_string();
        for file in ["a.json5", "b.json5", "c.json5"] {
            ensure!(errors.contains(file), "{file} is not reported: {errors}");
        }
        ensure!(!errors.contains("root"), "the secret is printed: {errors}");
        Ok(())
    });
}
