//! The providers of LiteLLM that Tidegate has a kind of backend for, and where they are.

use super::section::ENVIRONMENT;

/// A provider, as the word before the slash in `model` names it.
#[derive(Debug)]
pub(super) struct Provider {
    word: &'static str,
    /// The kind of its backends.
    pub kind: &'static str,
    /// Its address where the file names none.
    pub url: Option<&'static str>,
    /// Where LiteLLM finds its key there, where the file names none.
    pub variable: Option<&'static str>,
}

/// What speaks OpenAI's protocol. Those whose paths do not end in `/v1` (DeepInfra, Gemini, Perplexity), and those whose model
/// names LiteLLM completes (Fireworks), are not here: nothing that Tidegate could ask would be what LiteLLM asks.
const fn compatible(word: &'static str, url: &'static str, variable: &'static str) -> Provider {
    Provider { word, kind: "openai", url: Some(url), variable: Some(variable) }
}

const fn elsewhere(word: &'static str, kind: &'static str) -> Provider {
    Provider { word, kind, url: None, variable: None }
}

const OLLAMA: Option<&str> = Some("http://localhost:11434");

static PROVIDERS: [Provider; 17] = [
    compatible("openai", OPENAI, "OPENAI_API_KEY"),
    Provider {
        word: "anthropic",
        kind: "anthropic",
        url: Some("https://api.anthropic.com"),
        variable: Some("ANTHROPIC_API_KEY"),
    },
    Provider { word: "ollama", kind: "ollama", url: OLLAMA, variable: None },
    Provider { word: "ollama_chat", kind: "ollama", url: OLLAMA, variable: None },
    elsewhere("hosted_vllm", "vllm"),
    elsewhere("openai_like", "openai"),
    elsewhere("custom_openai", "openai"),
    elsewhere("litellm_proxy", "openai"),
    elsewhere("lm_studio", "openai"),
    compatible("groq", "https://api.groq.com/openai", "GROQ_API_KEY"),
    compatible("mistral", "https://api.mistral.ai", "MISTRAL_API_KEY"),
    compatible("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY"),
    compatible("together_ai", "https://api.together.xyz", "TOGETHERAI_API_KEY"),
    compatible("openrouter", "https://openrouter.ai/api", "OPENROUTER_API_KEY"),
    compatible("xai", "https://api.x.ai", "XAI_API_KEY"),
    compatible("cerebras", "https://api.cerebras.ai", "CEREBRAS_API_KEY"),
    compatible("nvidia_nim", "https://integrate.api.nvidia.com", "NVIDIA_NIM_API_KEY"),
];

/// OpenAI itself, which speaks more than what is compatible with it.
pub(super) const OPENAI: &str = "https://api.openai.com";

/// What models of OpenAI begin with: LiteLLM knows their provider without being told.
const OPENAI_MODELS: [&str; 9] =
    ["gpt-", "chatgpt-", "o1", "o3", "o4", "text-embedding-", "whisper-", "tts-", "omni-moderation-"];

/// The provider of a model and the model's name there.
///
/// # Errors
/// Why Tidegate has no backend for it, and what to do.
pub(super) fn split<'a>(model: &'a str, custom: Option<&str>) -> Result<(&'static Provider, &'a str), String> {
    if model.starts_with(ENVIRONMENT) {
        return Err("the model comes from the environment: write it in by hand".into());
    }
    let (word, name) = match (custom, model.split_once('/')) {
        (Some(custom), Some((word, name))) if word == custom => (custom, name),
        (Some(custom), _) => (custom, model),
        (None, Some((word, name))) => (word, name),
        (None, None) if model.starts_with("claude") => ("anthropic", model),
        (None, None) if OPENAI_MODELS.iter().any(|start| model.starts_with(start)) => ("openai", model),
        (None, None) => return Err("it names no provider: write `openai/…` or another in front of it".into()),
    };
    let provider = PROVIDERS.iter().find(|provider| provider.word == word).ok_or_else(|| {
        format!(
            "there is no kind of backend for the provider `{word}`: if its server speaks OpenAI's protocol, add it by hand \
             with kind = \"openai\"; else let LiteLLM serve it on, as such a backend"
        )
    })?;
    Ok((provider, name))
}

/// What an address is to a configuration of Tidegate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// Without `/v1`, credentials and a query.
    pub url: String,
    /// Something was cut off that may have been secret.
    pub cut: bool,
    /// It ended in `/v1`, or in a path behind it.
    pub versioned: bool,
}

