//! What a configuration file sets, its errors, and which files are refused. Needs root, to create files of other users.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

const OTHER: u32 = 65534;
/// The example that is shipped.
const SHIPPED: &str = include_str!("../../../assets/packaging/backend.toml");

fn parsed(text: impl AsRef<[u8]>) -> ReadFile {
    parse(Path::new("/f.toml"), text.as_ref(), &Options::new())
}

/// Returns the options and values that a file sets.
fn set(file: &ReadFile) -> Vec<(&str, Vec<&str>)> {
    let settings = file.settings.iter();
    settings
        .map(|Setting { option, values, .. }| {
            let values = values.iter().map(|value| value.to_str().unwrap());
            (option.as_str(), values.collect())
        })
        .collect()
}

fn errors(text: impl AsRef<[u8]>) -> Vec<String> {
    let problems = parsed(text).problems;
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn each_type_of_value_is_read_with_its_line() {
    let file = parsed(
        "# comment\r\nread-only = true\r\n\nname = \"lab\"\nallow = [\"a/*\", \n  \"b,c/eth0\"]\nprotect = []\n\
         zenoh-connect = [\"tcp/a:1\", \"tcp/b:2\"]\nzenoh-listen = \"tcp/127.0.0.1:1, tcp/127.0.0.1:2\"",
    );
    assert_eq!(file.problems, []);
    let expected = [
        ("read-only", vec!["true"]),
        ("name", vec!["lab"]),
        ("allow", vec!["a/*", "b,c/eth0"]),
        ("protect", vec![]),
        ("zenoh-connect", vec!["tcp/a:1,tcp/b:2"]),
        ("zenoh-listen", vec!["tcp/127.0.0.1:1, tcp/127.0.0.1:2"]),
    ];
    assert_eq!(set(&file), expected);
    let lines: Vec<_> = file
        .settings
        .iter()
        .map(|it| it.origin.to_string())
        .collect();
    let expected = [2, 4, 5, 7, 8, 9].map(|line| format!("/f.toml:{line}"));
    assert_eq!(lines, expected);
}

#[test]
fn an_unknown_key_is_reported_with_its_line_and_the_nearest_name() {
    for (text, expected) in [
        (
            "\n read_only = true",
            "/f.toml:2:2: error: unknown key \"read_only\", did you mean \"read-only\"?",
        ),
        (
            "sweep-intervall = \"1s\"",
            "1:1: error: unknown key \"sweep-intervall\", did you mean \"sweep-interval\"?",
        ),
        (
            "Name = \"x\"",
            "unknown key \"Name\", did you mean \"name\"?",
        ),
        ("zenoh-endpoint = \"x\"", "unknown key \"zenoh-endpoint\""),
        (
            "colour = \"x\"",
            "unknown key \"colour\": `tcgui-backend config` prints all keys",
        ),
        (
            "[backend]\nname = \"x\"",
            "unknown table \"backend\" (keys stand in no table)",
        ),
        ("a.b = 1", "unknown table \"a\""),
        // Options that select files, or end the program, are no keys.
        ("config = \"/x\"", "unknown key \"config\""),
        ("no-config = true", "unknown key \"no-config\""),
        ("help = true", "unknown key \"help\""),
        ("\"a\\u001bb\" = 1", "unknown key \"a\\u{1b}b\""),
    ] {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert!(errors[0].contains(expected), "{text}: {errors:?}");
    }
}

#[test]
fn values_of_the_wrong_type_or_range_are_reported_with_a_remedy() {
    for (text, expected) in [
        (
            "read-only = \"true\"",
            "read-only must be true or false, without quotes",
        ),
        ("read-only = 1", "read-only must be true or false"),
        ("name = 5", "name must be a string: name = \"VALUE\""),
        ("name = [\"a\"]", "name must be a string"),
        ("name = 1979-05-27", "name must be a string"),
        ("name = { a = 1 }", "name must be a string"),
        (
            "allow = \"a/b\"",
            "allow must be a list of strings: allow = [\"VALUE\", \"VALUE\"]",
        ),
        ("allow = [\"a/b\", 5]", "allow must be a list of strings"),
        (
            "zenoh-listen = [1]",
            "zenoh-listen must be a list of strings",
        ),
        ("allow = [\"a/b\", \"c\"]", "allow: "),
        (
            "sweep-interval = \"soon\"",
            "write for instance 500ms or 30s",
        ),
        (
            "sweep-interval = \"1ms\"",
            "sweep-interval: must be at least 10ms",
        ),
        ("sweep-interval = 30", "sweep-interval must be a string"),
        (
            "zenoh-mode = \"router\"",
            "zenoh-mode: must be one of: peer, client",
        ),
        ("state-dir = \"\"", "state-dir: must not be empty"),
    ] {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert!(errors[0].starts_with("/f.toml:1:1: error: "), "{errors:?}");
        assert!(errors[0].contains(expected), "{text}: {errors:?}");
    }
}

#[test]
fn syntax_errors_cost_only_their_own_lines() {
    for (wrong, line) in [
        ("name = ", 2),
        ("name = abc", 2),
        ("name = \"abc", 2),
        ("name = 'a' 'b'", 2),
        ("= 5", 2),
        ("read-only", 2),
        ("protect = [\"a/b\"", 2),
        ("state-dir = \"/y\"", 2),
    ] {
        let text = format!("state-dir = \"/x\"\n{wrong}\n");
        let file = parsed(&text);
        assert_eq!(set(&file), [("state-dir", vec!["/x"])], "{text}");
        let first = file.problems.first().map(ToString::to_string).unwrap();
        assert!(first.starts_with(&format!("/f.toml:{line}:")), "{first}");
    }
    let file = parsed("name = \nstate-dir = \"/x\"");
    assert_eq!(set(&file), [("state-dir", vec!["/x"])]);
}

#[test]
fn all_errors_are_reported_in_the_order_of_their_lines() {
    let errors = errors("colour = 1\nname = \nread-only = 3\nallow = [\"a/b\"]");
    let places: Vec<_> = errors
        .iter()
        .map(|it| it.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        ["/f.toml:1:1", "/f.toml:2:8", "/f.toml:3:1"],
        "{errors:?}"
    );
}

#[test]
fn hostile_text_is_refused_without_a_panic() {
    let deep = "[".repeat(20_000);
    let dotted = vec!["a"; 10_000].join(".") + " = 1";
    for text in [
        &b"name = \"a\xff\""[..],
        b"\xfe\xff",
        b"\0",
        format!("allow = {deep}").as_bytes(),
        format!("{deep}x").as_bytes(),
        dotted.as_bytes(),
        "\u{feff}\u{feff}name = 1".as_bytes(),
    ] {
        let file = parsed(text);
        assert!(!file.problems.is_empty() && file.settings.is_empty());
        for problem in file.problems.iter().take(100) {
            let length = problem.to_string().len();
            assert!(length < 400, "{length} bytes: {problem}");
        }
    }
    let errors = errors(b"read-only = true\nname = \"\xc3\xa4\xff\"");
    assert_eq!(errors, ["/f.toml:2:10: error: not UTF-8 text"]);
}

#[test]
fn the_shipped_file_sets_nothing_and_its_examples_are_valid() {
    let as_shipped = parsed(SHIPPED);
    assert_eq!(as_shipped.problems, []);
    assert_eq!(set(&as_shipped), []);
    let is_example =
        |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let examples: Vec<_> = SHIPPED
        .lines()
        .filter(is_example)
        .map(|line| &line[1..])
        .collect();
    let options = Options::new();
    let mut shown = Vec::new();
    for example in examples {
        let file = parsed(example);
        assert_eq!(file.problems, [], "{example}");
        assert_eq!(file.settings.len(), 1, "{example}");
        shown.push(file.settings[0].option.clone());
        // An option with a default shows it, and a switch shows that it is off.
        if let Some(default) = options.default(&shown[shown.len() - 1]) {
            assert_eq!(file.settings[0].values, [default], "{example}");
        }
    }
    shown.sort_unstable();
    let mut all: Vec<_> = options.names().collect();
    all.sort_unstable();
    assert_eq!(shown, all);
}

/// A directory with a main file and `backend.d`.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "tests need root");
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn read(&self, required: bool) -> Vec<ReadFile> {
        read_all(&self.path("backend.toml"), required, &Options::new())
    }

    /// Returns the only error.
    fn error(&self) -> String {
        let files = self.read(true);
        let problems: Vec<_> = files.iter().flat_map(|file| &file.problems).collect();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(files.iter().all(|file| file.settings.is_empty()));
        problems[0].to_string()
    }
}

