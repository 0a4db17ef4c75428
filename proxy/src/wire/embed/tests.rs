use super::*;

const OPENAI: &[EmbedApi] = &[EmbedApi::Openai];
const OLLAMA: &[EmbedApi] = &[EmbedApi::Ollama, EmbedApi::OllamaPrompt];
use EmbedApi::{Ollama, OllamaPrompt, Openai};

fn read(api: EmbedApi, body: &str) -> Result<EmbedRequest, Fault> {
    EmbedRequest::read(api, Bytes::copy_from_slice(body.as_bytes()))
}

fn served() -> Target {
    Target { model: "served".into(), ..Target::default() }
}

#[test]
fn a_request_goes_out_as_it_came_or_is_written_anew() {
    for (api, to, body, expect, dropped) in [
        // The same protocol: the model's name, and what is never forwarded.
        (
            Openai,
            OPENAI,
            r#"{ "input":[[1,2],"x"], "model":"m" ,"new":1,"encoding_format":"base64"}"#,
            r#"{ "input":[[1,2],"x"], "model":"served" ,"new":1,"encoding_format":"base64"}"#,
            &[][..],
        ),
        (
            Openai,
            OPENAI,
            r#"{"model":"served","input":"x","api_key":"k"}"#,
            r#"{"model":"served","input":"x"}"#,
            &["api_key"],
        ),
        (
            Ollama,
            OLLAMA,
            r#"{"model":"m","input":"x","truncate":false}"#,
            r#"{"model":"served","input":"x","truncate":false}"#,
            &[],
        ),
        (OllamaPrompt, OLLAMA, r#"{"model":"m","prompt":"x"}"#, r#"{"model":"served","prompt":"x"}"#, &[]),
        // Another.
        (
            Openai,
            OLLAMA,
            r#"{"model":"m","input":"x","dimensions":64,"encoding_format":"base64","user":"u","new":1}"#,
            r#"{"model":"served","input":["x"],"dimensions":64}"#,
            &["new", "user"],
        ),
        (
            Ollama,
            OPENAI,
            r#"{"model":"m","input":["a","b\n"],"dimensions":0,"options":{"num_ctx":9},"keep_alive":"5m"}"#,
            r#"{"model":"served","input":["a","b\n"]}"#,
            &["options", "keep_alive", "truncate"],
        ),
        (Ollama, OPENAI, r#"{"model":"m","input":"a","truncate":false}"#, r#"{"model":"served","input":["a"]}"#, &[]),
        (
            OllamaPrompt,
            OPENAI,
            r#"{"model":"m","prompt":"é","options":{}}"#,
            r#"{"model":"served","input":["é"]}"#,
            &["truncate"],
        ),
    ] {
        let written = read(api, body).unwrap().write(to, &served()).unwrap();
        assert_eq!(written.api, if to.contains(&api) { api } else { to[0] }, "{body}");
        assert_eq!(written.written.body, expect.as_bytes(), "{body}");
        assert_eq!(written.written.dropped, dropped, "{body}");
    }
}

#[test]
fn tokens_are_refused_where_only_texts_are_taken() {
    for body in [r#"{"model":"m","input":[1,2]}"#, r#"{"model":"m","input":["x",[1]]}"#] {
        let fault = read(Openai, body).unwrap().write(OLLAMA, &served()).unwrap_err();
        assert_eq!((fault.status(), fault.param.as_deref()), (400, Some("input")), "{body}");
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let many = format!(r#"{{"model":"m","input":[{}"x"]}}"#, r#""x","#.repeat(2048));
    for (api, body, says) in [
        (Openai, "{}", &["model: ", "input: "][..]),
        (
            Openai,
            r#"{"model":1,"input":{},"dimensions":0,"encoding_format":"hex","user":3}"#,
            &["model", "input", "dimensions", "encoding_format", "user"],
        ),
        (Openai, r#"{"model":"m","input":null}"#, &["input"]),
        (Openai, r#"{"model":"m","input":""}"#, &["input: String should have at least 1"]),
        (Openai, r#"{"model":"m","input":[]}"#, &["input: List should have at least 1"]),
        (Openai, r#"{"model":"m","input":["a","",3,{}]}"#, &["input[1]", "input[2]", "input[3]"]),
        (
            Openai,
            r#"{"model":"m","input":[1,-2,"x",1.5,4294967296]}"#,
            &["input[1]", "input[2]", "input[3]", "input[4]"],
        ),
        (Openai, r#"{"model":"m","input":[[],[1,null]]}"#, &["input[0]", "input[1][1]"]),
        (Openai, &many, &["at most 2048 items after validation, not 2049"]),
        (Openai, r#"{"model":"m","model":"n","input":"x"}"#, &["twice"]),
        (Openai, r#"{"model":"m","input":"x""#, &["JSON"]),
        (
            Ollama,
            r#"{"input":3,"truncate":"no","dimensions":-1,"options":[]}"#,
            &["model", "input", "truncate", "dimensions", "options"],
        ),
        (Ollama, r#"{"model":"m","input":["a",[1]]}"#, &["input[1]"]),
        (OllamaPrompt, r#"{"model":"","prompt":["x"]}"#, &["model", "prompt"]),
    ] {
        let fault = read(api, body).unwrap_err();
        assert!(says.iter().all(|word| fault.message.contains(word)), "{body}: {}", fault.message);
        assert_eq!(fault.status(), 400);
    }
}

#[test]
fn what_is_nothing_for_ollama_is_no_error() {
    for (api, body) in [
        (Ollama, r#"{"model":"m"}"#),
        (Ollama, r#"{"model":"m","input":""}"#),
        (Ollama, r#"{"model":"m","input":[]}"#),
        (OllamaPrompt, r#"{"model":"m"}"#),
        (OllamaPrompt, r#"{"model":"m","prompt":""}"#),
    ] {
        let request = read(api, body).unwrap();
        assert!(request.call.inputs.is_empty(), "{body}");
        let empty = if api == Ollama { r#"{"model":"m","embeddings":[]}"# } else { r#"{"embedding":[]}"# };
        assert_eq!(request.answer(&Embedded::default()), empty.as_bytes());
        assert_eq!(request.reply(api, Bytes::copy_from_slice(empty.as_bytes())).unwrap().body, empty.as_bytes());
    }
}

/// 0.5 and -2 as little-endian `f32`s.
const BASE64: &str = "AAAAPwAAAMA=";

#[test]
fn vectors_reach_the_client_as_it_wants_them() {
    let openai = |vector: &str, model: &str| {
        format!(
            r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":{vector}}}],"model":"{model}","usage":{{"prompt_tokens":7,"total_tokens":7}}}}"#
        )
    };
    let base64 = format!("\"{BASE64}\"");
    let ollama = r#"{"model":"served","embeddings":[[0.5, -2]],"load_duration":2000000000,"prompt_eval_count":7}"#;
    let asks = r#"{"model":"m","input":"x"}"#;
    let asks64 = r#"{"model":"m","input":"x","encoding_format":"base64"}"#;
    for (api, body, from, reply, expect) in [
        (Openai, asks, Openai, openai("[0.5 , -2.0]", "served"), openai("[0.5 , -2.0]", "m")),
        (Openai, asks64, Openai, openai(&base64, "served"), openai(&base64, "m")),
        // A server that does not know base64, and one that knows nothing else.
        (Openai, asks64, Openai, openai("[5e-1,-2]", "served"), openai(&base64, "m")),
        (Openai, asks, Openai, openai(&base64, "served"), openai("[0.5,-2.0]", "m")),
        (Openai, asks, Ollama, ollama.into(), openai("[0.5,-2.0]", "m")),
        (Openai, asks64, Ollama, ollama.into(), openai(&base64, "m")),
        (Ollama, asks, Ollama, ollama.into(), ollama.replace("served", "m")),
        (
            Ollama,
            asks,
            Openai,
            openai(&base64, "served"),
            r#"{"model":"m","embeddings":[[0.5,-2.0]],"prompt_eval_count":7}"#.into(),
        ),
        (
            OllamaPrompt,
            r#"{"model":"m","prompt":"x"}"#,
            Openai,
            openai("[0.5,-2]", "served"),
            r#"{"embedding":[0.5,-2.0]}"#.into(),
        ),
    ] {
        let reply = read(api, body).unwrap().reply(from, reply.into()).unwrap();
        assert_eq!(reply.body, expect.as_bytes(), "{api:?} {body} from {from:?}");
        assert_eq!(reply.usage, Usage { input: Some(7), output: Some(0), ..Usage::default() });
        assert_eq!(reply.times.and_then(|times| times.load), (from == Ollama).then_some(2.0));
    }
    let old = read(OllamaPrompt, r#"{"model":"m","prompt":"x"}"#).unwrap();
    let reply = old.reply(OllamaPrompt, Bytes::from_static(b"{\"embedding\":[0.25]}")).unwrap();
    assert_eq!((reply.body.as_ref(), reply.usage.input), (b"{\"embedding\":[0.25]}".as_slice(), None));
}

#[test]
fn vectors_are_put_in_the_order_of_their_inputs() {
    let request = read(Ollama, r#"{"model":"m","input":["a","b"]}"#).unwrap();
    let item = |index: &str, number: u32| format!(r#"{{"index":{index},"embedding":[{number}]}}"#);
    let reply = |items: &[String]| request.reply(Openai, format!(r#"{{"data":[{}]}}"#, items.join(",")).into());
    let swapped = reply(&[item("1", 1), item("0", 0)]).unwrap();
    assert_eq!(swapped.body, br#"{"model":"m","embeddings":[[0.0],[1.0]]}"#.as_slice());
    for items in [[item("0", 1), item("0", 0)], [item("1", 1), item("2", 0)], [item("-1", 1), item("0", 0)]] {
        assert!(reply(&items).unwrap_err().message.contains("indices"), "{items:?}");
    }
}

#[test]
fn a_reply_that_is_none_is_the_backends_fault() {
    let one = |vector: &str| format!(r#"{{"data":[{{"index":0,"embedding":{vector}}}]}}"#);
    for (api, from, reply, says) in [
        (Openai, Openai, "<html>".into(), "not a JSON object"),
        (Openai, Openai, "[]".into(), "not a JSON object"),
        (Openai, Openai, r#"{"data":[{"index":0,"embedding":[NaN]}]}"#.into(), "not a JSON object"),
        (Openai, Openai, "{}".into(), "no list `data`"),
        (Openai, Openai, r#"{"data":[]}"#.into(), "0 vectors for 1 inputs"),
        (Openai, Openai, r#"{"data":[{"embedding":[1]},{"embedding":[1]}]}"#.into(), "2 vectors for 1 inputs"),
        (Openai, Openai, r#"{"data":[{"vector":[1]}]}"#.into(), "no `embedding`"),
        (Openai, Openai, one("[null]"), "no number"),
        (Openai, Openai, one(r#"["1"]"#), "no number"),
        (Openai, Openai, one("[[1]]"), "no number"),
        (Openai, Openai, one("[]"), "is empty"),
        (Openai, Openai, one("3"), "no list of numbers"),
        (Openai, Openai, one("\"AAAA\""), "no whole numbers"),
        (Openai, Openai, one("\"\""), "no whole numbers"),
        (Openai, Openai, one("\"!\""), "no base64"),
        // A NaN in base64.
        (Openai, Openai, one("\"AADAfw==\""), "no number"),
        // Beyond what the target's numbers can hold.
        (Ollama, Openai, one("[1e99]"), "no number"),
        (Openai, Ollama, r#"{"embeddings":[[1],[2]]}"#.into(), "2 vectors for 1 inputs"),
        (Openai, Ollama, r#"{"embedding":[1]}"#.into(), "no list `embeddings`"),
        (Openai, Openai, r#"{"error":{"message":"no such model"}}"#.into(), "no such model"),
        (Ollama, Ollama, r#"{"error":"it broke"}"#.into(), "it broke"),
    ] {
        let fault = read(api, r#"{"model":"m","input":"x"}"#).unwrap().reply(from, reply.clone().into()).unwrap_err();
        assert!(fault.message.contains(says), "{reply}: {}", fault.message);
        assert_eq!(fault.status(), 502, "{reply}");
    }
    let two = read(Openai, r#"{"model":"m","input":["x","y"]}"#).unwrap();
    let uneven = two.reply(Openai, Bytes::from_static(br#"{"data":[{"embedding":[1]},{"embedding":[1,2]}]}"#));
    assert!(uneven.unwrap_err().message.contains("several lengths"));
}

proptest::proptest! {
    #[test]
    fn numbers_survive_both_spellings(vector in proptest::collection::vec(proptest::num::f32::NORMAL | proptest::num::f32::SUBNORMAL | proptest::num::f32::ZERO, 1..20)) {
        for put in [put_numbers, put_base64] {
            let mut text = Vec::new();
            put(&mut text, &vector);
            let json = crate::wire::json::validate(&text).unwrap();
            proptest::prop_assert_eq!(&numbers(json).unwrap(), &vector);
            proptest::prop_assert_eq!(length(json).unwrap(), vector.len());
        }
    }
}