impl Base {
    pub fn of(url: &str) -> Self {
        Self { url: url.to_owned(), cut: false, versioned: true }
    }

    /// To be written by hand: it is in this variable. No name ends in `.invalid` (RFC 2606).
    pub fn unknown(variable: &str) -> Self {
        let word = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
        let name: String = variable.chars().map(word).collect();
        Self::of(&format!("http://{}.invalid", name.trim_matches('-')))
    }
}

/// Reads `api_base`.
///
/// # Errors
/// It cannot be used as an address.
pub(super) fn base(address: &str) -> Result<Base, String> {
    let (scheme, rest) = address
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        .ok_or("it does not begin with http:// or https://")?;
    let (place, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let (credentials, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() || host.starts_with(':') {
        return Err("it names no host".into());
    }
    let mut path = path.trim_end_matches('/');
    for ending in ["/chat/completions", "/completions", "/embeddings", "/messages", "/api/generate", "/api/chat"] {
        path = path.strip_suffix(ending).unwrap_or(path);
    }
    let base = path.strip_suffix("/v1").unwrap_or(path);
    let cut = !credentials.is_empty() || !query.is_empty();
    Ok(Base { url: format!("{scheme}://{host}{base}"), cut, versioned: base != path })
}

/// A name for what is at this address, of letters that environment variables can reach: `gpu1_internal`.
pub(super) fn called(url: &str, with_port: bool) -> String {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let host = if with_port { host } else { host.rsplit_once(':').map_or(host, |(host, _)| host) };
    let word = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' };
    host.trim_matches(['[', ']']).chars().map(word).collect()
}

impl Provider {
    /// What a backend of it is called first, if it is at this address.
    pub fn called(&self, url: &str) -> String {
        let is_there = self.url.is_some_and(|own| own == url);
        if self.kind == "openai" && !is_there { called(url, false) } else { self.short().to_owned() }
    }

    fn short(&self) -> &'static str {
        if self.kind == "openai" { self.word } else { self.kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_name_their_provider() {
        for (model, custom, expect) in [
            ("openai/gpt-4o", None, Ok(("openai", "gpt-4o"))),
            ("gpt-4o", None, Ok(("openai", "gpt-4o"))),
            ("claude-sonnet-4", None, Ok(("anthropic", "claude-sonnet-4"))),
            ("ollama_chat/llama3:8b", None, Ok(("ollama", "llama3:8b"))),
            ("hosted_vllm/Qwen/Qwen3-8B", None, Ok(("vllm", "Qwen/Qwen3-8B"))),
            ("Qwen/Qwen3-8B", Some("hosted_vllm"), Ok(("vllm", "Qwen/Qwen3-8B"))),
            ("openai/x", Some("openai"), Ok(("openai", "x"))),
            ("azure/gpt-4o", None, Err("there is no kind of backend for the provider `azure`")),
            ("llama3", None, Err("it names no provider")),
            ("os.environ/MODEL", None, Err("the model comes from the environment")),
        ] {
            match (split(model, custom), expect) {
                (Ok((provider, name)), Ok(expect)) => assert_eq!((provider.kind, name), expect, "{model}"),
                (Err(why), Err(says)) => assert!(why.starts_with(says), "{model}: {why}"),
                (found, _) => panic!("{model}: {found:?}"),
            }
        }
    }

    #[test]
    fn addresses_lose_what_does_not_belong_there() {
        for (address, expect) in [
            ("http://gpu:8000/v1", Ok(("http://gpu:8000", false, true))),
            ("http://gpu:8000/v1/", Ok(("http://gpu:8000", false, true))),
            ("http://gpu:8000", Ok(("http://gpu:8000", false, false))),
            ("https://x.example/openai/v1/chat/completions", Ok(("https://x.example/openai", false, true))),
            ("https://me:hunter2@x.example/v1", Ok(("https://x.example", true, true))),
            ("https://x.example/v1?key=hunter2", Ok(("https://x.example", true, true))),
            ("localhost:11434", Err(())),
            ("http:///v1", Err(())),
        ] {
            let found = base(address);
            let found = found.as_ref().map(|base| (&*base.url, base.cut, base.versioned)).map_err(|_| ());
            assert_eq!(found, expect, "{address}");
        }
        assert_eq!(
            (called("http://GPU-1.x:80/a", false), called("http://[::1]:80", true)),
            ("gpu_1_x".into(), "__1__80".into())
        );
    }
}
