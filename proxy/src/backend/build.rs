//! From the settings of a backend to a backend, or to everything that is wrong with them.

use super::config::{Config, Settings};
use super::endpoint::Endpoint;
use super::endpoints::Endpoints;
use super::names::{self, Source};
use super::{Backend, Backends, Kept, Kind, catalog::Catalog, listing, pool};
use crate::canon::header::X_API_KEY;
use crate::trust::{self, Authorities};
use ::http::{HeaderName, HeaderValue, header};
use arc_swap::ArcSwap;
use foldhash::HashMap;
use std::sync::Arc;

impl Backends {
    /// Builds the backends, with what is kept of those before. Models of `local` ones that are not loaded are loaded by a
    /// thread of their own; until then they answer 503.
    ///
    /// # Errors
    /// Place and sentence of everything that is wrong.
    pub fn build(config: &Config, kept: &Kept) -> Result<Self, Vec<(String, String)>> {
        let (mut backends, mut errors) = (Vec::new(), Vec::new());
        for (name, settings) in config {
            match Backend::read(name, settings, kept) {
                Ok(backend) => backends.push((backend, settings)),
                Err(more) => errors.extend(more),
            }
        }
        // No model is loaded for a configuration that cannot be used.
        if !errors.is_empty() {
            return Err(errors);
        }
        let (mut by_name, mut loading) = (HashMap::default(), Vec::new());
        for (mut backend, settings) in backends {
            let (name, mut is_new) = (backend.name.clone(), false);
            if let Some(weights) = &settings.weights {
                let (local, fresh) = kept.model(&name, weights, settings);
                (backend.local, is_new) = (Some(local), fresh);
            }
            let backend = Arc::new(backend);
            if is_new {
                loading.push(backend.clone());
            }
            by_name.insert(name, backend);
        }
        let named = by_name.values().any(|backend| matches!(backend.endpoints, Endpoints::Named(_)));
        Ok(Self { by_name, loading, named, watch: kept.watch() })
    }

    /// Everything that is wrong with a configuration, without loading a model or connecting to anything.
    pub fn check(config: &Config) -> Vec<(String, String)> {
        let kept = Kept::default();
        config.iter().filter_map(|(name, settings)| Backend::read(name, settings, &kept).err()).flatten().collect()
    }
}

impl Backend {
    /// Reads a backend from its settings; a model is not loaded yet.
    ///
    /// # Errors
    /// Place and sentence of everything that is wrong.
    pub(super) fn read(name: &Arc<str>, settings: &Settings, kept: &Kept) -> Result<Self, Vec<(String, String)>> {
        let mut errors = wrong_for_its_kind(settings);
        errors.extend(settings.health.errors());
        errors.extend(settings.retry_budget.errors());
        let private = settings.ca.as_deref().map(|file| trust::private(file, settings.http2));
        let private = private.transpose().unwrap_or_else(|error| {
            errors.push((".ca".into(), error));
            None
        });
        let endpoints = endpoints(name, settings, private, kept).unwrap_or_else(|wrong| {
            errors.extend(wrong);
            Endpoints::Fixed(Vec::new())
        });
        let traits = settings.kind.traits();
        let credentials = credentials(settings, traits.api_key_header).unwrap_or_else(|error| {
            errors.push((".key".into(), error));
            None
        });
        let (dialects, embeds) = settings.dialects.as_ref().map_or_else(
            || (traits.dialects.to_vec(), traits.embeds.to_vec()),
            |spoken| {
                let dialects = spoken.iter().flat_map(|word| word.dialects()).copied().collect();
                (dialects, spoken.iter().flat_map(|word| word.embeds()).copied().collect())
            },
        );
        if !errors.is_empty() {
            return Err(errors.into_iter().map(|(key, error)| (format!("backends.{name}{key}"), error)).collect());
        }
        Ok(Self {
            name: name.clone(),
            id: pool::of(name),
            budget: kept.budget(name),
            bears: settings.retry_budget,
            rules: settings.health.rules().into(),
            probed: settings.health.probe,
            traits,
            dialects,
            embeds,
            catalog: settings.lists().map(|_| ArcSwap::from_pointee(Catalog::of(&endpoints.now()))),
            lists: settings.lists(),
            relist: settings.refresh.map_or(listing::EVERY, |period| period.0),
            endpoints,
            refresh: settings.refresh.map_or(names::REFRESH, |period| period.0),
            credentials,
            key: settings.key.clone(),
            timeouts: settings.timeouts,
            local: None,
        })
    }
}

