//! What plugins ask for outside of themselves: other models, HTTP, keys and values; each with its grant and without.

use crate::fake::{Act, CHAT, Fake, IMPATIENT, chat_stream, json, stream};
use crate::gateway::{Answer, Gateway, one_backend, post, until};
use crate::guest::{
    ASK, CALL, GET, Guest, ON_CALL, ON_END, ON_EVENTS, SEND, STREAM, ask, before, fake, get, importing, store, tell,
    wat,
};
use std::io::Write;
use std::time::{Duration, Instant};
use tidegate::canon::{Outcome, Record, UsageSource};

const CHAT_PATH: &str = "/v1/chat/completions";
const GRANTED: &str = "grants = { model = [\"*\"] }";

/// A plugin that asks this model and refuses the call with what came of it.
fn judge(model: &str) -> Guest {
    Guest::new(&importing(&wat(ON_CALL, &(ask(model, "is it?") + &tell())), ASK))
}

/// Records of questions, and the others.
fn apart(records: Vec<Record>) -> (Vec<Record>, Vec<Record>) {
    records.into_iter().partition(|record| &*record.endpoint == "plugin/ask")
}

fn message(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_plugin_asks_on_the_callers_account() {
    const SAID: &str = r#"{"id":"msg_b","type":"message","role":"assistant","model":"served","content":[{"type":"text","text":"Hi there"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":3}}"#;
    for (kind, said, path) in [("openai", CHAT, CHAT_PATH), ("anthropic", SAID, "/v1/messages")] {
        let guest = judge("m");
        let fake = Fake::start(move |_| json(200, "", said));
        let gateway = Gateway::start(&format!("{}{}", one_backend(kind, &fake.url(), ""), guest.section("p", GRANTED)));
        for (number, client) in [CHAT_PATH, "/v1/messages"].into_iter().enumerate() {
            let body = CALL.replace("\"m\"", "\"served\"");
            assert_eq!(message(&gateway.post(client, &body)), (450, "Hi there".into()), "{kind}");
            let seen = fake.seen();
            assert_eq!(seen.len(), number + 1, "the call itself was refused");
            assert!(seen[number].head.starts_with(&format!("post {path}")), "{}", seen[number].head);
            assert!(seen[number].body.contains("is it?") && !seen[number].body.contains("stream\":true"));
        }
        let (questions, calls) = apart(gateway.wait_for_records(4));
        assert_eq!((questions.len(), calls.len()), (2, 2));
        for question in &questions {
            let whose = (&*question.organization, &*question.project, &*question.key);
            assert_eq!(whose, ("acme", "web", "web-1"));
            assert_eq!((question.outcome, question.status, question.attempts), (Outcome::Ok, 200, 1));
            assert_eq!((question.input_tokens, question.output_tokens), (Some(11), Some(3)));
            assert_eq!(question.usage_source, UsageSource::Reported);
            assert_eq!((question.model_requested.as_str(), &*question.model, &*question.backend), ("m", "served", "b"));
            assert_eq!(question.tags, ["plugin:p"]);
            assert!(question.cost.is_some_and(|cost| cost > 0.0));
            assert_eq!(
                calls.iter().filter(|call| call.request_id == question.request_id).count(),
                1,
                "one id for both"
            );
        }
        assert!(calls.iter().all(|call| call.outcome == Outcome::Plugin && call.input_tokens.is_none()));
        let metrics = gateway.operator("/metrics").body;
        assert!(metrics.contains("endpoint=\"plugin/ask\",error_type=\"\",model=\"m\""), "{metrics}");
    }
}

/// A plugin that is attached to everything asks the very model it is asked about.
#[test]
fn no_plugin_is_called_for_a_question() {
    let guest = Guest::new(&importing(&wat(ON_CALL, &ask("m", "is it?")), ASK));
    let fake = fake();
    let gateway = before(&fake, &guest, GRANTED);
    for body in [CALL, STREAM] {
        let answer = gateway.post(CHAT_PATH, body);
        assert_eq!((answer.status, answer.header("x-tidegate-plugins")), (200, None), "{}", answer.body);
    }
    assert_eq!(fake.seen().len(), 4);
    let (questions, calls) = apart(gateway.wait_for_records(4));
    assert_eq!((questions.len(), calls.len()), (2, 2));
    assert!(calls.iter().all(|call| call.tags.is_empty() && call.outcome == Outcome::Ok), "{calls:#?}");
    let metrics = gateway.operator("/metrics").body;
    assert!(metrics.contains("tidegate_plugin_duration_seconds_count{hook=\"on_call\",plugin=\"p\"} 2"), "{metrics}");
}

#[test]
fn a_question_needs_the_grant_the_project_and_a_model() {
    let denied = "is not among grants.model of [plugins.p]";
    let project = "The project of the caller may not use the model `served`.";
    // Who asks for what with which grant; the case of the error, its words, and the record there is of the question.
    let cases = [
        ("served", "", "dfproj_test", 460, denied, None),
        ("served", "grants = { model = [\"m\", \"other-*\"] }", "dfproj_test", 460, denied, None),
        ("served", "grants = { model = [\"serv*\"] }", "dfproj_test", 450, "Hi there", Some((200, Outcome::Ok))),
        ("served", GRANTED, "dfproj_small", 460, project, Some((403, Outcome::Refused))),
        ("m", GRANTED, "dfproj_small", 450, "Hi there", Some((200, Outcome::Ok))),
        ("nothing", GRANTED, "dfproj_test", 461, "`nothing` does not exist", Some((404, Outcome::Refused))),
    ];
    for (model, settings, key, status, words, record) in cases {
        let (guest, fake) = (judge(model), fake());
        let gateway = before(&fake, &guest, settings);
        let head = format!("authorization: Bearer {key}\r\ncontent-type: application/json\r\n");
        let (got, said) = message(&gateway.raw(&post(CHAT_PATH, &head, CALL.as_bytes())));
        assert_eq!(got, status, "{model} {settings} {said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(fake.seen().len(), usize::from(status == 450));
        let (questions, calls) = apart(gateway.wait_for_records(1 + usize::from(record.is_some())));
        assert_eq!(calls.len(), 1);
        let found = questions.first().map(|question| (question.status, question.outcome));
        assert_eq!(found, record, "{model} {settings}");
    }
}

#[test]
fn what_a_backend_makes_of_a_question_is_told() {
    let long = CHAT.replace("Hi there", &"long ".repeat(1000));
    for (reply, status) in [
        (json(200, "", &long), 463),
        (json(429, "", r#"{"error":{"message":"later"}}"#), 464),
        (json(400, "", r#"{"error":{"message":"not so"}}"#), 461),
        (json(500, "", "{}"), 465),
        (json(200, "", "no reply"), 465),
    ] {
        let guest = judge("m");
        let fake = Fake::start(move |_| reply.clone());
        let gateway = before(&fake, &guest, "grants = { model = [\"*\"] }\nlimits = { output = \"4KiB\" }");
        let (got, said) = message(&gateway.post(CHAT_PATH, CALL));
        assert_eq!(got, status, "{said}");
        let (questions, _) = apart(gateway.wait_for_records(2));
        assert_eq!(questions.len(), 1);
    }
}

/// A whole reply that never ends.
fn endless() -> Vec<Act> {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    vec![Act::Send(head.to_vec()), Act::Forever(b" ".to_vec())]
}

fn idle(gateway: &Gateway) -> bool {
    let metrics = gateway.operator("/metrics").body;
    metrics.contains("tidegate_plugin_instances{plugin=\"p\"} 0")
        && !metrics.lines().any(|line| line.starts_with("tidegate_in_flight{") && !line.ends_with(" 0"))
}

#[test]
fn a_question_ends_with_the_wait_and_its_backend_is_let_go() {
    let (guest, fake) = (judge("m"), Fake::start(|_| endless()));
    let gateway = before(&fake, &guest, "grants = { model = [\"*\"] }\nlimits = { wait = \"2s\" }");
    let began = Instant::now();
    assert_eq!(gateway.post(CHAT_PATH, CALL).status, 462, "the plugin is told, and goes on");
    assert!((1500..15_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    until(|| !fake.left().is_empty(), "the backend is let go");
    let (questions, calls) = apart(gateway.wait_for_records(2));
    assert_eq!((questions[0].outcome, questions[0].status), (Outcome::ClientGone, 499));
    assert_eq!((calls[0].outcome, calls[0].status), (Outcome::Plugin, 462));
    until(|| idle(&gateway), "all is idle");
}

#[test]
fn a_question_ends_with_the_client() {
    let (guest, fake) = (judge("m"), Fake::start(|_| endless()));
    let gateway = before(&fake, &guest, "grants = { model = [\"*\"] }\nlimits = { wait = \"60s\" }");
    let mut client = gateway.open();
    client.write_all(&post(CHAT_PATH, "authorization: Bearer dfproj_test\r\n", CALL.as_bytes())).unwrap();
    until(|| fake.seen().len() == 1, "the question is out");
    // The worker has time for others meanwhile.
    assert_eq!(gateway.get("/v1/models", "").status, 200);
    drop(client);
    until(|| !fake.left().is_empty(), "the backend is let go");
    let (questions, calls) = apart(gateway.wait_for_records(3));
    assert_eq!(questions.len(), 1);
    let gone = calls.iter().filter(|call| call.outcome == Outcome::ClientGone).count();
    assert_eq!((questions[0].outcome, gone), (Outcome::ClientGone, 1));
    until(|| idle(&gateway), "all is idle");
}

#[test]
fn a_request_has_eight_questions() {
    // Asks until it is told an error.
    let body = format!(
        "{} (loop $more (call $ask (i32.const 3200) (i32.const 3600)) (br_if $more (i32.eqz (i32.load8_u (i32.const 3600))))) {}",
        ask("m", "is it?"),
        tell()
    );
    let guest = Guest::new(&importing(&wat(ON_CALL, &body), ASK));
    let fake = fake();
    let gateway = before(&fake, &guest, GRANTED);
    for round in 1..=2 {
        assert_eq!(gateway.post(CHAT_PATH, CALL).status, 464, "busy");
        assert_eq!(fake.seen().len(), 8 * round, "each request has its own");
    }
    assert_eq!(apart(gateway.wait_for_records(18)).0.len(), 16);
}

#[test]
fn a_question_may_be_asked_at_the_end() {
    let guest = Guest::new(&importing(&wat(ON_END, &ask("m", "how was it?")), ASK));
    let fake = fake();
    let gateway = before(&fake, &guest, GRANTED);
    assert_eq!(gateway.post(CHAT_PATH, CALL).status, 200);
    let (questions, calls) = apart(gateway.wait_for_records(2));
    assert_eq!((questions[0].outcome, calls[0].outcome), (Outcome::Ok, Outcome::Ok));
    assert_eq!(questions[0].request_id, calls[0].request_id);
}

/// The reply waits meanwhile, and is the same.
#[test]
fn a_question_may_be_asked_about_a_reply() {
    let guest = Guest::new(&importing(&wat(ON_EVENTS, &ask("m", "is it?")), ASK));
    let fake = fake();
    let gateway = before(&fake, &guest, GRANTED);
    let plain = Gateway::start(&one_backend("openai", &fake.url(), ""));
    for call in [CALL, STREAM] {
        let asked = fake.seen().len();
        let answer = gateway.post(CHAT_PATH, call);
        let questions = fake.seen().len() - asked - 1;
        assert!(questions > 0, "{call}");
        assert_eq!(answer.body, plain.post(CHAT_PATH, call).body, "{call}");
    }
    let (questions, calls) = apart(gateway.wait_for_records(fake.seen().len() - 2));
    assert!(questions.iter().chain(&calls).all(|record| record.outcome == Outcome::Ok), "{questions:?} {calls:?}");
    assert!(questions.iter().all(|question| calls.iter().any(|call| call.request_id == question.request_id)));
    assert_eq!(calls.len(), 2);
}

/// It has sent all of its stream by then.
#[test]
fn a_backend_is_not_late_while_a_plugin_is_asked() {
    let silent = Fake::start(|_| vec![Act::Wait(Duration::from_secs(10)), Act::Close]);
    let guest = Guest::new(&importing(&wat(ON_EVENTS, &get(&silent.url())), SEND));
    let fake = Fake::start(|_| stream(&chat_stream("m"), 1 << 20));
    let plugin = format!("grants = {{ http = [\"{}\"] }}\nlimits = {{ wait = \"2s\" }}", silent.url());
    let backend = one_backend("openai", &fake.url(), IMPATIENT);
    let gateway = Gateway::start(&format!("{backend}{}", guest.section("p", &plugin)));
    let answer = gateway.post(CHAT_PATH, STREAM);
    assert!(!silent.seen().is_empty() && answer.body.ends_with("data: [DONE]\n\n"), "{}", answer.body);
    assert_eq!(gateway.record().outcome, Outcome::Ok);
}

#[test]
fn what_is_not_granted_is_denied_and_no_failure() {
    let fake = fake();
    let key = format!("{}(call $get (i32.const 3000) (i32.const 1) (i32.const 3600)) {}", store(3000, "k"), tell());
    let url = format!("{}/s3cret", fake.url());
    for (import, body, words) in [
        (GET, key, "grants.kv = true of [plugins.p]"),
        (SEND, get(&url) + &tell(), "is not among grants.http of [plugins.p]"),
        (ASK, ask("m", "x") + &tell(), "is not among grants.model of [plugins.p]"),
    ] {
        let guest = Guest::new(&importing(&wat(ON_CALL, &body), import));
        let gateway = before(&fake, &guest, "grants = { http = [\"http://127.0.0.1:1\"] }");
        let (status, said) = message(&gateway.post(CHAT_PATH, CALL));
        assert_eq!(status, 460, "{said}");
        assert!(said.contains(words) && !said.contains("s3cret"), "{said}");
        assert!(!gateway.operator("/metrics").body.contains("tidegate_plugin_errors_total{"));
    }
    assert!(fake.seen().is_empty(), "nothing went out");
}

/// `tidegate plugin run` and `bench`: plugins without a gateway.
#[test]
fn without_a_gateway_nobody_can_be_asked() {
    use tidegate::canon::Caller;
    use tidegate::plugin::{About, Config, Host, Plugins};
    use tidegate::wire::{Dialect, request::Request};
    let guest = judge("m");
    let settings = serde_json::json!({ "p": { "path": &*guest.0, "grants": { "model": ["*"] } } });
    let config: Config = serde_json::from_value(settings).unwrap();
    let host = Host::new(tidegate::plugin::Folders::default(), &prometheus::Registry::new()).unwrap();
    let about = |_| About {
        id: "1".into(),
        caller: Caller { organization: "acme".into(), project: "web".into(), key: "k".into(), user: None },
        endpoint: "chat/completions".into(),
        family: "openai",
        model: "m".into(),
        stream: false,
        user: None,
        headers: http::HeaderMap::new(),
        route: Default::default(),
        notes: Default::default(),
        asker: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = runtime.block_on(async {
        let plugins = Plugins::load(&config, &host).await.unwrap_or_else(|errors| panic!("{errors:?}"));
        let mut guests = plugins.invite("acme", "web", "m", about).unwrap();
        guests.on_call(Request::read(Dialect::Chat, CALL.into()).unwrap()).await.err().unwrap()
    });
    assert_eq!(refused.status(), 460);
    assert!(refused.message.starts_with("no gateway is running here"), "{}", refused.message);
}

/// A granted host cannot hand a plugin on to another, nor to another path of its own.
#[test]
fn a_redirect_is_an_answer() {
    let elsewhere = fake();
    let target = elsewhere.url();
    let sink = Fake::start(move |_| json(307, &format!("location: {target}/there\r\n"), "over there"));
    // Traps unless the status is 307; tells the body, which is at 3616.
    let body = format!(
        "{} (if (i32.ne (i32.load16_u (i32.const 3604)) (i32.const 307)) (then unreachable)) \
         (i32.store (i32.const 3604) (i32.load (i32.const 3616))) (i32.store (i32.const 3608) (i32.load (i32.const 3620))) {}",
        get(&format!("{}/here", sink.url())),
        tell()
    );
    let guest = Guest::new(&importing(&wat(ON_CALL, &body), SEND));
    let backend = fake();
    let grant = format!("grants = {{ http = [\"{}\", \"{}\"] }}", sink.url(), elsewhere.url());
    let gateway = before(&backend, &guest, &grant);
    assert_eq!(message(&gateway.post(CHAT_PATH, CALL)), (450, "over there".into()));
    assert_eq!((sink.seen().len(), elsewhere.seen().len()), (1, 0));
}

#[test]
fn an_answer_that_breaks_off_is_not_too_large() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\nhalf".to_vec();
    let backend = fake();
    for (reply, status) in [(vec![Act::Send(half), Act::Close], 465), (json(200, "", &"x".repeat(5000)), 463)] {
        let sink = Fake::start(move |_| reply.clone());
        let guest = Guest::new(&importing(&wat(ON_CALL, &(get(&sink.url()) + &tell())), SEND));
        let settings = format!("grants = {{ http = [\"{}\"] }}\nlimits = {{ output = \"4KiB\" }}", sink.url());
        assert_eq!(message(&before(&backend, &guest, &settings).post(CHAT_PATH, CALL)).0, status);
    }
}
