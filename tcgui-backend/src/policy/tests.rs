//! Tests of the changes that each option permits.

use proptest::prelude::*;

use super::pattern::glob;
use super::*;

const CHANGES: [Change; 3] = [Change::Impair, Change::Enable, Change::Disable];

fn patterns<T: FromStr<Err = PatternError>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn policy(read_only: bool, allow: &[&str], protect: &[&str]) -> Policy {
    Policy::new(read_only, patterns(allow), patterns(protect))
}

fn names(texts: &[&str]) -> Vec<NamespaceName> {
    let name = |text: &&str| NamespaceName::from_wire(text).unwrap();
    texts.iter().map(name).collect()
}

/// Checks a change of an interface. `at` lists the names of its namespace. The first may be that of the host.
fn ask(policy: &Policy, change: Change, at: &[&str], interface: &str) -> Result<Permit, Denial> {
    policy.check_interface(
        change,
        Target {
            namespaces: &names(at),
            interface: &InterfaceName::from_wire(interface).unwrap(),
            is_host: at.first() == Some(&"default"),
            loopback: interface == "lo",
        },
    )
}

fn option(denial: Result<Permit, Denial>) -> String {
    denial.unwrap_err().to_string()
}

#[test]
fn by_default_only_the_links_to_the_host_are_protected() {
    let policy = Policy::default();
    assert_eq!(policy.to_string(), "");
    policy.check().unwrap();
    let disabled = |at: &[&str], interface| ask(&policy, Change::Disable, at, interface);
    assert_eq!(disabled(&["default"], "lo"), Err(Denial::Loopback));
    assert_eq!(disabled(&["default", "root"], "lo"), Err(Denial::Loopback));
    assert_eq!(
        disabled(&["default"], "eth0"),
        Ok(Permit::UnlessDefaultRoute)
    );
    assert_eq!(disabled(&["lab"], "lo"), Ok(Permit::Always));
    for change in [Change::Impair, Change::Enable] {
        for interface in ["lo", "eth0"] {
            let asked = ask(&policy, change, &["default"], interface);
            assert_eq!(asked, Ok(Permit::Always), "{change:?} {interface}");
        }
    }
    assert!(option(disabled(&["default"], "lo")).contains("--protect none"));
    assert!(Denial::DefaultRoute.to_string().contains("--protect none"));
}

#[test]
fn protect_none_disables_only_the_default_protection() {
    let policy = policy(false, &[], &["none", "default/eth0"]);
    assert_eq!(
        ask(&policy, Change::Disable, &["default"], "lo"),
        Ok(Permit::Always)
    );
    for change in CHANGES {
        let denied = option(ask(&policy, change, &["default"], "eth0"));
        assert!(denied.contains("--protect default/eth0"), "{denied}");
    }
    assert_eq!(policy.to_string(), "--protect default/eth0 --protect none");
}

#[test]
fn protect_overrides_allow_and_read_only_overrides_both() {
    let all = policy(false, &["lab*/*", "default/v*"], &["lab-prod/*"]);
    for change in CHANGES {
        assert_eq!(ask(&all, change, &["lab-1"], "eth0"), Ok(Permit::Always));
        let denied = option(ask(&all, change, &["lab-prod"], "eth0"));
        assert!(denied.contains("--protect lab-prod/*"), "{denied}");
        let denied = option(ask(&all, change, &["other"], "eth0"));
        assert!(denied.contains("--allow lab*/*, default/v*"), "{denied}");
    }
    let read_only = policy(true, &["*/*"], &["none"]);
    assert_eq!(read_only.check(), Err(Denial::ReadOnly));
    for change in CHANGES {
        let denied = option(ask(&read_only, change, &["lab-1"], "eth0"));
        assert!(denied.contains("--read-only"), "{denied}");
    }
    // `--allow` does not disable the protection of the host's links.
    assert_eq!(
        ask(
            &policy(false, &["*/*"], &[]),
            Change::Disable,
            &["default"],
            "lo"
        ),
        Err(Denial::Loopback)
    );
}

#[test]
fn an_alias_does_not_bypass_a_protection() {
    let protects = policy(false, &[], &["prod/*"]);
    let allows = policy(false, &["lab/*"], &[]);
    for at in [["prod", "lab"], ["lab", "prod"]] {
        for change in CHANGES {
            ask(&protects, change, &at, "eth0").unwrap_err();
            ask(&allows, change, &at, "eth0").unwrap();
        }
    }
}

#[test]
fn a_refusal_is_short_whatever_the_number_of_patterns() {
    let many = vec!["a/b"; 1000];
    let denied = option(ask(&policy(false, &many, &[]), Change::Impair, &["x"], "y"));
    assert!(
        denied.contains("992 more") && denied.len() < 200,
        "{denied}"
    );
}

#[test]
fn patterns_have_two_parts() {
    for wrong in ["", "eth0", "/eth0", "default/", "/", "none", "*"] {
        assert_eq!(
            wrong.parse::<Pattern>(),
            Err(PatternError::Parts),
            "{wrong}"
        );
    }
    for wrong in ["pid:x/lo", "lab/\\x41", "default/nineteen-characters"] {
        let err = wrong.parse::<Pattern>().unwrap_err().to_string();
        assert!(err.contains("matches nothing"), "{err}");
    }
    let long: Pattern = "netns:lab/eth0".parse().unwrap();
    assert_eq!(long.to_string(), "lab/eth0");
    assert_eq!("none".parse(), Ok(Protect::None));
    for right in ["a/b", "*/*", "container:web/eth0", "pid:7(kworker/0:1)/lo"] {
        let pattern: Pattern = right.parse().unwrap();
        assert_eq!(pattern.to_string(), right);
    }
    let process: Pattern = "pid:*(kworker/0:1)/lo".parse().unwrap();
    assert!(process.matches("pid:7(kworker/0:1)", "lo"));
}

