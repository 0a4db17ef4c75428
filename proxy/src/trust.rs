//! Whose word counts for a server's certificate: the public authorities that are built in, or those of a file; and, in the
//! files below, what this gateway shows its own clients.
//!
//! A file replaces the public ones instead of joining them: who runs an authority of his own for a backend does not want
//! all others to be able to speak for it. It stands below the rooms that reach out (backends, plugins), so that TLS is
//! set up in one place and its cryptography is chosen once.

mod handshake;
mod own;
mod papers;

pub use handshake::{Handshakes, Series};
pub use own::own;
pub use papers::{Files, Papers};

use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// TLS with the public authorities; `http2` says which HTTP it offers. Made when it is first needed: most servers are
/// reached without.
pub fn public(http2: bool) -> Arc<ClientConfig> {
    static CONFIGS: [OnceLock<Arc<ClientConfig>>; 2] = [OnceLock::new(), OnceLock::new()];
    let build = || tls(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()), http2);
    CONFIGS[usize::from(http2)].get_or_init(build).clone()
}

/// The authorities of a PEM file.
#[derive(Debug, Clone)]
pub struct Authorities {
    /// TLS that believes them.
    pub tls: Arc<ClientConfig>,
    /// SHA-256 of the file: connections made under another do not count.
    pub digest: [u8; 32],
}

/// TLS with the authorities of a PEM file.
///
/// # Errors
/// What is wrong with the file.
pub fn private(file: &Path, http2: bool) -> Result<Authorities, String> {
    let (roots, text) = authorities(file)?;
    Ok(Authorities { tls: tls(roots, http2), digest: Sha256::digest(&text).into() })
}

/// The text of a PEM file of authorities that can be ones, for libraries that set up TLS by themselves.
///
/// # Errors
/// What is wrong with the file.
pub fn authorities_text(file: &Path) -> Result<Vec<u8>, String> {
    authorities(file).map(|(_, text)| text)
}

/// Who a PEM file names, and its text.
fn authorities(file: &Path) -> Result<(RootCertStore, Vec<u8>), String> {
    let (certificates, text) = certificates(file)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let add = roots.add(certificate);
        add.map_err(|error| format!("a certificate in {} cannot be an authority: {error}", file.display()))?;
    }
    Ok((roots, text))
}

/// The certificates of a PEM file, at least one, and its text.
fn certificates(file: &Path) -> Result<(Vec<CertificateDer<'static>>, Vec<u8>), String> {
    let name = file.display();
    let text = std::fs::read(file).map_err(|error| format!("cannot read the certificates of {name}: {error}"))?;
    let read = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let certificates = read.map_err(|error| format!("{name} is no PEM file: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("{name} holds no certificate; it must have at least one `-----BEGIN CERTIFICATE-----`"));
    }
    Ok((certificates, text))
}

/// For libraries that set up TLS by themselves: the cryptography they find is the one used everywhere else here.
pub fn share_cryptography() {
    if CryptoProvider::get_default().is_none() {
        // Another thread may have been faster, with the same.
        let _ = ring::default_provider().install_default();
    }
}

fn tls(roots: RootCertStore, http2: bool) -> Arc<ClientConfig> {
    let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default TLS versions");
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_authorities_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let name = path.display().to_string();
        assert!(private(&path, false).unwrap_err().contains(&format!("cannot read the certificates of {name}")));
        for (text, says) in [
            ("", "holds no certificate"),
            ("just words\n", "holds no certificate"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "is no PEM file"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "is no PEM file"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be an authority"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = private(&path, true).unwrap_err();
            assert!(error.contains(says) && error.contains(&name), "{text:?}: {error}");
        }
    }
}
