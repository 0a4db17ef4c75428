//! Who is calling, and may they.
//!
//! A credential is known by the SHA-256 of its text alone; its kind is where that hash is registered, not its prefix
//! (protocols: DeepFellow's `POST /v1/messages`). All refusals of unknown keys read the same and take the same time.

mod config;
mod keys;

pub(crate) use config::checked_id;
pub use config::{Config, Key, KeyHash, Organization, Project, User};
pub use keys::{fresh_key, hash_of};

use crate::canon::{Caller, Fault, FaultKind, Pattern, header};
use http::{HeaderMap, HeaderName};
use std::collections::HashMap;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The credentials and accounts of one configuration.
#[derive(Debug, Default)]
pub struct Gate {
    /// By the first eight bytes of the hash: a table look-up that tells an attacker nothing they could use.
    keys: HashMap<[u8; 8], Vec<([u8; 32], Credential)>>,
    organizations: HashMap<Arc<str>, Arc<Account>>,
}

#[derive(Debug)]
struct Account {
    id: Arc<str>,
    projects: HashMap<Arc<str>, Arc<Tenant>>,
}

impl Credential {
    /// The account it belongs to, as far as it tells by itself.
    fn owner(&self) -> Caller {
        let (organization, project, user) = match &self.scope {
            Scope::Project(tenant) => (tenant.organization.clone(), tenant.id.clone(), None),
            Scope::Organization(account) => (account.id.clone(), Arc::default(), None),
            Scope::User { id, .. } => (Arc::default(), Arc::default(), Some(id.clone())),
        };
        Caller { organization, project, key: self.id.clone(), user }
    }
}

/// A project as the gate knows it.
#[derive(Debug)]
pub struct Tenant {
    organization: Arc<str>,
    id: Arc<str>,
    archived: bool,
    /// Patterns of models; `None` lets all through.
    models: Option<Vec<Pattern>>,
}

#[derive(Debug, Clone)]
struct Credential {
    id: Arc<str>,
    scope: Scope,
}

#[derive(Debug, Clone)]
enum Scope {
    Project(Arc<Tenant>),
    Organization(Arc<Account>),
    /// `None`: everything.
    User {
        id: Arc<str>,
        organizations: Option<Vec<Arc<str>>>,
    },
}

/// Somebody the gate let in.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The account the request is booked to.
    pub caller: Caller,
    tenant: Arc<Tenant>,
}

impl Admitted {
    /// May this project use the model of this name?
    pub fn may_use(&self, model: &str) -> bool {
        self.tenant.models.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(model)))
    }
}

/// Somebody the gate did not let in.
#[derive(Debug)]
pub struct Denied {
    /// Why.
    pub fault: Box<Fault>,
    /// Whose key it was, as far as the key alone tells.
    pub caller: Option<Box<Caller>>,
}

impl From<Fault> for Denied {
    fn from(fault: Fault) -> Self {
        Self { fault: Box::new(fault), caller: None }
    }
}

impl Gate {
    /// Builds the gate of a configuration.
    ///
    /// # Errors
    /// Every credential that is registered twice, with both places.
    pub fn build(config: &Config) -> Result<Self, Vec<String>> {
        let mut gate = Self::default();
        let mut places: HashMap<[u8; 32], String> = HashMap::new();
        let mut errors = Vec::new();
        let mut add = |gate: &mut Self, place: String, key: &Key, scope: Scope| {
            let hash = key.hash.0;
            if let Some(other) = places.insert(hash, place.clone()) {
                errors.push(format!("{place}: this key is already registered at {other}; a key belongs to one place"));
                return;
            }
            let prefix = *hash.first_chunk().expect("a SHA-256 has more than eight bytes");
            gate.keys.entry(prefix).or_default().push((hash, Credential { id: key.id.clone(), scope }));
        };
        for (id, organization) in &config.organizations {
            let tenants = organization.projects.iter().map(|(project, settings)| {
                let models =
                    settings.models.as_ref().map(|models| models.iter().map(|model| Pattern::new(model)).collect());
                let tenant = Tenant {
                    organization: id.clone(),
                    id: project.clone(),
                    archived: settings.archived || organization.archived,
                    models,
                };
                (project.clone(), Arc::new(tenant))
            });
            let account = Arc::new(Account { id: id.clone(), projects: tenants.collect() });
            for key in &organization.keys {
                add(
                    &mut gate,
                    format!("organizations.{id}.keys.{}", key.id),
                    key,
                    Scope::Organization(account.clone()),
                );
            }
            for (project, settings) in &organization.projects {
                for key in &settings.keys {
                    add(
                        &mut gate,
                        format!("organizations.{id}.projects.{project}.keys.{}", key.id),
                        key,
                        Scope::Project(account.projects[project].clone()),
                    );
                }
            }
            gate.organizations.insert(id.clone(), account);
        }
        for (id, user) in &config.users {
            for key in &user.keys {
                let organizations = (!user.admin).then(|| user.organizations.clone());
                add(
                    &mut gate,
                    format!("users.{id}.keys.{}", key.id),
                    key,
                    Scope::User { id: id.clone(), organizations },
                );
            }
        }
        if errors.is_empty() { Ok(gate) } else { Err(errors) }
    }

