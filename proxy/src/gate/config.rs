//! `[organizations]` and `[users]`: the accounts of a configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Accounts and their keys.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// By id.
    pub organizations: BTreeMap<Arc<str>, Organization>,
    /// By id.
    pub users: BTreeMap<Arc<str>, User>,
}

/// `[organizations.ID]`
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Organization {
    /// Its name for people.
    pub name: Option<String>,
    /// Keys that act for all its projects; calls name one in `OpenAI-Project`.
    pub keys: Vec<Key>,
    /// Its projects, by id.
    pub projects: BTreeMap<Arc<str>, Project>,
    /// Its share of the turns at models with `concurrent`, among those who wait; 1 where absent.
    pub weight: Option<u32>,
    /// No calls any more.
    pub archived: bool,
}

/// `[organizations.ID.projects.ID]`
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Project {
    /// Its name for people.
    pub name: Option<String>,
    /// Models it may use, as names or patterns with `*`; all where absent.
    pub models: Option<Vec<String>>,
    /// Its keys.
    pub keys: Vec<Key>,
    /// No calls any more.
    pub archived: bool,
}

/// `[users.ID]`
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct User {
    /// May act for every organization.
    pub admin: bool,
    /// Organizations it may act for.
    pub organizations: Vec<Arc<str>>,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// A registered key.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its name in the books; no other key beside it has the same.
    pub id: Arc<str>,
    /// `sha256:` and 64 hex digits: the SHA-256 of the key's text. `tidegate keys new` makes both.
    pub hash: KeyHash,
}

/// SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(pub(super) [u8; 32]);

impl std::fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{:02x}{:02x}…", self.0[0], self.0[1])
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || {
            D::Error::custom(
                "expected `sha256:` and 64 hex digits (`tidegate keys new` prints them); the key itself does not belong into the configuration",
            )
        };
        let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.is_ascii()).ok_or_else(wrong)?;
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .ok_or_else(wrong)?;
        }
        Ok(Self(hash))
    }
}

impl JsonSchema for KeyHash {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "KeyHash".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$" })
    }
}

/// Ids of organizations, projects and users.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// An id, if it is one.
///
/// # Errors
/// What it must be.
pub(crate) fn checked_id(text: &str) -> Result<&str, String> {
    if is_id(text) { Ok(text) } else { Err(format!("`{text}` is no id: use 1 to 64 letters, digits, `_` or `-`")) }
}

impl Config {
    /// What serde cannot see: ids of the wrong shape, two keys of one id, users of organizations that do not exist.
    pub fn errors(&self) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        let id = |place: String, id: &str, errors: &mut Vec<(String, String)>| {
            errors.extend(checked_id(id).err().map(|what| (place, what)));
        };
        let distinct = |holder: String, keys: &[Key], errors: &mut Vec<(String, String)>| {
            let mut ids = BTreeSet::new();
            for key in keys.iter().filter(|key| !ids.insert(&key.id)) {
                errors.push((
                    format!("{holder}.keys"),
                    format!("two keys have the id `{}`, and would be one in the books", key.id),
                ));
            }
        };
        for (name, organization) in &self.organizations {
            id(format!("organizations.{name}"), name, &mut errors);
            distinct(format!("organizations.{name}"), &organization.keys, &mut errors);
            if organization.weight == Some(0) {
                let what = "an organization of weight 0 would never get its turn; `archived = true` refuses its calls";
                errors.push((format!("organizations.{name}.weight"), what.into()));
            }
            for (project, settings) in &organization.projects {
                let place = format!("organizations.{name}.projects.{project}");
                id(place.clone(), project, &mut errors);
                distinct(place, &settings.keys, &mut errors);
            }
        }
        for (name, user) in &self.users {
            id(format!("users.{name}"), name, &mut errors);
            distinct(format!("users.{name}"), &user.keys, &mut errors);
            for organization in
                user.organizations.iter().filter(|organization| !self.organizations.contains_key(*organization))
            {
                errors.push((
                    format!("users.{name}.organizations"),
                    format!("there is no organization `{organization}`"),
                ));
            }
        }
        errors
    }
}
