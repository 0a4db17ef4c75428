//! Replies from socket to socket: what passes unchanged, what is written anew, how each end is told and booked.

use crate::fake::{Act, CHAT, Fake, IMPATIENT, MESSAGES_STREAM, chat_stream, json, stream, stream_head, usage_chunk};
use crate::gateway::{Answer, Gateway};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use tidegate::canon::{Outcome, UsageSource};

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

/// The stream as a client that asked for `model` must see it.
fn as_client(text: &str, usage: bool) -> String {
    let text = text.replace("\"model\":\"served\"", "\"model\":\"m\"");
    if usage { text } else { text.replace(&usage_chunk("m"), "") }
}

#[test]
fn an_untouched_stream_leaves_byte_for_byte_under_any_chunking() {
    for size in [1, 2, 7, 50, 1 << 20] {
        for (newline, usage) in [("\n", true), ("\n", false), ("\r\n", false)] {
            let text = chat_stream("served").replace('\n', newline);
            let expect = as_client(&chat_stream("served"), usage).replace('\n', newline);
            let fake = Fake::start(move |_| stream(&text, size));
            let gateway = Gateway::before("openai", &fake.url(), "");
            let ask = if usage {
                STREAM.replace("true}", "true,\"stream_options\":{\"include_usage\":true}}")
            } else {
                STREAM.into()
            };
            let answer = gateway.post("/v1/chat/completions", &ask);
            assert_eq!(
                (answer.status, answer.body.as_str(), answer.whole),
                (200, expect.as_str(), true),
                "pieces of {size}, {newline:?}"
            );
            assert_eq!(answer.header("content-type"), Some("text/event-stream"));
            let record = gateway.record();
            assert_eq!((record.outcome, record.usage_source), (Outcome::Ok, UsageSource::Reported));
            assert_eq!(
                (record.input_tokens, record.output_tokens, record.stop_reason.as_deref()),
                (Some(11), Some(3), Some("end_turn"))
            );
            assert!((record.cost.unwrap() - 41e-6).abs() < 1e-12 && record.first_token_ms.is_some(), "{record:?}");
            let asked: serde_json::Value = serde_json::from_str(&fake.seen()[0].body).unwrap();
            assert_eq!((&asked["model"], &asked["stream_options"]["include_usage"]), (&"served".into(), &true.into()));
        }
    }
}

#[test]
fn a_whole_reply_keeps_what_we_do_not_know() {
    let fake = Fake::start(|_| json(200, "x-foreign: 1\r\n", CHAT));
    let gateway = Gateway::before("openai", &fake.url(), "");
    let call = r#"{ "model":"m", "messages":[{"role":"user","content":"x"}], "vendor":{"big":12345678901234567890123}, "api_base":"http://evil" }"#;
    let answer = gateway.post("/v1/chat/completions", call);
    assert_eq!(answer.body, CHAT.replace("served", "m"));
    assert_eq!((answer.header("x-foreign"), answer.header("x-tidegate-dropped")), (None, Some("api_base")));
    assert_eq!(
        (answer.header("x-tidegate-backend"), answer.header("x-tidegate-model"), answer.header("x-tidegate-attempts")),
        (Some("b"), Some("served"), Some("1"))
    );
    let seen = &fake.seen()[0];
    assert_eq!(
        seen.body,
        r#"{ "model":"served", "messages":[{"role":"user","content":"x"}], "vendor":{"big":12345678901234567890123}}"#
    );
    assert!(seen.head.contains("authorization: bearer backend-key") && !seen.head.contains("dfproj"), "{}", seen.head);
    assert_eq!(gateway.post("/v1/chat/completions", &CALL.replace("\"m\"", "\"served\"")).body, CHAT);
    assert_eq!(gateway.records().len(), 2);
}

