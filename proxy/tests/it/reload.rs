//! A configuration exchanged while requests run: nobody notices who should not, and a bad one changes nothing.

use crate::fake::{Act, CHAT, Fake, Seen, chat_stream, json, slowly};
use crate::gateway::{Answer, Gateway, KEY, one_backend, post, read_answer, until};
use crate::guest::{DESCRIBE, Guest, ON_CALL, store, wat};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tidegate::canon::Outcome;
use tidegate::gate::hash_of;

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

/// A model that is there to be seen.
fn marker(name: &str) -> String {
    format!("[models.{name}]\ntargets = [{{ backend = \"b\" }}]\n")
}

/// Answers at once, or over a fifth of a second where a stream is asked for.
fn answer(seen: &Seen) -> Vec<Act> {
    if seen.head.starts_with("get ") {
        return json(200, "", "{}");
    }
    if !seen.body.contains("\"stream\":true") {
        return json(200, "", CHAT);
    }
    slowly(&chat_stream("served"), Duration::from_millis(40))
}

fn call(key: &str, body: &str) -> Vec<u8> {
    post("/v1/chat/completions", &format!("authorization: Bearer {key}\r\n"), body.as_bytes())
}

#[test]
fn under_load_no_request_fails_and_each_has_one_record() {
    let (one, two) = (Fake::start(answer), Fake::start(answer));
    let (passing, other) = (Guest::new(&wat(ON_CALL, "")), Guest::new(&wat(ON_CALL, "nop")));
    let backend = |fake: &Fake| one_backend("vllm", &fake.url(), "");
    let gateway = Arc::new(Gateway::start(&(backend(&one) + &marker("g0"))));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = [(KEY, CALL), (KEY, STREAM), ("dfproj_small", CALL), ("dfproj_small", STREAM)]
        .into_iter()
        .map(|(key, body)| {
            let (gateway, stop) = (gateway.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut served = 0;
                // One connection for all, so that it outlives many configurations.
                let mut connection = gateway.open();
                while !stop.load(Ordering::Relaxed) {
                    connection.write_all(&call(key, body)).unwrap();
                    let answer = read_answer(&mut connection);
                    let end = if body == STREAM { "data: [DONE]\n\n" } else { "}" };
                    assert!(answer.status == 200 && answer.whole && answer.body.ends_with(end), "{answer:?}");
                    served += 1;
                    std::thread::sleep(Duration::from_millis(2));
                }
                served
            })
        })
        .collect();
    let began = Instant::now();
    let mut generation = 0;
    let mut next = |sections: String| {
        generation += 1;
        let name = format!("g{generation}");
        gateway.rewrite(&(sections + &marker(&name)));
        gateway.wait_for_model(&name);
    };
    while began.elapsed() < Duration::from_secs(4) {
        next(backend(&one) + &passing.section("p", ""));
        next(backend(&one) + &passing.section("p", "order = 3"));
        next(backend(&two) + &other.section("p", ""));
        // Another file under the same settings.
        std::fs::write(&passing.0, std::fs::read(&other.0).unwrap()).unwrap();
        next(backend(&two) + &passing.section("p", "isolation = \"shared\"") + &other.section("q", ""));
        gateway.rewrite("[models.m]\ntargets = [ { backend = \"gone\" } ]\n");
        gateway.wait_for_metric("tidegate_config_reload_success 0", true);
        next(backend(&one) + "[api]\ndeepfellow_compat = false\n");
    }
    stop.store(true, Ordering::Relaxed);
    let served: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(generation >= 5 && served > 50, "{generation} configurations, {served} requests");
    gateway.wait_for_metric("tidegate_config_reload_success 1", true);
    let mut records = gateway.records();
    records.retain(|record| &*record.endpoint == "chat/completions");
    assert_eq!(records.len(), served, "exactly one record each");
    assert!(records.iter().all(|record| record.outcome == Outcome::Ok && record.input_tokens == Some(11)));
    assert!(two.seen().iter().any(|seen| seen.head.starts_with("post ")), "the other backend had its share");
}

