//! Ollama's `/api/embed`, and the older `/api/embeddings`: one `prompt`, one `embedding`.
//!
//! Inputs are texts only. One that is too long is cut unless `truncate` is false. Without an input the model is only loaded, and
//! the answer has no vectors.

use super::times;
use crate::canon::{EmbedCall, EmbedInput, Embedded, Fault, Usage};
use crate::wire::beyond::{drop_named, extra};
use crate::wire::check::{BODY, Check, count, present};
use crate::wire::embed::{EmbedCodec, EmbedRequest, Found, put_numbers};
use crate::wire::json::{Json, Kind};
use crate::wire::object::Object;
use crate::wire::put::{comma, key, put_some, put_text, put_texts};
use crate::wire::{Target, Written};
use bytes::Bytes;

/// `/api/embed`, both ends.
pub(crate) struct Embed;

/// `/api/embeddings`, both ends.
pub(crate) struct EmbedPrompt;

/// Fields with a canonical form.
const KNOWN: [&str; 4] = ["model", "input", "truncate", "dimensions"];
const KNOWN_BY_PROMPT: [&str; 2] = ["model", "prompt"];

impl EmbedCodec for Embed {
    fn read_call(&self, request: &Object) -> Result<EmbedCall, Fault> {
        let mut check = Check::default();
        let (model, inputs) = (check.model(request).unwrap_or_default(), texts(&mut check, request));
        options(&mut check, request);
        let call = EmbedCall {
            model,
            inputs,
            // Zero is Go's word for nothing said.
            dimensions: check
                .int(&BODY, request, "dimensions", 0..=i64::MAX)
                .map(i64::unsigned_abs)
                .filter(|length| *length > 0),
            truncate: Some(check.flag(&BODY, request, "truncate").unwrap_or(true)),
            user: None,
            extra: names(request, &KNOWN),
        };
        check.finish(call)
    }

    fn write_call(&self, call: &EmbedCall, to: &Target) -> Result<Written, Fault> {
        let mut dropped = Vec::new();
        call.extra.iter().for_each(|name| drop_named(&mut dropped, name));
        if call.user.is_some() {
            drop_named(&mut dropped, "user");
        }
        let mut inputs = Vec::with_capacity(call.inputs.len());
        for input in &call.inputs {
            let EmbedInput::Text(text) = input else { return Err(no_tokens()) };
            inputs.push(text);
        }
        let mut out = b"{".to_vec();
        put_text(&mut out, "model", &to.model);
        put_texts(&mut out, "input", inputs);
        put_some(&mut out, "truncate", call.truncate);
        put_some(&mut out, "dimensions", call.dimensions);
        out.push(b'}');
        Ok(Written { body: out.into(), dropped, adjusted: Vec::new() })
    }

    fn find<'a>(&self, reply: &'a Object) -> Result<Found<'a>, &'static str> {
        let vectors = reply.get("embeddings").filter(|list| list.kind() == Kind::Array);
        let vectors = vectors.ok_or("it has no list `embeddings`")?.items().collect();
        let usage = Usage { input: count(reply.get("prompt_eval_count")), output: Some(0), ..Usage::default() };
        Ok(Found { vectors, usage, times: times(|name| reply.get(name)) })
    }

    fn write_answer(&self, answer: &Embedded, request: &EmbedRequest) -> Bytes {
        let mut out = b"{".to_vec();
        put_text(&mut out, "model", &request.call.model);
        key(&mut out, "embeddings");
        out.push(b'[');
        for vector in &answer.vectors {
            comma(&mut out);
            put_numbers(&mut out, vector);
        }
        out.push(b']');
        put_some(&mut out, "prompt_eval_count", answer.usage.input);
        out.push(b'}');
        out.into()
    }
}

impl EmbedCodec for EmbedPrompt {
    fn read_call(&self, request: &Object) -> Result<EmbedCall, Fault> {
        let mut check = Check::default();
        let model = check.model(request).unwrap_or_default();
        let prompt = check.text(&BODY, request, "prompt").filter(|prompt| !prompt.is_empty());
        options(&mut check, request);
        let call = EmbedCall {
            model,
            inputs: prompt.map(EmbedInput::Text).into_iter().collect(),
            truncate: Some(true),
            extra: names(request, &KNOWN_BY_PROMPT),
            ..EmbedCall::default()
        };
        check.finish(call)
    }

    /// A backend that knows this one knows the newer one.
    fn write_call(&self, call: &EmbedCall, to: &Target) -> Result<Written, Fault> {
        Embed.write_call(call, to)
    }

    fn find<'a>(&self, reply: &'a Object) -> Result<Found<'a>, &'static str> {
        let vector = reply.get("embedding").filter(|list| list.kind() == Kind::Array);
        let vector = vector.ok_or("it has no list `embedding`")?;
        let usage = Usage { output: Some(0), ..Usage::default() };
        Ok(Found { vectors: Some(vector).filter(|list| list.has_items()).into_iter().collect(), usage, times: None })
    }

    fn write_answer(&self, answer: &Embedded, _request: &EmbedRequest) -> Bytes {
        let mut out = b"{".to_vec();
        key(&mut out, "embedding");
        put_numbers(&mut out, answer.vectors.first().map_or(&[], Vec::as_slice));
        out.push(b'}');
        out.into()
    }
}

/// A text or a list of texts; an empty text is none, as it is for Ollama.
fn texts(check: &mut Check, request: &Object) -> Vec<EmbedInput> {
    let single = present(request, "input").is_some_and(|json| json.kind() == Kind::String);
    let texts = check.one_or_more(&BODY, request, "input");
    texts.into_iter().filter(|text| !single || !text.is_empty()).map(EmbedInput::Text).collect()
}

fn options(check: &mut Check, request: &Object) {
    check.object(&BODY, request, "options");
}

fn names(request: &Object, known: &[&str]) -> Vec<String> {
    let empty = |json: Json<'_>| json.kind() == Kind::Object && json.entries().next().is_none();
    let known = |name: &str, json: Json<'_>| known.contains(&name) || empty(json);
    extra(request, known).into_iter().map(|(name, _)| name).collect()
}

/// Tokens are numbers of one model's own vocabulary.
fn no_tokens() -> Fault {
    Fault::unsupported(
        "input",
        "This model takes texts only: `input` must be a string or a list of strings, not tokens.",
    )
}