#[test]
fn across_dialects_both_ways_streamed_and_whole() {
    let fake = Fake::start(|seen| {
        if seen.body.contains("\"stream\":true") { stream(&chat_stream("served"), 9) } else { json(200, "", CHAT) }
    });
    let gateway = Gateway::before("openai", &fake.url(), "");
    let whole = gateway.post("/v1/messages", CALL).json();
    assert_eq!(
        (&whole["content"][0]["text"], &whole["model"], &whole["stop_reason"]),
        (&"Hi there".into(), &"m".into(), &"end_turn".into())
    );
    assert_eq!(
        (&whole["usage"]["input_tokens"], &whole["usage"]["cache_creation_inpuit_tokens"]),
        (&11.into(), &0.into())
    );
    let streamed = gateway.post("/v1/messages", STREAM).body;
    assert_eq!(streamed.matches("event: message_start").count(), 1);
    assert!(
        streamed.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n") && streamed.contains("Hé"),
        "{streamed}"
    );

    let fake = Fake::start(|_| stream(MESSAGES_STREAM, 5));
    let gateway = Gateway::before("anthropic", &fake.url(), "");
    let streamed = gateway.post("/v1/chat/completions", STREAM).body;
    assert!(streamed.ends_with("data: [DONE]\n\n") && !streamed.contains("\"usage\":{"), "{streamed}");
    assert!(streamed.contains("\"model\":\"m\"") && !streamed.contains("served"));
    let record = gateway.record();
    assert_eq!((record.input_tokens, record.cache_read_tokens, record.output_tokens), (Some(13), Some(4), Some(2)));
    let head = &fake.seen()[0].head;
    assert!(
        head.starts_with("post /v1/messages")
            && head.contains("x-api-key: backend-key")
            && head.contains("anthropic-version: 2023-06-01"),
        "{head}"
    );
}

#[test]
fn a_client_and_a_backend_that_disagree_about_streaming() {
    // The backend answers whole where a stream was asked for, and streams where none was.
    let fake = Fake::start(|seen| {
        if seen.body.contains("\"stream\":true") { json(200, "", CHAT) } else { stream(&chat_stream("served"), 64) }
    });
    let gateway = Gateway::before("openai", &fake.url(), "");
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let streamed = gateway.post(path, STREAM);
        assert_eq!(streamed.header("content-type"), Some("text/event-stream"), "{path}");
        assert!(
            streamed.body.contains("Hi there")
                && streamed.body.starts_with(if path.ends_with("messages") { "event: " } else { "data: " })
        );
        let whole = gateway.post(path, CALL);
        assert_eq!(whole.header("content-type"), Some("application/json"), "{path}");
        assert!(whole.body.contains("Hé thère!"), "{}", whole.body);
    }
    assert!(gateway.booked(4).iter().all(|record| record.outcome == Outcome::Ok && record.output_tokens == Some(3)));
}

/// How a stream that fails must end, per path.
fn assert_failed(path: &str, answer: &Answer, says: &str) {
    assert_eq!(answer.status, 200);
    let last = answer.body.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.contains("error") && last.contains(says), "{path}: {last}");
    assert!(!answer.body.contains("[DONE]") && !answer.body.contains("message_stop"), "{path}: no clean end");
    assert!(path != "/v1/messages" || last.starts_with("event: error\n"), "{last}");
}