/// Holds streams back until it is told to let one go.
fn held(go: mpsc::Receiver<()>) -> Fake {
    let go = Mutex::new(go);
    Fake::start(move |seen| {
        if seen.body.contains("\"stream\":true") {
            let _ = go.lock().unwrap().recv_timeout(Duration::from_secs(10));
        }
        answer(seen)
    })
}

#[test]
fn a_revoked_key_is_refused_while_its_request_finishes() {
    let (go, gone) = mpsc::channel();
    let fake = held(gone);
    let sections = one_backend("openai", &fake.url(), "");
    let gateway = Gateway::start(&sections);
    let mut client = gateway.open();
    client.write_all(&call("dfproj_small", STREAM)).unwrap();
    until(|| !fake.seen().is_empty(), "the backend is asked");
    let revoked = gateway.common().replace(&hash_of("dfproj_small"), &hash_of("new"));
    // Only the file changes: nobody is told.
    gateway.replace(&format!("{revoked}{sections}{}", marker("later")));
    gateway.wait_for_model("later");
    assert_eq!(gateway.raw(&call("dfproj_small", CALL)).status, 401);
    assert_eq!(gateway.raw(&call("new", CALL)).status, 200);
    go.send(()).unwrap();
    let answer = read_answer(&mut client);
    assert!(answer.status == 200 && answer.whole && answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    // Nor does the connection keep what its first request had.
    client.write_all(&call("dfproj_small", CALL)).unwrap();
    assert_eq!(read_answer(&mut client).status, 401);
}

#[test]
fn a_bad_configuration_changes_nothing_but_a_metric() {
    let fake = Fake::start(answer);
    let (good, traps) = (Guest::new(&wat(ON_CALL, "")), Guest::new(&wat("#describe\")", "unreachable")));
    let sections = one_backend("openai", &fake.url(), "") + &good.section("p", "");
    let gateway = Gateway::start(&sections);
    gateway.wait_for_metric("tidegate_config_reload_success 1", true);
    let never = sections.clone() + &marker("never");
    let plugin = never.clone() + &traps.section("q", "");
    let unknown = never.clone() + "[api]\ndeepfellow = true\n";
    let model = never + "[backends.here]\nkind = \"local\"\nweights = \"absent.gguf\"\n";
    for broken in ["[backends", &unknown, &plugin, &model] {
        gateway.rewrite(broken);
        gateway.wait_for_metric("tidegate_config_reload_success 0", true);
        assert_eq!(gateway.post("/v1/chat/completions", CALL).status, 200);
        assert!(!gateway.get("/v1/models", "").body.contains("never"), "nothing of it is in use");
        gateway.wait_for_metric("tidegate_plugin_instances{plugin=\"q\"}", false);
        assert_eq!(gateway.operator("/readyz").body, "ok\n", "a model that was refused is none that is missing");
        gateway.rewrite(&sections);
        gateway.wait_for_metric("tidegate_config_reload_success 1", true);
    }
    std::fs::remove_file(gateway.file()).unwrap();
    gateway.wait_for_metric("tidegate_config_reload_success 0", true);
    assert_eq!(gateway.post("/v1/chat/completions", CALL).status, 200);
    gateway.replace(&format!("{}{sections}", gateway.common()));
    gateway.wait_for_metric("tidegate_config_reload_success 1", true);
}

#[test]
fn a_metric_tells_which_file_is_in_use() {
    let sections = one_backend("openai", "http://127.0.0.1:9", "");
    let gateway = Gateway::start(&sections);
    let told = |sections: &str| {
        let hash = hash_of(&format!("{}{sections}", gateway.common()));
        let line = format!("tidegate_config_info{{sha256=\"{}\"}} 1", &hash["sha256:".len()..][..12]);
        gateway.wait_for_metric(&line, true);
        let page = gateway.operator("/metrics").body;
        assert_eq!(page.matches("\ntidegate_config_info{").count(), 1, "{page}");
    };
    told(&sections);
    let other = sections.clone() + &marker("other");
    gateway.rewrite(&other);
    told(&other);
    gateway.rewrite(&(sections + "[api]\ndeepfellow = true\n"));
    gateway.wait_for_metric("tidegate_config_reload_success 0", true);
    told(&other);
}

#[test]
fn a_model_that_had_failed_at_the_start_does_not_stand_in_the_way() {
    let fake = Fake::start(answer);
    let weights = Guest::new(&wat(ON_CALL, ""));
    let here = format!("[backends.here]\nkind = \"local\"\nweights = \"{}\"\n", weights.0.display());
    let sections = one_backend("openai", &fake.url(), "") + &here;
    let gateway = Gateway::start(&sections);
    let degraded = "degraded: local model here failed to load\n";
    until(|| gateway.operator("/readyz").body == degraded, "it is no model");
    gateway.rewrite(&(sections.clone() + &marker("g1")));
    gateway.wait_for_model("g1");
    assert_eq!(gateway.operator("/readyz").body, degraded);
    // Other settings: another model, which is tried, and is a reason.
    gateway.rewrite(&(sections + "slots = 2\n" + &marker("g2")));
    gateway.wait_for_metric("tidegate_config_reload_success 0", true);
    assert!(!gateway.get("/v1/models", "").body.contains("g2"));
}

/// A client whose requests all meet the same worker.
struct Pinned<'a>(&'a Gateway, std::net::TcpStream);

