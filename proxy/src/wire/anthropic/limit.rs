//! How long an answer may be whose client does not say, and how much of that may be thought.
//!
//! Thinking is paid from the same limit: of 8000 tokens a budget of thousands leaves nothing to answer with.

use super::read_call::MAX_TOKENS;
use crate::wire::Target;
use crate::wire::json::Json;
use crate::wire::object::Object;

/// What each of Anthropic's models that think can put out: Claude Opus 4 has the least.
const OUTPUT: u64 = 32_000;

/// With so much to be thought before.
pub(super) fn with_budget(max_output: Option<u64>, budget: u64) -> u64 {
    max_output.unwrap_or(MAX_TOKENS.saturating_add(budget).min(OUTPUT))
}

/// What may be thought of such a limit: the answer has half of it, at most what it has where nothing is thought.
pub(super) fn room(limit: u64) -> u64 {
    limit - (limit / 2).min(MAX_TOKENS)
}

/// For a request that stays as it is, its budget included, which has to be below the limit.
pub(super) fn of_request(request: &Object, to: &Target) -> u64 {
    let is_on = |thinking: &Json<'_>| thinking.get("type").and_then(Json::as_str).as_deref() == Some("enabled");
    let thinking = request.get("thinking").filter(is_on).and_then(|thinking| thinking.get("budget_tokens"));
    let budget = thinking.and_then(Json::as_u64).unwrap_or(0);
    let limit = with_budget(to.max_output, budget);
    if limit > budget { limit } else { MAX_TOKENS.saturating_add(budget).min(i64::MAX.unsigned_abs()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_above_the_budget() {
        for (thinking, max_output, expect) in [
            ("null", None, 8000),
            ("null", Some(500), 500),
            (r#"{"type":"adaptive"}"#, None, 8000),
            (r#"{"type":"disabled","budget_tokens":18446744073709551615}"#, None, 8000),
            (r#"{"type":"enabled","budget_tokens":9223372036854775807}"#, None, i64::MAX.unsigned_abs()),
            (r#"{"type":"enabled","budget_tokens":10000}"#, None, 18000),
            (r#"{"type":"enabled","budget_tokens":31999}"#, None, 32000),
            (r#"{"type":"enabled","budget_tokens":32000}"#, None, 40000),
            (r#"{"type":"enabled","budget_tokens":10000}"#, Some(64000), 64000),
            (r#"{"type":"enabled","budget_tokens":10000}"#, Some(8192), 18000),
        ] {
            let request = Object::read(format!(r#"{{"thinking":{thinking}}}"#).into()).unwrap();
            let to = Target { max_output, ..Target::default() };
            assert_eq!(of_request(&request, &to), expect, "{thinking} {max_output:?}");
        }
    }
}