#[test]
fn a_stream_that_breaks_ends_in_the_client_s_own_error() {
    let part: String = chat_stream("served").split_inclusive("\n\n").take(3).collect();
    let error =
        "data: {\"error\":{\"message\":\"out of memory at http://10.0.0.1:8000\",\"type\":\"server_error\"}}\n\n";
    type Script = Vec<Act>;
    let scripts: Vec<(&str, Script, &str)> = vec![
        ("reset", vec![Act::Wait(Duration::from_millis(50)), Act::Reset], "broke off"),
        ("closed", vec![Act::Close], "broke off"),
        ("a clean end without a finish", vec![Act::Send(b"0\r\n\r\n".to_vec())], "broke off"),
        ("silence", vec![Act::Wait(Duration::from_secs(4)), Act::Close], "stopped sending"),
        (
            "the backend's own error",
            vec![Act::Chunk(error.into()), Act::Wait(Duration::from_millis(50)), Act::Close],
            "out of memory",
        ),
    ];
    for (name, script, says) in scripts {
        let part = part.clone();
        let fake =
            Fake::start(move |_| [vec![stream_head(), Act::Chunk(part.clone().into())], script.clone()].concat());
        let gateway = Gateway::before("openai", &fake.url(), if name == "silence" { IMPATIENT } else { "" });
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let answer = gateway.post(path, STREAM);
            assert_failed(path, &answer, says);
            assert!(!answer.body.contains("10.0.0.1"), "{name}: no address reaches the client");
        }
        for record in gateway.booked(2) {
            assert_eq!(
                (record.outcome, record.status, record.usage_source),
                (Outcome::Cut, 200, UsageSource::Estimated),
                "{name}"
            );
            assert_eq!(record.output_tokens, Some(2), "{name}: what passed is charged");
        }
        let metrics = gateway.operator("/metrics").body;
        assert!(metrics.contains("error_type=\"backend_"), "{name}");
    }
}

#[test]
fn counts_nobody_reports_are_estimated_and_marked() {
    let silent = chat_stream("served").replace(&usage_chunk("served"), "");
    let fake = Fake::start(move |seen| {
        if seen.body.contains("\"stream\":true") {
            stream(&silent, 1000)
        } else {
            json(200, "", &CHAT.replace("\"usage\"", "\"no_usage\""))
        }
    });
    let gateway = Gateway::before("openai", &fake.url(), "");
    gateway.post("/v1/chat/completions", STREAM);
    gateway.post("/v1/chat/completions", CALL);
    let records = gateway.records();
    assert!(
        records.iter().all(|record| record.outcome == Outcome::Ok && record.usage_source == UsageSource::Estimated),
        "{records:#?}"
    );
    // Three chunks of text; eight bytes of text.
    assert_eq!(records.iter().map(|record| record.output_tokens).collect::<Vec<_>>(), [Some(3), Some(2)]);
}

#[test]
fn what_backends_refuse_with() {
    let html = "<html><body>10.0.0.1 nginx</body></html>";
    let error = r#"{"error":{"message":"bad thing with backend-key at 10.0.0.1:80","type":"x","param":"backend-key","code":"too_long"}}"#;
    let cases: &[(u16, &str, &str, u16, u16, &str)] = &[
        // status, headers, body → chat status, messages status, words
        (400, "", error, 400, 400, "bad thing"),
        (422, "", error, 422, 422, "bad thing"),
        (401, "", error, 502, 502, "own credentials"),
        (403, "", error, 502, 502, "own credentials"),
        (404, "", error, 502, 502, "does not know"),
        (429, "retry-after: 7\r\n", error, 429, 429, "bad thing"),
        (500, "", html, 502, 502, "status 500"),
        (500, "", error, 502, 502, "status 500: bad thing"),
        (503, "retry-after: 7\r\n", html, 503, 503, "not ready"),
        (503, "", error, 503, 503, "bad thing"),
        (529, "", error, 503, 529, "overloaded"),
        (302, "location: http://10.0.0.1/\r\n", "", 502, 502, "status 302"),
    ];
    for &(status, headers, body, chat, messages, words) in cases {
        let fake = Fake::start(move |_| json(status, headers, body));
        let gateway = Gateway::before("openai", &fake.url(), "");
        for (path, expect) in [("/v1/chat/completions", chat), ("/v1/messages", messages)] {
            let answer = gateway.post(path, CALL);
            assert_eq!(answer.status, expect, "{status} {path}: {answer:?}");
            assert!(answer.body.contains(words), "{status} {path}: {}", answer.body);
            for secret in ["10.0.0.1", "backend-key", "html"] {
                assert!(!answer.body.contains(secret), "{status} {path}: {}", answer.body);
            }
            // Programs go by it.
            let invalid = [400, 422].contains(&status);
            assert_eq!(answer.body.contains("too_long"), invalid, "{status} {path}: {}", answer.body);
            assert_eq!(answer.header("retry-after"), headers.contains("retry-after").then_some("7"), "{status}");
        }
        assert!(
            gateway
                .booked(2)
                .iter()
                .all(|record| record.outcome == Outcome::BackendError && record.input_tokens.is_none())
        );
    }
}

