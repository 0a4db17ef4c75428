//! About the request a hook is being called for. Always granted.

use crate::{Hop, Identity, host::request};

/// The id in `x-request-id` and in the books.
pub fn id() -> String {
    request::id()
}

/// Who is calling.
pub fn caller() -> Identity {
    request::caller()
}

/// The API the client speaks: `chat/completions`, `messages`.
pub fn endpoint() -> String {
    request::endpoint()
}

/// The model name the client asked for, before any plugin.
pub fn model() -> String {
    request::model()
}

/// The client asked for a stream.
pub fn streamed() -> bool {
    request::streamed()
}

/// The end user as the client names them.
pub fn user() -> Option<String> {
    request::user()
}

/// A header of the request, by its lowercase name. Credentials and cookies are withheld.
pub fn header(name: &str) -> Option<String> {
    request::header(name)
}

/// What serves the request; `None` in `on_call`, which comes before routing.
pub fn route() -> Option<Hop> {
    request::route()
}

/// Adds a word to the tags of the usage record: at most 8 a plugin, 64 bytes each.
pub fn tag(tag: &str) {
    request::tag(tag);
}