impl Pinned<'_> {
    fn ask(&mut self) -> Answer {
        self.1.write_all(&call(KEY, CALL)).unwrap();
        read_answer(&mut self.1)
    }

    fn reload(&self, sections: &str, name: &str) {
        self.0.rewrite(&format!("{sections}{}", marker(name)));
        self.0.wait_for_model(name);
    }
}

#[test]
fn connections_outlive_a_reload_and_go_with_their_address() {
    let (fake, other) = (Fake::start(answer), Fake::start(answer));
    // Not probed, so that all its connections are requests'.
    let sections = one_backend("openai", &fake.url(), "");
    let gateway = Gateway::start(&sections);
    let mut client = Pinned(&gateway, gateway.open());
    assert_eq!(client.ask().status, 200);
    // Another key, other timeouts, another place among addresses: the same connection.
    let more = "timeouts.idle = \"9s\"\n[models.m]";
    client.reload(&sections.replace("backend-key", "other-key").replace("[models.m]", more), "g1");
    assert_eq!(client.ask().status, 200);
    let urls = format!("urls = [\"{}\", \"{}\"]", other.url(), fake.url());
    client.reload(&sections.replace(&format!("url = \"{}\"", fake.url()), &urls), "g2");
    client.reload(&sections, "g3");
    assert_eq!(client.ask().status, 200);
    let seen = fake.seen();
    assert_eq!(seen.iter().map(|seen| seen.connection).collect::<Vec<_>>(), [0, 0, 0]);
    assert!(seen[1].head.contains("bearer other-key"), "{}", seen[1].head);
    client.reload(&sections.replace(&fake.url(), &other.url()), "g4");
    assert_eq!(client.ask().status, 200);
    assert_eq!((fake.seen().len(), other.seen().len()), (3, 1));
    until(|| fake.open() == 0, "the old address's connection is closed");
}

