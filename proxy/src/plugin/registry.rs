//! Components from an OCI registry: manifest, layer, bytes, each checked against the digest that led to it.
//!
//! The client is a crate that many others use. It has one habit to know: it asks for the system's certificate authorities
//! (not those built into this program) and panics where there are none, so that is looked at first.

use super::image::{Image, Login};
use super::shelf::{Shelf, hex_of, matches, sha256};
use crate::trust;
use docker_credential::DockerCredential;
use futures_util::StreamExt as _;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
    OciDescriptor, OciImageIndex, OciManifest, WASM_LAYER_MEDIA_TYPE,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};
use std::error::Error;
use std::io;
use std::time::Duration;
use tokio_rustls::rustls;

/// Media types of layers that are WebAssembly: today's, and two that older tools write.
const WASM: [&str; 3] =
    ["application/wasm", WASM_LAYER_MEDIA_TYPE, "application/vnd.module.wasm.content.layer.v1+wasm"];
const MANIFESTS: [&str; 4] =
    [OCI_IMAGE_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE];
/// The largest component that is pulled: five times the largest that is known, which carries a JavaScript engine or Python.
const LARGEST: u64 = 128 << 20;
/// Longest a pull may take in all, and a connection or a silence in it. A start waits for it.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(10));
/// Before a pull that broke off is tried again.
const AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// Bytes of a registry's own words that are repeated.
const WORDS: usize = 200;

/// A component that is to be had.
pub(super) struct Pull<'a> {
    pub image: &'a Image,
    pub login: Option<&'a Login>,
    /// Whether to speak plain HTTP; by where the registry is, if it is not said.
    pub insecure: Option<bool>,
    pub shelf: &'a Shelf,
}

