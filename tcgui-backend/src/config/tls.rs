//! Certificates for `tls/` and `quic/` endpoints. The files are checked before Zenoh reads them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, server::WebPkiClientVerifier};

use super::absolute;

/// A chain of certificates has some kB.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Files that were read and fit together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The daemon's certificate with its chain, and the private key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Authorities that sign the certificates of the other side.
    pub authorities: Option<PathBuf>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{option} {file:?}: cannot read it")]
    Read {
        /// The option.
        option: &'static str,
        /// The file.
        file: PathBuf,
        /// The error of the system call.
        #[source]
        err: io::Error,
    },
    /// The file does not contain the expected certificate or key.
    #[error("{option} {file:?}: no {expected} in PEM format")]
    Parse {
        /// The option.
        option: &'static str,
        /// The file.
        file: PathBuf,
        /// The expected content.
        expected: &'static str,
        /// The error of the parser.
        #[source]
        err: pem::Error,
    },
    /// The file is in PEM format, but its content cannot be used.
    #[error("{option} {file:?}: {problem}")]
    Unusable {
        /// The option.
        option: &'static str,
        /// The file.
        file: PathBuf,
        /// The reason.
        problem: &'static str,
    },
}

const CERT: &str = "--tls-cert";
const KEY: &str = "--tls-key";
const CLIENT_CA: &str = "--tls-client-ca";

impl TlsFiles {
    /// Reads the files and checks that they fit together. The command line gives certificate and key together.
    ///
    /// # Errors
    /// [`TlsError`] names the option.
    pub(super) fn check(
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
        client_ca: Option<PathBuf>,
    ) -> Result<Self, TlsError> {
        let identity = cert.zip(key);
        let identity = identity.map(|(cert, key)| (absolute(cert), absolute(key)));
        if let Some((cert, key)) = &identity {
            check_identity(cert, key)?;
        }
        let authorities = client_ca.map(absolute);
        if let Some(file) = &authorities {
            check_authorities(file)?;
        }
        Ok(Self {
            identity,
            authorities,
        })
    }
}

fn check_identity(cert: &Path, key: &Path) -> Result<(), TlsError> {
    let chain = certificates(CERT, cert)?;
    let private = PrivateKeyDer::from_pem_slice(&read(KEY, key)?);
    let private = private.map_err(|err| TlsError::Parse {
        option: KEY,
        file: key.to_owned(),
        expected: "private key",
        err,
    })?;
    let unusable = |option, file: &Path, problem| TlsError::Unusable {
        option,
        file: file.to_owned(),
        problem,
    };
    let private = any_supported_type(&private)
        .map_err(|_| unusable(KEY, key, "a kind of key that TLS does not use"))?;
    match CertifiedKey::new(chain, private).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err(unusable(
            KEY,
            key,
            "it does not belong to the certificate of --tls-cert",
        )),
        Err(_) => Err(unusable(CERT, cert, "not a certificate for TLS")),
    }
}

fn check_authorities(file: &Path) -> Result<(), TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(CLIENT_CA, file)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map(drop).map_err(|_| TlsError::Unusable {
        option: CLIENT_CA,
        file: file.to_owned(),
        problem: "no certificate that can be an authority",
    })
}

fn certificates(
    option: &'static str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(option, file)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let parsed = parsed.and_then(|all| {
        if all.is_empty() {
            Err(pem::Error::NoItemsFound)
        } else {
            Ok(all)
        }
    });
    parsed.map_err(|err| TlsError::Parse {
        option,
        file: file.to_owned(),
        expected: "certificate",
        err,
    })
}

fn read(option: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |err| TlsError::Read {
        option,
        file: file.to_owned(),
        err,
    };
    // Opening a FIFO would wait for a writer.
    let found = fs::metadata(file).map_err(failed)?;
    if !found.is_file() || found.len() > LARGEST_FILE {
        return Err(TlsError::Unusable {
            option,
            file: file.to_owned(),
            problem: "not a regular file of at most 1 MiB",
        });
    }
    fs::read(file).map_err(failed)
}