#[test]
fn the_files_of_the_directory_follow_the_main_file_in_order() {
    let lab = Lab::new();
    assert!(lab.read(false).is_empty());
    assert!(lab.error().contains("No such file"), "{}", lab.error());
    for name in ["backend.d/20.toml", "backend.toml", "backend.d/10.toml"] {
        lab.write(name, "read-only = true");
    }
    for ignored in [".hidden.toml", "30.toml~", "README", "40.TOML", "toml"] {
        lab.write(&format!("backend.d/{ignored}"), "wrong");
    }
    let paths: Vec<_> = lab.read(true).into_iter().map(|file| file.path).collect();
    let expected = ["backend.toml", "backend.d/10.toml", "backend.d/20.toml"];
    assert_eq!(paths, expected.map(|name| lab.path(name)));
    // The directory alone is enough if the main file is not required.
    fs::remove_file(lab.path("backend.toml")).unwrap();
    assert_eq!(lab.read(false).len(), 2);
}

#[test]
fn a_file_that_others_can_change_is_refused_with_a_remedy() {
    let lab = Lab::new();
    let file = lab.write("backend.toml", "read-only = true");
    for mode in [0o644, 0o600, 0o444] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        assert_eq!(set(&lab.read(true)[0]), [("read-only", vec!["true"])]);
    }
    for mode in [0o666, 0o664, 0o646, 0o602] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let error = lab.error();
        let remedy = format!("chown root: {0} && chmod go-w {0}", file.display());
        assert!(
            error.contains("others may write to it") && error.contains(&remedy),
            "{error}"
        );
    }
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    chown(&file, Some(OTHER), None).unwrap();
    assert!(
        lab.error()
            .contains("belongs to the user with the id 65534"),
        "{}",
        lab.error()
    );
}

