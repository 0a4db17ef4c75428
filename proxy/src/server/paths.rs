//! Path → what is asked, in which dialect. Only the path decides: never the Host header, never the query.

use crate::canon::header;
use crate::wire::Dialect;
use crate::wire::embed::EmbedApi;
use crate::wire::opaque::Opaque;
use http::{Method, Request};
use std::sync::Arc;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    /// Generate text.
    Generate(Dialect),
    /// Make vectors.
    Embed(EmbedApi),
    /// Count the tokens of a prompt.
    Count(Dialect),
    /// Carry what only its model is known of.
    Carry(&'static Opaque),
    /// List models.
    Models(Dialect),
    /// Show one model.
    Model(Dialect, String),
    /// Tell of the model that the body names.
    Tell(Dialect),
    /// The models that are in memory.
    Running(Dialect),
    /// The root, which clients probe.
    Root,
    /// Ollama's version, which its clients probe.
    Version,
    /// Ollama's verbs that change models, which nobody may use here.
    Withheld(Dialect),
    /// A known path with another method; the methods it takes.
    Method(Dialect, &'static str),
    /// Nothing of ours.
    Unknown(Dialect),
}

impl Path {
    /// The dialect to answer in.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Generate(dialect)
            | Self::Count(dialect)
            | Self::Models(dialect)
            | Self::Model(dialect, _)
            | Self::Tell(dialect)
            | Self::Running(dialect)
            | Self::Withheld(dialect)
            | Self::Method(dialect, _)
            | Self::Unknown(dialect) => *dialect,
            Self::Embed(api) => api.dialect(),
            Self::Root | Self::Carry(_) => Dialect::Chat,
            Self::Version => Dialect::OllamaChat,
        }
    }
}

/// Reads a request's path and method.
pub(super) fn read<B>(request: &Request<B>) -> Path {
    let path = request.uri().path();
    // Anthropic's clients ask for the same model list as OpenAI's and are told apart by their version header.
    let shared =
        || if request.headers().contains_key(&header::ANTHROPIC_VERSION) { Dialect::Messages } else { Dialect::Chat };
    let post = |path: Path| {
        if request.method() == Method::POST { path } else { Path::Method(path.dialect(), "POST") }
    };
    let generate = |dialect| post(Path::Generate(dialect));
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    match path {
        "/v1/chat/completions" => generate(Dialect::Chat),
        "/v1/messages" => generate(Dialect::Messages),
        "/v1/responses" => generate(Dialect::Responses),
        "/v1/completions" => generate(Dialect::Completions),
        "/v1/embeddings" => post(Path::Embed(EmbedApi::Openai)),
        "/v1/messages/count_tokens" => post(Path::Count(Dialect::Messages)),
        "/v1/responses/input_tokens" => post(Path::Count(Dialect::Responses)),
        "/v1/models" if reading => Path::Models(shared()),
        "/v1/models" => Path::Method(shared(), "GET, HEAD"),
        "/" if reading => Path::Root,
        _ if path.starts_with("/api/") => ollama(path, request.method()),
        _ if let Some(to) = Opaque::at(path) => post(Path::Carry(to)),
        _ => match path.strip_prefix("/v1/models/").filter(|id| !id.is_empty()) {
            Some(id) if reading => {
                Path::Model(shared(), percent_encoding::percent_decode_str(id).decode_utf8_lossy().into_owned())
            }
            Some(_) => Path::Method(shared(), "GET, HEAD"),
            None if path.starts_with("/v1/messages") => Path::Unknown(Dialect::Messages),
            // Nothing is kept that could be fetched.
            None if path.starts_with("/v1/responses/") => Path::Unknown(Dialect::Responses),
            None => Path::Unknown(shared()),
        },
    }
}

/// Ollama's paths.
fn ollama(path: &str, method: &Method) -> Path {
    use Dialect::{OllamaChat, OllamaGenerate};
    let found = match path {
        "/api/chat" => (Path::Generate(OllamaChat), "POST"),
        "/api/generate" => (Path::Generate(OllamaGenerate), "POST"),
        "/api/embed" => (Path::Embed(EmbedApi::Ollama), "POST"),
        "/api/embeddings" => (Path::Embed(EmbedApi::OllamaPrompt), "POST"),
        "/api/tags" => (Path::Models(OllamaChat), "GET, HEAD"),
        "/api/ps" => (Path::Running(OllamaChat), "GET, HEAD"),
        "/api/version" => (Path::Version, "GET, HEAD"),
        "/api/show" => (Path::Tell(OllamaChat), "POST"),
        "/api/pull" | "/api/push" | "/api/create" | "/api/copy" | "/api/delete" => return Path::Withheld(OllamaChat),
        _ if path.starts_with("/api/blobs/") => return Path::Withheld(OllamaChat),
        _ => return Path::Unknown(OllamaChat),
    };
    match found {
        (found, allowed) if allowed.split(", ").any(|allowed| allowed == method.as_str()) => found,
        (_, allowed) => Path::Method(OllamaChat, allowed),
    }
}