#[test]
fn a_backend_that_repeats_our_key_inside_a_good_reply_is_masked() {
    let said = r#"{"type":"error","error":{"type":"server_error","message":"key backend-key invalid"}}"#;
    for kind in ["openai", "anthropic"] {
        let first: String = match kind {
            "openai" => chat_stream("served").split_inclusive("\n\n").take(3).collect(),
            _ => MESSAGES_STREAM.split_inclusive("\n\n").take(4).collect(),
        };
        let streamed = format!("{first}event: error\ndata: {said}\n\n");
        // A stream where one was asked for and where none was, and a whole body.
        let scripts = [(true, STREAM), (true, CALL), (false, CALL), (false, STREAM)];
        for (as_stream, call) in scripts {
            let streamed = streamed.clone();
            let fake = Fake::start(move |_| if as_stream { stream(&streamed, 50) } else { json(200, "", said) });
            let gateway = Gateway::before(kind, &fake.url(), "");
            for path in ["/v1/chat/completions", "/v1/messages"] {
                let answer = gateway.post(path, call);
                let name = format!("{kind} {path} {as_stream} {call}: {answer:?}");
                assert!(answer.body.contains("key [hidden] invalid") && !answer.body.contains("backend-key"), "{name}");
                assert_eq!(answer.status, if as_stream && call == STREAM { 200 } else { 502 }, "{name}");
            }
        }
    }
}

