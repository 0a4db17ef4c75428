//! Where the operator's listener is, for whoever asks a gateway that runs.
//!
//! Nothing else of the configuration is looked at: it may be bad by now, and the gateway goes on with the one before.

use super::place::{Problem, dotted};
use super::read::{layers, place};
use crate::{admin, trust};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::Path;

/// The operator's listener, as far as a client has to know.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Operator {
    /// Its address.
    pub listen: SocketAddr,
    /// Its certificate and whose clients' it wants. Plain HTTP where absent.
    pub tls: Option<trust::Files>,
}

impl Default for Operator {
    fn default() -> Self {
        Self { listen: admin::Config::default().listen, tls: None }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outline {
    admin: Operator,
}

/// Reads it from the layers of a configuration.
///
/// # Errors
/// The file cannot be read, or what it says of this listener cannot.
pub fn operator(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Operator, Vec<Problem>> {
    let (layers, _) = layers(file, overrides)?;
    let outline = layers.extract::<Outline>().map_err(|error| {
        let problem = |error: figment::Error| Problem::new(dotted(&error.path), error.kind.to_string());
        let mut problems = error.into_iter().map(problem).collect::<Vec<_>>();
        place(file, &mut problems);
        problems
    })?;
    Ok(outline.admin)
}
