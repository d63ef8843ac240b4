//! Tests of names against the rules of the kernel and of Zenoh keys.
//!
//! The generators prefer bytes with a special meaning in one of the texts, because random bytes almost never collide.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Bytes that are valid in a file name. Half of them have a special meaning in one of the texts.
fn name_bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    let any_byte = any::<u8>().prop_filter("a file name", |byte| !matches!(byte, b'/' | 0));
    let telling = proptest::sample::select(b"\\x4fF%25@*#?$:.\nAa \xc3\xa9\xff\x7f".as_slice());
    let bytes = prop_oneof![vec(any_byte, 1..=max), vec(telling, 1..=max.min(6))];
    bytes.prop_filter("a file name", |name| {
        !matches!(name.as_slice(), b"." | b"..")
    })
}

/// Names of every kind, often with the text of another kind inside.
fn namespace() -> impl Strategy<Value = NamespaceName> {
    let prefix = proptest::sample::select(vec!["", "default", "container:", "pid:", "netns:"]);
    let named = (prefix, name_bytes(240))
        .prop_map(|(prefix, rest)| named(&[prefix.as_bytes(), rest.as_slice()].concat()));
    let container = prop_oneof![any::<String>(), r"[a-c:@%\\x/]{1,4}"]
        .prop_filter_map("not empty", |name| NamespaceName::container(&name).ok());
    let program = prop_oneof![
        vec(1..=u8::MAX, 0..=15),
        vec(
            proptest::sample::select(b"()\\x4f@/%*\n\xc3\xa9\xff".as_slice()),
            0..=6
        ),
    ];
    let process = (1..=i32::MAX, program)
        .prop_map(|(pid, program)| NamespaceName::process(pid, &program).unwrap());
    prop_oneof![1 => Just(NamespaceName::Host), 8 => named, 4 => container, 4 => process]
}

fn interface() -> impl Strategy<Value = InterfaceName> {
    name_bytes(15).prop_map(|bytes| InterfaceName::from_bytes(&bytes).unwrap())
}

fn named(bytes: &[u8]) -> NamespaceName {
    NamespaceName::named(OsStr::from_bytes(bytes)).unwrap()
}

fn is_legal_chunk(chunk: &str) -> bool {
    !chunk.is_empty() && !chunk.starts_with('@') && !chunk.contains(['/', '#', '?', '$', '*'])
}

/// Decodes a key chunk. If decoding returns the name, no two names share a chunk.
fn percent_decode(chunk: &str) -> Vec<u8> {
    let mut parts = chunk.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    bytes
}

