//! Options and commands as they are parsed, and their help.

use clap::CommandFactory;
use std::path::Path;

use super::*;

#[test]
fn the_definition_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn the_help_of_each_option_names_its_default() {
    fn check(command: &clap::Command) {
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            let is_built_in = ["help", "version"].contains(&id);
            let shows_default = arg.get_action().takes_values()
                && (arg.is_required_set() || !arg.get_default_values().is_empty());
            let help = arg.get_help().unwrap_or_default().to_string();
            assert!(
                is_built_in || shows_default || help.contains("default"),
                "{} {id}: {help}",
                command.get_name()
            );
        }
        command.get_subcommands().for_each(check);
    }
    check(&Args::command());
}

#[test]
fn released_options_are_understood() {
    let args = Args::parse_from([
        "tcgui-backend",
        "-v",
        "--exclude-loopback",
        "-n",
        "lab",
        "--zenoh-mode",
        "client",
        "--zenoh-connect",
        "tcp/127.0.0.1:7447",
        "--no-multicast",
        "--scenario-dir",
        "/a",
        "--scenario-dir",
        "/b",
        "--no-default-scenarios",
        "--preset-dir",
        "/c",
        "--no-default-presets",
    ]);
    assert_eq!(
        (args.name.as_str(), args.zenoh_mode),
        ("lab", ZenohMode::Client)
    );
    assert_eq!(
        args.scenario_dir,
        [PathBuf::from("/a"), PathBuf::from("/b")]
    );
    Args::try_parse_from(["tcgui-backend", "--zenoh-mode", "Peer"]).unwrap_err();
    Args::try_parse_from(["tcgui-backend", "--sweep-interval", "0s"]).unwrap_err();
}

#[test]
fn a_restoration_is_asked_for_by_name() {
    let args = Args::parse_from(["tcgui-backend", "restore", "--all", "--state-dir", "/x"]);
    let Some(Command::Restore(args)) = args.command else {
        panic!("{args:?}");
    };
    assert!(args.all && args.netns_dir.is_none());
    assert_eq!(args.state_dir.as_deref(), Some(Path::new("/x")));
    let daemon = Args::parse_from(["tcgui-backend", "--default-ttl", "1h"]);
    assert!(daemon.command.is_none() && !daemon.keep_on_exit);
    assert_eq!(daemon.default_ttl, Some(Duration::from_secs(3600)));
    for wrong in ["0s", "31days", "soon"] {
        Args::try_parse_from(["tcgui-backend", "--default-ttl", wrong]).unwrap_err();
    }
}

#[test]
fn containers_are_looked_for_or_not() {
    let args = [
        "tcgui-backend",
        "--container-socket",
        "/a",
        "--container-socket",
        "/b",
    ];
    let args = Args::parse_from(args);
    assert_eq!(
        args.container_socket,
        [PathBuf::from("/a"), PathBuf::from("/b")]
    );
    let both = [
        "tcgui-backend",
        "--no-containers",
        "--container-socket",
        "/a",
    ];
    Args::try_parse_from(both).unwrap_err();
}

#[test]
fn questions_have_their_own_options() {
    let args = Args::parse_from(["tcgui-backend", "explain", "--backend", "lab2", "--", "-x"]);
    let Some(Command::Explain(explain)) = args.command else {
        panic!("{args:?}");
    };
    assert_eq!(
        (explain.backend.as_deref(), explain.json),
        (Some("lab2"), false)
    );
    assert_eq!(explain.namespace, "-x");
    let args = Args::parse_from(["tcgui-backend", "namespaces", "-w", "--json"]);
    let Some(Command::Namespaces(listed)) = args.command else {
        panic!("{args:?}");
    };
    assert!(listed.watch && listed.json && listed.backend.is_none());
    assert!(listed.reach.connect.is_none() && listed.reach.netns_dir.is_none());
    Args::try_parse_from(["tcgui-backend", "explain"]).unwrap_err();
}

#[test]
fn the_bandwidth_interval_is_bounded() {
    let given = |value| {
        Args::try_parse_from(["tcgui-backend", "--bandwidth-interval", value])
            .map(|args| args.bandwidth_interval)
    };
    let default = Args::parse_from(["tcgui-backend"]).bandwidth_interval;
    assert_eq!(default, Duration::from_secs(2));
    assert_eq!(given("100ms").unwrap(), Duration::from_millis(100));
    let refusal = |value| given(value).unwrap_err().to_string();
    assert!(refusal("99ms").contains("must be at least 100ms"));
    assert!(refusal("2days").contains("must be at most 1day"));
    assert!(refusal("often").contains("write for instance"));
}
