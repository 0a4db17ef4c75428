//! What makes two calls the same.
//!
//! The typed view is the canonical form: it does not depend on the client's API, on spacing, or on the order of members. What it
//! does not know (a vendor's own options, a speaker's name) is taken as the client wrote it; better asked twice than answered wrong.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidegate_plugin::serde_json::{self, Value};
use tidegate_plugin::{Call, Parameters, Tool, Turn, request};

/// Who shares replies.
#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    Project,
    Key,
    User,
}

/// Everything the answer depends on.
#[derive(Serialize)]
struct Question {
    organization: String,
    project: String,
    who: Option<String>,
    model: String,
    turns: Vec<Turn>,
    tools: Vec<Tool>,
    parameters: Parameters,
    others: Vec<(String, Option<String>)>,
}

/// Members of a body that the typed view says, in any dialect. `prompt` is not among them: a bare prompt is a user's turn there, and
/// what goes on with it is no answer to that turn.
const TYPED: &[&str] = &[
    "model",
    "messages",
    "system",
    "input",
    "instructions",
    "contents",
    "tools",
    "functions",
    "tool_choice",
    "parallel_tool_calls",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "temperature",
    "top_p",
    "top_k",
    "n",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "stop_sequences",
    "thinking",
    "reasoning_effort",
    "response_format",
];

/// Members that do not change what is answered, only how, to whom, or for what price.
const WITHOUT_EFFECT: &[&str] = &[
    "stream",
    "stream_options",
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
];

/// What the typed view says of the objects in those members. What else stands there is seen by the model and not by it.
const SAID: &[&str] = &[
    "role",
    "content",
    "type",
    "text",
    "refusal",
    "tool_calls",
    "tool_call_id",
    "tool_use_id",
    "id",
    "function",
    "function_call",
    "name",
    "description",
    "strict",
    "is_error",
    "thinking",
    "signature",
    "source",
    "media_type",
    "data",
    "url",
    "image_url",
    "budget_tokens",
    "disable_parallel_tool_use",
    "cache_control",
];

/// JSON of the caller's that the typed view carries whole.
const CARRIED: &[&str] = &["arguments", "input", "parameters", "input_schema"];

/// Whether a typed member holds something the typed view does not say: the name of a speaker, the detail of an image, a level of
/// effort it has no word for.
fn holds_more(key: &str, value: &Value) -> bool {
    match (key, value) {
        ("response_format", _) => false,
        ("reasoning_effort", Value::String(word)) => {
            !["none", "minimal", "low", "medium", "high"].contains(&word.as_str())
        }
        (_, Value::Array(items)) => items.iter().any(|item| holds_more("", item)),
        (_, Value::Object(members)) => {
            let speaker = members.contains_key("role") && members.contains_key("name");
            speaker
                || members.iter().any(|(name, value)| {
                    let name = name.as_str();
                    !CARRIED.contains(&name)
                        && (!SAID.contains(&name) || (name != "cache_control" && holds_more("", value)))
                })
        }
        _ => false,
    }
}

/// The key of a call.
pub fn of(call: &Call, per: Per) -> String {
    let caller = request::caller();
    let mut others: Vec<_> = call
        .keys()
        .into_iter()
        .filter(|key| !WITHOUT_EFFECT.contains(&key.as_str()))
        .filter_map(|key| {
            let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
            let json = call.json(&pointer);
            if !TYPED.contains(&key.as_str()) {
                return Some((key, json));
            }
            // Parsed and written again: neither spacing nor order makes a difference.
            let value: Value = serde_json::from_str(json.as_deref()?).ok()?;
            holds_more(&key, &value).then(|| (key, Some(value.to_string())))
        })
        .collect();
    others.sort();
    let question = Question {
        organization: caller.organization,
        project: caller.project,
        who: match per {
            Per::Project => None,
            Per::Key => Some(caller.key),
            Per::User => Some(caller.user.or_else(request::user).unwrap_or_default()),
        },
        model: call.model(),
        turns: call.turns(0, u32::MAX),
        tools: call.tools(),
        parameters: call.parameters(),
        others,
    };
    // These types cannot fail to be JSON: their keys are names, their numbers finite (a parameter that is not is null).
    let text = serde_json::to_vec(&question).unwrap_or_default();
    let mut hash = Sha256::new();
    // Counted up when what is kept changes its form.
    hash.update(b"1 ");
    hash.update(&text);
    let mut key = String::from("reply:");
    for byte in hash.finalize() {
        key.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        key.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    key
}