proptest! {
    #[test]
    fn a_namespace_is_restored_from_its_texts(name in namespace()) {
        prop_assert_eq!(NamespaceName::from_wire(&name.to_wire()), Ok(name.clone()));
        prop_assert_eq!(name.to_string(), name.to_wire());
        let chunk = name.key_chunk();
        prop_assert!(is_legal_chunk(&chunk), "{}", chunk);
        if let NamespaceName::Named(netns) = &name {
            let text = chunk.strip_prefix(NETNS_PREFIX).unwrap_or(&chunk);
            prop_assert_eq!(percent_decode(text), netns.as_bytes());
            let redundant = format!("{NETNS_PREFIX}{}", escape(netns.as_bytes()));
            prop_assert_eq!(NamespaceName::from_wire(&redundant), Ok(name));
        } else if let NamespaceName::Process(process) = &name {
            let text = chunk.strip_prefix(&format!("{PROCESS_PREFIX}{}(", process.pid()));
            let text = text.and_then(|text| text.strip_suffix(')'));
            prop_assert_eq!(percent_decode(text.unwrap()), process.program());
        }
    }

    #[test]
    fn two_namespaces_share_no_text(one in namespace(), other in namespace()) {
        prop_assert_eq!(one == other, one.to_wire() == other.to_wire());
        prop_assert_eq!(one == other, one.key_chunk() == other.key_chunk());
    }

    #[test]
    fn an_interface_is_restored_from_its_texts(name in interface()) {
        prop_assert_eq!(InterfaceName::from_wire(&name.to_wire()), Ok(name.clone()));
        prop_assert_eq!(name.to_string(), name.to_wire());
        prop_assert!(is_legal_chunk(&name.key_chunk()), "{}", name.key_chunk());
        prop_assert_eq!(percent_decode(&name.key_chunk()), name.as_bytes());
    }

    #[test]
    fn two_interfaces_share_no_text(one in interface(), other in interface()) {
        prop_assert_eq!(one == other, one.to_wire() == other.to_wire());
        prop_assert_eq!(one == other, one.key_chunk() == other.key_chunk());
    }

    #[test]
    fn each_name_has_exactly_one_text(
        text in r"(netns:|container:|pid:|pid:[0-9]{1,3}\()?[a\\xf0-9é@%/()]{0,8}"
    ) {
        if let Ok(name) = NamespaceName::from_wire(&text) {
            let wire = name.to_wire();
            let redundant = text.strip_prefix(NETNS_PREFIX) == Some(wire.as_str());
            prop_assert!(text == wire || redundant, "{} {}", text, wire);
        }
        if let Ok(name) = InterfaceName::from_wire(&text) {
            prop_assert_eq!(name.to_wire(), text);
        }
    }

    #[test]
    fn an_ordinary_name_stands_for_itself(name in r"[\p{L}\p{Nd}_-][\p{L}\p{Nd}_. -]{0,60}") {
        let namespace = NamespaceName::named(&name).unwrap();
        prop_assume!(name != HOST);
        prop_assert_eq!((namespace.to_wire(), namespace.key_chunk()), (name.clone(), name));
    }

    #[test]
    fn a_backend_name_is_read_or_refused(text in any::<String>()) {
        if let Ok(name) = text.parse::<BackendName>() {
            prop_assert!(is_legal_chunk(name.as_str()));
            prop_assert_eq!(name.to_string(), text);
        }
    }
}

