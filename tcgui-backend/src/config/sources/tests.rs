//! Each option from each source, and the order of precedence.

use std::fs;

use super::super::options::variable_of;
use super::super::{Config, ConfigError};
use super::*;

/// Each option, a value in TOML, and the same value in the environment and on the command line.
const OPTIONS: [(&str, &str, &str, &[&str]); 30] = [
    ("verbose", "true", "true", &["-v"]),
    ("exclude-loopback", "true", "true", &["--exclude-loopback"]),
    ("name", "'lab'", "lab", &["-n", "lab"]),
    (
        "zenoh-mode",
        "'client'",
        "client",
        &["--zenoh-mode", "client"],
    ),
    (
        "zenoh-connect",
        "['tcp/a:1', 'tcp/b:2']",
        "tcp/a:1,tcp/b:2",
        &["--zenoh-connect", "tcp/a:1,tcp/b:2"],
    ),
    (
        "zenoh-listen",
        "'tcp/a:1'",
        "tcp/a:1",
        &["--zenoh-listen", "tcp/a:1"],
    ),
    ("tls-cert", "'/c'", "/c", &["--tls-cert", "/c"]),
    ("tls-key", "'/k'", "/k", &["--tls-key", "/k"]),
    ("tls-client-ca", "'/a'", "/a", &["--tls-client-ca", "/a"]),
    ("no-multicast", "true", "true", &["--no-multicast"]),
    (
        "scenario-dir",
        "['/a', 'b']",
        "/a,b",
        &["--scenario-dir", "/a", "--scenario-dir", "b"],
    ),
    (
        "no-default-scenarios",
        "true",
        "true",
        &["--no-default-scenarios"],
    ),
    ("preset-dir", "['/a']", "/a", &["--preset-dir", "/a"]),
    (
        "no-default-presets",
        "true",
        "true",
        &["--no-default-presets"],
    ),
    ("state-dir", "'/s'", "/s", &["--state-dir", "/s"]),
    ("netns-dir", "'/n'", "/n", &["--netns-dir", "/n"]),
    ("create-netns-dir", "true", "true", &["--create-netns-dir"]),
    ("no-namespace-ids", "true", "true", &["--no-namespace-ids"]),
    (
        "container-socket",
        "['/x', '/y']",
        "/x, /y",
        &["--container-socket", "/x", "--container-socket", "/y"],
    ),
    ("no-containers", "true", "true", &["--no-containers"]),
    (
        "process-namespaces",
        "true",
        "true",
        &["--process-namespaces"],
    ),
    (
        "replace-foreign-qdiscs",
        "true",
        "true",
        &["--replace-foreign-qdiscs"],
    ),
    ("read-only", "true", "true", &["--read-only"]),
    (
        "allow",
        "['a/b', 'c*/*']",
        "a/b,c*/*",
        &["--allow", "a/b", "--allow", "c*/*"],
    ),
    (
        "protect",
        "['none', 'a/b']",
        "none,a/b",
        &["--protect", "none", "--protect", "a/b"],
    ),
    (
        "default-ttl",
        "'1h 30m'",
        "1h 30m",
        &["--default-ttl", "1h 30m"],
    ),
    ("keep-on-exit", "true", "true", &["--keep-on-exit"]),
    ("sweep-interval", "'5s'", "5s", &["--sweep-interval", "5s"]),
    (
        "degraded-sweep-interval",
        "'200ms'",
        "200ms",
        &["--degraded-sweep-interval", "200ms"],
    ),
    (
        "bandwidth-interval",
        "'5s'",
        "5s",
        &["--bandwidth-interval", "5s"],
    ),
];

/// A directory with configuration files.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn main_file(&self) -> String {
        self.0.path().join("backend.toml").display().to_string()
    }

    fn drop_in(&self) -> String {
        self.0.path().join("backend.d/1.toml").display().to_string()
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Loads with `--config` before the other arguments.
    fn load(&self, environment: &[(&str, &str)], args: &[&str]) -> Loaded {
        let config = self.main_file();
        let line = ["tcgui-backend", "--config", &config];
        load(environment, &[&line, args].concat())
    }
}

fn load(environment: &[(&str, &str)], line: &[&str]) -> Loaded {
    let environment = environment.iter();
    let environment = environment.map(|(name, value)| ((*name).into(), (*value).into()));
    Sources::new(line, environment).load().unwrap()
}

fn setting<'a>(loaded: &'a Loaded, option: &str) -> &'a Setting {
    let mut settings = loaded.settings.iter();
    settings.find(|it| it.option == option).unwrap()
}

/// Returns the parsed options without `--config`, whose values differ.
fn without_config(mut loaded: Loaded) -> String {
    loaded.args.config = PathBuf::new();
    format!("{:?}", loaded.args)
}

