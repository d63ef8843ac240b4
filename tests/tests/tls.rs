//! Encrypted endpoints with real certificates and real clients.

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::time::Duration;

    use anyhow::{anyhow, ensure};
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use serde_json::json;
    use tcgui_tests::client::{Client, Options};
    use tcgui_tests::daemon::{self, Daemon};
    use tcgui_tests::frontend::{Route, Tls};
    use tcgui_tests::lab_test;
    use tcgui_tests::scene::SOON;
    use tcgui_tests::wait::{holds_for, wait_for};

    const ENDPOINTS: [&str; 2] = ["tls/127.0.0.1:7448", "quic/127.0.0.1:7448"];

    /// The files of a certificate authority and of the certificates that it signed.
    struct Authority {
        directory: tempfile::TempDir,
        issuer: CertifiedIssuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> anyhow::Result<Self> {
            let mut params = CertificateParams::new(Vec::new())?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
            let directory = tempfile::tempdir()?;
            fs::write(directory.path().join("ca.pem"), issuer.pem())?;
            Ok(Self { directory, issuer })
        }

        fn file(&self) -> PathBuf {
            self.directory.path().join("ca.pem")
        }

        /// Signs a certificate for 127.0.0.1 and returns the files of certificate and key.
        fn sign(&self, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
            let key = KeyPair::generate()?;
            let params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
            let certificate = params.signed_by(&key, &self.issuer)?;
            let file = |end: &str| self.directory.path().join(format!("{name}.{end}"));
            fs::write(file("pem"), certificate.pem())?;
            fs::write(file("key"), key.serialize_pem())?;
            Ok((file("pem"), file("key")))
        }
    }

    fn start(options: &[(&str, &Path)]) -> anyhow::Result<Daemon> {
        let mut args = vec![
            OsStr::new("--zenoh-listen").to_owned(),
            ENDPOINTS.join(",").into(),
        ];
        for (option, file) in options {
            args.extend([(*option).into(), file.as_os_str().to_owned()]);
        }
        let daemon = Daemon::start(&[], &args)?;
        wait_for(
            "it is up",
            SOON,
            || daemon.stderr(),
            |log| log.contains("visible"),
        )?;
        Ok(daemon)
    }

    fn open(endpoint: &str, tls: &Tls) -> anyhow::Result<Client> {
        let route = Route::client(endpoint).encrypted(tls.clone());
        Options::default().route(route).open()
    }

    fn ensure_served(endpoint: &str, tls: &Tls) -> anyhow::Result<()> {
        let client = open(endpoint, tls).map_err(|error| error.context(endpoint.to_owned()))?;
        client.wait_for("the list", SOON, |state| state.list().is_some())?;
        // A query may be lost while the declarations of a new session are exchanged.
        let ask = || client.ask("scenario", &json!("List")).map(drop);
        wait_for("a reply", SOON, ask, Result::is_ok)??;
        client.close()
    }

    fn ensure_refused(endpoint: &str, tls: &Tls) -> anyhow::Result<()> {
        let Ok(client) = open(endpoint, tls) else {
            return Ok(());
        };
        // With TLS 1.3 the client may receive the refusal after its side of the handshake.
        let served = client.wait_for("", Duration::from_secs(2), |state| state.list().is_some());
        ensure!(served.is_err(), "{endpoint}: served with {tls:?}");
        Ok(())
    }

    lab_test!(a_certificate_encrypts_tls_and_quic, |_| {
        let authority = Authority::new()?;
        let (cert, key) = authority.sign("backend")?;
        let daemon = start(&[("--tls-cert", &cert), ("--tls-key", &key)])?;
        let trusting = Tls {
            root: Some(authority.file()),
            identity: None,
        };
        let distrusting = Tls {
            root: Some(Authority::new()?.file()),
            identity: None,
        };
        for endpoint in ENDPOINTS {
            ensure_served(endpoint, &trusting)?;
            ensure_refused(endpoint, &distrusting)?;
            ensure_refused(endpoint, &Tls::default())?;
        }
        daemon.stop().map(drop)
    });

    fn refusals(daemon: &Daemon) -> usize {
        let log = daemon.stderr();
        log.lines()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .count()
    }

    lab_test!(mutual_tls_admits_only_signed_clients, |_| {
        let authority = Authority::new()?;
        let (cert, key) = authority.sign("backend")?;
        let clients = Authority::new()?;
        let client = clients.sign("client")?;
        let stranger = Authority::new()?.sign("stranger");
        let options = [
            ("--tls-cert", &*cert),
            ("--tls-key", &*key),
            ("--tls-client-ca", &*clients.file()),
        ];
        let daemon = start(&options)?;
        let root = Some(authority.file());
        let other = Authority::new()?;
        let stranger = stranger.and(other.sign("stranger"))?;
        for endpoint in ENDPOINTS {
            ensure_served(
                endpoint,
                &Tls {
                    root: root.clone(),
                    identity: Some(client.clone()),
                },
            )?;
        }
        ensure!(refusals(&daemon) == 0, "{}", daemon.stderr());
        for endpoint in ENDPOINTS {
            for _ in 0..3 {
                ensure_refused(
                    endpoint,
                    &Tls {
                        root: root.clone(),
                        identity: Some(stranger.clone()),
                    },
                )?;
            }
        }
        let log = daemon.stderr();
        ensure!(
            log.contains("certificate") && !log.contains("open file limit"),
            "{log}"
        );
        holds_for(
            "one line for each way in",
            SOON / 5,
            || refusals(&daemon),
            |count| *count == 2,
        )
        .map_err(|error| anyhow!("{error}: {}", daemon.stderr()))?;
        for endpoint in ENDPOINTS {
            ensure_refused(
                endpoint,
                &Tls {
                    root: root.clone(),
                    identity: None,
                },
            )?;
            ensure_served(
                endpoint,
                &Tls {
                    root: root.clone(),
                    identity: Some(client.clone()),
                },
            )?;
        }
        daemon.stop().map(drop)
    });

    lab_test!(a_client_daemon_joins_through_mutual_tls, |_| {
        let authority = Authority::new()?;
        let (cert, key) = authority.sign("first")?;
        let ca = authority.file();
        let first = start(&[
            ("--tls-cert", &cert),
            ("--tls-key", &key),
            ("--tls-client-ca", &ca),
        ])?;
        let (cert, key) = authority.sign("second")?;
        let tls = [&*cert, &*key, &*ca].map(|file| file.to_string_lossy().into_owned());
        let args = [
            "--name",
            "second",
            "--zenoh-mode",
            "client",
            "--zenoh-connect",
            ENDPOINTS[0],
            "--state-dir",
            "/run/second",
            "--tls-cert",
            &tls[0],
            "--tls-key",
            &tls[1],
            "--tls-client-ca",
            &tls[2],
        ];
        let second = Daemon::start(&[], &args)?;
        let client = Options::default().backend("second").open()?;
        client.wait_for("the second is visible", SOON * 2, |state| state.alive())?;
        client.close()?;
        second.stop()?;
        first.stop().map(drop)
    });

    lab_test!(files_that_do_not_fit_end_with_1, |_| {
        let authority = Authority::new()?;
        let (cert, key) = authority.sign("backend")?;
        let (_, other_key) = authority.sign("other")?;
        let missing = authority.directory.path().join("missing");
        let fifo = authority.directory.path().join("fifo");
        tcgui_tests::process::run(Command::new("mkfifo").arg(&fifo))?;
        let empty = authority.directory.path().join("empty");
        fs::write(&empty, "")?;
        for (options, words) in [
            (
                [("--tls-cert", &missing), ("--tls-key", &key)],
                ["--tls-cert", "No such file"],
            ),
            (
                [("--tls-cert", &key), ("--tls-key", &key)],
                ["--tls-cert", "no certificate"],
            ),
            (
                [("--tls-cert", &cert), ("--tls-key", &cert)],
                ["--tls-key", "no private key"],
            ),
            (
                [("--tls-cert", &cert), ("--tls-key", &other_key)],
                ["--tls-key", "does not belong"],
            ),
            (
                [("--tls-cert", &fifo), ("--tls-key", &key)],
                ["--tls-cert", "regular file"],
            ),
            (
                [("--tls-cert", &cert), ("--tls-key", &empty)],
                ["--tls-key", "no private key"],
            ),
        ] {
            let args: Vec<_> = options
                .iter()
                .flat_map(|(option, file)| [OsStr::new(*option), file.as_os_str()])
                .chain([OsStr::new("--zenoh-listen"), OsStr::new(ENDPOINTS[0])])
                .collect();
            let output = daemon::run(&[], &args, SOON * 2)?;
            let text = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.code() == Some(1),
                "{args:?}: {}: {text}",
                output.status
            );
            for word in words {
                ensure!(text.contains(word), "{args:?}: no {word:?} in {text}");
            }
        }
        let args = [OsStr::new("--tls-client-ca"), empty.as_os_str()];
        let output = daemon::run(&[], &args, SOON * 2)?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(1) && text.contains("--tls-client-ca"),
            "{text}"
        );
        for endpoint in ENDPOINTS {
            let args = [OsStr::new("--zenoh-listen"), OsStr::new(endpoint)];
            let output = daemon::run(&[], &args, SOON * 2)?;
            let text = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.code() == Some(1) && text.contains("--tls-cert"),
                "{text}"
            );
        }
        Ok(())
    });
}
