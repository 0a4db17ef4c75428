//! The backend inside this process: a GGUF model that generates text, or an embedding model, behind the same door as the servers.

#[cfg(feature = "local")]
mod answer;
#[cfg(feature = "local")]
mod ask;
#[cfg(feature = "local")]
mod model;
#[cfg(not(feature = "local"))]
mod none;

#[cfg(feature = "local")]
pub(super) use model::Local;
#[cfg(not(feature = "local"))]
pub(super) use none::Local;
