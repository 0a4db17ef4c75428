//! What this vendor's protocols say in the same words.

use crate::canon::call::{Content, Effort, Image, Thinking, ToolChoice};
use crate::wire::beyond::drop_named;
use crate::wire::check::{At, BODY, Check, Members};
use crate::wire::object::Object;

/// A level of effort.
pub(super) fn effort(check: &mut Check, at: &At<'_>, from: &impl Members, key: &str) -> Option<Thinking> {
    let words = ["none", "minimal", "low", "medium", "high", "xhigh"];
    check.word(at, from, key, &words).map(|word| match word {
        "none" => Thinking::Off,
        "minimal" => Thinking::Effort(Effort::Minimal),
        "low" => Thinking::Effort(Effort::Low),
        "medium" => Thinking::Effort(Effort::Medium),
        _ => Thinking::Effort(Effort::High),
    })
}

/// The word for a level. Only OpenAI itself knows `minimal`.
pub(super) fn effort_word(level: Thinking, openai: bool, adjusted: &mut Vec<String>) -> &'static str {
    match level {
        Thinking::Effort(Effort::Minimal) if openai => "minimal",
        Thinking::Effort(Effort::Minimal) => {
            drop_named(adjusted, "reasoning_effort");
            "low"
        }
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

/// An image by its address, which may be its bytes (RFC 2397).
pub(super) fn image(check: &mut Check, at: &At<'_>, url: String) -> Option<Content> {
    let Some(rest) = url.strip_prefix("data:") else { return Some(Content::Image(Image::Url(url))) };
    let Some((media_type, data)) = rest.split_once(";base64,") else {
        let msg = "A data URL of an image should hold base64: data:image/png;base64,…";
        check.wrong(at, "value_error", msg, None);
        return None;
    };
    Some(Content::Image(Image::Data { media_type: media_type.to_owned(), data: data.to_owned() }))
}
