//! Which of a backend's addresses has which model, put together from what each of them lists.
//!
//! It is made when a list or an address changes, not when a request comes: that looks up one name. What is not known never
//! stands in a request's way: an address without a list may have every model, and a model in no list may be everywhere.

use super::endpoint::Endpoint;
use super::{Backend, Backends};
use crate::canon::{Listed, Route};
use foldhash::{HashMap, HashSet};
use std::sync::Arc;

/// What one address lists, where that is known.
type List = Option<Arc<Vec<Listed>>>;

/// See the module.
#[derive(Default)]
pub(super) struct Catalog {
    /// What it was made of, by the address's id.
    from: Vec<(usize, List)>,
    models: HashMap<Arc<str>, Known>,
    /// Ids of the addresses whose list is known.
    listing: HashSet<usize>,
}

/// What is known of one model.
pub(super) struct Known {
    /// The least of what its addresses say, prompt and answer together.
    context: Option<u64>,
    /// Ids of the addresses that list it, and whether it is loaded there.
    at: HashMap<usize, bool>,
    /// Not in a list itself: another name of one that is.
    alias: bool,
    /// All addresses are alike.
    alike: bool,
}

/// Whether an address has a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Nobody can say.
    Unknown,
    /// In memory.
    Loaded,
    /// It has to be loaded first.
    Cold,
    /// It is not in the address's list.
    Lacks,
}

impl Catalog {
    /// Made of what these addresses list at the moment.
    pub fn of(endpoints: &[Endpoint]) -> Self {
        let from: Vec<_> = endpoints.iter().map(|of| (of.address.id, of.address.list.load_full())).collect();
        let mut models: HashMap<Arc<str>, Known> = HashMap::default();
        for (id, list) in &from {
            for listed in list.iter().flat_map(|list| list.iter()) {
                // Ollama's names have a tag, and `latest` may be left out.
                let alias = listed.name.strip_suffix(":latest").map(Arc::from);
                for (name, alias) in std::iter::once((listed.name.clone(), false)).chain(alias.map(|name| (name, true)))
                {
                    let known = models.entry(name);
                    let known =
                        known.or_insert_with(|| Known { context: None, at: HashMap::default(), alias, alike: false });
                    known.alias &= alias;
                    known.context = [known.context, listed.context].into_iter().flatten().min();
                    known.at.insert(*id, listed.loaded);
                }
            }
        }
        for known in models.values_mut() {
            let loaded = known.at.values().filter(|loaded| **loaded).count();
            known.alike = known.at.len() == from.len() && (loaded == 0 || loaded == from.len());
        }
        let listing = from.iter().filter(|(_, list)| list.is_some()).map(|(id, _)| *id).collect();
        Self { from, models, listing }
    }

    /// It is what would be made of these now.
    pub fn is_of(&self, endpoints: &[Endpoint]) -> bool {
        let same = |(endpoint, (id, list)): (&Endpoint, &(usize, List))| {
            let now = endpoint.address.list.load();
            endpoint.address.id == *id && now.as_ref().map(Arc::as_ptr) == list.as_ref().map(Arc::as_ptr)
        };
        endpoints.len() == self.from.len() && endpoints.iter().zip(&self.from).all(same)
    }

    /// What is known of the addresses for this model.
    pub fn of_model(&self, model: &str) -> Where<'_> {
        match self.models.get(model) {
            Some(known) if known.alike => Where::Same(known.presence()),
            _ if self.listing.is_empty() => Where::Same(Presence::Unknown),
            known => Where::Each { listing: &self.listing, known },
        }
    }

    /// What is known of a model here, by its name or another.
    pub fn model(&self, model: &str) -> Option<Listed> {
        let known = self.models.get(model)?;
        Some(Listed { name: model.into(), context: known.context, loaded: known.presence() == Presence::Loaded })
    }

    /// The models that are listed, by the names they have there.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.models.iter().filter(|(_, known)| !known.alias).map(|(name, _)| name)
    }
}

impl Known {
    /// Where it is best off.
    fn presence(&self) -> Presence {
        if self.at.values().any(|loaded| *loaded) { Presence::Loaded } else { Presence::Cold }
    }
}

/// What is known of a backend's addresses for one model.
pub(super) enum Where<'a> {
    /// The same of all.
    Same(Presence),
    /// Of some it is something else.
    Each { listing: &'a HashSet<usize>, known: Option<&'a Known> },
}