#[test]
fn each_option_can_be_set_by_each_source() {
    let lab = Lab::new();
    for (option, toml, text, args) in &OPTIONS {
        lab.write(&lab.main_file(), "");
        let by_line = lab.load(&[], args);
        assert_eq!(setting(&by_line, option).origin, Origin::CommandLine);
        let variable = variable_of(option);
        let by_variable = lab.load(&[(&variable, text)], &[]);
        assert_eq!(by_variable.problems, [], "{option}");
        let expected = Origin::Environment(variable);
        assert_eq!(setting(&by_variable, option).origin, expected);
        lab.write(&lab.main_file(), &format!("\n{option} = {toml}"));
        let by_file = lab.load(&[], &[]);
        assert_eq!(by_file.problems, [], "{option}");
        let path = lab.main_file().into();
        assert_eq!(
            setting(&by_file, option).origin,
            Origin::File { path, line: 2 }
        );
        let values = &setting(&by_line, option).values;
        assert_eq!(&setting(&by_variable, option).values, values, "{option}");
        assert_eq!(&setting(&by_file, option).values, values, "{option}");
        let parsed = without_config(by_line);
        assert_eq!(without_config(by_variable), parsed, "{option}");
        assert_eq!(without_config(by_file), parsed, "{option}");
        assert_ne!(without_config(load(&[], &["tcgui-backend"])), parsed);
    }
    let mut tested: Vec<_> = OPTIONS.iter().map(|(option, ..)| *option).collect();
    let options = Options::new();
    let mut all: Vec<_> = options.names().collect();
    tested.sort_unstable();
    all.sort_unstable();
    assert_eq!(tested, all);
}

/// Which sources set an option.
#[derive(Debug, Clone, Copy)]
struct Present {
    file: bool,
    drop_in: bool,
    variable: bool,
    line: bool,
}

#[test]
fn the_source_with_the_highest_precedence_decides() {
    let lab = Lab::new();
    // Option, default, and its value in: main file, drop-in, environment, command line.
    let table = [
        (
            "name",
            "default",
            ["'file'", "'drop-in'", "variable", "--name=line"],
        ),
        (
            "read-only",
            "false",
            ["true", "false", "true", "--read-only"],
        ),
        (
            "read-only",
            "false",
            ["false", "true", "false", "--read-only"],
        ),
        (
            "allow",
            "",
            ["['f/a', 'f/b']", "['d/a']", "v/a,v/b", "--allow=l/a"],
        ),
        ("allow", "", ["['f/a']", "[]", "", "--allow=l/a"]),
        (
            "sweep-interval",
            "30s",
            ["'1s'", "'2s'", "3s", "--sweep-interval=4s"],
        ),
    ];
    for (option, default, [file, drop_in, variable, line]) in table {
        for bits in 0..16_u8 {
            let present = Present {
                file: bits & 1 > 0,
                drop_in: bits & 2 > 0,
                variable: bits & 4 > 0,
                line: bits & 8 > 0,
            };
            let text = |set: bool, value| {
                if set {
                    format!("{option} = {value}")
                } else {
                    String::new()
                }
            };
            lab.write(&lab.main_file(), &text(present.file, file));
            lab.write(&lab.drop_in(), &text(present.drop_in, drop_in));
            let name = variable_of(option);
            let environment = [(&*name, variable)];
            let environment = if present.variable {
                &environment[..]
            } else {
                &[]
            };
            let args = if present.line { &[line][..] } else { &[] };
            let loaded = lab.load(environment, args);
            assert_eq!(loaded.problems, []);
            let in_file = |path: String| Origin::File {
                path: path.into(),
                line: 1,
            };
            let plain = |toml: &str| toml.replace(['[', ']', '\'', ' '], "");
            let (origin, value) = match present {
                Present { line: true, .. } => {
                    let value = line.split_once('=').map_or("true", |(_, value)| value);
                    (Origin::CommandLine, value.to_owned())
                }
                Present { variable: true, .. } => (Origin::Environment(name), variable.to_owned()),
                Present { drop_in: true, .. } => (in_file(lab.drop_in()), plain(drop_in)),
                Present { file: true, .. } => (in_file(lab.main_file()), plain(file)),
                _ => (Origin::Default, default.to_owned()),
            };
            let found = setting(&loaded, option);
            let values: Vec<_> = found.values.iter().map(|it| it.to_str().unwrap()).collect();
            assert_eq!(
                (&found.origin, values.join(",")),
                (&origin, value),
                "{option} {present:?}"
            );
        }
    }
}

#[test]
fn the_configuration_file_is_chosen_by_option_variable_or_default() {
    let lab = Lab::new();
    let other = lab.0.path().join("other.toml").display().to_string();
    lab.write(&lab.main_file(), "name = 'main'");
    lab.write(&other, "name = 'other'");
    let name = |loaded: Loaded| loaded.args.name;
    assert_eq!(name(lab.load(&[("TCGUI_CONFIG", &other)], &[])), "main");
    let program = ["tcgui-backend"];
    assert_eq!(name(load(&[("TCGUI_CONFIG", &other)], &program)), "other");
    let none = ["tcgui-backend", "--no-config"];
    assert_eq!(name(load(&[("TCGUI_CONFIG", &other)], &none)), "default");
    for missing in [
        load(&[("TCGUI_CONFIG", "/nowhere.toml")], &program),
        load(&[], &["tcgui-backend", "--config", "/nowhere.toml"]),
    ] {
        let problem = missing.problems[0].to_string();
        assert!(problem.starts_with("/nowhere.toml: error: "), "{problem}");
    }
}