/// Keys that its kind lacks or does not have.
fn wrong_for_its_kind(settings: &Settings) -> Vec<(String, String)> {
    let mut errors = Vec::new();
    let urls: Vec<&String> = settings.url.iter().chain(&settings.urls).collect();
    let is_local = settings.kind == Kind::Local;
    let names = || settings.dns.iter().chain(&settings.kubernetes);
    if is_local != (urls.is_empty() && names().next().is_none()) {
        errors.push((
            String::new(),
            if is_local {
                "a local backend has no url".into()
            } else {
                "a backend needs a `url` (or several `urls`, or a name in `dns`, or a Service in `kubernetes`)".into()
            },
        ));
    }
    errors.extend(settings.naming_errors());
    if is_local != settings.weights.is_some() {
        errors.push((
            String::new(),
            if is_local {
                "a local backend needs `weights`, a GGUF file or a folder of an embedding model".into()
            } else {
                "`weights` is for kind = \"local\"".into()
            },
        ));
    }
    if settings.ca.is_some() && !urls.iter().copied().chain(names()).any(|url| url.starts_with("https://")) {
        errors.push((".ca".into(), "`ca` is for addresses that begin with https://".into()));
    }
    errors
}

/// The header that carries the gateway's key there.
fn credentials(settings: &Settings, api_key: bool) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    let Some(key) = &settings.key else { return Ok(None) };
    let (header, text) = if api_key {
        (X_API_KEY, key.reveal().to_owned())
    } else {
        (header::AUTHORIZATION, format!("Bearer {}", key.reveal()))
    };
    let mut value =
        HeaderValue::from_str(&text).map_err(|_| "the key holds characters that no header can carry".to_owned())?;
    value.set_sensitive(true);
    Ok(Some((header, value)))
}

/// Where a backend is.
fn endpoints(
    name: &Arc<str>,
    settings: &Settings,
    private: Option<Authorities>,
    kept: &Kept,
) -> Result<Endpoints, Vec<(String, String)>> {
    if let Some(dns) = &settings.dns {
        let named = kept.name(name, dns, settings.http2, private, Source::Resolver);
        return named.map(Endpoints::Named).map_err(|error| vec![(".dns".into(), error)]);
    }
    if let Some(url) = &settings.kubernetes {
        let named = service(url).and_then(|source| kept.name(name, url, settings.http2, private, source));
        return named.map(Endpoints::Named).map_err(|error| vec![(".kubernetes".into(), error)]);
    }
    let (mut endpoints, mut errors) = (Vec::new(), Vec::new());
    for (index, url) in settings.url.iter().chain(&settings.urls).enumerate() {
        match kept.address(name, url, settings.http2, private.as_ref()) {
            Ok(address) => endpoints.push(Endpoint { label: format!("{name}/{index}").into(), address }),
            Err(error) => errors.push((if settings.url.is_some() { ".url".into() } else { ".urls".into() }, error)),
        }
    }
    if errors.is_empty() { Ok(Endpoints::Fixed(endpoints)) } else { Err(errors) }
}

/// The Service that a URL names.
#[cfg(feature = "kubernetes")]
fn service(url: &str) -> Result<Source, String> {
    super::kubernetes::Service::read(url).map(Source::Kubernetes)
}

/// The same where nothing can be asked about it.
#[cfg(not(feature = "kubernetes"))]
fn service(_: &str) -> Result<Source, String> {
    Err("this program cannot ask Kubernetes: it was built without the cargo feature `kubernetes`. Build it with \
         `cargo build --release --features kubernetes`, take the container image, or name a headless Service in `dns`"
        .into())
}
