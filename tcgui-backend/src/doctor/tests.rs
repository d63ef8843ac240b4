//! Tests of the findings: each fault has a remedy, and what is healthy has none.

use std::path::Path;

use super::*;

const NETEM: Module = MODULES[0].0;

/// Returns the line of a finding, after a check of its remedy.
fn line(finding: &Finding) -> String {
    assert_eq!(
        finding.remedy.is_empty(),
        finding.verdict == Verdict::Ok,
        "{finding}"
    );
    let line = finding.to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn a_missing_netem_is_a_fault_and_another_missing_module_a_warning() {
    let netem = |presence| module("6.1", NETEM, presence, Need::Required);
    for presence in [Presence::Loaded, Presence::BuiltIn, Presence::Loadable] {
        assert_eq!(netem(presence).verdict, Verdict::Ok);
    }
    let missing = netem(Presence::Missing);
    assert_eq!(missing.verdict, Verdict::Fault);
    assert!(line(&missing).contains("modprobe sch_netem"), "{missing}");
    let disabled = netem(Presence::LoadingDisabled);
    assert!(
        line(&disabled).contains("kernel.modules_disabled"),
        "{disabled}"
    );
    let (tbf, need) = MODULES[1];
    let missing = module("6.1", tbf, Presence::Missing, need);
    assert_eq!(missing.verdict, Verdict::Warning);
    assert!(
        line(&missing).contains("rates are limited by netem"),
        "{missing}"
    );
}

#[test]
fn missing_capabilities_are_named() {
    assert_eq!(capabilities(&[], &[]).verdict, Verdict::Ok);
    let optional = capabilities(&[], &["CAP_NET_RAW"]);
    assert_eq!(optional.verdict, Verdict::Warning);
    assert!(line(&optional).contains("CAP_NET_RAW"), "{optional}");
    let required = capabilities(&["CAP_SYS_ADMIN"], &["CAP_NET_RAW"]);
    assert_eq!(required.verdict, Verdict::Fault);
    assert!(line(&required).contains("CAP_SYS_ADMIN"), "{required}");
}

#[test]
fn a_used_up_inotify_limit_is_a_fault() {
    let limits = [
        ("fs.inotify.max_user_instances", Some(128)),
        ("user.max_inotify_instances", None),
    ];
    let fine = line(&inotify(&Ok(()), &limits));
    assert!(
        fine.contains("max_user_instances=128") && !fine.contains("user.max"),
        "{fine}"
    );
    let full = inotify(&Err("Too many open files".to_owned()), &limits);
    assert_eq!(full.verdict, Verdict::Fault);
    assert!(line(&full).contains("sysctl -w"), "{full}");
}

#[test]
fn a_private_mount_of_the_netns_directory_is_a_fault() {
    let facts = |propagation: &str, receives, mounts_of_init| NetnsDirectory {
        path: "/run/netns".into(),
        exists: true,
        propagation: Some((propagation.to_owned(), receives)),
        mounts_of_init,
    };
    assert_eq!(
        netns_directory(&facts("private", false, true)).verdict,
        Verdict::Ok
    );
    assert_eq!(
        netns_directory(&facts("master:1", true, false)).verdict,
        Verdict::Ok
    );
    let apart = netns_directory(&facts("private", false, false));
    assert_eq!(apart.verdict, Verdict::Fault);
    assert!(line(&apart).contains("rslave"), "{apart}");
}

#[test]
fn engines_without_a_listener_are_reported() {
    let path = Path::new("/run/docker.sock");
    assert_eq!(engine(path, &Ok(SocketFile::Absent)), None);
    let verdict = |found| {
        let finding = engine(path, &found).unwrap();
        line(&finding);
        finding.verdict
    };
    assert_eq!(verdict(Ok(SocketFile::Live)), Verdict::Ok);
    assert_eq!(verdict(Ok(SocketFile::Stale)), Verdict::Warning);
    assert_eq!(verdict(Ok(SocketFile::Other("a FIFO"))), Verdict::Fault);
    assert_eq!(
        verdict(Err(io::ErrorKind::PermissionDenied.into())),
        Verdict::Fault
    );
}

#[test]
fn an_endpoint_may_be_in_use_by_a_backend_only() {
    let name = "tcp/127.0.0.1:7447";
    assert_eq!(
        endpoint(name, &EndpointState::Free, false).verdict,
        Verdict::Ok
    );
    let answered = endpoint(name, &EndpointState::Answered(vec!["lab".to_owned()]), true);
    assert!(line(&answered).contains("lab"), "{answered}");
    let refused = EndpointState::Refused("Address already in use".to_owned());
    assert_eq!(endpoint(name, &refused, true).verdict, Verdict::Ok);
    let taken = endpoint(name, &refused, false);
    assert_eq!(taken.verdict, Verdict::Fault);
    assert!(line(&taken).contains("ss -tulpn"), "{taken}");
    assert_eq!(router(name, &Ok(())).verdict, Verdict::Ok);
    let refused = router(name, &Err("Connection refused".to_owned()));
    assert_eq!(refused.verdict, Verdict::Warning);
    line(&refused);
}

#[test]
fn a_state_directory_that_cannot_be_written_is_a_fault() {
    let facts = |opened, space| StateDirectory {
        path: "/var/lib/tcgui".into(),
        opened,
        space,
    };
    for exists in [true, false] {
        let fine = state_directory(&facts(Ok(exists), Ok(LEAST_SPACE)));
        assert_eq!(fine.verdict, Verdict::Ok);
    }
    let full = state_directory(&facts(Ok(true), Ok(LEAST_SPACE - 1)));
    assert_eq!(full.verdict, Verdict::Fault);
    assert!(line(&full).contains("free at least"), "{full}");
    let read_only = io::ErrorKind::ReadOnlyFilesystem.into();
    let read_only = state_directory(&facts(Ok(true), Err(read_only)));
    assert_eq!(read_only.verdict, Verdict::Fault);
    assert!(line(&read_only).contains("read-write"), "{read_only}");
}

#[test]
fn a_clock_before_the_first_release_is_a_fault() {
    assert_eq!(clock(EARLIEST, Some(true)).verdict, Verdict::Ok);
    assert_eq!(clock(EARLIEST, None).verdict, Verdict::Ok);
    assert_eq!(clock(EARLIEST, Some(false)).verdict, Verdict::Warning);
    let past = clock(Duration::from_secs(1), Some(true));
    assert_eq!(past.verdict, Verdict::Fault);
    assert!(line(&past).contains("timedatectl"), "{past}");
}