#[test]
fn another_target_is_tried_before_the_first_byte_and_never_after() {
    let busy = Fake::start(|_| json(429, "retry-after: 3\r\n", "{}"));
    let good = Fake::start(|_| json(200, "", CHAT));
    let sections = format!(
        "[backends.b]\nkind = \"openai\"\nurls = [\"http://127.0.0.1:9\", \"{}\"]\n[backends.g]\nkind = \"openai\"\nurl = \"{}\"\n\
         [models.m]\nretries = 2\ntargets = [{{ backend = \"b\" }}, {{ backend = \"g\", priority = 1 }}]\n[models.n]\ntargets = [{{ backend = \"b\" }}]\n",
        busy.url(),
        good.url()
    );
    let gateway = Gateway::start(&sections);
    let answer = gateway.post("/v1/chat/completions", CALL);
    assert_eq!(
        (answer.status, answer.header("x-tidegate-attempts"), answer.header("x-tidegate-backend")),
        (200, Some("3"), Some("g"))
    );
    let answer = gateway.post("/v1/chat/completions", &CALL.replace("\"m\"", "\"n\""));
    assert!(matches!(answer.status, 429 | 502) && answer.header("x-should-retry") == Some("false"), "{answer:?}");
    let records = gateway.records();
    assert_eq!(records.iter().map(|record| record.attempts).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn a_connection_that_dies_idle_costs_nothing() {
    // Each connection answers once and is then closed at once, or dies on the next request before any byte.
    for close_at_once in [true, false] {
        let fake = Fake::start(move |seen| {
            let first = !seen.body.contains("again");
            match (first, close_at_once) {
                (true, true) => [json(200, "", CHAT), vec![Act::Close]].concat(),
                (true, false) => json(200, "", CHAT),
                (false, _) if seen.connection == 0 => vec![Act::Reset],
                (false, _) => json(200, "", CHAT),
            }
        });
        let gateway = Gateway::start_with("", &crate::gateway::one_backend("openai", &fake.url(), ""));
        let mut stream = gateway.open();
        for body in [CALL.to_owned(), CALL.replace("\"x\"", "\"again\"")] {
            let headers = format!("authorization: Bearer {}\r\n", crate::gateway::KEY);
            stream.write_all(&crate::gateway::post("/v1/chat/completions", &headers, body.as_bytes())).unwrap();
            let answer = crate::gateway::read_answer(&mut stream);
            assert_eq!((answer.status, answer.header("x-tidegate-attempts")), (200, Some("1")), "{close_at_once}");
            std::thread::sleep(Duration::from_millis(30));
        }
        assert_eq!(gateway.records().len(), 2);
    }
}

#[test]
fn a_backend_that_never_answers_a_stream_is_given_up() {
    let fake = Fake::start(|_| vec![Act::Wait(Duration::from_secs(60)), Act::Close]);
    let gateway = Gateway::before("openai", &fake.url(), "timeouts = { first_token = \"200ms\" }");
    let began = Instant::now();
    assert_eq!(gateway.post("/v1/chat/completions", STREAM).status, 504);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(gateway.record().outcome, Outcome::BackendError);
}

#[test]
fn a_client_that_leaves_frees_the_backend_and_is_charged_for_what_passed() {
    let chunk = chat_stream("served").split_inclusive("\n\n").nth(1).unwrap().to_owned();
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let chunk = chunk.clone();
        let fake = Fake::start(move |_| vec![stream_head(), Act::Forever(chunk.clone().into())]);
        let gateway = Gateway::before("openai", &fake.url(), "");
        let mut client = gateway.open();
        client
            .write_all(&crate::gateway::post(
                path,
                &format!("x-api-key: {}\r\n", crate::gateway::KEY),
                STREAM.as_bytes(),
            ))
            .unwrap();
        let mut read = [0; 4096];
        for _ in 0..5 {
            assert!(client.read(&mut read).unwrap() > 0);
        }
        let gone = Instant::now();
        drop(client);
        let record = gateway.wait_for_records(1).remove(0);
        assert_eq!((record.outcome, record.usage_source), (Outcome::ClientGone, UsageSource::Estimated), "{path}");
        assert!(record.output_tokens.unwrap() > 0 && record.input_tokens.unwrap() > 0);
        while fake.left().is_empty() {
            assert!(gone.elapsed() < Duration::from_secs(15), "{path}: the backend was never told");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(gateway.operator("/metrics").body.contains("tidegate_client_disconnects_total{endpoint="));
    }
}

#[test]
fn a_client_that_leaves_while_waiting_is_charged_its_prompt() {
    let fake = Fake::start(|_| vec![Act::Wait(Duration::from_secs(8)), Act::Close]);
    let gateway = Gateway::before("openai", &fake.url(), "");
    let mut client = gateway.open();
    client
        .write_all(&crate::gateway::post(
            "/v1/chat/completions",
            &format!("x-api-key: {}\r\n", crate::gateway::KEY),
            CALL.as_bytes(),
        ))
        .unwrap();
    while fake.seen().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(client);
    let record = gateway.wait_for_records(1).remove(0);
    assert_eq!((record.outcome, record.status, record.output_tokens), (Outcome::ClientGone, 499, Some(0)));
    assert!(record.input_tokens.unwrap() > 0);
}

#[test]
fn a_client_that_leaves_before_a_backend_has_its_request_is_charged_nothing() {
    // Takes connections and never says a word of TLS: it is being connected to for ever.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("https://{}", silent.local_addr().unwrap());
    let mut held = Vec::new();
    let failing = Fake::start(|_| json(500, "", "{}"));
    // At once, and after another target had it and refused it.
    for (first, attempts) in [(None, 1), (Some(failing.url()), 2)] {
        let first = first.unwrap_or(dead.clone());
        let gateway = Gateway::start(&format!(
            "[backends.b]\nkind = \"openai\"\nurl = \"{first}\"\ntimeouts = {{ connect = \"20s\" }}\n\
             [backends.c]\nkind = \"openai\"\nurl = \"{dead}\"\ntimeouts = {{ connect = \"20s\" }}\n\
             [models.m]\ntargets = [{{ backend = \"b\" }}, {{ backend = \"c\", priority = 1 }}]\n\
             price = {{ currency = \"USD\", input = 1, output = 10 }}\n"
        ));
        for call in [CALL, STREAM] {
            let mut client = gateway.open();
            let headers = format!("x-api-key: {}\r\n", crate::gateway::KEY);
            client.write_all(&crate::gateway::post("/v1/chat/completions", &headers, call.as_bytes())).unwrap();
            // It is there when the kernel has it, before anybody answers; kept, or the gateway would hear of its end.
            held.push(silent.accept().unwrap());
            drop(client);
        }
        for record in gateway.wait_for_records(2) {
            assert_eq!((record.outcome, record.status, record.attempts), (Outcome::ClientGone, 499, attempts));
            let charged = (record.usage_source, record.input_tokens, record.cost);
            assert_eq!(charged, (UsageSource::Missing, None, None));
        }
    }
}

#[test]
fn continuous_usage_makes_a_cut_stream_exact_and_stays_hidden() {
    let chunk = |count: u64| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"ab\"}},\"finish_reason\":null}}],\"usage\":{{\"prompt_tokens\":11,\"completion_tokens\":{count},\"total_tokens\":12}}}}\n\n"
        )
    };
    let text = chunk(2) + &chunk(5);
    let fake = Fake::start(move |_| vec![stream_head(), Act::Chunk(text.clone().into()), Act::Reset]);
    let gateway = Gateway::before("vllm", &fake.url(), "");
    let answer = gateway.post("/v1/chat/completions", STREAM);
    assert!(
        !answer.body.contains("completion_tokens") && answer.body.matches("\"ab\"").count() == 2,
        "{}",
        answer.body
    );
    assert!(fake.seen().iter().any(|seen| seen.body.contains("continuous_usage_stats")));
    let record = gateway.record();
    assert_eq!(
        (record.outcome, record.usage_source, record.output_tokens),
        (Outcome::Cut, UsageSource::Reported, Some(5))
    );
}

