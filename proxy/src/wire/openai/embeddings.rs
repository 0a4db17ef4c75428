//! OpenAI embeddings, and the many servers that speak it.
//!
//! <https://platform.openai.com/docs/api-reference/embeddings>. An input is text or the model's own tokens; a vector is a list
//! of numbers, or in base64 where the client asks for it.

use crate::canon::{EmbedCall, EmbedInput, Embedded, Fault, Usage};
use crate::wire::beyond::{drop_named, extra};
use crate::wire::check::{At, BODY, Check, count};
use crate::wire::embed::{EmbedCodec, EmbedRequest, Found, put_base64, put_numbers};
use crate::wire::json::{Json, Kind};
use crate::wire::object::Object;
use crate::wire::put::{comma, key, put_raw, put_some, put_text};
use crate::wire::{Target, Written};
use bytes::Bytes;

/// Inputs in one request, by the reference.
const MOST: usize = 2048;
/// Fields with a canonical form.
const KNOWN: [&str; 5] = ["model", "input", "dimensions", "encoding_format", "user"];

/// The protocol, both ends.
pub(crate) struct Embeddings;

impl EmbedCodec for Embeddings {
    fn read_call(&self, request: &Object) -> Result<EmbedCall, Fault> {
        let mut check = Check::default();
        let model = check.model(request).unwrap_or_default();
        let inputs = match check.need(&BODY, request, "input") {
            Some(input) => read_inputs(&mut check, &BODY.key("input"), input),
            None => Vec::new(),
        };
        check.word(&BODY, request, "encoding_format", &["float", "base64"]);
        let call = EmbedCall {
            model,
            inputs,
            dimensions: check.int(&BODY, request, "dimensions", 1..=i64::MAX).map(i64::unsigned_abs),
            truncate: None,
            user: check.text(&BODY, request, "user"),
            extra: extra(request, |name, _| KNOWN.contains(&name)).into_iter().map(|(name, _)| name).collect(),
        };
        check.finish(call)
    }

    fn write_call(&self, call: &EmbedCall, to: &Target) -> Result<Written, Fault> {
        let mut dropped = Vec::new();
        call.extra.iter().for_each(|name| drop_named(&mut dropped, name));
        // Where too long an input is refused, nobody takes it for one that was cut.
        if call.truncate == Some(true) {
            drop_named(&mut dropped, "truncate");
        }
        let mut out = b"{".to_vec();
        put_text(&mut out, "model", &to.model);
        key(&mut out, "input");
        out.push(b'[');
        for input in &call.inputs {
            comma(&mut out);
            match input {
                EmbedInput::Text(text) => crate::wire::json::write_str(&mut out, text),
                EmbedInput::Tokens(tokens) => {
                    out.push(b'[');
                    for token in tokens {
                        comma(&mut out);
                        crate::wire::json::write_int(&mut out, *token);
                    }
                    out.push(b']');
                }
            }
        }
        out.push(b']');
        put_some(&mut out, "dimensions", call.dimensions);
        if let Some(user) = &call.user {
            put_text(&mut out, "user", user);
        }
        out.push(b'}');
        Ok(Written { body: out.into(), dropped, adjusted: Vec::new() })
    }

    fn find<'a>(&self, reply: &'a Object) -> Result<Found<'a>, &'static str> {
        let data = reply.get("data").filter(|data| data.kind() == Kind::Array).ok_or("it has no list `data`")?;
        let mut vectors = Vec::new();
        for (at, item) in data.items().enumerate() {
            let vector = item.get("embedding").ok_or("an item of `data` has no `embedding`")?;
            vectors.push((item.get("index").map_or(Some(at as u64), Json::as_u64), vector));
        }
        vectors.sort_by_key(|(index, _)| *index);
        if !vectors.iter().enumerate().all(|(at, (index, _))| *index == Some(at as u64)) {
            return Err("the indices in `data` are not those of the inputs");
        }
        let input = reply.get("usage").and_then(|usage| count(usage.get("prompt_tokens")));
        let usage = Usage { input, output: Some(0), ..Usage::default() };
        Ok(Found { vectors: vectors.into_iter().map(|(_, vector)| vector).collect(), usage, times: None })
    }

    fn write_answer(&self, answer: &Embedded, request: &EmbedRequest) -> Bytes {
        let mut out = br#"{"object":"list","data":["#.to_vec();
        for (index, vector) in answer.vectors.iter().enumerate() {
            comma(&mut out);
            out.extend_from_slice(br#"{"object":"embedding""#);
            put_raw(&mut out, "index", index);
            key(&mut out, "embedding");
            if request.base64 {
                put_base64(&mut out, vector)
            } else {
                put_numbers(&mut out, vector)
            }
            out.push(b'}');
        }
        out.push(b']');
        put_text(&mut out, "model", &request.call.model);
        // Clients sum these without looking: what nobody reported is the estimate here.
        let tokens = answer.usage.input.unwrap_or_else(|| request.estimate());
        key(&mut out, "usage");
        out.push(b'{');
        put_raw(&mut out, "prompt_tokens", tokens);
        put_raw(&mut out, "total_tokens", tokens);
        out.extend_from_slice(b"}}");
        out.into()
    }
}

/// One text, one list of tokens, or a list of either.
fn read_inputs(check: &mut Check, at: &At<'_>, input: Json<'_>) -> Vec<EmbedInput> {
    if input.kind() != Kind::Array {
        return text(check, at, input).into_iter().collect();
    }
    if input.items().next().is_some_and(|first| first.kind() == Kind::Number) {
        return vec![tokens(check, at, input)];
    }
    let many = input.items().count();
    if many == 0 {
        check.wrong(at, "too_short", "List should have at least 1 item after validation, not 0", Some(input));
    }
    if many > MOST {
        let msg = format!("List should have at most {MOST} items after validation, not {many}");
        check.wrong(at, "too_long", msg, None);
        return Vec::new();
    }
    let item = |(index, item): (usize, Json<'_>)| match item.kind() {
        Kind::Array => Some(tokens(check, &at.index(index), item)),
        _ => text(check, &at.index(index), item),
    };
    input.items().enumerate().filter_map(item).collect()
}

fn text(check: &mut Check, at: &At<'_>, json: Json<'_>) -> Option<EmbedInput> {
    let text = check.as_text(at, json)?;
    if text.is_empty() {
        check.wrong(at, "string_too_short", "String should have at least 1 character", Some(json));
    }
    Some(EmbedInput::Text(text.into_owned()))
}

fn tokens(check: &mut Check, at: &At<'_>, json: Json<'_>) -> EmbedInput {
    if !json.has_items() {
        check.wrong(at, "too_short", "List should have at least 1 item after validation, not 0", Some(json));
    }
    let mut tokens = Vec::new();
    for (index, token) in json.items().enumerate() {
        match token.as_u64().and_then(|token| u32::try_from(token).ok()) {
            Some(token) => tokens.push(token),
            None => check.wrong(&at.index(index), "int_type", "Input should be a valid integer: a token", Some(token)),
        }
    }
    EmbedInput::Tokens(tokens)
}