#[test]
fn texts_of_odd_namespaces() {
    let cases: &[(&[u8], &str, &str)] = &[
        (b"\xff\xfe", r"\xff\xfe", "%FF%FE"),
        (b"a\nb", "a\nb", "a%0Ab"),
        (b".hid", ".hid", ".hid"),
        (b"a b", "a b", "a b"),
        ("größe".as_bytes(), "größe", "größe"),
        (b"*", "*", "%2A"),
        (b"**", "**", "%2A%2A"),
        (b"a#b", "a#b", "a%23b"),
        (b"a?b", "a?b", "a%3Fb"),
        (b"$x", "$x", "%24x"),
        (b"@x", "@x", "%40x"),
        (b"x@", "x@", "x@"),
        (b"A", "A", "A"),
        (b"%41", "%41", "%2541"),
        (br"\x41", r"\\x41", r"\x41"),
        (br"\", r"\\", r"\"),
        (b"default", "netns:default", "netns:default"),
        (b"default2", "default2", "default2"),
        (b"container:x", "netns:container:x", "netns:container:x"),
        (
            b"netns:default",
            "netns:netns:default",
            "netns:netns:default",
        ),
        (b"pid:3", "netns:pid:3", "netns:pid:3"),
        (b"pid:\xff", r"netns:pid:\xff", "netns:pid:%FF"),
    ];
    for (bytes, wire, chunk) in cases {
        let name = named(bytes);
        let texts = (name.to_wire(), name.key_chunk());
        assert_eq!(texts, ((*wire).to_owned(), (*chunk).to_owned()));
        assert_eq!(NamespaceName::from_wire(wire), Ok(name));
    }
    assert_eq!(named(&[0xff; 255]).key_chunk(), "%FF".repeat(255));
    let container = NamespaceName::container("web").unwrap();
    assert_eq!(container.to_wire(), "container:web");
    assert_eq!(container.key_chunk(), "container:web");
    assert_eq!(NamespaceName::host().to_string(), HOST);
    for (program, wire, chunk) in [
        (b"sleep".as_slice(), "pid:7(sleep)", "pid:7(sleep)"),
        (b"", "pid:7()", "pid:7()"),
        (b"a) b(", "pid:7(a) b()", "pid:7(a) b()"),
        (b"kworker/0:1", "pid:7(kworker/0:1)", "pid:7(kworker%2F0:1)"),
        (b"\\\xff", r"pid:7(\\\xff)", r"pid:7(\%FF)"),
        (
            &[0xff; 15],
            &format!("pid:7({})", r"\xff".repeat(15)),
            &format!("pid:7({})", "%FF".repeat(15)),
        ),
    ] {
        let name = NamespaceName::process(7, program).unwrap();
        assert_eq!((&*name.to_wire(), &*name.key_chunk()), (wire, chunk));
        assert_eq!(NamespaceName::from_wire(wire), Ok(name));
    }
}

#[test]
fn invalid_namespace_texts_are_refused() {
    let kind = NameKind::Netns;
    let container = NameKind::Container;
    let process = NameKind::Process;
    let long_program = NameError::TooLong {
        kind: process,
        len: 16,
        max: 15,
    };
    let long = "x".repeat(256);
    let too_long = NameError::TooLong {
        kind,
        len: 256,
        max: 255,
    };
    let cases = [
        ("", NameError::Empty { kind }),
        ("netns:", NameError::Empty { kind }),
        ("container:", NameError::Empty { kind: container }),
        ("pid:7", NameError::ProcessNamespace),
        ("pid:(x)", NameError::ProcessNamespace),
        ("pid:0(x)", NameError::ProcessNamespace),
        ("pid:-1(x)", NameError::ProcessNamespace),
        ("pid:+7(x)", NameError::ProcessNamespace),
        ("pid:07(x)", NameError::ProcessNamespace),
        ("pid: 7(x)", NameError::ProcessNamespace),
        ("pid:2147483648(x)", NameError::ProcessNamespace),
        ("pid:7(x", NameError::ProcessNamespace),
        ("pid:7(x) ", NameError::ProcessNamespace),
        ("pid:7(a\0)", NameError::ProcessNamespace),
        ("pid:7(0123456789abcdef)", long_program),
        (r"pid:7(\q)", NameError::BadEscape { kind: process }),
        (".", NameError::NotAFileName { kind }),
        ("netns:..", NameError::NotAFileName { kind }),
        ("a/b", NameError::NotAFileName { kind }),
        ("a\0b", NameError::NotAFileName { kind }),
        (long.as_str(), too_long),
        (r"\", NameError::BadEscape { kind }),
        (r"a\\\", NameError::BadEscape { kind }),
        (r"\n", NameError::BadEscape { kind }),
        (r"\xf", NameError::BadEscape { kind }),
        (r"\x+f", NameError::BadEscape { kind }),
        (r"\x4é", NameError::BadEscape { kind }),
        (r"\x41", NameError::BadEscape { kind }),
        (r"\xFF", NameError::BadEscape { kind }),
        (r"\xc3\xa9", NameError::BadEscape { kind }),
        (r"container:\q", NameError::BadEscape { kind: container }),
        (r"container:\xff", NameError::ContainerNotUtf8),
    ];
    for (text, error) in cases {
        assert_eq!(NamespaceName::from_wire(text), Err(error), "{text:?}");
    }
}

#[test]
fn interfaces_are_bounded_by_the_kernel() {
    let kind = NameKind::Interface;
    let too_long = NameError::TooLong {
        kind,
        len: 16,
        max: 15,
    };
    assert_eq!(
        InterfaceName::from_bytes(&[0xff; 15]).unwrap().as_bytes(),
        [0xff; 15]
    );
    assert_eq!(InterfaceName::from_bytes(&[b'a'; 16]), Err(too_long));
    assert_eq!(InterfaceName::from_wire(""), Err(NameError::Empty { kind }));
    for name in [".", "..", "a/b", "a\0"] {
        assert_eq!(
            InterfaceName::new(name),
            Err(NameError::NotAFileName { kind })
        );
    }
}

#[test]
fn backend_name_errors_list_the_allowed_characters() {
    for name in ["edge1", "größe_2-b", &"x".repeat(64)] {
        assert_eq!(name.parse::<BackendName>().unwrap().as_str(), name);
    }
    for (name, message) in [
        (
            "",
            "backend name is empty, at least one character is needed",
        ),
        (
            &"é".repeat(33),
            "backend name has 66 bytes, at most 64 are allowed",
        ),
        (
            "a b",
            "backend name contains ' ', only letters, digits, '-' and '_' are allowed",
        ),
    ] {
        assert_eq!(
            name.parse::<BackendName>().unwrap_err().to_string(),
            message
        );
    }
}