/// Running counts are asked for beyond what the client did; that must not take from it what it did ask for.
#[test]
fn a_client_that_asks_for_usage_gets_it_once_before_continuous_usage() {
    let chunk = |choices: &str, count: u64| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{choices}],\"usage\":{{\"prompt_tokens\":11,\"completion_tokens\":{count},\"total_tokens\":{}}}}}\n\n",
            11 + count
        )
    };
    let said = r#"{"index":0,"delta":{"content":"ab"},"finish_reason":null}"#;
    let text = chunk(said, 1) + &chunk(&said.replace("null", "\"stop\""), 2) + &chunk("", 2) + "data: [DONE]\n\n";
    let fake = Fake::start(move |_| vec![stream_head(), Act::Chunk(text.clone().into())]);
    let gateway = Gateway::before("vllm", &fake.url(), "");
    for (options, counts) in [
        (r#""stream_options":{"include_usage":true}"#, 1),
        (r#""stream_options":{"include_usage":true,"continuous_usage_stats":true}"#, 3),
        (r#""stream_options":{"include_usage":false}"#, 0),
    ] {
        let call = STREAM.replacen('{', &format!("{{{options},"), 1);
        let body = gateway.post("/v1/chat/completions", &call).body;
        let seen = (body.matches("completion_tokens").count(), body.matches("\"choices\":[]").count());
        assert_eq!(seen, (counts, usize::from(counts > 0)), "{options}: {body}");
        assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    }
    assert!(gateway.wait_for_records(3).iter().all(|record| record.output_tokens == Some(2)));
}

/// llama.cpp counts the first choice of a whole reply alone (recorded); OpenAI and vLLM count all of them.
#[test]
fn the_choices_that_a_whole_reply_does_not_count_are_charged_by_rule_of_thumb() {
    let recorded = include_str!("golden/chat/recorded_llamacpp_choices_two_whole.json");
    let (counted, _) = recorded.split_once(",\"timings\"").unwrap();
    let uncounted = recorded.replace("\"usage\"", "\"no_usage\"").replace("\"timings\"", "\"no_timings\"");
    for (name, body, expect) in [
        ("llama.cpp", recorded.to_owned(), (UsageSource::Estimated, Some(33), Some(4 + 3))),
        ("one that counts all", format!("{counted}}}"), (UsageSource::Reported, Some(33), Some(4))),
        ("one that counts none", uncounted, (UsageSource::Estimated, Some(8), Some(3 + 3))),
    ] {
        let fake = Fake::start(move |_| json(200, "", &body));
        let gateway = Gateway::before("llamacpp", &fake.url(), "");
        let answer = gateway.post("/v1/chat/completions", &CALL.replace("\"model\"", "\"n\":2,\"model\""));
        assert_eq!((answer.status, answer.body.matches("Hello! I'm").count()), (200, 2), "{name}");
        let record = gateway.record();
        assert_eq!((record.usage_source, record.input_tokens, record.output_tokens), expect, "{name}");
    }
}

#[test]
fn a_fallback_is_tried_after_the_model_s_own_targets() {
    let good = Fake::start(|_| json(200, "", CHAT));
    let dead = "[backends.d]\nkind = \"openai\"\nurls = [\"http://127.0.0.1:9\", \"http://127.0.0.1:9\", \"http://127.0.0.1:9\"]\n";
    let sections = format!(
        "{dead}[backends.g]\nkind = \"openai\"\nurl = \"{}\"\n[models.m]\ntargets = [{{ backend = \"d\" }}]\nfallbacks = [\"n\"]\n\
         [models.n]\ntargets = [{{ backend = \"g\" }}]\n",
        good.url()
    );
    let gateway = Gateway::start(&sections);
    let answer = gateway.post("/v1/chat/completions", CALL);
    assert_eq!(
        (answer.status, answer.header("x-tidegate-attempts"), answer.header("x-tidegate-model")),
        (200, Some("3"), Some("n"))
    );
    assert_eq!(answer.json()["model"], "m", "the name that was asked for");
}

#[test]
fn messages_to_messages_fill_in_what_deepfellow_lets_out_and_hide_our_own_marks() {
    let fake = Fake::start(|_| stream(MESSAGES_STREAM, 100));
    let gateway = Gateway::before("anthropic", &fake.url(), "");
    gateway.post("/v1/messages", STREAM);
    let asked: serde_json::Value = serde_json::from_str(&fake.seen()[0].body).unwrap();
    assert_eq!(asked["max_tokens"], 8000);
    let marked = format!(
        r#"{{"model":"m","stream":true,"messages":[{{"role":"user","content":"x"}},{{"role":"assistant","content":[{{"type":"thinking","thinking":"t","signature":"{}"}},{{"type":"text","text":"y"}}]}},{{"role":"user","content":"z"}}]}}"#,
        tidegate::wire::anthropic::MARKER
    );
    gateway.post("/v1/messages", &marked);
    let asked = &fake.seen()[1].body;
    assert!(!asked.contains(tidegate::wire::anthropic::MARKER) && asked.contains("\"y\""), "{asked}");
}

#[test]
fn a_stream_without_its_proper_end_is_an_error() {
    let no_finish: String = chat_stream("served").split_inclusive("\n\n").take(4).chain(["data: [DONE]\n\n"]).collect();
    let no_done = chat_stream("served").replace("data: [DONE]\n\n", "");
    let no_stop = MESSAGES_STREAM.replace("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", "");
    for (kind, path, text, outcome) in [
        ("openai", "/v1/chat/completions", no_finish, Outcome::Cut),
        ("openai", "/v1/chat/completions", no_done, Outcome::Ok),
        ("anthropic", "/v1/messages", no_stop, Outcome::Cut),
    ] {
        let fake = Fake::start(move |_| stream(&text, 64));
        let gateway = Gateway::before(kind, &fake.url(), "");
        let answer = gateway.post(path, STREAM);
        assert_eq!(gateway.record().outcome, outcome, "{kind}: {}", answer.body);
        assert_eq!(answer.body.contains("\"error\""), outcome == Outcome::Cut, "{}", answer.body);
    }
}

/// `line_limit` holds on every way a stream is read: passed on, translated, and gathered for a client that wants no stream.
#[test]
fn a_line_beyond_the_limit_is_the_backend_s_fault() {
    let fake = Fake::start(|_| stream(&chat_stream("served").replace("Hé", &"Hé".repeat(500)), 1 << 20));
    let sections = crate::gateway::one_backend("openai", &fake.url(), "");
    for (limit, fits) in [("1KiB", false), ("2KiB", true)] {
        let gateway = Gateway::start_with(&format!("line_limit = \"{limit}\""), &sections);
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let answer = gateway.post(path, STREAM);
            assert_eq!(answer.status, 200);
            assert_eq!(answer.body.contains("a line of more than 1024 bytes"), !fits, "{path}: {}", answer.body);
            let whole = gateway.post(path, CALL);
            assert_eq!(whole.status, if fits { 200 } else { 502 }, "{path}: {}", whole.body);
        }
    }
}

/// What stands before it on its line would be all that a client reads of the error.
#[test]
fn a_frame_that_breaks_off_is_not_the_beginning_of_the_error() {
    for (kind, path, whole) in [
        ("openai", "/v1/chat/completions", chat_stream("m")),
        ("anthropic", "/v1/messages", MESSAGES_STREAM.replace("\"served\"", "\"m\"")),
    ] {
        let frames: Vec<_> = whole.split_inclusive("\n\n").collect();
        let (before, broken) = (frames[..2].concat(), frames[2]);
        // In the midst of its data, and where only its blank line is missing.
        for piece in [&broken[..broken.len() - 20], broken.trim_end()] {
            let text = format!("{before}{piece}");
            let fake = Fake::start(move |_| stream(&text, 64));
            let gateway = Gateway::before(kind, &fake.url(), "");
            let answer = gateway.post(path, STREAM);
            assert_eq!(gateway.record().outcome, Outcome::Cut, "{kind}: {}", answer.body);
            let error = answer.body.strip_prefix(&before).expect("what was whole has passed");
            assert!(error.starts_with("data: {\"error\"") || error.starts_with("event: error\ndata: {"), "{error}");
        }
    }
}

/// Complete without its last word: the client gets that, and nothing of a frame that broke off behind it.
#[test]
fn a_stream_that_breaks_off_behind_its_end_has_one() {
    let asking = STREAM.replacen('{', "{\"stream_options\":{\"include_usage\":true},", 1);
    let whole = chat_stream("m");
    let frames: Vec<_> = whole.split_inclusive("\n\n").collect();
    let (finished, usage) = (frames[..5].concat(), frames[5]);
    for (tail, left) in
        [("", ""), (&usage[..usage.len() - 20], ""), ("d", ""), (usage.trim_end(), usage), (usage, usage)]
    {
        let text = format!("{finished}{tail}");
        let fake = Fake::start(move |_| stream(&text, 64));
        let gateway = Gateway::before("openai", &fake.url(), "");
        let answer = gateway.post("/v1/chat/completions", &asking);
        assert_eq!(answer.body, format!("{finished}{left}data: [DONE]\n\n"), "`{tail}`");
        assert_eq!(gateway.record().outcome, Outcome::Ok);
    }
}