#[test]
fn a_directory_that_others_can_change_is_refused_with_a_remedy() {
    let lab = Lab::new();
    lab.write("backend.d/1.toml", "read-only = true");
    lab.write("backend.toml", "");
    let directory = lab.path("backend.d");
    for (mode, owner) in [(0o777, 0), (0o1777, 0), (0o775, 0), (0o755, OTHER)] {
        fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        chown(&directory, Some(owner), None).unwrap();
        assert!(lab.error().contains("chmod go-w"), "{}", lab.error());
    }
    chown(&directory, Some(0), None).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(lab.0.path(), Permissions::from_mode(0o777)).unwrap();
    let files = lab.read(true);
    assert_eq!(files.len(), 2);
    for file in files {
        let error = file.problems[0].to_string();
        assert!(
            error.contains("parent directory") && file.settings.is_empty(),
            "{error}"
        );
    }
}

#[test]
fn links_of_root_are_followed_and_those_of_others_are_not() {
    let lab = Lab::new();
    let target = lab.write("store/real.toml", "read-only = true");
    let link = lab.path("backend.toml");
    for to in [
        target.as_path(),
        Path::new("store/real.toml"),
        Path::new("store/../store/real.toml"),
    ] {
        symlink(to, &link).unwrap();
        assert_eq!(set(&lab.read(true)[0]), [("read-only", vec!["true"])]);
        fs::remove_file(&link).unwrap();
    }
    symlink(&target, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(OTHER), None).unwrap();
    assert!(lab.error().contains("the symbolic link"), "{}", lab.error());
    fs::remove_file(&link).unwrap();
    // A link of root to a file of another user.
    symlink(&target, &link).unwrap();
    chown(&target, Some(OTHER), None).unwrap();
    assert!(lab.error().contains("store/real.toml"), "{}", lab.error());
    fs::remove_file(&link).unwrap();
    symlink(&link, &link).unwrap();
    assert!(lab.error().contains("symbolic links"), "{}", lab.error());
    fs::remove_file(&link).unwrap();
    symlink("/nowhere/at/all", &link).unwrap();
    assert!(lab.error().contains("No such file"), "{}", lab.error());
}

#[test]
fn only_regular_files_are_opened() {
    let lab = Lab::new();
    let path = lab.path("backend.toml");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    assert!(lab.error().contains("it is a FIFO"), "{}", lab.error());
    fs::remove_file(&path).unwrap();
    let socket = UnixListener::bind(&path).unwrap();
    assert!(lab.error().contains("it is a socket"), "{}", lab.error());
    drop(socket);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(lab.error().contains("it is a directory"), "{}", lab.error());
    fs::remove_dir(&path).unwrap();
    symlink("/dev/zero", &path).unwrap();
    assert!(lab.error().contains("it is a device"), "{}", lab.error());
    let checked = read_for_check(&path, &Options::new());
    assert!(
        checked.problems[0]
            .to_string()
            .contains("not a regular file")
    );
}

#[test]
fn huge_files_and_too_many_files_are_refused() {
    let lab = Lab::new();
    let size = usize::try_from(MAX_SIZE).unwrap();
    lab.write("backend.toml", &"#".repeat(size));
    assert_eq!(lab.read(true)[0].problems, []);
    lab.write("backend.toml", &"#".repeat(size + 1));
    assert!(
        lab.error().contains("longer than 65536 bytes"),
        "{}",
        lab.error()
    );
    lab.write("backend.toml", "");
    for number in 0..=MAX_FILES {
        lab.write(&format!("backend.d/{number}.toml"), "read-only = true");
    }
    assert!(
        lab.error().contains("more than 100 files"),
        "{}",
        lab.error()
    );
}
