//! Responses and completions from socket to socket: across dialects, alike, failing in the middle, and what is refused.

use crate::fake::{Act, CHAT, Fake, IMPATIENT, MESSAGES_STREAM, chat_stream, json, stream, stream_head};
use crate::gateway::Gateway;
use std::time::Duration;
use tidegate::canon::{Outcome, UsageSource};

const CALL: &str = r#"{"model":"m","input":"x"}"#;
const STREAM: &str = r#"{"model":"m","input":"x","stream":true}"#;
const PROMPT: &str = r#"{"model":"m","prompt":"x"}"#;
const PROMPT_STREAM: &str = r#"{"model":"m","prompt":"x","stream":true}"#;
const ASK: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

fn recording(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The data of the last frame.
fn last(body: &str) -> serde_json::Value {
    let frame = body.trim_end().rsplit("\n\n").next().unwrap();
    serde_json::from_str(frame.split_once("data: ").unwrap().1).unwrap_or_else(|error| panic!("{error}: {frame}"))
}

#[test]
fn an_untouched_stream_leaves_byte_for_byte_but_for_the_model() {
    let real = "gpt-5-mini-2025-08-07";
    for size in [1, 9, 1 << 20] {
        let text = recording("responses/openai_text.sse");
        let expect = text.replace(real, "m");
        assert_eq!(text.matches(real).count(), 3);
        let fake = Fake::start(move |_| stream(&text, size));
        let gateway = Gateway::before("openai", &fake.url(), "");
        let answer = gateway.post("/v1/responses", STREAM);
        assert_eq!((answer.status, answer.body.as_str(), answer.whole), (200, expect.as_str(), true), "{size}");
        let seen = &fake.seen()[0];
        assert!(seen.head.starts_with("post /v1/responses "), "{}", seen.head);
        assert_eq!(seen.body, STREAM.replace("\"m\"", "\"served\""));
        let record = gateway.record();
        assert_eq!((record.endpoint.as_ref(), record.dialect.as_ref()), ("responses", "openai"));
        assert_eq!((record.outcome, record.usage_source), (Outcome::Ok, UsageSource::Reported));
        assert_eq!(
            (record.input_tokens, record.cache_read_tokens, record.output_tokens, record.stop_reason.as_deref()),
            (Some(36), Some(4), Some(9), Some("end_turn"))
        );
        assert!(record.first_token_ms.is_some());
    }
}

#[test]
fn a_whole_response_keeps_what_we_do_not_know() {
    let text = recording("responses/openai_whole.json");
    let expect = text.replace("gpt-5-mini-2025-08-07", "m");
    let fake = Fake::start(move |_| json(200, "", &text));
    let gateway = Gateway::before("openai", &fake.url(), "");
    let call = r#"{ "model":"m","previous_response_id":"resp_1","background":false,"conversation":null,"input":[{"type":"item_reference","id":"i"}],"new":1}"#;
    assert_eq!(gateway.post("/v1/responses", call).body, expect);
    assert_eq!(fake.seen()[0].body, call.replace("\"m\"", "\"served\""));
    let record = gateway.record();
    assert_eq!((record.output_tokens, record.stop_reason.as_deref()), (Some(87), Some("tool_use")));
}

#[test]
fn responses_before_backends_that_speak_otherwise() {
    let fake = Fake::start(|seen| {
        if seen.body.contains("\"stream\":true") { stream(&chat_stream("served"), 9) } else { json(200, "", CHAT) }
    });
    let gateway = Gateway::before("openai", &fake.url(), "dialects = [\"openai\"]");
    let whole = gateway.post("/v1/responses", CALL).json();
    assert_eq!(
        (&whole["output"][0]["content"][0]["text"], &whole["model"], &whole["status"], &whole["usage"]["input_tokens"]),
        (&"Hi there".into(), &"m".into(), &"completed".into(), &11.into())
    );
    let streamed = gateway.post("/v1/responses", STREAM).body;
    assert!(streamed.starts_with("event: response.created\n") && !streamed.contains("[DONE]"), "{streamed}");
    let end = last(&streamed);
    assert_eq!(
        (&end["type"], &end["response"]["output"][0]["content"][0]["text"]),
        (&"response.completed".into(), &"Hé thère!".into())
    );
    assert!(fake.seen().iter().all(|seen| seen.head.starts_with("post /v1/chat/completions ")));

    let fake = Fake::start(|_| stream(MESSAGES_STREAM, 5));
    let gateway = Gateway::before("anthropic", &fake.url(), "");
    let end = last(&gateway.post("/v1/responses", STREAM).body);
    assert_eq!((&end["response"]["usage"]["input_tokens"], &end["response"]["model"]), (&13.into(), &"m".into()));
    assert_eq!(gateway.record().output_tokens, Some(2));
}

#[test]
fn a_coding_agent_s_tools_before_a_chat_backend() {
    let said = |name: &str, arguments: &str| {
        serde_json::json!({"id":"c","model":"served","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,
            "tool_calls":[{"id":"call_1","type":"function","function":{"name":name,"arguments":arguments}}]}}],"usage":{"prompt_tokens":1,"completion_tokens":2}})
        .to_string()
    };
    for (name, arguments, expect) in [
        (
            "apply_patch",
            r#"{"input":"*** Begin\n+x"}"#,
            serde_json::json!({"type":"custom_tool_call","call_id":"call_1","name":"apply_patch","input":"*** Begin\n+x"}),
        ),
        (
            "mcp__docs__search",
            r#"{"q":1}"#,
            serde_json::json!({"type":"function_call","call_id":"call_1","namespace":"mcp__docs","name":"search","arguments":"{\"q\":1}"}),
        ),
    ] {
        let reply = said(name, arguments);
        let fake = Fake::start(move |_| json(200, "", &reply));
        let gateway = Gateway::before("openai", &fake.url(), "dialects = [\"chat\"]");
        let answer = gateway.post("/v1/responses", &recording("responses/calls/codex.json"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let item = last(&answer.body)["response"]["output"][0].clone();
        for (key, value) in expect.as_object().unwrap() {
            assert_eq!(&item[key], value, "{name} {key}: {item}");
        }
        let dropped = answer.header("x-tidegate-dropped").unwrap();
        assert!(dropped.contains("tools.web_search") && dropped.contains("redacted_thinking"), "{dropped}");
        let sent: serde_json::Value = serde_json::from_str(&fake.seen()[0].body).unwrap();
        let tools: Vec<_> =
            sent["tools"].as_array().unwrap().iter().map(|tool| tool["function"]["name"].as_str().unwrap()).collect();
        assert_eq!(tools, ["shell", "apply_patch", "mcp__docs__search", "mcp__docs__read"]);
        let roles: Vec<_> =
            sent["messages"].as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "developer", "user", "user", "assistant", "tool", "tool", "developer", "user"]);
        assert_eq!(sent["messages"][4]["tool_calls"].as_array().unwrap().len(), 2);
    }
}

