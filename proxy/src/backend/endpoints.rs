//! Where a backend is: at the addresses of its configuration, or at those that its name stands for at the moment.
//!
//! The former are borrowed and cost a request nothing. Of the latter it holds the list that was there when it began, so that
//! whoever comes or leaves meanwhile changes nothing for it.

use super::endpoint::Endpoint;
use super::names::Name;
use super::{Backend, Backends};
use crate::canon::Route;
use std::ops::Deref;
use std::sync::Arc;

/// See the module.
pub(super) enum Endpoints {
    /// As configured; none: this process.
    Fixed(Vec<Endpoint>),
    /// What a name stands for.
    Named(Arc<Name>),
}

impl Endpoints {
    /// As they are now.
    pub fn now(&self) -> Now<'_> {
        match self {
            Self::Fixed(endpoints) => Now::Fixed(endpoints),
            Self::Named(name) => Now::Found(name.found()),
        }
    }

    /// Each of them is among the others.
    pub fn all_of(&self, others: &Self) -> bool {
        match (self, others) {
            (Self::Fixed(these), Self::Fixed(those)) => {
                these.iter().all(|at| those.iter().any(|other| Arc::ptr_eq(&other.address, &at.address)))
            }
            (Self::Named(this), Self::Named(that)) => Arc::ptr_eq(this, that),
            _ => false,
        }
    }
}

/// The addresses of a backend as they are now.
pub(super) enum Now<'a> {
    Fixed(&'a [Endpoint]),
    Found(Arc<Vec<Endpoint>>),
}

impl Deref for Now<'_> {
    type Target = [Endpoint];

    fn deref(&self) -> &[Endpoint] {
        match self {
            Self::Fixed(endpoints) => endpoints,
            Self::Found(endpoints) => endpoints,
        }
    }
}

impl Backend {
    /// Its addresses as they are now.
    pub(super) fn endpoints(&self) -> Now<'_> {
        self.endpoints.now()
    }
}

/// The backends as a request finds them.
pub(super) struct Here<'a> {
    pub backends: &'a Backends,
    pub route: &'a Route,
    /// Addresses of hops, by their index, whose backend has a name.
    found: Vec<(usize, Arc<Vec<Endpoint>>)>,
}

impl Backends {
    /// As they are now for a route.
    pub(super) fn here<'a>(&'a self, route: &'a Route) -> Here<'a> {
        let mut found = Vec::new();
        if self.named {
            for (at, hop) in route.hops.iter().enumerate() {
                if let Some(Endpoints::Named(name)) = self.by_name.get(&hop.backend).map(|of| &of.endpoints) {
                    found.push((at, name.found()));
                }
            }
        }
        Here { backends: self, route, found }
    }
}

impl Here<'_> {
    /// The addresses of a hop, whose backend this is.
    pub fn endpoints<'a>(&'a self, hop: usize, backend: &'a Backend) -> &'a [Endpoint] {
        match &backend.endpoints {
            Endpoints::Fixed(endpoints) => endpoints,
            Endpoints::Named(_) => self.found.iter().find(|(at, _)| *at == hop).map_or(&[], |(_, found)| found),
        }
    }
}
