//! What this vendor's protocols say in the same words.

use crate::canon::Call;
use crate::canon::call::{Effort, Thinking, ToolChoice};
use crate::wire::Target;
use crate::wire::beyond::drop_named;
use crate::wire::check::{At, BODY, Check, Members, present};
use crate::wire::object::Object;
use crate::wire::put::{number, put_raw, put_some, put_text, put_texts};
use sha2::{Digest as _, Sha256};

/// The longest `user` that OpenAI takes, in characters; and as long as a SHA-256 is in hex.
const LONGEST_USER: usize = 64;

/// How tokens are chosen, in the words of chat and completions; and the user.
pub(super) fn sampling(check: &mut Check, request: &Object, call: &mut Call) {
    call.temperature = check.num(&BODY, request, "temperature", 0.0..=2.0);
    call.top_p = check.num(&BODY, request, "top_p", 0.0..=1.0);
    // -1 is vLLM's word for off.
    call.top_k = check.int(&BODY, request, "top_k", -1..=i64::MAX).map(|top| u64::try_from(top).unwrap_or(0));
    call.presence_penalty = check.num(&BODY, request, "presence_penalty", -2.0..=2.0);
    call.frequency_penalty = check.num(&BODY, request, "frequency_penalty", -2.0..=2.0);
    call.seed = check.int(&BODY, request, "seed", i64::MIN..=i64::MAX);
    call.choices = check.int(&BODY, request, "n", 1..=128).map_or(1, i64::unsigned_abs);
    call.user = check.text(&BODY, request, "user");
}

/// The same written, and when they end.
pub(super) fn put_sampling(
    call: &Call,
    to: &Target,
    out: &mut Vec<u8>,
    dropped: &mut Vec<String>,
    adjusted: &mut Vec<String>,
) {
    for (name, value) in [
        ("temperature", call.temperature),
        ("top_p", call.top_p),
        ("presence_penalty", call.presence_penalty),
        ("frequency_penalty", call.frequency_penalty),
    ] {
        put_some(out, name, value.map(number));
    }
    if to.extended_sampling {
        put_some(out, "top_k", call.top_k);
    } else if call.top_k.is_some() {
        drop_named(dropped, "top_k");
    }
    put_some(out, "seed", call.seed);
    put_some(out, "n", Some(call.choices).filter(|choices| *choices > 1));
    if !call.stop.is_empty() {
        put_texts(out, "stop", &call.stop);
    }
    put_user(call, out, adjusted);
}

/// Who asks. Claude Code's users have names of 150 characters: such a one goes by its hash, so that the same stays the same.
pub(super) fn put_user(call: &Call, out: &mut Vec<u8>, adjusted: &mut Vec<String>) {
    let Some(user) = &call.user else { return };
    if user.chars().count() <= LONGEST_USER {
        return put_text(out, "user", user);
    }
    put_text(out, "user", &hex::encode(Sha256::digest(user)));
    drop_named(adjusted, "user");
}

/// Whether it is to be a stream, and whether its usage is to be told.
pub(super) fn stream(check: &mut Check, request: &Object) -> (bool, bool) {
    let stream = check.flag(&BODY, request, "stream").unwrap_or(false);
    let options = present(request, "stream_options")
        .and_then(|json| check.as_dict(&BODY.key("stream_options"), json))
        .unwrap_or_default();
    let include = check.flag(&BODY.key("stream_options"), &options, "include_usage").unwrap_or(false);
    (stream, stream && include)
}

/// The same written: a backend is always asked for its usage.
pub(super) fn put_stream(call: &Call, to: &Target, out: &mut Vec<u8>) {
    put_raw(out, "stream", call.stream);
    if call.stream {
        let continuous = if to.continuous_usage { r#","continuous_usage_stats":true"# } else { "" };
        put_raw(out, "stream_options", format_args!(r#"{{"include_usage":true{continuous}}}"#));
    }
}

/// A level of effort.
pub(super) fn effort(check: &mut Check, at: &At<'_>, from: &impl Members, key: &str) -> Option<Thinking> {
    let words = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
    check.word(at, from, key, &words).map(|word| match word {
        "none" => Thinking::Off,
        "minimal" => Thinking::Effort(Effort::Minimal),
        "low" => Thinking::Effort(Effort::Low),
        "medium" => Thinking::Effort(Effort::Medium),
        "high" => Thinking::Effort(Effort::High),
        "xhigh" => Thinking::Effort(Effort::XHigh),
        _ => Thinking::Effort(Effort::Max),
    })
}

/// The word for a level. Only OpenAI itself knows `minimal` and `xhigh`; `max`, of which few of its models know, is not written.
pub(super) fn effort_word(level: Thinking, openai: bool, adjusted: &mut Vec<String>) -> &'static str {
    let mut nearest = |word| {
        drop_named(adjusted, "reasoning_effort");
        word
    };
    match level {
        Thinking::Effort(Effort::Minimal) if openai => "minimal",
        Thinking::Effort(Effort::XHigh) if openai => "xhigh",
        Thinking::Effort(Effort::Minimal) => nearest("low"),
        Thinking::Effort(Effort::Max) if openai => nearest("xhigh"),
        Thinking::Effort(Effort::XHigh | Effort::Max) => nearest("high"),
        Thinking::Effort(Effort::Low) | Thinking::Budget(..=4096) => "low",
        Thinking::Effort(Effort::Medium) | Thinking::Budget(..=16384) | Thinking::Adaptive => "medium",
        Thinking::Effort(Effort::High) | Thinking::Budget(_) => "high",
        Thinking::Off => "none",
    }
}

/// A choice among tools that names none of them.
pub(super) fn choice(check: &mut Check, request: &Object, key: &str) -> Option<ToolChoice> {
    check.word(&BODY, request, key, &["auto", "none", "required"]).map(|word| match word {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        _ => ToolChoice::Required,
    })
}