    /// Decides who is calling, from the headers alone.
    ///
    /// # Errors
    /// 400 for headers that contradict each other or are missing, 401 for no or an unknown key, 403 for a wrong tenant.
    pub fn admit(&self, headers: &HeaderMap) -> Result<Admitted, Denied> {
        let secret = credential(headers)?;
        let organization = single(headers, &header::OPENAI_ORGANIZATION)?;
        let project = single(headers, &header::OPENAI_PROJECT)?;
        let known = self.find(secret).ok_or_else(unknown_key)?;
        self.tenant(known, organization, project)
            .map_err(|fault| Denied { fault: Box::new(fault), caller: Some(Box::new(known.owner())) })
    }

    /// The project that a known key acts for under these headers.
    fn tenant(&self, known: &Credential, organization: Option<&str>, project: Option<&str>) -> Result<Admitted, Fault> {
        let (tenant, user) = match &known.scope {
            Scope::Project(tenant) => (tenant.clone(), None),
            Scope::Organization(account) => {
                let project = project.ok_or_else(|| missing("OpenAI-Project", "An organization key"))?;
                (find_project(account, project)?, None)
            }
            Scope::User { id, organizations } => {
                let organization = organization.ok_or_else(|| missing("OpenAI-Organization", "A user key"))?;
                let project = project.ok_or_else(|| missing("OpenAI-Project", "A user key"))?;
                let mine = organizations.as_ref().is_none_or(|mine| mine.iter().any(|mine| **mine == *organization));
                let account = self.organizations.get(organization).filter(|_| mine).ok_or_else(|| {
                    forbidden("This key may not act for the organization named in OpenAI-Organization.")
                })?;
                (find_project(account, project)?, Some(id.clone()))
            }
        };
        if organization.is_some_and(|name| *name != *tenant.organization) {
            return Err(forbidden("The header OpenAI-Organization names another organization than this key's."));
        }
        if project.is_some_and(|name| *name != *tenant.id) {
            return Err(forbidden("The header OpenAI-Project names another project than this key's."));
        }
        if tenant.archived {
            return Err(forbidden("This project is archived."));
        }
        let caller = Caller {
            organization: tenant.organization.clone(),
            project: tenant.id.clone(),
            key: known.id.clone(),
            user,
        };
        Ok(Admitted { caller, tenant })
    }

    fn find(&self, secret: &[u8]) -> Option<&Credential> {
        let hash = keys::digest(secret);
        let prefix: &[u8; 8] = hash.first_chunk().expect("a SHA-256 has more than eight bytes");
        let candidates = self.keys.get(prefix).map_or(&[][..], Vec::as_slice);
        let found = candidates.iter().find(|(known, _)| known.ct_eq(&hash).into());
        // An unknown key is compared with something, too, so that both answers take the same time.
        if candidates.is_empty() {
            std::hint::black_box([0; 32].ct_eq(&hash));
        }
        found.map(|(_, credential)| credential)
    }
}

/// The key of a request: Bearer or `x-api-key`.
fn credential(headers: &HeaderMap) -> Result<&[u8], Fault> {
    let said = single_bytes(headers, &http::header::AUTHORIZATION)?.map(<[u8]>::trim_ascii);
    let other = || unauthenticated("The Authorization header must be `Bearer` and a key.");
    let bearer = said.filter(|said| !said.is_empty()).map(|said| header::bearer(said).ok_or_else(other)).transpose()?;
    let plain = single_bytes(headers, &header::X_API_KEY)?.map(<[u8]>::trim_ascii);
    match (bearer.filter(|key| !key.is_empty()), plain.filter(|key| !key.is_empty())) {
        (Some(bearer), Some(plain)) if bearer != plain => {
            Err(Fault::invalid("Authorization and x-api-key carry different keys; send one."))
        }
        (Some(key), _) | (None, Some(key)) => Ok(key),
        (None, None) => Err(unauthenticated(
            "You didn't provide an API key. Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.",
        )),
    }
}

fn single_bytes<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Fault> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(
            Fault::invalid(format!("The header {name} stands more than once; send it once.")).with_param(name.as_str())
        );
    }
    Ok(first.map(http::HeaderValue::as_bytes))
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Fault> {
    let Some(value) = single_bytes(headers, name)?.map(<[u8]>::trim_ascii).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value).ok().filter(|text| config::is_id(text));
    text.map(Some).ok_or_else(|| {
        Fault::invalid(format!("The header {name} must be an id of 1 to 64 letters, digits, `_` or `-`."))
            .with_param(name.as_str())
    })
}

fn find_project(account: &Account, project: &str) -> Result<Arc<Tenant>, Fault> {
    account.projects.get(project).cloned().ok_or_else(|| {
        forbidden(&format!("The organization `{}` has no project of the name in OpenAI-Project.", account.id))
    })
}

fn missing(header: &'static str, who: &str) -> Fault {
    Fault::invalid(format!("{who} needs the header {header} for this call.")).with_param(header)
}

fn forbidden(message: &str) -> Fault {
    Fault::new(FaultKind::Forbidden, message)
}

fn unauthenticated(message: &str) -> Fault {
    Fault::new(FaultKind::Unauthenticated, message).with_code("invalid_api_key")
}

fn unknown_key() -> Fault {
    unauthenticated("Incorrect API key provided.")
}

#[cfg(test)]
mod tests;
