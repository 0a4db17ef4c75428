//! Models with a limit: who waits, who is refused and in which words, who is forgotten at once, what a reload and a plugin do.

use crate::fake::{Act, CHAT, Fake, chat_stream, json, stream_head};
use crate::gateway::{Gateway, KEY, one_backend, post, read_answer, until};
use crate::guest::{ASK, Guest, ON_CALL, ON_EVENTS, ask, importing, tell, wat};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tidegate::canon::Outcome;

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;
const CHAT_PATH: &str = "/v1/chat/completions";

/// A backend that answers each request when it is told to, and what says so at once.
fn held() -> (Fake, mpsc::Sender<()>) {
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let fake = Fake::start(move |seen| {
        if !seen.body.contains("at once") {
            let _ = gone.lock().unwrap().recv_timeout(Duration::from_secs(20));
        }
        json(200, "", CHAT)
    });
    (fake, go)
}

/// One backend behind the models `m` and `served`, `m` with these keys.
fn limited(fake: &Fake, keys: &str) -> String {
    one_backend("openai", &fake.url(), "").replace("[models.m]\n", &format!("[models.m]\n{keys}\n"))
}

fn waiting(gateway: &Gateway, count: usize) {
    gateway.wait_for_metric(&format!("tidegate_queue_waiting{{model=\"m\"}} {count}"), true);
}

fn at_work(gateway: &Gateway, count: usize) {
    gateway.wait_for_metric(&format!("tidegate_queue_at_work{{model=\"m\"}} {count}"), true);
}

#[test]
fn requests_wait_for_their_turn_and_are_refused_in_their_own_words() {
    let (fake, go) = held();
    let gateway = Gateway::start(&limited(&fake, "concurrent = 1\nqueue = 1"));
    let mut first = gateway.send(CHAT_PATH, KEY, CALL);
    at_work(&gateway, 1);
    let mut second = gateway.send(CHAT_PATH, KEY, CALL);
    waiting(&gateway, 1);
    let says = "As many requests wait for this model as may wait for it; try again later.";
    let messages = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#;
    for (path, body, place) in [
        (CHAT_PATH, STREAM, "/error/message"),
        ("/v1/messages", messages, "/error/message"),
        ("/api/chat", CALL, "/error"),
    ] {
        let full = read_answer(&mut gateway.send(path, KEY, body));
        assert_eq!((full.status, full.header("retry-after")), (503, Some("2")), "{full:?}");
        assert_eq!(full.json().pointer(place).unwrap(), says, "{full:?}");
    }
    let other = gateway.post(CHAT_PATH, &CALL.replace("\"m\"", "\"none\""));
    assert_eq!(other.status, 404, "other models do not wait");
    assert_eq!(fake.seen().len(), 1, "the backend knows of one");
    std::thread::sleep(Duration::from_secs(1));
    go.send(()).unwrap();
    assert_eq!(read_answer(&mut first).status, 200);
    go.send(()).unwrap();
    let second = read_answer(&mut second);
    assert_eq!(second.status, 200);
    let overhead: f64 = second.header("x-tidegate-overhead-ms").unwrap().parse().unwrap();
    assert!(overhead < 900.0, "waiting is not the gateway's own work: {overhead}");
    at_work(&gateway, 0);
    let records = gateway.wait_for_records(6);
    let refused = records.iter().filter(|record| record.status == 503);
    assert!(refused.clone().all(|record| record.outcome == Outcome::Refused && record.attempts == 0));
    assert!(refused.count() == 3 && records.iter().any(|record| record.queue_ms.is_some_and(|time| time > 900.0)));
    let metrics = gateway.operator("/metrics").body;
    for line in [
        "tidegate_queue_refused_total{model=\"m\",reason=\"full\"} 3",
        "tidegate_queue_refused_total{model=\"m\",reason=\"share\"} 0",
        "tidegate_queue_seconds_count{model=\"m\"} 2",
        "tidegate_queue_position_count{model=\"m\"} 1",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} in {metrics}");
    }
    assert!(!metrics.contains("tidegate_queue_waiting{model=\"served\"}"), "models without a limit have no queue");
}