#[test]
fn warm_instances_outlive_a_reload_unless_something_of_the_plugin_changed() {
    // An instance that serves only once.
    let body = "(if (i32.load (i32.const 4000)) (then unreachable)) (i32.store (i32.const 4000) (i32.const 1))";
    let (fake, guest) = (Fake::start(answer), Guest::new(&wat(ON_CALL, body)));
    let plain = one_backend("openai", &fake.url(), "");
    let with = |settings: &str| plain.clone() + &guest.section("p", settings);
    let gateway = Gateway::start(&plain);
    let mut client = Pinned(&gateway, gateway.open());
    for (at, (sections, status)) in [
        (with(""), 200),
        // Its settings changed: a new instance.
        (with("config = { a = 1 }"), 200),
        // Nothing of it changed: the one that has served.
        (with("config = { a = 1 }") + "[api]\ndeepfellow_compat = false\n", 500),
        (with(""), 200),
        // It was not there for a while.
        (plain.clone(), 200),
        (with(""), 200),
    ]
    .into_iter()
    .enumerate()
    {
        client.reload(&sections, &format!("g{at}"));
        assert_eq!(client.ask().status, status, "{at}");
    }
}

#[test]
fn gauges_of_what_is_gone_vanish_and_counters_stay() {
    let fake = Fake::start(answer);
    let guest = Guest::new(&wat(ON_CALL, ""));
    let sections = one_backend("vllm", &fake.url(), "") + &guest.section("p", "");
    let gateway = Gateway::start(&sections);
    assert_eq!(gateway.post("/v1/chat/completions", CALL).status, 200);
    let up = "tidegate_backend_up{backend=\"b\",target=\"b/0\"} 1";
    gateway.wait_for_metric(up, true);
    gateway.wait_for_metric("tidegate_plugin_instances{plugin=\"p\"} 0", true);
    let renamed = one_backend("vllm", &fake.url(), "").replace("backends.b", "backends.c").replace("\"b\"", "\"c\"");
    gateway.rewrite(&renamed);
    gateway.wait_for_metric("tidegate_backend_up{backend=\"c\",target=\"c/0\"} 1", true);
    gateway.wait_for_metric("tidegate_backend_up{backend=\"b\"", false);
    gateway.wait_for_metric("tidegate_backend_in_flight{backend=\"b\"", false);
    gateway.wait_for_metric("tidegate_plugin_instances{plugin=\"p\"}", false);
    let page = gateway.operator("/metrics").body;
    assert!(page.contains("tidegate_plugin_duration_seconds_count{hook=\"on_call\",plugin=\"p\"} 1"), "{page}");
    assert!(page.contains("tidegate_usage_source_total{backend=\"b\",source=\"reported\"} 1"), "{page}");
    // A kind that is not probed: nothing is said of it.
    gateway.rewrite(&renamed.replace("vllm", "openai"));
    gateway.wait_for_metric("tidegate_backend_up{", false);
    gateway.wait_for_metric("tidegate_backend_in_flight{backend=\"c\"", true);
    gateway.rewrite(&sections);
    gateway.wait_for_metric(up, true);
    gateway.wait_for_metric("tidegate_plugin_instances{plugin=\"p\"} 0", true);
}

/// A plugin that declares the counter `seen` with this label, which may be `x`. A metric is of 48 bytes: name, help, kind (0, a
/// counter, at 16), label (1, there is one, at 28; its name and its values behind that).
fn counting(label: &str) -> Guest {
    let words = [(3000, "seen"), (3008, "How many."), (3024, label), (3040, "x")];
    let numbers = [
        (108, 3100),
        (112, 1),
        (3100, 3000),
        (3104, 4),
        (3108, 3008),
        (3112, 9),
        (3116, 0),
        (3128, 1),
        (3132, 3024),
        (3136, label.len()),
        (3140, 3048),
        (3144, 1),
        (3048, 3040),
        (3052, 1),
    ];
    let words = words.map(|(at, word)| store(at, word)).concat();
    let numbers = numbers.map(|(at, number)| format!("(i32.store (i32.const {at}) (i32.const {number}))")).concat();
    Guest::new(&wat(DESCRIBE, &(words + &numbers)))
}