#[test]
fn variables_are_checked_and_misspelt_ones_are_named() {
    for (variable, value, expected) in [
        (
            "TCGUI_READ_ONLY",
            "yes",
            "TCGUI_READ_ONLY: error: yes: must be true or false",
        ),
        ("TCGUI_READ_ONLY", "", "must be true or false"),
        ("TCGUI_SWEEP_INTERVAL", "1ms", "must be at least 10ms"),
        ("TCGUI_ZENOH_MODE", "router", "must be one of: peer, client"),
        ("TCGUI_ALLOW", "a/b,c", "TCGUI_ALLOW: error: a/b,c: "),
        ("TCGUI_READONLY", "true", "did you mean TCGUI_READ_ONLY?"),
        (
            "TCGUI_SWEEP_INTERVALL",
            "1s",
            "did you mean TCGUI_SWEEP_INTERVAL?",
        ),
    ] {
        let loaded = load(&[(variable, value)], &["tcgui-backend", "--no-config"]);
        let problems: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 1, "{variable}: {problems:?}");
        assert!(problems[0].contains(expected), "{problems:?}");
        loaded.into_valid().unwrap_err();
    }
    // Variables of the unit and of tests.
    let foreign = [
        ("TCGUI_OPTIONS", "--read-only"),
        ("TCGUI_PATIENCE", "30"),
        ("TCGUI_BACKEND", "/x"),
        ("TCGUI_BACKEND_NAME", "lab"),
        ("TCGUI_CONNECT", "tcp/127.0.0.1:7447"),
        ("TCGUI_NETEM_KERNEL", "tcg"),
        ("TCGUI_FUZZ_SEED", "1"),
        ("TCGUI_SEED", "1"),
        ("TCGUI_CRASHES", "1"),
        ("TCGUI_LAB_OUTSIDE", "1"),
        ("TCGUI_TORTURE_SECONDS", "1"),
        ("TCGUI_TORTURE_SEEDS", "1"),
        ("TCGUI_TEST_FAIL_ACTOR", "bus"),
        ("TCGUI_TEST_FAIL_DECISION", "bus"),
        ("HOME", "/"),
    ];
    let loaded = load(&foreign, &["tcgui-backend", "--no-config"]);
    assert_eq!(loaded.problems, []);
}

#[test]
fn valid_parts_of_a_broken_configuration_are_used() {
    let lab = Lab::new();
    lab.write(&lab.main_file(), "state-dir = '/x'\nname = \ncolour = 1");
    lab.write(&lab.drop_in(), "netns-dir = '/n'\nsweep-interval = 'soon'");
    let loaded = lab.load(&[], &["restore"]);
    assert_eq!(loaded.args.state_dir, Path::new("/x"));
    assert_eq!(loaded.args.netns_dir, Path::new("/n"));
    assert_eq!(loaded.problems.len(), 3, "{:?}", loaded.problems);
    assert!(matches!(
        loaded.args.command,
        Some(crate::cli::Command::Restore(_))
    ));
    let err = loaded.into_valid().unwrap_err().to_string();
    assert!(
        err.contains("backend.toml:2:") && err.contains("backend.toml:3:"),
        "{err}"
    );
}

#[test]
fn options_from_different_sources_are_checked_together() {
    let lab = Lab::new();
    lab.write(&lab.main_file(), "no-containers = true\ntls-key = '/k'");
    let error = |args: &[&str]| Config::try_from(lab.load(&[], args).args).unwrap_err();
    let socket = ["--container-socket", "/x"];
    assert!(matches!(error(&socket), ConfigError::UnusedSocket));
    assert!(matches!(error(&[]), ConfigError::HalfIdentity));
    // The certificate on the command line belongs to the key in the file.
    assert!(matches!(error(&["--tls-cert", "/c"]), ConfigError::Tls(_)));
    let environment = [("TCGUI_NO_CONTAINERS", "false")];
    let args = lab
        .load(
            &environment,
            &["--tls-cert", "/c", "--container-socket", "/x"],
        )
        .args;
    assert!(matches!(
        Config::try_from(args).unwrap_err(),
        ConfigError::Tls(_)
    ));
}

#[test]
fn values_are_printed_as_a_valid_configuration_file() {
    let lab = Lab::new();
    let text = "allow = [\"a\\\"b/*\", \"c/'\"]\nname = \"x\"\nread-only = true\nprotect = []\nstate-dir = \"/a\\\\b\\n\"";
    lab.write(&lab.main_file(), text);
    let first = lab.load(&[], &[]);
    let options = Options::new();
    let printed: Vec<_> = first
        .settings
        .iter()
        .filter_map(|it| {
            Some(format!(
                "{} = {}",
                it.option,
                it.to_toml(options.kind(&it.option)?)?
            ))
        })
        .collect();
    lab.write(&lab.main_file(), &printed.join("\n"));
    let second = lab.load(&[], &[]);
    assert_eq!(second.problems, []);
    for (first, second) in first.settings.iter().zip(&second.settings) {
        assert_eq!(first.values, second.values);
    }
}
