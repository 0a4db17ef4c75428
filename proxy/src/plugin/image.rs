//! Where a registry has a component: `registry/repository[:tag]@sha256:…`.
//!
//! The digest is not optional. What a tag points to can be changed by whoever may push, and a plugin sees every prompt: what
//! runs has to be what was looked at. With it the registry need not be trusted, and neither need the folder that keeps what
//! was pulled.

use crate::canon::Secret;
use oci_client::Reference;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{borrow::Cow, fmt, net::IpAddr};

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// As it was written, with its tag: for people.
    text: String,
    reference: Reference,
    digest: String,
}

/// Who pulls: `registry_auth`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RegistryAuth")]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password or access token.
    pub password: Secret,
}

impl Image {
    /// Reads a reference.
    ///
    /// # Errors
    /// What is wrong with it, and how to write it.
    pub fn read(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "write registry/repository@sha256:…";
        if text.contains("://") {
            return Err(format!("`{text}` must not begin with a scheme: {SHAPE}"));
        }
        let reference: Reference =
            text.parse().map_err(|error| format!("`{text}` is no reference to an image ({error}): {SHAPE}"))?;
        // Without a registry the reader fills in Docker Hub; where a plugin comes from is not for guessing.
        let registry = text.split_once('/').map_or("", |(registry, _)| registry);
        if !registry.contains(['.', ':']) && registry != "localhost" {
            return Err(format!("`{text}` names no registry: {SHAPE}; Docker Hub's is docker.io"));
        }
        let Some(digest) = reference.digest() else {
            return Err(format!(
                "`{text}` names no digest, and what a tag points to can change: put @sha256:… behind it, as `oras resolve {text}` or `crane digest {text}` print it"
            ));
        };
        if !digest.starts_with("sha256:") {
            return Err(format!("`{text}` has a digest that is not SHA-256: {SHAPE}"));
        }
        let digest = digest.to_ascii_lowercase();
        Ok(Self { text: text.to_owned(), reference: reference.clone_with_digest(digest.clone()), digest })
    }

    /// `sha256:…` of its manifest.
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Host, and port where one is named.
    pub(super) fn registry(&self) -> &str {
        self.reference.registry()
    }

    /// The last word of the repository.
    pub(crate) fn name(&self) -> &str {
        self.reference.repository().rsplit('/').next().unwrap_or_default()
    }

    /// The registry is on this machine, where nobody listens in.
    pub(super) fn is_here(&self) -> bool {
        let registry = self.registry();
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host).trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::read(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for Image {
    fn schema_name() -> Cow<'static, str> {
        "Image".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["ghcr.io/acme/redact:1.2@sha256:…"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_with_a_digest_or_not_at_all() {
        let hex = "0123456789abcdef".repeat(4);
        for (text, here) in [
            (format!("ghcr.io/acme/redact@sha256:{hex}"), false),
            (format!("ghcr.io/acme/redact:1.2@sha256:{hex}"), false),
            (format!("127.0.0.1:5000/redact@sha256:{hex}"), true),
            (format!("localhost/redact@sha256:{hex}"), true),
            (format!("localhost.evil.example:80/redact@sha256:{hex}"), false),
            (format!("10.0.0.7:5000/redact@sha256:{hex}"), false),
        ] {
            let image = Image::read(&text).unwrap();
            assert_eq!((image.to_string(), image.is_here(), image.name()), (text, here, "redact"));
            assert_eq!(image.digest(), format!("sha256:{hex}"));
        }
        for (text, says) in [
            ("ghcr.io/acme/redact:1.2".to_owned(), "`oras resolve ghcr.io/acme/redact:1.2`"),
            ("ghcr.io/acme/redact".to_owned(), "names no digest"),
            (format!("https://ghcr.io/acme/redact@sha256:{hex}"), "must not begin with a scheme"),
            (format!("redact@sha256:{hex}"), "names no registry"),
            (format!("acme/redact@sha256:{hex}"), "names no registry"),
            ("ghcr.io/acme/redact@sha256:12".to_owned(), "is no reference to an image"),
            (format!("ghcr.io/acme/redact@sha512:{hex}{hex}"), "not SHA-256"),
            (format!("ghcr.io/Acme/redact@sha256:{hex}"), "is no reference to an image"),
            (String::new(), "is no reference to an image"),
        ] {
            let error = Image::read(&text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_never_prints() {
        let login: Login = serde_json::from_str(r#"{"username":"ada","password":"hunter2"}"#).unwrap();
        assert_eq!(format!("{login:?}"), "Login { username: \"ada\", password: *** }");
    }
}