#[test]
fn a_plugin_may_declare_its_metrics_otherwise_and_only_those_in_force_are_shown() {
    let fake = Fake::start(answer);
    let (one, two) = (counting("one"), counting("two"));
    let with = |guest: &Guest| one_backend("openai", &fake.url(), "") + &guest.section("p", "");
    let series = |label: &str| format!("tidegate_plugin_p_seen_total{{{label}=\"x\"}} 0");
    let gateway = Gateway::start(&with(&one));
    gateway.wait_for_metric(&series("one"), true);
    // Refused as a whole, for another plugin's sake.
    gateway.rewrite(&(with(&two) + "[plugins.q]\npath = \"nowhere.wasm\"\n"));
    gateway.wait_for_metric("tidegate_config_reload_success 0", true);
    let page = gateway.operator("/metrics").body;
    assert!(page.contains(&series("one")) && !page.contains(&series("two")), "{page}");
    gateway.rewrite(&with(&two));
    gateway.wait_for_metric(&series("two"), true);
    gateway.wait_for_metric(&series("one"), false);
}

#[test]
fn the_server_s_limits_follow_and_the_rest_waits() {
    let (go, gone) = mpsc::channel();
    let fake = held(gone);
    let sections = one_backend("openai", &fake.url(), "");
    let gateway = Gateway::start(&sections);
    let settings = |more: &str, name: &str| {
        gateway.replace(&format!("{}{sections}{}", gateway.common().replace("workers = 2", more), marker(name)));
        gateway.wait_for_model(name);
    };
    settings("workers = 3\nbody_limit = 60\nmax_in_flight = 1", "g1");
    assert_eq!(gateway.raw(&call(KEY, &CALL.replace("\"x\"", "\"much too long for sixty bytes\""))).status, 413);
    settings("workers = 3\nmax_in_flight = 1", "g2");
    let mut client = gateway.open();
    client.write_all(&call(KEY, STREAM)).unwrap();
    until(|| !fake.seen().is_empty(), "the backend is asked");
    assert_eq!(gateway.post("/v1/chat/completions", CALL).status, 503);
    go.send(()).unwrap();
    assert_eq!(read_answer(&mut client).status, 200);
}

#[test]
fn an_operator_reloads_by_token_and_hears_what_came_of_it() {
    let sections = one_backend("openai", "http://127.0.0.1:9", "");
    let gateway = Gateway::start(&sections);
    let ask = |method: &str, headers: &str| {
        gateway.operate(
            format!("{method} /admin/reload HTTP/1.1\r\nhost: x\r\n{headers}content-length: 0\r\n\r\n").as_bytes(),
        )
    };
    let right = "authorization: Bearer sesame\r\n";
    // Closed as long as no token is configured, whatever is said.
    assert_eq!(ask("POST", right).status, 403);
    let opened = gateway.common().replace("[admin]\n", "[admin]\ntoken = \"sesame\"\n");
    gateway.replace(&format!("{opened}{sections}{}", marker("one")));
    gateway.wait_for_model("one");
    for wrong in ["", "authorization: Bearer \r\n", "authorization: Bearer sesam\r\n", "authorization: sesame\r\n"] {
        let refused = ask("POST", wrong);
        assert_eq!(refused.status, 401, "{wrong:?}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"), "{refused:?}");
    }
    for right in [right, "authorization: bearer sesame\r\n", "authorization: BEARER  sesame\r\n"] {
        assert_eq!(ask("GET", right).status, 405, "{right:?}");
    }
    gateway.replace(&format!("{opened}{sections}{}", marker("two")));
    let done = ask("POST", right);
    assert_eq!(
        (done.status, done.body.as_str()),
        (200, r#"{"changed":["models.two added","models.one removed"],"waiting":[]}"#)
    );
    assert!(gateway.get("/v1/models", "").body.contains("\"two\""), "it is in use when the answer is there");
    gateway.replace(&format!("{opened}{sections}[models.three]\ntargets = [{{ backend = \"c\" }}]\n"));
    let refused = ask("POST", right);
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains(r#"models.\"three\".targets: there is no backend `c`"#), "{refused:?}");
    assert!(!refused.body.contains("sesame"));
    assert!(gateway.get("/v1/models", "").body.contains("\"two\""));
}
