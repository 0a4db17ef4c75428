//! Names of headers that `http` does not know, made once: a name from a string is checked and lower-cased each time.

use http::HeaderName;

macro_rules! names {
    ($($(#[$doc:meta])+ $constant:ident = $name:literal;)+) => {
        $($(#[$doc])+ pub const $constant: HeaderName = HeaderName::from_static($name);)+
    };
}

/// A media type without its parameters (RFC 9110 §8.3.1).
pub fn essence(media_type: &[u8]) -> &[u8] {
    media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// The key behind the scheme Bearer, in any case (RFC 9110 §11.1), of an `Authorization`; empty where there is none. `None` for another
/// scheme.
pub fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let end = authorization.iter().position(|byte| *byte == b' ').unwrap_or(authorization.len());
    let (scheme, key) = authorization.split_at(end);
    scheme.eq_ignore_ascii_case(b"bearer").then(|| key.trim_ascii())
}

names! {
    /// Which request this is, for logs and books on both sides.
    X_REQUEST_ID = "x-request-id";
    /// The same as Anthropic calls it in replies.
    REQUEST_ID = "request-id";
    /// A key, as Anthropic's clients send it.
    X_API_KEY = "x-api-key";
    /// Anthropic's version of its API.
    ANTHROPIC_VERSION = "anthropic-version";
    /// Anthropic's features in trial.
    ANTHROPIC_BETA = "anthropic-beta";
    /// Which organization is meant.
    OPENAI_ORGANIZATION = "openai-organization";
    /// Which project is meant.
    OPENAI_PROJECT = "openai-project";
    /// How long the client waits for a reply, in seconds, as OpenAI's and Anthropic's libraries say it.
    X_STAINLESS_TIMEOUT = "x-stainless-timeout";
    /// The same for each read.
    X_STAINLESS_READ_TIMEOUT = "x-stainless-read-timeout";
    /// Which session a request belongs to.
    X_SESSION_ID = "x-session-id";
    /// The same as Codex sends it.
    SESSION_ID = "session_id";
    /// The backend that served.
    X_TIDEGATE_BACKEND = "x-tidegate-backend";
    /// The model's name there.
    X_TIDEGATE_MODEL = "x-tidegate-model";
    /// Tries at backends.
    X_TIDEGATE_ATTEMPTS = "x-tidegate-attempts";
    /// Milliseconds that the gateway itself took before the reply's head.
    X_TIDEGATE_OVERHEAD_MS = "x-tidegate-overhead-ms";
    /// Where the counts of this reply come from.
    X_TIDEGATE_USAGE_SOURCE = "x-tidegate-usage-source";
}
