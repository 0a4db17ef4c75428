//! What a listener shows its clients: a certificate and its key, and whose word counts for theirs.
//!
//! The files are read as a whole and checked before anything goes by them, at start and at every reload: half of a renewed
//! pair is an error that names the file, never a listener that fails each handshake.

use super::{authorities, certificates};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use tokio_rustls::rustls::server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier};
use tokio_rustls::rustls::{Error, ServerConfig};
use x509_cert::der::Decode as _;

/// `[server.tls]`, `[admin.tls]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Tls")]
pub struct Files {
    /// PEM file of the listener's certificate, followed by those of its issuers.
    pub cert: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of the authorities that must vouch for a client's certificate. Without it clients need none.
    pub client_ca: Option<PathBuf>,
}

/// What was read from those files at one time.
#[derive(Debug)]
pub struct Papers {
    /// TLS that shows them.
    pub(super) tls: Arc<ServerConfig>,
    /// From when to when all of the certificates are valid.
    valid: (SystemTime, SystemTime),
    cert: PathBuf,
    /// Of everything that was read.
    digest: [u8; 32],
}

/// Two readings are the same when the files were.
impl PartialEq for Papers {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Papers {
    /// Reads and checks the files; `protocols` are the HTTP versions offered, by their ALPN names.
    ///
    /// # Errors
    /// The key of the section it is about, and what is wrong.
    pub fn read(files: &Files, protocols: &[&str]) -> Result<Self, Vec<(&'static str, String)>> {
        let (mut wrong, mut digest) = (Vec::new(), Sha256::new());
        let mut note = |place, what| wrong.push((place, what));
        let certificates = certificates(&files.cert).map_err(|what| note("cert", what)).ok();
        let key = private_key(&files.key).map_err(|what| note("key", what)).ok();
        let clients = match &files.client_ca {
            Some(file) => authorities(file).map_err(|what| note("client_ca", what)).ok().map(Some),
            None => Some(None),
        };
        let (Some((certificates, text)), Some((key, secret)), Some(clients)) = (certificates, key, clients) else {
            return Err(wrong);
        };
        let valid = validity(&certificates, &files.cert).map_err(|what| vec![("cert", what)])?;
        for part in [Some(&text), Some(&secret), clients.as_ref().map(|(_, text)| text)].into_iter().flatten() {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let verifier: Arc<dyn ClientCertVerifier> = match clients {
            None => Arc::new(NoClientAuth),
            Some((roots, _)) => {
                let provider = Arc::new(ring::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                verifier.map_err(|error| vec![("client_ca", error.to_string())])?
            }
        };
        let tls = tls(certificates, key, verifier, protocols).map_err(|error| vec![misfit(files, &error)])?;
        Ok(Self { tls: Arc::new(tls), valid, cert: files.cert.clone(), digest: digest.finalize().into() })
    }

    /// When the first of the certificates expires.
    pub fn expires(&self) -> SystemTime {
        self.valid.1
    }

    /// What clients will not like about them now.
    pub fn warning(&self) -> Option<String> {
        let (now, name) = (SystemTime::now(), self.cert.display());
        let date = humantime::format_rfc3339_seconds;
        if self.valid.1 <= now {
            return Some(format!(
                "{name} has expired on {}: clients will refuse it. Renew it; the new files are taken up by themselves",
                date(self.valid.1)
            ));
        }
        (self.valid.0 > now).then(|| {
            format!(
                "{name} is not valid before {}: clients will refuse it until then. Is the clock right?",
                date(self.valid.0)
            )
        })
    }
}

fn tls(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    verifier: Arc<dyn ClientCertVerifier>,
    protocols: &[&str],
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}

/// Why a certificate and a key that can both be read are of no use together.
fn misfit(files: &Files, error: &Error) -> (&'static str, String) {
    let (cert, key) = (files.cert.display(), files.key.display());
    match error {
        Error::InconsistentKeys(_) => (
            "key",
            format!(
                "the key in {key} does not belong to the first certificate in {cert}; it must be the listener's own, before those of its issuers, and both files of one renewal"
            ),
        ),
        Error::InvalidCertificate(what) => ("cert", format!("the first certificate in {cert} cannot be used: {what}")),
        error => ("key", format!("the key in {key} cannot be used with {cert}: {error}")),
    }
}

fn private_key(file: &Path) -> Result<(PrivateKeyDer<'static>, Vec<u8>), String> {
    let name = file.display();
    let text = std::fs::read(file).map_err(|error| format!("cannot read the private key {name}: {error}"))?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok((key, text)),
        Err(pem::Error::NoItemsFound) if memchr::memmem::find(&text, b"ENCRYPTED PRIVATE KEY").is_some() => Err(
            format!("the private key in {name} is encrypted; write it without its password: openssl pkey -in {name}"),
        ),
        Err(pem::Error::NoItemsFound) => {
            Err(format!("{name} holds no private key; it must have a `-----BEGIN PRIVATE KEY-----`"))
        }
        // What it says of the contents might be a part of the secret.
        Err(_) => Err(format!("{name} is no PEM file")),
    }
}

/// From when to when all of them are valid.
fn validity(certificates: &[CertificateDer<'_>], file: &Path) -> Result<(SystemTime, SystemTime), String> {
    let mut valid = (Duration::ZERO, Duration::MAX);
    for certificate in certificates {
        let read = x509_cert::Certificate::from_der(certificate);
        let read = read.map_err(|error| format!("a certificate in {} cannot be read: {error}", file.display()))?;
        let validity = read.tbs_certificate().validity();
        valid.0 = valid.0.max(validity.not_before.to_unix_duration());
        valid.1 = valid.1.min(validity.not_after.to_unix_duration());
    }
    Ok((SystemTime::UNIX_EPOCH + valid.0, SystemTime::UNIX_EPOCH + valid.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    const HTTP1: &[&str] = &["http/1.1"];

    fn files() -> (TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        (folder, Files { cert, key, client_ca: None })
    }

    fn write(files: &Files, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        std::fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
    }

    #[test]
    fn what_is_wrong_with_the_files_is_told_by_key_and_name() {
        let (_folder, mut files) = files();
        let of = |files: &Files| Papers::read(files, HTTP1).map(drop).unwrap_err();
        let found = of(&files);
        assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["cert", "key"], "both at once");
        assert!(found[0].1.contains("cert.pem") && found[1].1.contains("key.pem"), "{found:?}");
        write(&files, |_| ());
        assert!(Papers::read(&files, HTTP1).is_ok());
        for (text, says) in [
            ("", "holds no private key"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "is encrypted"),
            ("-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----\n", "is no PEM file"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be used"),
            (KeyPair::generate().unwrap().serialize_pem().as_str(), "does not belong to the first certificate in"),
        ] {
            std::fs::write(&files.key, text).unwrap();
            let found = of(&files);
            assert!(found.len() == 1 && found[0].0 == "key" && found[0].1.contains(says), "{found:?}");
            assert!(!found[0].1.contains("hunter2"), "{found:?}");
        }
        write(&files, |_| ());
        files.client_ca = Some(files.key.clone());
        let found = of(&files);
        assert!(
            found.len() == 1 && found[0].0 == "client_ca" && found[0].1.contains("holds no certificate"),
            "{found:?}"
        );
    }

    #[test]
    fn the_first_to_expire_counts_and_what_is_not_valid_now_is_told() {
        let (_folder, files) = files();
        let read = || Papers::read(&files, HTTP1).unwrap();
        let year = |year| rcgen::date_time_ymd(year, 1, 1);
        for (from, to, says) in [
            (2020, 2090, None),
            (2020, 2021, Some("has expired on 2021-01-01T00:00:00Z")),
            (2090, 2091, Some("is not valid before 2090-01-01T00:00:00Z")),
        ] {
            write(&files, |params| (params.not_before, params.not_after) = (year(from), year(to)));
            let warning = read().warning();
            assert!(
                says.is_none() == warning.is_none() && warning.unwrap_or_default().contains(says.unwrap_or_default())
            );
        }
        write(&files, |params| params.not_after = year(2050));
        let first = read();
        assert_eq!(first, read());
        let mut issuer = CertificateParams::default();
        issuer.not_after = year(2040);
        let issuer = issuer.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        std::fs::write(&files.cert, std::fs::read_to_string(&files.cert).unwrap() + &issuer).unwrap();
        assert_ne!(first, read());
        let years =
            |papers: &Papers| papers.expires().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 31_556_952;
        assert_eq!((years(&first), years(&read())), (80, 70));
    }
}