#[test]
fn requests_for_vectors_wait_with_the_others() {
    let (fake, go) = held();
    let gateway = Gateway::start(&limited(&fake, "concurrent = 1"));
    let mut first = gateway.send(CHAT_PATH, KEY, CALL);
    at_work(&gateway, 1);
    let mut second = gateway.send("/v1/embeddings", KEY, r#"{"model":"m","input":"x"}"#);
    waiting(&gateway, 1);
    assert_eq!(fake.seen().len(), 1);
    (0..4).for_each(|_| go.send(()).unwrap());
    assert_eq!(read_answer(&mut first).status, 200);
    // What came is an answer of a chat: it is asked for in its turn, that is all there is to see.
    assert_eq!(read_answer(&mut second).status, 502);
    at_work(&gateway, 0);
    assert!(gateway.wait_for_records(2).iter().all(|record| record.queue_ms.is_some()));
}

#[test]
fn a_turn_that_does_not_come_in_time_is_refused() {
    let (fake, go) = held();
    let gateway = Gateway::start(&limited(&fake, "concurrent = 1\nqueue_time = \"200ms\""));
    let mut first = gateway.send(CHAT_PATH, KEY, CALL);
    at_work(&gateway, 1);
    let began = Instant::now();
    let late = gateway.post(CHAT_PATH, CALL);
    assert_eq!((late.status, late.json()["error"]["message"].as_str().unwrap().contains("in time")), (503, true));
    assert!(late.header("retry-after").is_some() && began.elapsed() > Duration::from_millis(190));
    waiting(&gateway, 0);
    go.send(()).unwrap();
    assert_eq!(read_answer(&mut first).status, 200);
    let records = gateway.wait_for_records(2);
    let late = records.iter().find(|record| record.status == 503).unwrap();
    assert!(late.queue_ms.unwrap() > 190.0 && late.input_tokens.is_none(), "{late:?}");
}

#[test]
fn a_client_s_own_time_limit_counts() {
    let (fake, _go) = held();
    let gateway = Gateway::start(&limited(&fake, "concurrent = 1\nfallbacks = [\"served\"]"));
    let _first = gateway.send(CHAT_PATH, KEY, CALL);
    at_work(&gateway, 1);
    for says in ["x-stainless-timeout: 0.3", "x-stainless-timeout: 600\r\nx-stainless-read-timeout: 0.3"] {
        let began = Instant::now();
        let headers = format!("x-api-key: {KEY}\r\n{says}\r\n");
        assert_eq!(gateway.raw(&post(CHAT_PATH, &headers, CALL.as_bytes())).status, 503);
        assert!(began.elapsed() < Duration::from_secs(15), "the queue's own limit is 30 s");
    }
    assert_eq!(fake.seen().len(), 1, "nor does a fallback work for who has left");
}

/// Waits for the first event of a stream, which is left to be read.
fn begun(client: &TcpStream) {
    let mut some = [0; 4096];
    while !String::from_utf8_lossy(&some).contains("data: ") {
        assert!(client.peek(&mut some).unwrap() > 0, "it ended");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_stream_holds_its_place_to_its_last_byte() {
    let text = chat_stream("served");
    let (head, rest) = text.split_at(text.find("\n\n").unwrap() + 2);
    let (go, gone) = mpsc::channel();
    let script = vec![
        stream_head(),
        Act::Chunk(head.into()),
        Act::Hold(Arc::new(Mutex::new(gone))),
        Act::Chunk(rest.into()),
        Act::Send(b"0\r\n\r\n".to_vec()),
    ];
    let fake = Fake::start(move |_| script.clone());
    let gateway = Gateway::start(&limited(&fake, "concurrent = 1"));
    let mut clients = vec![gateway.send(CHAT_PATH, KEY, STREAM)];
    begun(&clients[0]);
    clients.extend((0..2).map(|_| gateway.send(CHAT_PATH, KEY, STREAM)));
    for left in [2, 1, 0] {
        waiting(&gateway, left);
        at_work(&gateway, 1);
        until(|| fake.seen().len() >= 3 - left, "the next one is asked for");
        assert_eq!(fake.seen().len(), 3 - left, "one after the other");
        go.send(()).unwrap();
    }
    for client in &mut clients {
        assert!(read_answer(client).body.ends_with("data: [DONE]\n\n"));
    }
    // Who leaves in the middle of a stream gives its place back as well.
    let leaves = gateway.send(CHAT_PATH, KEY, STREAM);
    begun(&leaves);
    at_work(&gateway, 1);
    drop(leaves);
    at_work(&gateway, 0);
}

#[test]
fn who_leaves_the_queue_is_forgotten_at_once() {
    let (fake, go) = held();
    let gateway = Gateway::start(&limited(&fake, "concurrent = 1\nqueue = 100"));
    let mut first = gateway.send(CHAT_PATH, KEY, CALL);
    at_work(&gateway, 1);
    let leavers: Vec<_> = (0..20).map(|_| gateway.send(CHAT_PATH, KEY, CALL)).collect();
    waiting(&gateway, 20);
    let mut last = gateway.send(CHAT_PATH, "dfproj_small", CALL);
    waiting(&gateway, 21);
    drop(leavers);
    let gone = Instant::now();
    waiting(&gateway, 1);
    assert!(gone.elapsed() < Duration::from_secs(15), "their time is 30 s: {:?}", gone.elapsed());
    go.send(()).unwrap();
    assert_eq!(read_answer(&mut first).status, 200);
    go.send(()).unwrap();
    assert_eq!(read_answer(&mut last).status, 200);
    assert_eq!(fake.seen().len(), 2, "no backend heard of those who left");
    let records = gateway.wait_for_records(22);
    let left = records.iter().filter(|record| record.outcome == Outcome::ClientGone);
    assert!(left.clone().all(|record| record.queue_ms.is_some() && record.cost.is_none() && record.status == 499));
    assert_eq!(left.count(), 20);
}

#[test]
fn a_burst_of_one_organization_does_not_starve_another() {
    let (fake, go) = held();
    let other = format!(
        "[organizations.quiet.projects.web]\nkeys = [{{ id = \"q\", hash = \"{}\" }}]\n",
        tidegate::gate::hash_of("dfproj_quiet")
    );
    let gateway = Gateway::start(&(limited(&fake, "concurrent = 2\nqueue = 300") + &other));
    let burst: Vec<_> = (0..300).map(|_| gateway.send(CHAT_PATH, KEY, CALL)).collect();
    gateway.wait_for_metric("tidegate_queue_refused_total{model=\"m\",reason=\"share\"} 98", true);
    for round in 0..5 {
        waiting(&gateway, 200 - 2 * round);
        let mut quiet = gateway.send(CHAT_PATH, "dfproj_quiet", &CALL.replace("\"x\"", "\"at once\""));
        waiting(&gateway, 201 - 2 * round);
        // Two of those before it are done, and no more.
        (0..2).for_each(|_| go.send(()).unwrap());
        assert_eq!(read_answer(&mut quiet).status, 200);
    }
    drop(go);
    let statuses: Vec<u16> = burst.into_iter().map(|mut client| read_answer(&mut client).status).collect();
    let of = |status: u16| statuses.iter().filter(|other| **other == status).count();
    assert_eq!((of(200), of(429)), (202, 98), "{statuses:?}");
    at_work(&gateway, 0);
}

#[test]
fn a_reload_counts_for_those_who_wait_and_forgets_nobody_at_work() {
    let (fake, go) = held();
    let gateway = Gateway::start(&limited(&fake, "concurrent = 1"));
    let mut clients: Vec<_> = (0..4).map(|_| gateway.send(CHAT_PATH, KEY, CALL)).collect();
    waiting(&gateway, 3);
    gateway.rewrite(&limited(&fake, "concurrent = 2"));
    waiting(&gateway, 2);
    at_work(&gateway, 2);
    // New requests meet the same queue.
    clients.push(gateway.send(CHAT_PATH, KEY, CALL));
    waiting(&gateway, 3);
    // Without a limit all go, and nothing is told of a queue.
    gateway.rewrite(&limited(&fake, ""));
    gateway.wait_for_metric("tidegate_queue_waiting", false);
    until(|| fake.seen().len() >= 5, "all go");
    // With one again, those that still have a place count.
    gateway.rewrite(&limited(&fake, "concurrent = 3"));
    at_work(&gateway, 5);
    clients.push(gateway.send(CHAT_PATH, KEY, CALL));
    waiting(&gateway, 1);
    (0..clients.len()).for_each(|_| go.send(()).unwrap());
    assert!(clients.iter_mut().all(|client| read_answer(client).status == 200));
    at_work(&gateway, 0);
}

#[test]
fn a_question_of_a_request_at_work_does_not_wait_for_itself() {
    for hook in [ON_CALL, ON_EVENTS] {
        let guest = Guest::new(&importing(&wat(hook, &ask("m", "is it?")), ASK));
        let fake = Fake::start(|_| json(200, "", &CHAT.replace("served", "m")));
        let section = guest.section("p", "grants = { model = [\"*\"] }\nlimits = { wait = \"20s\" }");
        let gateway = Gateway::start(&(limited(&fake, "concurrent = 1") + &section));
        let began = Instant::now();
        assert_eq!(gateway.post(CHAT_PATH, CALL).status, 200);
        assert!(began.elapsed() < Duration::from_secs(10), "nobody waited until the plugin's time was over");
        let records = gateway.wait_for_records(fake.seen().len());
        assert!(
            records.len() > 1
                && records.iter().all(|record| record.outcome == Outcome::Ok && record.queue_ms.is_some()),
            "{records:#?}"
        );
        at_work(&gateway, 0);
    }
}

#[test]
fn a_question_waits_for_its_turn_no_longer_than_its_plugin_may() {
    let guest = Guest::new(&importing(&wat(ON_CALL, &(ask("m", "is it?") + &tell())), ASK));
    let (fake, _go) = held();
    let section = guest.section("p", "grants = { model = [\"*\"] }\nlimits = { wait = \"3s\" }");
    let gateway = Gateway::start(&(limited(&fake, "concurrent = 1") + &section));
    // The first question is at work and the second waits; neither is answered.
    let mut clients = [(); 2].map(|()| gateway.send(CHAT_PATH, KEY, CALL));
    waiting(&gateway, 1);
    for client in &mut clients {
        let answer = read_answer(client);
        assert!((460..470).contains(&answer.status), "the plugin is told that its time is over: {answer:?}");
    }
    waiting(&gateway, 0);
    at_work(&gateway, 0);
}

#[test]
fn a_full_queue_leads_to_the_fallbacks_and_theirs_count() {
    let (fake, go) = held();
    let sections = |own: &str, other: &str| {
        one_backend("openai", &fake.url(), "")
            .replace("[models.m]\n", &format!("[models.m]\nfallbacks = [\"served\"]\n{own}\n"))
            .replace("[models.served]\n", &format!("[models.served]\n{other}\n"))
    };
    let gateway = Gateway::start(&sections("concurrent = 1\nqueue = 0", "concurrent = 1\nqueue = 0"));
    let mut first = gateway.send(CHAT_PATH, KEY, CALL);
    at_work(&gateway, 1);
    let mut second = gateway.send(CHAT_PATH, KEY, CALL);
    gateway.wait_for_metric("tidegate_queue_at_work{model=\"served\"} 1", true);
    let third = gateway.post(CHAT_PATH, CALL);
    assert_eq!(third.status, 503, "the fallback has no room, either");
    assert!(third.body.contains("wait for this model as may wait"), "{third:?}");
    (0..2).for_each(|_| go.send(()).unwrap());
    assert_eq!(read_answer(&mut first).status, 200);
    let second = read_answer(&mut second);
    assert_eq!((second.status, second.header("x-tidegate-attempts")), (200, Some("1")), "{second:?}");
    assert_eq!(second.json()["model"], "m", "the name that was asked for");
    gateway.wait_for_metric("tidegate_queue_at_work{model=\"served\"} 0", true);
    gateway.wait_for_metric("tidegate_fallbacks_total{backend=\"b\",model=\"m\",reason=\"queue\"} 1", true);
    let records = gateway.wait_for_records(3);
    assert!(records.iter().all(|record| record.model_requested == "m" && record.queue_ms.is_some()));
    // Where the fallback has no limit nobody needs a place there.
    gateway.rewrite(&(sections("concurrent = 1\nqueue = 0", "") + "[models.later]\ntargets = [{ backend = \"b\" }]\n"));
    gateway.wait_for_model("later");
    let _fourth = gateway.send(CHAT_PATH, KEY, CALL);
    at_work(&gateway, 1);
    let mut fifth = gateway.send(CHAT_PATH, KEY, CALL);
    until(|| fake.seen().len() == 4, "both are at the backend");
    (0..2).for_each(|_| go.send(()).unwrap());
    assert_eq!(read_answer(&mut fifth).status, 200);
}