/// As Codex asks models of which it knows that they take tools there.
#[test]
fn tools_among_the_items_are_offered_and_called() {
    let reply = serde_json::json!({"id":"c","model":"served","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,
        "tool_calls":[{"id":"call_1","type":"function","function":{"name":"functions__exec","arguments":r#"{"input":"ls()"}"#}}]}}],"usage":{"prompt_tokens":1,"completion_tokens":2}})
    .to_string();
    let fake = Fake::start(move |_| json(200, "", &reply));
    let gateway = Gateway::before("openai", &fake.url(), "dialects = [\"chat\"]");
    let space = r#"{"type":"namespace","name":"functions","tools":[{"type":"custom","name":"exec"},{"type":"function","name":"wait","parameters":{"type":"object"}}]}"#;
    let call = format!(
        r#"{{"model":"m","store":false,"input":[{{"type":"additional_tools","role":"developer","tools":[{space}]}},{{"role":"user","content":"go"}},
        {{"type":"custom_tool_call","call_id":"call_0","namespace":"functions","name":"exec","input":"pwd()"}},{{"type":"custom_tool_call_output","call_id":"call_0","output":"/"}},
        {{"type":"additional_tools","role":"developer","tools":[{space}]}}]}}"#
    );
    let answer = gateway.post("/v1/responses", &call);
    assert_eq!(answer.status, 200, "{answer:?}");
    let item = answer.json()["output"][0].clone();
    for (key, value) in [("type", "custom_tool_call"), ("namespace", "functions"), ("name", "exec"), ("input", "ls()")]
    {
        assert_eq!(item[key], value, "{item}");
    }
    let sent: serde_json::Value = serde_json::from_str(&fake.seen()[0].body).unwrap();
    let names: Vec<_> = sent["tools"].as_array().unwrap().iter().map(|tool| &tool["function"]["name"]).collect();
    assert_eq!(names, ["functions__exec", "functions__wait"], "each once");
    let roles: Vec<_> = sent["messages"].as_array().unwrap().iter().map(|message| &message["role"]).collect();
    assert_eq!(roles, ["user", "assistant", "tool"]);
}

/// As Codex hides tools of MCP servers from models of which it knows that they look for them.
#[test]
fn a_search_for_tools_is_called_and_what_it_found_is_offered() {
    let fake = Fake::start(|seen| {
        let found = seen.body.contains("mcp__docs__read");
        let (name, arguments) =
            if found { ("mcp__docs__read", r#"{"page":1}"#) } else { ("tool_search", r#"{"query":"docs"}"#) };
        let call = serde_json::json!({"id":"call_1","type":"function","function":{"name":name,"arguments":arguments}});
        let reply = serde_json::json!({"id":"c","model":"served","choices":[{"index":0,"finish_reason":"tool_calls",
            "message":{"role":"assistant","content":null,"tool_calls":[call]}}],"usage":{"prompt_tokens":1,"completion_tokens":2}});
        json(200, "", &reply.to_string())
    });
    let gateway = Gateway::before("openai", &fake.url(), "dialects = [\"chat\"]");
    let tools = r#"[{"type":"tool_search","execution":"client","description":"Finds tools.","parameters":{"type":"object","properties":{"query":{"type":"string"}}}}]"#;
    let ask = |more: &str| {
        let call = format!(
            r#"{{"model":"m","store":false,"tools":{tools},"input":[{{"role":"user","content":"go"}}{more}]}}"#
        );
        let answer = gateway.post("/v1/responses", &call);
        assert_eq!((answer.status, answer.header("x-tidegate-dropped")), (200, None), "{answer:?}");
        answer.json()["output"][0].clone()
    };
    let mut item = ask("");
    item["id"] = serde_json::Value::Null;
    assert_eq!(
        item,
        serde_json::json!({"id":null,"type":"tool_search_call","status":"completed","call_id":"call_1","execution":"client","arguments":{"query":"docs"}})
    );
    let item = ask(
        r#",{"type":"tool_search_call","call_id":"call_1","execution":"client","arguments":{"query":"docs"}},
        {"type":"tool_search_output","call_id":"call_1","status":"completed","execution":"client","tools":[{"type":"namespace","name":"mcp__docs","description":"Docs.",
        "tools":[{"type":"function","name":"read","strict":false,"defer_loading":true,"parameters":{"type":"object"}}]}]}"#,
    );
    for (key, value) in
        [("type", "function_call"), ("namespace", "mcp__docs"), ("name", "read"), ("arguments", r#"{"page":1}"#)]
    {
        assert_eq!(item[key], value, "{item}");
    }
    let sent: serde_json::Value = serde_json::from_str(&fake.seen()[1].body).unwrap();
    let names: Vec<_> = sent["tools"].as_array().unwrap().iter().map(|tool| &tool["function"]["name"]).collect();
    assert_eq!(names, ["tool_search", "mcp__docs__read"]);
    assert_eq!(sent["messages"][1]["tool_calls"][0]["function"]["name"], "tool_search");
    assert_eq!(sent["messages"][2]["content"], "These tools can be called now: `mcp__docs__read`.");
}

#[test]
fn other_clients_before_a_backend_of_responses_alone() {
    let fake = Fake::start(|seen| {
        if seen.body.contains("\"stream\":true") {
            stream(&recording("responses/openai_summary.sse"), 33)
        } else {
            json(200, "", &recording("responses/openai_whole.json"))
        }
    });
    let gateway = Gateway::before("openai", &fake.url(), "dialects = [\"responses\"]");
    let chat = gateway.post("/v1/chat/completions", ASK).body;
    assert!(
        chat.contains("\"content\":\"4\"") && chat.contains("**Add") && chat.ends_with("data: [DONE]\n\n"),
        "{chat}"
    );
    let messages = gateway.post("/v1/messages", ASK).body;
    assert!(messages.contains("thinking_delta") && messages.contains("event: message_stop"), "{messages}");
    let whole = gateway.post("/v1/messages", &ASK.replace("true", "false")).json();
    assert_eq!(
        (&whole["stop_reason"], &whole["content"][2]["input"]["input"]),
        (&"tool_use".into(), &"line 1\nline 2".into())
    );
    let text = gateway.post("/v1/completions", PROMPT_STREAM).body;
    assert!(text.contains("\"text\":\"4\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(
        fake.seen()
            .iter()
            .all(|seen| seen.head.starts_with("post /v1/responses ") && seen.body.contains("\"store\":false"))
    );
    let refused = gateway.post("/v1/chat/completions", &ASK.replace("\"stream\"", "\"stop\":[\"x\"],\"stream\""));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &"stop".into()));
}

#[test]
fn completions_alike_and_across() {
    let fake = Fake::start(|seen| match seen.head.starts_with("post /v1/completions ") {
        true => stream(&recording("completions/openai_text.sse"), 17),
        false if seen.body.contains("\"stream\":true") => stream(&chat_stream("served"), 9),
        false => json(200, "", CHAT),
    });
    let gateway = Gateway::before("vllm", &fake.url(), "");
    let usage = "data: {\"id\":\"cmpl-C3\",\"object\":\"text_completion\",\"created\":1763900000,\"model\":\"m\",\"choices\":[],";
    let streamed = gateway.post("/v1/completions", PROMPT_STREAM).body;
    assert!(streamed.ends_with("data: [DONE]\n\n") && !streamed.contains(usage), "usage was not asked for: {streamed}");
    assert_eq!(streamed.matches("\"model\":\"m\"").count(), 4);
    assert_eq!(gateway.record().output_tokens, Some(4));

    let gateway = Gateway::before("openai", &fake.url(), "");
    let whole = gateway.post("/v1/completions", &PROMPT.replace('}', ",\"logprobs\":2,\"max_tokens\":5}"));
    assert_eq!(whole.header("x-tidegate-dropped"), Some("logprobs"));
    let whole = whole.json();
    assert_eq!(
        (&whole["object"], &whole["choices"][0]["text"], &whole["model"], &whole["choices"][0]["finish_reason"]),
        (&"text_completion".into(), &"Hi there".into(), &"m".into(), &"stop".into())
    );
    let streamed = gateway.post("/v1/completions", PROMPT_STREAM).body;
    assert!(streamed.contains("\"text\":\"Hé\"") && streamed.ends_with("data: [DONE]\n\n"), "{streamed}");
    // A vLLM is also asked for its health.
    let seen = fake.seen().into_iter().find(|seen| seen.head.starts_with("post /v1/chat/completions ")).unwrap();
    let sent: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(sent["messages"], serde_json::json!([{"role":"user","content":"x"}]));
    let record = gateway.records().remove(0);
    assert_eq!((record.endpoint.as_ref(), record.dialect.as_ref()), ("completions", "openai"));
}

#[test]
fn a_stream_that_breaks_ends_in_the_client_s_own_error() {
    let part: String = chat_stream("served").split_inclusive("\n\n").take(3).collect();
    let error =
        "data: {\"error\":{\"message\":\"out of memory at http://10.0.0.1:8000\",\"type\":\"server_error\"}}\n\n";
    let alike: String = recording("responses/openai_text.sse").split_inclusive("\n\n").take(6).collect();
    let failed = "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":\"out of memory at 10.0.0.1\"}}}\n\n";
    type Script = Vec<Act>;
    let scripts: Vec<(Script, &str)> = vec![
        (vec![Act::Wait(Duration::from_millis(50)), Act::Reset], "broke off"),
        (vec![Act::Send(b"0\r\n\r\n".to_vec())], "broke off"),
        (vec![Act::Wait(Duration::from_secs(4)), Act::Close], "stopped sending"),
        (vec![Act::Chunk(error.into()), Act::Wait(Duration::from_millis(50)), Act::Close], "out of memory"),
        (vec![Act::Chunk(failed.into()), Act::Wait(Duration::from_millis(50)), Act::Close], "out of memory"),
    ];
    for (at, (script, says)) in scripts.into_iter().enumerate() {
        let (part, alike) = (part.clone(), alike.clone());
        let fake = Fake::start(move |seen| {
            let first = if seen.head.starts_with("post /v1/responses ") { &alike } else { &part };
            [vec![stream_head(), Act::Chunk(first.clone().into())], script.clone()].concat()
        });
        for dialects in ["", "dialects = [\"chat\"]\n"] {
            // The last script is one of this dialect's own.
            if at == 4 && !dialects.is_empty() {
                continue;
            }
            let timeouts = if says == "stopped sending" { IMPATIENT } else { "" };
            let gateway = Gateway::before("openai", &fake.url(), &format!("{dialects}{timeouts}"));
            for (path, call) in [("/v1/responses", STREAM), ("/v1/completions", PROMPT_STREAM)] {
                if at == 4 && path == "/v1/completions" {
                    continue;
                }
                let answer = gateway.post(path, call);
                let end = last(&answer.body);
                let fault = if path == "/v1/responses" { &end["response"]["error"] } else { &end["error"] };
                assert!(fault["message"].as_str().is_some_and(|text| text.contains(says)), "{path} {at}: {end}");
                if path == "/v1/responses" {
                    assert_eq!(end["type"], "response.failed", "{end}");
                    let first = answer.body.split("\n\n").next().unwrap();
                    assert_eq!(end["response"]["id"], last(first)["response"]["id"], "clients refuse another id");
                }
                assert!(
                    !answer.body.contains("[DONE]") && !answer.body.contains("response.completed"),
                    "{}",
                    answer.body
                );
                assert!(!answer.body.contains("10.0.0.1"), "no address reaches the client: {}", answer.body);
            }
            for record in gateway.booked(if at == 4 { 1 } else { 2 }) {
                assert_eq!((record.outcome, record.status), (Outcome::Cut, 200), "{at}");
                assert_eq!(record.usage_source, UsageSource::Estimated, "{at}");
            }
        }
    }
}

#[test]
fn what_is_not_kept_is_refused_by_name() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let gateway = Gateway::before("openai", &fake.url(), "dialects = [\"chat\"]");
    for (path, body, param) in [
        ("/v1/responses", r#"{"model":"m","input":"x","previous_response_id":"resp_1"}"#, "previous_response_id"),
        ("/v1/responses", r#"{"model":"m","input":"x","conversation":{"id":"c"}}"#, "conversation"),
        ("/v1/responses", r#"{"model":"m","input":"x","background":true}"#, "background"),
        ("/v1/responses", r#"{"model":"m","input":[]}"#, "input"),
        ("/v1/responses", r#"{"model":"m","input":[{"role":"user"}]}"#, "input[0].content"),
        ("/v1/completions", r#"{"model":"m","prompt":[1,2]}"#, "prompt"),
        ("/v1/completions", r#"{"model":"m","prompt":"x","suffix":"y"}"#, "suffix"),
        ("/v1/completions", r#"{"model":"m","prompt":"x","echo":true}"#, "echo"),
        ("/v1/completions", r#"{"model":"m","prompt":"x","best_of":3}"#, "best_of"),
        ("/v1/completions", r#"{"model":"m","prompt":"x","n":2}"#, "n"),
        ("/v1/completions", r#"{"model":"m"}"#, "prompt"),
    ] {
        let answer = gateway.post(path, body);
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &param.into()), "{body}: {}", answer.body);
    }
    assert!(fake.seen().is_empty());
    let answer = gateway.get("/v1/responses/resp_1", "");
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (404, &"invalid_request_error".into()));
    assert_eq!(gateway.post("/v1/responses", r#"{"model":"m","input":"x","store":true}"#).json()["store"], false);
}
