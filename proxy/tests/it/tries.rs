//! Second targets: for streams that are slow to begin, and only while their client still waits.

use crate::fake::{Act, CHAT, Fake, Seen, chat_stream, json, stream};
use crate::gateway::{Answer, Gateway, KEY, post, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidegate::canon::Outcome;

const CHAT_PATH: &str = "/v1/chat/completions";
const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

/// A backend that streams at once, and when it is told to does so late, or worse.
struct Moody {
    fake: Fake,
    moody: Arc<AtomicBool>,
}

impl Moody {
    /// In its mood it waits for so many milliseconds and then does this.
    fn new(millis: u64, then: impl Fn() -> Vec<Act> + Send + Sync + 'static) -> Self {
        let moody = Arc::new(AtomicBool::new(false));
        let mood = moody.clone();
        let answer = move |seen: &Seen| match (seen.head.starts_with("get "), mood.load(Ordering::SeqCst)) {
            (true, _) => json(200, "", "{}"),
            (false, false) => stream(&chat_stream("m"), 1000),
            (false, true) => [vec![Act::Wait(Duration::from_millis(millis))], then()].concat(),
        };
        Self { fake: Fake::start(answer), moody }
    }
}

fn backend(name: &str, fake: &Fake) -> String {
    format!("[backends.{name}]\nkind = \"openai\"\nurl = \"{}\"\n", fake.url())
}

/// The model `m` on `one` before `two`.
const ONE_BEFORE_TWO: &str = "[models.m]\ntargets = [{ backend = \"one\" }, { backend = \"two\", priority = 1 }]\n";

/// `one` before `two`, streams of `m` hedged.
fn hedged(one: &Moody, two: &Moody) -> Gateway {
    let backends = backend("one", &one.fake) + &backend("two", &two.fake);
    let gateway = Gateway::start(&(backends + ONE_BEFORE_TWO + "hedge = { at_least = \"50ms\" }\n"));
    // It has to learn what is usual.
    for _ in 0..20 {
        assert_eq!(gateway.post(CHAT_PATH, STREAM).header("x-tidegate-attempts"), Some("1"));
    }
    for moody in [one, two] {
        moody.moody.store(true, Ordering::SeqCst);
    }
    gateway
}

fn good() -> Vec<Act> {
    stream(&chat_stream("m"), 1000)
}

fn bad() -> Vec<Act> {
    json(500, "", "{}")
}

fn forever() -> Vec<Act> {
    vec![Act::Forever(b": x\n\n".to_vec())]
}

/// What a client sees of one request, within a time, and its record's backend and attempts.
fn one_more(gateway: &Gateway) -> (Answer, String, u32) {
    let began = Instant::now();
    let answer = gateway.post(CHAT_PATH, STREAM);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let records = gateway.wait_for_records(21);
    let last = records.iter().max_by_key(|record| record.id).unwrap();
    assert_eq!(last.outcome == Outcome::Ok, answer.status == 200, "{last:?}");
    gateway.wait_for_metric("tidegate_backend_in_flight{backend=\"one\",target=\"one/0\"} 0", true);
    gateway.wait_for_metric("tidegate_backend_in_flight{backend=\"two\",target=\"two/0\"} 0", true);
    (answer, last.backend.to_string(), last.attempts)
}

#[test]
fn who_begins_first_has_the_stream_and_the_other_is_left() {
    for (one, two, backend, winner) in [
        // The second is faster, and the first learns that nobody waits for it any more.
        (Moody::new(60_000, || [good(), forever()].concat()), Moody::new(0, good), "two", "second"),
        // The first begins after all.
        (Moody::new(1000, good), Moody::new(60_000, good), "one", "first"),
        // One of them fails meanwhile: the other is waited for.
        (Moody::new(1000, bad), Moody::new(2000, good), "two", "second"),
        (Moody::new(1000, good), Moody::new(0, bad), "one", "first"),
    ] {
        let gateway = hedged(&one, &two);
        let (answer, served, attempts) = one_more(&gateway);
        assert!(answer.status == 200 && answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
        assert_eq!((served.as_str(), attempts, answer.header("x-tidegate-backend")), (backend, 2, Some(backend)));
        let last = gateway.records().into_iter().max_by_key(|record| record.id).unwrap();
        assert_eq!(last.abandoned_tokens, 8, "what the other had of the prompt: {last:?}");
        gateway.wait_for_metric(&format!("tidegate_hedges_total{{model=\"m\",winner=\"{winner}\"}} 1"), true);
        gateway.wait_for_metric("tidegate_retries_total{backend=\"one\",model=\"m\",reason=\"slow\"} 1", true);
    }
}

#[test]
fn what_backends_had_in_vain_is_kept_apart() {
    let says = |status: u16| move || json(status, "", "{}");
    let closes = || vec![Act::Close];
    let fails = |answer: Box<dyn Fn() -> Vec<Act> + Send + Sync>| Fake::start(move |_| answer());
    for (one, worked) in [
        (fails(Box::new(says(500))), true),
        (fails(Box::new(closes)), true),
        (fails(Box::new(says(429))), false),
        (fails(Box::new(says(503))), false),
        (fails(Box::new(says(401))), false),
    ] {
        for two in [Fake::start(|_| json(200, "", CHAT)), fails(Box::new(says(500)))] {
            let gateway = Gateway::start(&(backend("one", &one) + &backend("two", &two) + ONE_BEFORE_TWO));
            let served = gateway.post(CHAT_PATH, CALL).status == 200;
            let record = gateway.record();
            let tries = u64::from(worked) + u64::from(!served);
            assert_eq!((record.attempts, record.abandoned_tokens), (2, 8 * tries), "{record:?}");
            assert_eq!(record.input_tokens.is_some(), served, "{record:?}");
        }
    }
}

#[test]
fn the_one_that_lost_is_cancelled() {
    let one = Moody::new(1000, || [vec![Act::Wait(Duration::from_millis(1))], good(), forever()].concat());
    let gateway = hedged(&one, &Moody::new(0, good));
    assert_eq!(one_more(&gateway).0.status, 200);
    until(|| !one.fake.left().is_empty(), "it finds nobody when it begins");
}

#[test]
fn two_that_fail_are_one_failure_and_a_wrong_request_is_wrong_at_once() {
    let gateway = hedged(&Moody::new(1000, bad), &Moody::new(50, bad));
    let (answer, _, attempts) = one_more(&gateway);
    assert_eq!((answer.status, attempts, answer.header("x-should-retry")), (502, 2, Some("false")), "{answer:?}");
    gateway.wait_for_metric("tidegate_hedges_total{", false);
    let wrong = || json(400, "", r#"{"error":{"message":"no such thing"}}"#);
    let gateway = hedged(&Moody::new(60_000, good), &Moody::new(0, wrong));
    let (answer, backend, attempts) = one_more(&gateway);
    assert_eq!((answer.status, backend.as_str(), attempts), (400, "two", 2), "{answer:?}");
}

#[test]
fn whole_replies_fallbacks_and_the_same_server_are_not_asked_twice() {
    let slow = || [vec![Act::Wait(Duration::from_millis(200))], json(200, "", CHAT)].concat();
    let (one, two) = (Moody::new(0, slow), Moody::new(0, slow));
    let gateway = hedged(&one, &two);
    assert_eq!(gateway.post(CHAT_PATH, CALL).header("x-tidegate-attempts"), Some("1"));
    let (one, two) = (Moody::new(200, good), Moody::new(0, good));
    let backends = backend("one", &one.fake) + &backend("two", &two.fake);
    let models = "[models.m]\ntargets = [{ backend = \"one\" }]\nfallbacks = [\"n\"]\nhedge = { at_least = \"1ms\" }\n\
                  [models.n]\ntargets = [{ backend = \"two\" }]\n";
    let gateway = Gateway::start(&(backends + models));
    (0..20).for_each(|_| assert_eq!(gateway.post(CHAT_PATH, STREAM).status, 200));
    one.moody.store(true, Ordering::SeqCst);
    assert_eq!(gateway.post(CHAT_PATH, STREAM).header("x-tidegate-attempts"), Some("1"));
    let one = Moody::new(200, good);
    let models = "[models.m]\ntargets = [{ backend = \"one\" }, { backend = \"one\", model = \"b\" }]\nhedge = { at_least = \"1ms\" }\n";
    let gateway = Gateway::start(&(backend("one", &one.fake) + models));
    (0..20).for_each(|_| assert_eq!(gateway.post(CHAT_PATH, STREAM).status, 200));
    one.moody.store(true, Ordering::SeqCst);
    assert_eq!(gateway.post(CHAT_PATH, STREAM).header("x-tidegate-attempts"), Some("1"));
}

/// Two addresses of which the first one tried fails after so many milliseconds.
fn failing(millis: u64, keys: &str) -> (Gateway, Fake, Fake) {
    let fail = move |_: &Seen| [vec![Act::Wait(Duration::from_millis(millis))], json(500, "", "{}")].concat();
    let (one, two) = (Fake::start(fail), Fake::start(|_| json(200, "", CHAT)));
    let backends = backend("one", &one) + &backend("two", &two);
    let gateway = Gateway::start(&format!("{backends}{keys}\n{ONE_BEFORE_TWO}"));
    (gateway, one, two)
}

#[test]
fn nothing_is_tried_for_a_client_that_will_have_left_and_backends_know_when() {
    let (gateway, one, two) = failing(300, "");
    let ask = |says: &str| {
        let headers = format!("x-api-key: {KEY}\r\n{says}");
        gateway.raw(&post(CHAT_PATH, &headers, CALL.as_bytes()))
    };
    let says = |fake: &Fake| {
        let head = fake.seen().last().unwrap().head.clone();
        head.lines()
            .find_map(|line| line.strip_prefix("x-stainless-timeout: ").map(|text| text.parse::<f64>().unwrap()))
    };
    assert_eq!(ask("x-stainless-timeout: 0.2\r\n").status, 502);
    assert!(two.seen().is_empty(), "its answer would find nobody");
    assert_eq!(ask("x-stainless-timeout: 60\r\nx-stainless-read-timeout: 20\r\n").status, 200);
    assert!((15.0..=20.0).contains(&says(&one).unwrap()), "{:?}", says(&one));
    assert!((15.0..=19.7).contains(&says(&two).unwrap()), "what is left of it: {:?}", says(&two));
    assert_eq!(ask("").status, 200);
    assert_eq!((says(&one), says(&two)), (None, None));
}

#[test]
fn a_backend_gets_as_many_further_tries_as_it_can_bear() {
    let (gateway, _one, two) = failing(0, "retry_budget = { share = 0, per_second = 0 }");
    (0..3).for_each(|_| assert_eq!(gateway.post(CHAT_PATH, CALL).status, 502));
    assert!(two.seen().is_empty());
    gateway.wait_for_metric("tidegate_retry_budget_exhausted_total{backend=\"two\"} 3", true);
    // As soon as the configuration says so; what it was asked for before is not forgotten.
    let text = std::fs::read_to_string(gateway.file()).unwrap();
    gateway.replace(&text.replace("share = 0, per_second = 0", "share = 1"));
    until(|| gateway.post(CHAT_PATH, CALL).status == 200, "another try");
}