impl Where<'_> {
    /// Of the address with this id.
    pub fn at(&self, id: usize) -> Presence {
        match self {
            Self::Same(presence) => *presence,
            Self::Each { listing, known } => match known.and_then(|known| known.at.get(&id)) {
                Some(true) => Presence::Loaded,
                Some(false) => Presence::Cold,
                None if listing.contains(&id) => Presence::Lacks,
                // It has just come, or does not say.
                None => Presence::Unknown,
            },
        }
    }
}

impl Backend {
    /// Puts together anew what its addresses list, where that has changed.
    pub(super) fn take_stock(&self) {
        let Some(catalog) = &self.catalog else { return };
        let endpoints = self.endpoints();
        if !catalog.load().is_of(&endpoints) {
            catalog.store(Arc::new(Catalog::of(&endpoints)));
        }
    }
}

impl Backends {
    /// Each model that a backend lists, with the backend's name.
    pub fn each_listed(&self, mut of: impl FnMut(&Arc<str>, &Arc<str>)) {
        for backend in self.by_name.values() {
            if let Some(catalog) = &backend.catalog {
                catalog.load().names().for_each(|model| of(&backend.name, model));
            }
        }
    }

    /// What is known of a route's model, under the name it is asked for: the shortest context of its targets, and whether it is
    /// loaded at one of them.
    pub fn known(&self, route: &Route, asked: &Arc<str>) -> Listed {
        let mut all = Listed::named(asked.clone());
        for hop in &route.hops[..route.own] {
            let Some(backend) = self.by_name.get(&hop.backend) else { continue };
            let (context, loaded) = match (&backend.local, &backend.catalog) {
                (Some(local), _) => (local.context(), local.is_ready()),
                (None, Some(catalog)) => {
                    catalog.load().model(&hop.model).map_or((None, false), |known| (known.context, known.loaded))
                }
                (None, None) => (None, false),
            };
            all.context = [all.context, context].into_iter().flatten().min();
            all.loaded |= loaded;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::endpoint::Address;

    fn address(list: Option<&[(&str, Option<u64>, bool)]>) -> Endpoint {
        let address = Arc::new(Address::read("http://x:1", false, None).unwrap());
        let listed = |of: &(&str, Option<u64>, bool)| Listed { name: of.0.into(), context: of.1, loaded: of.2 };
        address.list.store(list.map(|list| Arc::new(list.iter().map(listed).collect())));
        Endpoint { label: "b/0".into(), address }
    }

    #[test]
    fn addresses_have_models_lack_them_or_do_not_say() {
        use Presence::{Cold, Lacks, Loaded, Unknown};
        let endpoints = [
            address(Some(&[("a:latest", Some(4096), true), ("c", None, true)])),
            address(Some(&[("a:latest", Some(2048), false), ("b", None, false), ("c", None, true)])),
            address(None),
            address(Some(&[])),
        ];
        let catalog = Catalog::of(&endpoints);
        for (model, expected) in [
            ("a:latest", [Loaded, Cold, Unknown, Lacks]),
            ("a", [Loaded, Cold, Unknown, Lacks]),
            ("b", [Lacks, Cold, Unknown, Lacks]),
            ("c", [Loaded, Loaded, Unknown, Lacks]),
            ("d", [Lacks, Lacks, Unknown, Lacks]),
        ] {
            let of = catalog.of_model(model);
            assert_eq!(endpoints.each_ref().map(|endpoint| of.at(endpoint.address.id)), expected, "{model}");
            assert_eq!(of.at(usize::MAX), Unknown, "one that has just come");
        }
        let mut names: Vec<_> = catalog.names().map(|name| &**name).collect();
        names.sort_unstable();
        assert_eq!(names, ["a:latest", "b", "c"]);
        let known = catalog.model("a").unwrap();
        assert_eq!((known.context, known.loaded), (Some(2048), true));
        assert!(matches!(Catalog::of(&endpoints[2..3]).of_model("a"), Where::Same(Unknown)));
        assert!(matches!(Catalog::of(&endpoints[..1]).of_model("a"), Where::Same(Loaded)));
    }

    #[test]
    fn it_is_made_anew_when_a_list_or_an_address_has_changed() {
        let endpoints = [address(Some(&[])), address(None)];
        let catalog = Catalog::of(&endpoints);
        assert!(catalog.is_of(&endpoints) && !catalog.is_of(&endpoints[..1]));
        endpoints[1].address.list.store(Some(Arc::new(Vec::new())));
        assert!(!catalog.is_of(&endpoints));
    }
}