/// The path classes of records and metrics: a closed set.
pub(super) const CLASSES: [&str; 21] = [
    "chat/completions",
    "messages",
    "models",
    "unknown",
    "responses",
    "completions",
    "api/chat",
    "api/generate",
    "embeddings",
    "api/embed",
    "api/embeddings",
    "messages/count_tokens",
    "responses/input_tokens",
    "rerank",
    "audio/transcriptions",
    "audio/translations",
    "audio/speech",
    "images/generations",
    "images/edits",
    "images/variations",
    "moderations",
];

/// Which of [`CLASSES`] a path is in.
pub(super) fn class(path: &Path) -> usize {
    match path {
        Path::Generate(Dialect::Chat) => 0,
        Path::Generate(Dialect::Messages) => 1,
        Path::Generate(Dialect::Responses) => 4,
        Path::Generate(Dialect::Completions) => 5,
        Path::Generate(Dialect::OllamaChat) => 6,
        Path::Generate(Dialect::OllamaGenerate) => 7,
        Path::Embed(EmbedApi::Openai) => 8,
        Path::Embed(EmbedApi::Ollama) => 9,
        Path::Embed(EmbedApi::OllamaPrompt) => 10,
        Path::Count(Dialect::Messages) => 11,
        Path::Count(_) => 12,
        Path::Carry(to) => CLASSES.iter().position(|class| *class == to.endpoint).unwrap_or(3),
        Path::Models(_) | Path::Model(..) | Path::Tell(_) | Path::Running(_) => 2,
        Path::Root | Path::Version | Path::Withheld(_) | Path::Method(..) | Path::Unknown(_) => 3,
    }
}

/// The name of its class.
pub(super) fn endpoint(path: &Path) -> Arc<str> {
    thread_local! { static NAMES: [Arc<str>; CLASSES.len()] = CLASSES.map(Into::into); }
    NAMES.with(|names| names[class(path)].clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::opaque;

    #[test]
    fn paths() {
        use Dialect::{Chat, Completions, Messages, OllamaChat, OllamaGenerate, Responses};
        let cases = [
            ("POST /v1/messages?beta=true", Path::Generate(Messages)),
            ("POST /v1/chat/completions", Path::Generate(Chat)),
            ("GET /v1/chat/completions", Path::Method(Chat, "POST")),
            ("POST /v1/responses", Path::Generate(Responses)),
            ("GET /v1/responses", Path::Method(Responses, "POST")),
            ("GET /v1/responses/resp_1", Path::Unknown(Responses)),
            ("POST /v1/completions", Path::Generate(Completions)),
            ("POST /v1/messages/count_tokens?beta=true", Path::Count(Messages)),
            ("GET /v1/messages/count_tokens", Path::Method(Messages, "POST")),
            ("POST /v1/responses/input_tokens", Path::Count(Responses)),
            ("POST /v1/rerank", Path::Carry(&opaque::ALL[0])),
            ("POST /rerank?x", Path::Carry(&opaque::ALL[2])),
            ("GET /v1/audio/speech", Path::Method(Chat, "POST")),
            ("POST /v1/audio", Path::Unknown(Chat)),
            ("GET /v1/models", Path::Models(Chat)),
            ("GET /v1/models/org/name:tag%20x", Path::Model(Chat, "org/name:tag x".into())),
            ("GET /v1/models/100%", Path::Model(Chat, "100%".into())),
            ("DELETE /v1/models/x", Path::Method(Chat, "GET, HEAD")),
            ("GET /v1/models/", Path::Unknown(Chat)),
            ("HEAD /", Path::Root),
            ("POST /v1/messages/batches", Path::Unknown(Messages)),
            ("POST /v1//messages", Path::Unknown(Chat)),
            ("GET /admin", Path::Unknown(Chat)),
            ("POST /api/chat", Path::Generate(OllamaChat)),
            ("POST /api/generate", Path::Generate(OllamaGenerate)),
            ("GET /api/chat", Path::Method(OllamaChat, "POST")),
            ("GET /api/tags", Path::Models(OllamaChat)),
            ("HEAD /api/ps", Path::Running(OllamaChat)),
            ("GET /api/version", Path::Version),
            ("POST /api/version", Path::Method(OllamaChat, "GET, HEAD")),
            ("POST /api/show", Path::Tell(OllamaChat)),
            ("POST /api/pull", Path::Withheld(OllamaChat)),
            ("DELETE /api/delete", Path::Withheld(OllamaChat)),
            ("HEAD /api/blobs/sha256:0", Path::Withheld(OllamaChat)),
            ("POST /v1/embeddings", Path::Embed(EmbedApi::Openai)),
            ("GET /v1/embeddings", Path::Method(Chat, "POST")),
            ("POST /api/embed", Path::Embed(EmbedApi::Ollama)),
            ("POST /api/embeddings", Path::Embed(EmbedApi::OllamaPrompt)),
            ("GET /api/embed", Path::Method(OllamaChat, "POST")),
            ("POST /api/nothing", Path::Unknown(OllamaChat)),
        ];
        for (text, expect) in cases {
            let (method, uri) = text.split_once(' ').unwrap();
            assert_eq!(read(&Request::builder().method(method).uri(uri).body(()).unwrap()), expect, "{text}");
        }
    }

    #[test]
    fn every_api_that_is_carried_has_a_class() {
        for to in &opaque::ALL {
            assert_eq!(CLASSES[class(&Path::Carry(to))], to.endpoint);
        }
    }
}
