//! What refusals of the kernel mean, and the comparison of what was read back.

use std::io;

use tcgui_shared::error_kind::ErrorKind;

use super::*;
use crate::error::chain;
use crate::kernel::qdisc::BottleneckChange;

const HANDLE: u32 = 0x7c60_0000;
const ENOENT: i32 = 2;
const EPERM: i32 = 1;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;

fn refused(errno: i32, text: &str) -> RtnetlinkError {
    RtnetlinkError::Refused {
        text: Some(text.to_owned()),
        err: io::Error::from_raw_os_error(errno),
    }
}

fn install(install: Install) -> RootChange {
    RootChange::Install {
        install,
        handle: HANDLE,
        netem: Netem::default(),
        bottleneck: BottleneckChange::Keep,
    }
}

#[test]
fn a_missing_module_is_named_with_the_words_of_the_kernel() {
    for how in [Install::Add, Install::Replace] {
        let err = refused(ENOENT, "Specified qdisc kind is unknown");
        assert!(!is_race(&install(how), &err));
        let err = failure(&install(how), err);
        assert_eq!(err.kind(), ErrorKind::Unsupported);
        let text = chain(&err).to_string();
        for part in ["sch_netem", "kernel-modules-extra", "qdisc kind is unknown"] {
            assert!(text.contains(part), "no {part}: {text}");
        }
    }
}

#[test]
fn each_failure_has_its_kind_and_the_words_of_the_kernel() {
    let delete = RootChange::Delete { handle: HANDLE };
    for (step, errno, kind) in [
        (install(Install::Add), ENODEV, ErrorKind::NotFound),
        (delete, ENODEV, ErrorKind::NotFound),
        (install(Install::Add), EPERM, ErrorKind::Denied),
        (delete, EPERM, ErrorKind::Denied),
        (install(Install::Change), EINVAL, ErrorKind::Invalid),
        (install(Install::Replace), EEXIST, ErrorKind::Internal),
    ] {
        let err = failure(&step, refused(errno, "in its own words"));
        assert_eq!(err.kind(), kind, "{step:?} {errno}");
        let told = chain(&err).to_string().contains("in its own words");
        assert!(told || errno == ENODEV, "{err:?}");
    }
}

#[test]
fn a_root_that_changed_meanwhile_is_read_again() {
    let delete = RootChange::Delete { handle: HANDLE };
    let (add, change) = (install(Install::Add), install(Install::Change));
    for (step, errno, race) in [
        (add, EEXIST, true),
        (add, ENOENT, false),
        (add, EINVAL, false),
        (change, EEXIST, true),
        (change, ENOENT, true),
        (change, EINVAL, false),
        (install(Install::Replace), EEXIST, false),
        (delete, ENOENT, true),
        (delete, EINVAL, true),
        (delete, EPERM, false),
    ] {
        assert_eq!(
            is_race(&step, &refused(errno, "")),
            race,
            "{step:?} {errno}"
        );
    }
}

#[test]
fn fields_that_differ_are_named() {
    let wanted = Netem {
        limit: 5,
        gap: 3,
        seed: Some(1),
        ..Netem::default()
    };
    let current = Netem {
        limit: 6,
        gap: 4,
        seed: None,
        ..wanted
    };
    let err = verify(&wanted, &current).unwrap_err();
    assert_eq!(
        err.to_string(),
        "the kernel reports another limit, reordering than was set"
    );
    let old_kernel = Netem {
        seed: None,
        ..wanted
    };
    let note = verify(&wanted, &old_kernel).unwrap();
    assert_eq!(note, Some(Note::SeedUnknown));
    let seeded = Netem {
        seed: Some(2),
        ..wanted
    };
    assert!(matches!(
        verify(&wanted, &seeded),
        Err(TcError::NotTaken { fields }) if fields == ["seed"]
    ));
    assert_eq!(verify(&old_kernel, &seeded).unwrap(), None);
}
