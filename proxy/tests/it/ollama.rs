//! Ollama's API from socket to socket: before Ollama itself, before other backends, and what stands at its front door.

use crate::fake::{
    Act, CHAT, Fake, IMPATIENT, MESSAGES_STREAM, Seen, chat_stream, json, lines, lines_head, stream, stream_head,
};
use crate::gateway::{Gateway, KEY, post};
use std::time::Duration;
use tidegate::canon::{Outcome, UsageSource};

const CALL: &str = r#"{"model":"m","stream":false,"messages":[{"role":"user","content":"x"}]}"#;
/// Without a word about it, a stream is wanted.
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const PROMPT: &str = r#"{"model":"m","prompt":"x"}"#;

/// What Ollama says, under this model name.
fn said(model: &str) -> String {
    let line = |said: &str, more: &str| {
        format!(
            r#"{{"model":"{model}","created_at":"2025-11-20T08:52:19.385406455Z","message":{{"role":"assistant",{said}}},{more}}}"#
        )
    };
    [
        line(r#""content":"","thinking":"Hm""#, r#""done":false"#),
        line(r#""content":"Hé""#, r#""done":false"#),
        line(r#""content":"","tool_calls":[{"function":{"name":"f","arguments":{"done":true,"n":12345678901234567890}}}]"#, r#""done":false"#),
        line(r#""content":"""#, r#""done":true,"done_reason":"stop","total_duration":5,"eval_duration":1500000000,"prompt_eval_count":11,"prompt_eval_cached_count":4,"eval_count":3"#),
        String::new(),
    ]
    .join("\n")
}

fn whole(model: &str) -> String {
    format!(
        r#"{{"model":"{model}","created_at":"2025-11-20T08:52:19Z","message":{{"role":"assistant","content":"Hi there"}},"done":true,"done_reason":"stop","prompt_eval_count":11,"eval_count":3,"vendor":{{"kept":true}}}}"#
    )
}

/// What the backend was asked, without the gateway's probes of its health.
fn asked(fake: &Fake) -> Vec<Seen> {
    fake.seen().into_iter().filter(|seen| seen.head.starts_with("post ")).collect()
}

fn last_line(text: &str) -> serde_json::Value {
    serde_json::from_str(text.trim_end().rsplit('\n').next().unwrap()).unwrap()
}

/// Every line of a stream.
fn parsed(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The texts under these keys of all lines, together.
fn gathered(lines: &[serde_json::Value], keys: &[&str]) -> String {
    let texts = lines.iter().map(|line| keys.iter().fold(line, |value, key| &value[*key]).as_str().unwrap_or_default());
    texts.collect()
}

#[test]
fn an_untouched_stream_leaves_byte_for_byte_under_any_chunking() {
    for (size, newline) in [(1, "\n"), (7, "\n"), (7, "\r\n"), (50, "\n"), (1 << 20, "\r\n")] {
        let text = said("served").replace('\n', newline);
        let fake = Fake::start(move |_| lines(&text, size));
        let gateway = Gateway::before("ollama", &fake.url(), "");
        let call = r#"{ "model":"m", "messages":[{"role":"user","content":"x"}], "keep_alive":"5m","options":{"num_ctx":64,"new":1} }"#;
        let answer = gateway.post("/api/chat", call);
        let expect = said("m").replace('\n', newline);
        assert_eq!((answer.status, answer.body.as_str(), answer.whole), (200, expect.as_str(), true), "{size}");
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
        let seen = &asked(&fake)[0];
        assert!(seen.head.starts_with("post /api/chat "), "{}", seen.head);
        assert_eq!(seen.body, call.replace("\"m\"", "\"served\""));
        let record = gateway.record();
        assert_eq!((record.outcome, record.usage_source, record.stream), (Outcome::Ok, UsageSource::Reported, true));
        assert_eq!((record.input_tokens, record.cache_read_tokens, record.output_tokens), (Some(11), Some(4), Some(3)));
        assert_eq!(record.stop_reason.as_deref(), Some("tool_use"));
        assert_eq!((&*record.endpoint, &*record.dialect), ("api/chat", "ollama"));
        let metrics = gateway.operator("/metrics").body;
        assert!(metrics.contains("tidegate_backend_eval_seconds_sum{backend=\"b\",model=\"m\"} 1.5"), "{metrics}");
    }
}

#[test]
fn a_whole_reply_keeps_what_we_do_not_know() {
    let fake = Fake::start(|_| json(200, "", &whole("served")));
    let gateway = Gateway::before("ollama", &fake.url(), "");
    let answer = gateway.post("/api/chat", CALL);
    assert_eq!((answer.body, answer.head.contains("application/json")), (whole("m"), true));
    let record = gateway.record();
    assert_eq!((record.input_tokens, record.output_tokens, record.stream), (Some(11), Some(3), false));
}

#[test]
fn ollamas_clients_before_other_backends() {
    let fake = Fake::start(|seen| {
        if seen.body.contains("\"stream\":true") { stream(&chat_stream("served"), 9) } else { json(200, "", CHAT) }
    });
    let gateway = Gateway::before("openai", &fake.url(), "");
    let answer = gateway.post("/api/chat", CALL).json();
    assert_eq!((&answer["model"], &answer["message"]["content"]), (&"m".into(), &"Hi there".into()));
    assert_eq!((&answer["done"], &answer["done_reason"]), (&true.into(), &"stop".into()));
    assert_eq!((&answer["prompt_eval_count"], &answer["eval_count"]), (&11.into(), &3.into()));
    let answer = gateway.post("/api/chat", STREAM);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let got = parsed(&answer.body);
    assert_eq!(gathered(&got, &["message", "content"]), "Hé thère!");
    assert!(got[..got.len() - 1].iter().all(|line| line["done"] == false) && last_line(&answer.body)["done"] == true);
    assert_eq!(last_line(&answer.body)["eval_count"], 3);
    let answer = gateway.post("/api/generate", PROMPT);
    assert_eq!(gathered(&parsed(&answer.body), &["response"]), "Hé thère!");
    assert_eq!(last_line(&answer.body)["done_reason"], "stop");
    let with_options = CALL.replace(
        "\"stream\":false",
        r#""stream":false,"think":"low","format":{"type":"object"},"options":{"num_predict":9,"temperature":0.5,"num_ctx":64}"#,
    );
    let answer = gateway.post("/api/chat", &with_options);
    assert_eq!(answer.header("x-tidegate-dropped"), Some("options.num_ctx"));
    let sent: serde_json::Value = serde_json::from_str(&asked(&fake).last().unwrap().body).unwrap();
    assert_eq!((&sent["max_completion_tokens"], &sent["temperature"]), (&9.into(), &0.5.into()));
    assert_eq!(sent["reasoning_effort"], "low");
    assert_eq!(sent["response_format"]["json_schema"]["schema"], serde_json::json!({"type": "object"}));

    let fake = Fake::start(|_| stream(MESSAGES_STREAM, 5));
    let gateway = Gateway::before("anthropic", &fake.url(), "");
    let answer = gateway.post("/api/chat", STREAM);
    assert_eq!(gathered(&parsed(&answer.body), &["message", "content"]), "Hé!");
    let last = last_line(&answer.body);
    assert_eq!((&last["prompt_eval_count"], &last["eval_count"]), (&13.into(), &2.into()));
}

#[test]
fn other_clients_before_ollama() {
    let fake = Fake::start(|seen| {
        if seen.body.contains("\"stream\":true") { lines(&said("served"), 9) } else { json(200, "", &whole("served")) }
    });
    let gateway = Gateway::before("ollama", &fake.url(), "");
    let ask = r#"{"model":"m","max_tokens":50,"messages":[{"role":"user","content":"x"}]}"#;
    let answer = gateway.post("/v1/messages", ask).json();
    assert_eq!((&answer["content"][0]["text"], &answer["stop_reason"]), (&"Hi there".into(), &"end_turn".into()));
    assert_eq!(answer["usage"]["input_tokens"], 11);
    let sent: serde_json::Value = serde_json::from_str(&asked(&fake)[0].body).unwrap();
    assert!(asked(&fake)[0].head.starts_with("post /api/chat "));
    assert_eq!((&sent["think"], &sent["options"]["num_predict"]), (&false.into(), &50.into()));
    let streamed = gateway.post("/v1/messages", &ask.replace("50", "50,\"stream\":true")).body;
    assert!(
        streamed.contains("\"thinking\":\"Hm\"") && streamed.contains("\"stop_reason\":\"tool_use\""),
        "{streamed}"
    );
    assert!(streamed.contains("12345678901234567890"), "{streamed}");
    let metrics = gateway.operator("/metrics").body;
    assert!(metrics.contains("tidegate_backend_eval_seconds_count{backend=\"b\",model=\"m\"} 1"), "{metrics}");
    let image = r#"[{"type":"image","source":{"type":"url","url":"https://example.com/a.png"}}]"#;
    let answer = gateway.post("/v1/messages", &ask.replace("\"x\"", image));
    assert!(
        answer.status == 400 && answer.body.contains("base64") && !answer.body.contains("example.com"),
        "{answer:?}"
    );

    // OpenAI's dialect is spoken there, too: nothing is translated.
    gateway.post("/v1/chat/completions", ask);
    assert!(asked(&fake).last().unwrap().head.starts_with("post /v1/chat/completions "));
    assert_eq!(asked(&fake).last().unwrap().body, ask.replace("\"m\"", "\"served\""));
    // But for the limit, which it knows by its older name alone.
    for (newer, expect) in [
        ("\"max_completion_tokens\":7", 7),
        ("\"max_completion_tokens\":7,\"max_tokens\":9", 7),
        ("\"max_completion_tokens\":null,\"max_tokens\":9", 9),
    ] {
        gateway.post("/v1/chat/completions", &ask.replace("\"max_tokens\":50", newer));
        let sent: serde_json::Value = serde_json::from_str(&asked(&fake).last().unwrap().body).unwrap();
        assert_eq!(sent["max_tokens"], expect, "{newer}");
    }
    // And where it alone is configured, that is what Messages become.
    let fake = Fake::start(|_| json(200, "", CHAT));
    let gateway = Gateway::before("ollama", &fake.url(), "dialects = [\"openai\"]");
    assert_eq!(gateway.post("/v1/messages", ask).json()["content"][0]["text"], "Hi there");
}

#[test]
fn a_model_that_cannot_think_answers_without() {
    let fake = Fake::start(|seen| {
        let thinks = seen.body.contains("\"think\":true");
        let error = r#"{"error":"\"served\" does not support thinking"}"#;
        if thinks { json(400, "", error) } else { json(200, "", &whole("served")) }
    });
    let gateway = Gateway::before("ollama", &fake.url(), "");
    let ask = r#"{"model":"m","max_tokens":4096,"thinking":{"type":"enabled","budget_tokens":2048},"messages":[{"role":"user","content":"x"}]}"#;
    let answer = gateway.post("/v1/messages", ask);
    assert_eq!((answer.status, &answer.json()["content"][0]["text"]), (200, &"Hi there".into()));
    assert_eq!(answer.header("x-tidegate-dropped"), Some("think"));
    assert_eq!(answer.header("x-tidegate-attempts"), Some("1"));
    let seen = asked(&fake);
    assert_eq!((seen.len(), &*seen[1].body), (2, &*seen[0].body.replace("\"think\":true,", "")));
    // Who says it in Ollama's words hears what Ollama says to it.
    let answer = gateway.post("/api/chat", &CALL.replace("\"stream\"", "\"think\":true,\"stream\""));
    assert_eq!((answer.status, asked(&fake).len()), (400, 3));
    assert!(answer.body.contains("does not support thinking"), "{answer:?}");
}

#[test]
fn a_stream_that_breaks_ends_in_a_line_that_says_so() {
    let part: String = said("served").split_inclusive('\n').take(2).collect();
    let error = "{\"error\":\"out of memory at http://10.0.0.1:11434\"}\n";
    type Case = (&'static str, Vec<Act>, &'static str);
    let cases: Vec<Case> = vec![
        ("reset", vec![Act::Wait(Duration::from_millis(50)), Act::Reset], "broke off"),
        ("closed", vec![Act::Close], "broke off"),
        ("a clean end without done", vec![Act::Send(b"0\r\n\r\n".to_vec())], "broke off"),
        ("half a line", vec![Act::Chunk(b"{\"model\":\"ser".to_vec()), Act::Send(b"0\r\n\r\n".to_vec())], "broke off"),
        ("silence", vec![Act::Wait(Duration::from_secs(4)), Act::Close], "stopped sending"),
        (
            "its own error",
            vec![Act::Chunk(error.into()), Act::Wait(Duration::from_millis(50)), Act::Close],
            "out of memory",
        ),
    ];
    for (name, script, says) in cases {
        let part = part.clone();
        let fake = Fake::start(move |_| [vec![lines_head(), Act::Chunk(part.clone().into())], script.clone()].concat());
        let gateway = Gateway::before("ollama", &fake.url(), if name == "silence" { IMPATIENT } else { "" });
        for (path, call) in
            [("/api/chat", STREAM.to_owned()), ("/v1/messages", STREAM.replace("\"m\"", "\"m\",\"stream\":true"))]
        {
            let answer = gateway.post(path, &call);
            assert_eq!(answer.status, 200, "{name}");
            assert!(answer.body.contains(says) && !answer.body.contains("10.0.0.1"), "{name}: {}", answer.body);
            assert!(!answer.body.contains("\"done\":true") && !answer.body.contains("message_stop"), "{name}");
            if path == "/api/chat" {
                assert!(last_line(&answer.body)["error"].as_str().unwrap().contains(says), "{name}: {}", answer.body);
            }
        }
        assert!(gateway.booked(2).iter().all(|record| record.outcome == Outcome::Cut), "{name}");
    }
}

/// Beside each piece of a completion it says that nothing was read and nothing generated.
#[test]
fn a_completion_that_breaks_off_is_not_booked_as_nothing() {
    let text = include_str!("golden/completions/ollama_zeros_cut.sse");
    let fake = Fake::start(move |_| vec![stream_head(), Act::Chunk(text.into()), Act::Close]);
    let gateway = Gateway::before("ollama", &fake.url(), "");
    let answer = gateway.post("/v1/completions", r#"{"model":"m","prompt":"Which colour?","stream":true}"#);
    assert!(answer.body.contains("The sky") && !answer.body.contains("usage"), "{answer:?}");
    let record = gateway.record();
    assert_eq!((record.outcome, record.usage_source), (Outcome::Cut, UsageSource::Estimated));
    assert!(record.input_tokens > Some(0) && record.output_tokens > Some(0), "{record:?}");
}

#[test]
fn sides_that_disagree_about_streaming() {
    let fake = Fake::start(|seen| {
        if seen.body.contains("\"stream\":false") {
            lines(&said("served"), 64)
        } else {
            json(200, "", &whole("served"))
        }
    });
    let gateway = Gateway::before("ollama", &fake.url(), "");
    let streamed = gateway.post("/api/chat", STREAM);
    assert_eq!(streamed.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(gathered(&parsed(&streamed.body), &["message", "content"]), "Hi there");
    let whole = gateway.post("/api/chat", CALL).json();
    assert_eq!((&whole["message"]["content"], &whole["message"]["thinking"]), (&"Hé".into(), &"Hm".into()));
    assert_eq!(whole["message"]["tool_calls"][0]["function"]["name"], "f");
}

#[test]
fn what_only_ollama_can_do_is_passed_to_it_and_refused_elsewhere() {
    let ollama =
        Fake::start(|_| json(200, "", r#"{"model":"served","response":"ok","done":true,"done_reason":"stop"}"#));
    let openai = Fake::start(|_| json(200, "", CHAT));
    for (field, value) in
        [("raw", "true"), ("suffix", "\"}\""), ("template", "\"{{ .Prompt }}\""), ("context", "[1,2]")]
    {
        let call = format!(r#"{{"model":"m","stream":false,"prompt":"x","{field}":{value}}}"#);
        let gateway = Gateway::before("ollama", &ollama.url(), "");
        assert_eq!(gateway.post("/api/generate", &call).json()["response"], "ok", "{field}");
        assert!(asked(&ollama).last().unwrap().body.contains(field));
        let gateway = Gateway::before("openai", &openai.url(), "");
        let answer = gateway.post("/api/generate", &call);
        assert!(
            answer.status == 400 && answer.json()["error"].as_str().unwrap().contains(field),
            "{field}: {answer:?}"
        );
    }
    assert!(asked(&openai).is_empty());
    let gateway = Gateway::before("openai", &openai.url(), "");
    let call = r#"{"model":"m","stream":false,"prompt":"x","raw":false,"suffix":"","context":[],"template":""}"#;
    assert_eq!(gateway.post("/api/generate", call).status, 200);
}

#[test]
fn levels_of_thinking_are_the_models() {
    let ollama = Fake::start(|_| json(200, "", &whole("served")));
    let openai = Fake::start(|_| json(200, "", CHAT));
    let think = |word: &str| CALL.replace("\"stream\"", &format!("\"think\":\"{word}\",\"stream\""));
    let gateway = Gateway::before("ollama", &ollama.url(), "");
    for word in ["minimal", "xhigh", "ultra"] {
        assert_eq!(gateway.post("/api/chat", &think(word)).status, 200, "{word}");
        assert!(asked(&ollama).last().unwrap().body.contains(word), "Ollama judges it");
    }
    // Whoever has to understand it knows OpenAI's scale.
    let gateway = Gateway::before("openai", &openai.url(), "");
    assert_eq!(gateway.post("/api/chat", &think("xhigh")).status, 200);
    let sent: serde_json::Value = serde_json::from_str(&asked(&openai)[0].body).unwrap();
    assert_eq!(sent["reasoning_effort"], "xhigh");
    let answer = gateway.post("/api/chat", &think("ultra"));
    assert!(answer.status == 400 && answer.json()["error"].as_str().unwrap().contains("think"), "{answer:?}");
    assert_eq!(asked(&openai).len(), 1);
}

#[test]
fn a_request_that_only_loads_a_model() {
    let openai = Fake::start(|_| json(200, "", CHAT));
    let gateway = Gateway::before("openai", &openai.url(), "");
    for (path, call, word) in [
        ("/api/generate", r#"{"model":"m"}"#, "load"),
        ("/api/generate", r#"{"model":"m","keep_alive":0,"stream":false}"#, "unload"),
        ("/api/chat", r#"{"model":"m","messages":[]}"#, "load"),
    ] {
        let answer = gateway.post(path, call).json();
        assert_eq!((&answer["model"], &answer["done"]), (&"m".into(), &true.into()), "{call}");
        assert_eq!(answer["done_reason"], word, "{call}");
    }
    assert!(asked(&openai).is_empty(), "there is nothing to be done at another backend");
    assert!(gateway.booked(3).iter().all(|record| record.outcome == Outcome::Ok && record.cost == Some(0.0)));
    assert_eq!(gateway.post("/api/generate", r#"{"model":"none"}"#).status, 404);

    let ollama = Fake::start(|_| json(200, "", r#"{"model":"served","response":"","done":true,"done_reason":"load"}"#));
    let gateway = Gateway::before("ollama", &ollama.url(), "");
    let answer = gateway.post("/api/generate", r#"{"model":"m","stream":false}"#).json();
    assert_eq!((&answer["model"], &answer["done_reason"]), (&"m".into(), &"load".into()));
    assert_eq!(asked(&ollama).len(), 1, "Ollama itself is asked");
    gateway.post("/api/generate", r#"{"model":"m","stream":false,"system":"Be brief.","images":["aGk="]}"#);
    gateway.post("/api/chat", r#"{"model":"m","stream":false,"tools":[{"type":"function","function":{"name":"f"}}]}"#);
    assert!(gateway.booked(3).iter().all(|record| record.input_tokens == Some(0)), "nothing is read, and none guessed");
}

#[test]
fn the_front_door() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let gateway = Gateway::before("openai", &fake.url(), "");
    assert_eq!(gateway.get("/", "").body, "Ollama is running");
    assert_eq!(gateway.get("/", "accept: application/json\r\n").json()["name"], "tidegate");
    assert!(gateway.get("/api/version", "").json()["version"].is_string());
    assert!(gateway.records().is_empty(), "probes leave no record");
    let list = gateway.get("/api/tags", "").json();
    let names: Vec<_> =
        list["models"].as_array().unwrap().iter().map(|model| model["model"].as_str().unwrap()).collect();
    assert_eq!(names, ["m:latest", "served:latest"], "with a tag, as clients expect it there");
    assert_eq!(gateway.get("/api/ps", "").json(), serde_json::json!({ "models": [] }));
    let shown = gateway.post("/api/show", r#"{"model":"m"}"#).json();
    assert!(shown["capabilities"].as_array().unwrap().contains(&"completion".into()), "{shown}");
    assert_eq!(gateway.post("/api/show", r#"{"name":"m"}"#).status, 200);
    assert_eq!(gateway.records().len(), 4);
    for (path, body, status) in [
        ("/api/show", r#"{"model":"none"}"#, 404),
        ("/api/show", "{}", 400),
        ("/api/show", "[", 400),
        ("/api/pull", r#"{"model":"x"}"#, 403),
        ("/api/push", "{}", 403),
        ("/api/create", "{}", 403),
        ("/api/copy", "{}", 403),
        ("/api/blobs/sha256:00", "x", 403),
        ("/api/tags", "{}", 405),
        ("/api/nothing", "{}", 404),
    ] {
        let answer = gateway.post(path, body);
        assert_eq!(answer.status, status, "{path} {answer:?}");
        assert!(answer.json()["error"].is_string(), "{path} {answer:?}");
    }
    // Another project sees only its models, and nobody sees any without a key.
    let small = "GET /api/tags HTTP/1.1\r\nhost: x\r\nauthorization: Bearer dfproj_small\r\n\r\n";
    assert_eq!(gateway.raw(small.as_bytes()).json()["models"].as_array().unwrap().len(), 1);
    let answer = gateway.raw(b"GET /api/tags HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(answer.status == 401 && answer.json()["error"].is_string(), "{answer:?}");
}

/// What a file says of itself. Without the variables that name real ones this passes after saying so.
#[test]
fn models_in_this_process_tell_what_they_are() {
    let weights = ["TIDEGATE_TEST_MODEL", "TIDEGATE_TEST_EMBEDDER"].map(|name| std::env::var(name).ok());
    let [Some(model), Some(embedder)] = weights else {
        return println!("skipped: TIDEGATE_TEST_MODEL or TIDEGATE_TEST_EMBEDDER is not set");
    };
    let length = |path: &std::path::Path| std::fs::metadata(path).unwrap().len();
    let sizes = [length(model.as_ref()), length(&std::path::Path::new(&embedder).join("model.safetensors"))];
    let backend = |name: &str, weights: &str| {
        format!(
            "[backends.{name}]\nkind = \"local\"\nweights = \"{weights}\"\n[models.{name}]\ntargets = [{{ backend = \"{name}\" }}]\n"
        )
    };
    let gateway = Gateway::start(&(backend("text", &model) + &backend("vectors", &embedder)));
    let running = loop {
        let running = gateway.get("/api/ps", "").json()["models"].clone();
        if running.as_array().unwrap().len() == 2 {
            break running;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(
        (&running[0]["name"], &running[0]["context_length"]),
        (&"text:latest".into(), &8192.into()),
        "{running}"
    );
    assert!(running[0]["size"].as_u64().unwrap() > 1 << 20, "{running}");
    let list = gateway.get("/api/tags", "").json();
    for (at, size) in sizes.into_iter().enumerate() {
        assert_eq!(list["models"][at]["size"], size, "{list}");
    }
    for (name, family, parameters, quantization, capabilities) in
        [("text", "llama", "134.52M", "Q4_1", "completion,tools"), ("vectors", "bert", "", "", "embedding")]
    {
        let shown = gateway.post("/api/show", &format!(r#"{{"model":"{name}"}}"#)).json();
        let details = &shown["details"];
        let found = ["family", "parameter_size", "quantization_level"].map(|key| details[key].as_str().unwrap());
        assert_eq!(found, [family, parameters, quantization], "{shown}");
        let able: Vec<_> =
            shown["capabilities"].as_array().unwrap().iter().map(|able| able.as_str().unwrap()).collect();
        assert_eq!(able.join(","), capabilities);
        assert_eq!(shown["model_info"]["general.architecture"], family, "{shown}");
    }
    // Another project hears of none that it may not use.
    let small = "GET /api/ps HTTP/1.1\r\nhost: x\r\nauthorization: Bearer dfproj_small\r\n\r\n";
    assert_eq!(gateway.raw(small.as_bytes()).json()["models"].as_array().unwrap().len(), 0);
}

#[test]
fn bad_input_is_400_with_everything_wrong_in_one_sentence() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let gateway = Gateway::before("openai", &fake.url(), "");
    for (path, body, says) in [
        ("/api/chat", "{}", &["model"][..]),
        ("/api/chat", r#"{"model":""}"#, &["model"]),
        (
            "/api/chat",
            r#"{"model":"m","messages":{},"stream":"x","options":[],"think":3,"format":1}"#,
            &["messages", "stream", "options", "think", "format"],
        ),
        ("/api/chat", r#"{"model":"m","think":"much","messages":[{"role":"user","content":"x"}]}"#, &["think"]),
        (
            "/api/chat",
            r#"{"model":"m","messages":[{"content":"x"},{"role":"bad"},3]}"#,
            &["messages[0].role", "messages[1].role", "messages[2]"],
        ),
        (
            "/api/chat",
            r#"{"model":"m","messages":[{"role":"user","content":["x"],"images":"x"}]}"#,
            &["content", "images"],
        ),
        (
            "/api/chat",
            r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":{}}},{"function":{"name":"f","arguments":"{}"}}]}]}"#,
            &["tool_calls[0].function.name", "tool_calls[1].function.arguments"],
        ),
        ("/api/chat", r#"{"model":"m","messages":[{"role":"tool","content":"x"}]}"#, &["answers no tool call"]),
        (
            "/api/chat",
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],"options":{"temperature":"hot","num_predict":1.5,"stop":3}}"#,
            &["temperature", "num_predict", "stop"],
        ),
        (
            "/api/generate",
            r#"{"model":"m","prompt":1,"raw":1,"images":{},"context":"x"}"#,
            &["prompt", "raw", "images", "context"],
        ),
        ("/api/generate", r#"{"model":"m","model":"n"}"#, &["twice"]),
        ("/api/generate", "{", &["JSON"]),
    ] {
        let answer = gateway.post(path, body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(says.iter().all(|word| error.contains(word)), "{body}: {error}");
    }
    assert!(asked(&fake).is_empty());
    // As curl sends what Ollama's documentation shows.
    let form = format!("authorization: Bearer {KEY}\r\ncontent-type: application/x-www-form-urlencoded\r\n");
    assert_eq!(gateway.raw(&post("/api/chat", &form, CALL.as_bytes())).status, 200);
}