impl Pull<'_> {
    /// Its bytes: kept ones, or the registry's.
    ///
    /// # Errors
    /// What happened, where, and what to do about it.
    pub async fn component(&self) -> Result<Vec<u8>, String> {
        tokio::time::timeout(PATIENCE.0, self.pulled()).await.unwrap_or_else(|_| {
            Err(format!(
                "{} sent all of {} not within {} s: look at the network between, or pull the file by other means and use `path`",
                self.image.registry(),
                self.image,
                PATIENCE.0.as_secs()
            ))
        })
    }

    /// Whether it can be had without the registry.
    pub async fn is_kept(&self) -> bool {
        self.walk(&mut None).await.is_ok()
    }

    /// The walk, begun again where it broke off: pieces that came are kept.
    async fn pulled(&self) -> Result<Vec<u8>, String> {
        for pause in AGAIN {
            match self.walk(&mut Some(Remote::Unasked)).await {
                Err(Trouble { passing: true, words }) => {
                    tracing::info!(image = %self.image, error = words, "a pull broke off and is tried again");
                    tokio::time::sleep(pause).await;
                }
                walked => return walked.map_err(|trouble| trouble.words),
            }
        }
        self.walk(&mut Some(Remote::Unasked)).await.map_err(|trouble| trouble.words)
    }

    /// From the digest in the configuration to the component. Without a remote only kept pieces are found.
    async fn walk(&self, remote: &mut Option<Remote>) -> Result<Vec<u8>, Trouble> {
        let mut manifest = self.manifest(self.image.digest(), remote).await?;
        if let OciManifest::ImageIndex(index) = &manifest {
            let digest = self.for_wasm(index)?.to_owned();
            manifest = self.manifest(&digest, remote).await?;
        }
        let OciManifest::Image(manifest) = manifest else {
            let words = format!("{} is an index of indexes: name the digest of a manifest in it", self.image);
            return Err(words.into());
        };
        self.layer(self.component_of(&manifest.layers)?, remote).await
    }

    async fn manifest(&self, digest: &str, remote: &mut Option<Remote>) -> Result<OciManifest, Trouble> {
        let bytes = match self.shelf.get(digest) {
            Some(kept) => kept,
            None => {
                let (client, auth) = self.remote(remote).await?;
                let reference = self.image.reference().clone_with_digest(digest.to_owned());
                let pulled = client.pull_manifest_raw(&reference, auth, &MANIFESTS).await;
                let bytes = pulled.map_err(|error| self.explain(&error, auth))?.0;
                self.checked(digest, &bytes)?;
                self.shelf.put(digest, &bytes);
                bytes.into()
            }
        };
        serde_json::from_slice(&bytes).map_err(|_| {
            let image = self.image;
            format!("{image} has at {digest} something that is no manifest: name the digest of a manifest").into()
        })
    }

    async fn layer(&self, layer: &OciDescriptor, remote: &mut Option<Remote>) -> Result<Vec<u8>, Trouble> {
        if let Some(kept) = self.shelf.get(&layer.digest) {
            return Ok(kept);
        }
        let (client, auth) = self.remote(remote).await?;
        let size = u64::try_from(layer.size).unwrap_or_default();
        if size > LARGEST {
            let words = format!("the component of {} is {size} bytes large; {LARGEST} is the most", self.image);
            return Err(words.into());
        }
        let blob = client.pull_blob_stream(self.image.reference(), layer).await;
        let mut blob = blob.map_err(|error| self.explain(&error, auth))?.stream;
        let mut bytes = Vec::new();
        while let Some(piece) = blob.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| self.cut_short(&error, bytes.len(), size))?);
            if bytes.len() as u64 > size {
                return Err(self.something_else(&layer.digest, "more bytes than the manifest says").into());
            }
        }
        self.checked(&layer.digest, &bytes)?;
        self.shelf.put(&layer.digest, &bytes);
        Ok(bytes)
    }

    /// The client, and as whom it asks; made when it is first needed.
    async fn remote<'r>(&self, remote: &'r mut Option<Remote>) -> Result<(&'r Client, &'r RegistryAuth), Trouble> {
        match remote {
            None => return Err(format!("{} has not been pulled yet", self.image).into()),
            Some(Remote::Asked(..)) => {}
            Some(Remote::Unasked) => {
                let (client, auth) = (self.client()?, self.auth().await);
                // By itself it would go on without a token, and tell that it is not allowed to instead of why it got none.
                let greeted = client.auth(self.image.reference(), &auth, RegistryOperation::Pull).await;
                greeted.map_err(|error| self.explain(&error, &auth))?;
                tracing::info!(image = %self.image, "pulling a plugin");
                *remote = Some(Remote::Asked(client, auth));
            }
        }
        match remote {
            Some(Remote::Asked(client, auth)) => Ok((client, auth)),
            _ => Err(format!("{} cannot be pulled", self.image).into()),
        }
    }

    fn client(&self) -> Result<Client, String> {
        if rustls_native_certs::load_native_certs().certs.is_empty() {
            return Err(format!(
                "{} cannot be pulled: this system has no certificate authorities. Install its ca-certificates, or name a PEM file of them in SSL_CERT_FILE",
                self.image
            ));
        }
        trust::share_cryptography();
        let config = ClientConfig {
            protocol: if self.is_plain() { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(PATIENCE.1),
            read_timeout: Some(PATIENCE.1),
            user_agent: concat!("tidegate/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        Client::try_from(config).map_err(|error| format!("{} cannot be pulled: {error}", self.image))
    }

    fn is_plain(&self) -> bool {
        self.insecure.unwrap_or_else(|| self.image.is_here())
    }

    /// `registry_auth`, or what `docker login` has left.
    async fn auth(&self) -> RegistryAuth {
        if let Some(login) = self.login {
            return RegistryAuth::Basic(login.username.clone(), login.password.reveal().to_owned());
        }
        // Docker writes its hub's name as it was long ago.
        let server = match self.image.registry() {
            "docker.io" => "https://index.docker.io/v1/".to_owned(),
            registry => registry.to_owned(),
        };
        // A helper program may be asked.
        let found = tokio::task::spawn_blocking(move || docker_credential::get_credential(&server)).await;
        match found {
            Ok(Ok(DockerCredential::UsernamePassword(name, password))) => RegistryAuth::Basic(name, password),
            _ => RegistryAuth::Anonymous,
        }
    }

    /// The one manifest of an index that is meant: the only one, or the only one for WebAssembly.
    fn for_wasm<'i>(&self, index: &'i OciImageIndex) -> Result<&'i str, String> {
        let is_wasm = |architecture: &str| architecture == "wasm";
        let all = index.manifests.iter().collect::<Vec<_>>();
        let wasm = index.manifests.iter().filter(|entry| {
            entry.platform.as_ref().is_some_and(|platform| is_wasm(&platform.architecture.to_string()))
        });
        let wasm = wasm.collect::<Vec<_>>();
        let (([entry], _) | (_, [entry])) = (&all[..], &wasm[..]) else {
            return Err(format!(
                "{} is an index of {} manifests, {} of them for wasm: name the digest of the one that is meant",
                self.image,
                all.len(),
                wasm.len()
            ));
        };
        self.digest(&entry.digest)
    }

    /// The one layer that is WebAssembly.
    fn component_of<'m>(&self, layers: &'m [OciDescriptor]) -> Result<&'m OciDescriptor, String> {
        let mut wasm = layers.iter().filter(|layer| WASM.contains(&layer.media_type.as_str()));
        let (Some(layer), None) = (wasm.next(), wasm.next()) else {
            let types: Vec<_> = layers.iter().take(5).map(|layer| short(&layer.media_type)).collect();
            return Err(format!(
                "{} is no component: it must have one layer of the type {}, and its layers are [{}]. Push it with `wkg oci push` or `oras push REF FILE:{}`",
                self.image,
                WASM[0],
                types.join(", "),
                WASM[0]
            ));
        };
        self.digest(&layer.digest)?;
        Ok(layer)
    }

    fn digest<'d>(&self, digest: &'d str) -> Result<&'d str, String> {
        let wrong = || format!("{} leads to `{}`, which is no SHA-256 digest", self.image, short(digest));
        hex_of(digest).map(|_| digest).ok_or_else(wrong)
    }

    fn checked(&self, digest: &str, bytes: &[u8]) -> Result<(), String> {
        if matches(digest, bytes) {
            return Ok(());
        }
        Err(self.something_else(digest, &format!("bytes of sha256:{}", sha256(bytes))))
    }

    fn something_else(&self, digest: &str, what: &str) -> String {
        format!(
            "{} sent something else than {}: {what}, where {digest} was asked for. Nothing of it was used; ask who runs the registry, or what stands between",
            self.image.registry(),
            self.image
        )
    }

    fn cut_short(&self, error: &io::Error, got: usize, of: u64) -> Trouble {
        if let Some(DigestError::VerificationError { expected, actual }) =
            error.get_ref().and_then(|inner| inner.downcast_ref())
        {
            return self.something_else(expected, &format!("{got} bytes of {actual}")).into();
        }
        let (image, registry) = (self.image, self.image.registry());
        let words = format!("{registry} stopped after {got} of {of} bytes of {image} ({}): try again", cause(error));
        Trouble { passing: true, words }
    }

    /// An error of the client. What a registry says it says for good; a connection that breaks may hold the next time, and
    /// a kept one may have been closed by the registry the moment it was used.
    fn explain(&self, error: &OciDistributionError, auth: &RegistryAuth) -> Trouble {
        use OciDistributionError as E;
        let passing = match error {
            E::RequestError(error) => !error.is_timeout() && !error.is_connect() && !error.is_builder(),
            E::ServerError { code, .. } => matches!(code, 429 | 500..=599),
            _ => false,
        };
        Trouble { passing, words: self.say(error, auth) }
    }

    /// The same, for people.
    fn say(&self, error: &OciDistributionError, auth: &RegistryAuth) -> String {
        use OciDistributionError as E;
        let (image, registry) = (self.image, self.image.registry());
        match error {
            E::RequestError(error) if error.is_timeout() => {
                format!("{registry} does not answer: look at its name in `oci`, and at the network between")
            }
            E::RequestError(error) if is_distrusted(error) => format!(
                "{registry} shows a certificate that cannot be trusted ({}): look at its name in `oci`; an authority of your own must be among this system's certificate authorities, or in the PEM file that SSL_CERT_FILE names instead of them",
                cause(error)
            ),
            E::RequestError(error) if error.is_connect() => format!(
                "{registry} cannot be reached ({}): look at its name in `oci`, and at the network between{}",
                cause(error),
                if self.is_plain() { "" } else { ". A registry without TLS needs registry_insecure = true" }
            ),
            E::UnauthorizedError { .. } => self.needs_login("", auth),
            E::AuthenticationFailure(words) => self.needs_login(words, auth),
            E::RegistryError { envelope, .. } => match envelope.errors.first() {
                Some(first) if matches!(first.code, OciErrorCode::Unauthorized | OciErrorCode::Denied) => {
                    self.needs_login(&first.message, auth)
                }
                Some(first)
                    if matches!(
                        first.code,
                        OciErrorCode::ManifestUnknown
                            | OciErrorCode::NameUnknown
                            | OciErrorCode::NotFound
                            | OciErrorCode::BlobUnknown
                            | OciErrorCode::ManifestBlobUnknown
                    ) =>
                {
                    self.not_found()
                }
                first => format!(
                    "{registry} refuses {image}: {}",
                    first.map_or_else(|| "it does not say why".to_owned(), |first| short(&first.message))
                ),
            },
            E::ServerError { code: 404, .. } => self.not_found(),
            E::ServerError { code: 401 | 403, message, .. } => self.needs_login(message, auth),
            E::ServerError { code: 400, message, .. } if self.is_plain() && message.contains("HTTPS") => {
                format!("{registry} speaks TLS, and plain HTTP was spoken to it: say registry_insecure = false")
            }
            E::ServerError { code, message, .. } => format!(
                "{registry} answers {image} with status {code} ({}): try again later, or ask who runs it{}",
                short(message),
                // What some say to the digest of a layer.
                if *code == 500 { ". Is the digest the manifest's?" } else { "" }
            ),
            E::DigestError(DigestError::VerificationError { expected, actual }) => {
                self.something_else(expected, &format!("bytes of {actual}"))
            }
            error => format!("{registry} gives no good answer to {image}: {}", short(&cause(error))),
        }
    }

    fn not_found(&self) -> String {
        format!(
            "{} has no {}: look at repository and digest; some registries say so, too, to those who may not see it (registry_auth)",
            self.image.registry(),
            self.image
        )
    }

    fn needs_login(&self, words: &str, auth: &RegistryAuth) -> String {
        let (registry, image) = (self.image.registry(), self.image);
        let said = if words.is_empty() { String::new() } else { format!(" (it says: {})", short(words)) };
        match auth {
            RegistryAuth::Basic(name, _) => {
                format!(
                    "{registry} does not let `{name}` pull {image}{said}: look at name, password and what it may pull"
                )
            }
            _ => format!(
                "{registry} wants to know who pulls {image}{said}: add registry_auth = {{ username = \"…\", password = \"env:NAME\" }}, or `docker login {registry}`"
            ),
        }
    }
}

/// Why a pull ended.
struct Trouble {
    /// It may go better at once.
    passing: bool,
    /// For people.
    words: String,
}

impl From<String> for Trouble {
    fn from(words: String) -> Self {
        Self { passing: false, words }
    }
}

/// A registry, before and after the first request to it.
enum Remote {
    Unasked,
    Asked(Client, RegistryAuth),
}

/// A connection that ended because of the registry's certificate.
fn is_distrusted(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // What an I/O error holds, often another one, is not its source: that is the source of what it holds.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = held.map_or_else(|| error.source(), |held| Some(held as &(dyn Error + 'static)));
    }
    false
}

/// The innermost reason: the outer ones say only that there is one, and which address was asked.
fn cause(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

/// The beginning of somebody else's words, on one line.
fn short(words: &str) -> String {
    let line: String = words.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    line[..line.floor_char_boundary(WORDS)].trim().to_owned()
}