#[test]
fn a_pattern_with_stars_may_have_the_prefix_of_directory_entries() {
    let pattern: Pattern = "netns:prod*/eth0".parse().unwrap();
    assert!(pattern.matches("prod", "eth0") && pattern.matches("prod-1", "eth0"));
    assert!(!pattern.matches("lab", "eth0") && !pattern.matches("prod", "eth1"));
    let protects = policy(false, &[], &["netns:prod*/eth0"]);
    ask(&protects, Change::Impair, &["prod-1"], "eth0").unwrap_err();
    let all: Pattern = "netns:*/lo".parse().unwrap();
    // The last name is an entry that has the same name as the host.
    for (name, expected) in [
        ("lab", true),
        ("default", false),
        ("container:web", false),
        ("pid:7(sh)", false),
        ("netns:default", true),
    ] {
        assert_eq!(all.matches(name, "lo"), expected, "{name}");
    }
    let one: Pattern = "netns:lab/e*".parse().unwrap();
    assert!(one.matches("lab", "eth0"));
}

#[test]
fn a_starred_pattern_that_no_name_can_match_is_refused() {
    for wrong in [
        "lab\\x41*/eth0",
        "*\\q/eth0",
        "lab/e\\x41*",
        "lab/nineteen-characters*",
        "a/b*/eth0",
        "pid:x*/lo",
        "netns:*/x/lo",
    ] {
        let err = wrong.parse::<Pattern>().unwrap_err().to_string();
        assert!(err.contains("matches nothing"), "{wrong}: {err}");
    }
    for right in [
        "*/*",
        "**/*",
        "lab\\xff*/e*0",
        ".*/.*",
        "container:*/*",
        "pid:*/lo",
        "pid:7*/lo",
        "pid:7(s*/lo",
        "*(kworker/0:1)/lo",
        "*kworker/*/lo",
        "pid:*(kworker/*/lo",
        "pi*/lo",
        "netns:*/lo",
        "netns:pid:*/lo",
    ] {
        right.parse::<Pattern>().expect(right);
    }
}

#[test]
fn stars_stand_for_any_text() {
    for (pattern, text, expected) in [
        ("", "", true),
        ("", "a", false),
        ("*", "", true),
        ("*", "anything", true),
        ("a*", "a", true),
        ("a*b", "ab", true),
        ("a*b", "aXb", true),
        ("a*b", "aXbY", false),
        ("a*a", "a", false),
        ("*ab", "aab", true),
        ("*a*a*", "a", false),
        ("*a*a*", "aa", true),
        ("a**b", "ab", true),
        ("eth?", "eth0", false),
        ("ETH0", "eth0", false),
    ] {
        assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
    }
}

/// Matches a pattern by simple recursion, as a reference for `glob`.
fn matches_slowly(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=text.len()).any(|taken| matches_slowly(rest, &text[taken..])),
        ([one, rest @ ..], [other, left @ ..]) => one == other && matches_slowly(rest, left),
        _ => false,
    }
}

proptest! {
    #[test]
    fn globs_match_like_the_reference(pattern in "[ab*ä]{0,7}", text in "[abä]{0,8}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let expected = matches_slowly(&chars(&pattern), &chars(&text));
        prop_assert_eq!(glob(&pattern, &text), expected);
    }

    #[test]
    fn a_name_matches_itself_and_every_pattern_made_from_it(
        namespace in "[a-z][a-z0-9@.-]{1,20}",
        interface in "[a-z][a-z0-9@.-]{1,13}",
        cut in 0_usize..15,
    ) {
        let exact: Pattern = format!("{namespace}/{interface}").parse().unwrap();
        prop_assert!(exact.matches(&namespace, &interface));
        let longer = format!("{interface}x");
        prop_assert!(!exact.matches(&namespace, &longer));
        let begin = &interface[..cut.min(interface.len())];
        let wide: Pattern = format!("*/{begin}*").parse().unwrap();
        prop_assert!(wide.matches(&namespace, &interface));
    }

    #[test]
    fn options_only_remove_permissions(
        allow in proptest::collection::vec("[ab*]{1,3}/[ab*]{1,3}", 0..3),
        protect in proptest::collection::vec("[ab*]{1,3}/[ab*]{1,3}", 0..3),
        namespace in "[ab]{1,3}",
        interface in "[ab]{1,3}",
        is_host: bool,
        change in prop::sample::select(CHANGES.to_vec()),
    ) {
        let parse = |texts: &[String]| texts.iter().map(|it| it.parse().unwrap()).collect();
        let protects: Vec<_> = protect.iter().map(|it| it.parse().unwrap()).collect();
        let namespaces = names(&[&namespace]);
        let interface = InterfaceName::from_wire(&interface).unwrap();
        let target = Target { namespaces: &namespaces, interface: &interface, is_host, loopback: false };
        let asked = |policy: Policy| policy.check_interface(change, target);
        let plain = asked(Policy::default());
        let with = asked(Policy::new(false, parse(&allow), protects));
        if let Ok(permit) = with {
            prop_assert_eq!(plain, Ok(permit));
            let matched = |text: &String| {
                let pattern: Pattern = text.parse().unwrap();
                pattern.matches(&namespaces[0].to_wire(), &interface.to_wire())
            };
            prop_assert!(!protect.iter().any(matched));
            prop_assert!(allow.is_empty() || allow.iter().any(matched));
        }
        prop_assert_eq!(asked(Policy::new(true, parse(&allow), Vec::new())), Err(Denial::ReadOnly));
    }
}
