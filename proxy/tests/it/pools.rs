//! Backends fail: who is asked instead, how soon that is noticed, and what clients see of it.

use crate::fake::{Act, CHAT, Fake, chat_stream, json, stream};
use crate::gateway::{Answer, Gateway, KEY, free_address, post};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;

/// One backend with these addresses, and a model on it.
fn pool(kind: &str, urls: &[String], backend: &str, model: &str) -> String {
    format!(
        "[backends.b]\nkind = \"{kind}\"\nurls = {urls:?}\n{backend}\n[models.m]\ntargets = [{{ backend = \"b\" }}]\n{model}\n"
    )
}

fn good() -> Fake {
    Fake::start(|_| json(200, "", CHAT))
}

/// An address where nobody listens.
fn dead() -> String {
    format!("http://{}", free_address())
}

fn call(gateway: &Gateway) -> Answer {
    gateway.post("/v1/chat/completions", CALL)
}

/// Requests, without probes.
fn asked(fake: &Fake) -> usize {
    fake.seen().iter().filter(|seen| seen.head.starts_with("post ")).count()
}

/// A metric's value; 0 if it is not there.
fn metric(gateway: &Gateway, line: &str) -> f64 {
    let page = gateway.operator("/metrics").body;
    let values = page.lines().filter(|other| other.starts_with(line));
    values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn a_dead_replica_stops_winning() {
    for policy in ["least_load", "round_robin", "weighted", "session", "prefix"] {
        let fake = good();
        let model = format!("policy = \"{policy}\"");
        let gateway = Gateway::start(&pool("openai", &[dead(), fake.url()], "health = { aside = \"60s\" }", &model));
        for at in 0..60 {
            let headers = format!("authorization: Bearer {KEY}\r\nx-session-id: {at}\r\n");
            let body = CALL.replace("\"x\"", &format!("\"{at}\""));
            let answer = gateway.raw(&post("/v1/chat/completions", &headers, body.as_bytes()));
            assert_eq!(answer.status, 200, "{policy}: {answer:?}");
        }
        assert_eq!(asked(&fake), 60);
        gateway.wait_for_metric("tidegate_breaker_state{backend=\"b\",target=\"b/0\"} 2", true);
        assert_eq!(metric(&gateway, "tidegate_breaker_state{backend=\"b\",target=\"b/1\"}"), 0.0);
        let retries = "tidegate_retries_total{backend=\"b\",model=\"m\",reason=\"unreachable\"}";
        assert_eq!(metric(&gateway, retries), 3.0, "{policy}: as many as open the breaker");
        gateway.wait_for_metric("tidegate_backend_set_aside{backend=\"b\",reason=\"failing\",target=\"b/0\"} 1", true);
    }
}

#[test]
fn a_flapping_replica_costs_clients_nothing_and_is_taken_back() {
    let (turn, well) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let healed = well.clone();
    let flapping = Fake::start(move |_| {
        // Never three in a row.
        if turn.fetch_add(1, Ordering::SeqCst) % 3 == 2 || healed.load(Ordering::SeqCst) {
            json(200, "", CHAT)
        } else {
            json(500, "", "{}")
        }
    });
    let steady = good();
    let health = "health = { aside = \"3s\", minimum = 10 }";
    let gateway = Gateway::start(&pool("openai", &[flapping.url(), steady.url()], health, "policy = \"round_robin\""));
    let began = Instant::now();
    for _ in 0..60 {
        assert_eq!(call(&gateway).status, 200);
    }
    let seen = asked(&flapping);
    // On a busy machine it may have been taken back by then.
    let in_time = began.elapsed() < Duration::from_secs(3);
    assert!(seen >= 10 && (seen < 20 || !in_time), "the share of errors has set it aside: {seen}");
    well.store(true, Ordering::SeqCst);
    let began = Instant::now();
    while asked(&flapping) < seen + 10 {
        assert_eq!(call(&gateway).status, 200);
        assert!(began.elapsed() < Duration::from_secs(20), "taken back");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_full_target_is_left_alone_for_as_long_as_it_asks() {
    let one = |status: u16, header: &'static str| {
        let full = Fake::start(move |_| json(status, header, "{}"));
        let fake = good();
        let gateway = Gateway::start(&pool("openai", &[full.url(), fake.url()], "", "policy = \"round_robin\""));
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1200) {
            assert_eq!(call(&gateway).status, 200);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(asked(&full), 1, "{status}");
        gateway.wait_for_metric("tidegate_backend_set_aside{backend=\"b\",reason=\"full\",target=\"b/0\"} 1", true);
        while asked(&full) < 2 {
            assert_eq!(call(&gateway).status, 200);
            assert!(began.elapsed() < Duration::from_secs(20), "{status}");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    };
    std::thread::scope(|scope| {
        for (status, header) in
            [(429, "retry-after: 4\r\n"), (503, "retry-after: 4\r\n"), (529, "retry-after-ms: 4000\r\n")]
        {
            scope.spawn(move || one(status, header));
        }
    });
}

#[test]
fn neither_load_nor_clients_open_a_breaker() {
    for (status, seen_by_client) in [(429, 429), (503, 503), (400, 400), (422, 422), (404, 502), (504, 504)] {
        let fake = Fake::start(move |_| json(status, "", r#"{"error":{"message":"no"}}"#));
        let gateway = Gateway::start(&pool("openai", &[fake.url()], "", ""));
        for _ in 0..40 {
            assert_eq!(call(&gateway).status, seen_by_client, "a model with all its targets set aside is still tried");
        }
        assert_eq!(asked(&fake), 40);
        gateway.wait_for_metric("tidegate_breaker_state{backend=\"b\",target=\"b/0\"} 0", true);
    }
}

#[test]
fn a_replica_that_loads_its_model_gets_nothing_until_it_has() {
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = ready.clone();
    let loading = Fake::start(move |_| {
        let status = if is_ready.load(Ordering::SeqCst) { 200 } else { 503 };
        json(status, "", if status == 200 { CHAT } else { r#"{"error":{"message":"Loading model"}}"# })
    });
    let fake = good();
    let gateway = Gateway::start(&pool("llamacpp", &[loading.url(), fake.url()], "", "policy = \"round_robin\""));
    gateway.wait_for_metric("tidegate_backend_set_aside{backend=\"b\",reason=\"not_ready\",target=\"b/0\"} 1", true);
    gateway.wait_for_metric("tidegate_backend_up{backend=\"b\",target=\"b/0\"} 0", true);
    for _ in 0..20 {
        let answer = call(&gateway);
        assert_eq!((answer.status, answer.header("x-tidegate-attempts")), (200, Some("1")));
    }
    assert_eq!(asked(&loading), 0);
    ready.store(true, Ordering::SeqCst);
    gateway.wait_for_metric("tidegate_backend_up{backend=\"b\",target=\"b/0\"} 1", true);
    (0..20).for_each(|_| assert_eq!(call(&gateway).status, 200));
    assert_eq!(asked(&loading), 10);
}

#[test]
fn a_health_path_that_is_not_there_is_no_failure() {
    let fake =
        Fake::start(|seen| if seen.head.starts_with("get ") { json(404, "", "{}") } else { json(200, "", CHAT) });
    let gateway = Gateway::start(&pool("vllm", &[fake.url()], "", ""));
    gateway.wait_for_metric("tidegate_backend_up{backend=\"b\",target=\"b/0\"} 1", true);
    assert_eq!(metric(&gateway, "tidegate_backend_set_aside{backend=\"b\""), 0.0);
}

#[test]
fn all_dead_says_what_is_known_and_the_first_that_lives_is_found() {
    // Nobody is there at the start.
    let addresses = [dead(), dead()];
    let gateway = Gateway::start(&pool("openai", &addresses, "", ""));
    assert_eq!(call(&gateway).status, 502);
    let began = Instant::now();
    let answer = loop {
        let answer = call(&gateway);
        if answer.status == 503 {
            break answer;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{answer:?}");
    };
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(
        message,
        "None of this model's targets works at the moment: 2 failed too often of late. The last said: The backend of this model could not be reached."
    );
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&wait), "{wait}");
    assert_eq!(answer.header("x-tidegate-attempts"), Some("2"), "still tried");
    // One comes back, and the very next request finds it, whatever its breaker says.
    let address = addresses[0].strip_prefix("http://").unwrap();
    let fake = Fake::serve(TcpListener::bind(address).unwrap(), |_| json(200, "", CHAT));
    assert_eq!(call(&gateway).status, 200);
    assert_eq!(asked(&fake), 1);
}

#[test]
fn a_retry_storm_is_impossible() {
    let fakes: Vec<Fake> = (0..4).map(|_| Fake::start(|_| json(500, "", "{}"))).collect();
    let urls: Vec<String> = fakes.iter().map(Fake::url).collect();
    let gateway = Arc::new(Gateway::start(&pool("openai", &urls, "", "retries = 3")));
    let began = Instant::now();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let gateway = gateway.clone();
            std::thread::spawn(move || {
                let mut refused = 0;
                for _ in 0..100 {
                    let answer = call(&gateway);
                    assert!(matches!(answer.status, 502 | 503), "{answer:?}");
                    assert_eq!(answer.header("x-should-retry"), Some("false"));
                    refused += 1;
                }
                refused
            })
        })
        .collect();
    let requests: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    let tries: usize = fakes.iter().map(asked).sum();
    let most = requests as f64 * 1.2 + 100.0 + 10.0 * began.elapsed().as_secs_f64() + 1.0;
    assert!(tries > requests && tries as f64 <= most, "{tries} tries of {requests} requests, at most {most}");
    assert!(metric(&gateway, "tidegate_retry_budget_exhausted_total{backend=\"b\"}") > 100.0);
    let (seen, counted) = (tries - requests, metric(&gateway, "tidegate_retries_total{"));
    assert_eq!(counted as usize, seen, "each further try is counted");
}

#[test]
fn a_target_with_a_wrong_key_or_without_the_model_is_passed_over() {
    for status in [401, 403, 404] {
        let wrong = Fake::start(move |_| json(status, "", "{}"));
        let fake = good();
        let gateway = Gateway::start(&pool("openai", &[wrong.url(), fake.url()], "", "policy = \"round_robin\""));
        for _ in 0..300 {
            assert_eq!(call(&gateway).status, 200, "{status}: no budget for what costs nothing");
        }
        assert!(metric(&gateway, "tidegate_retries_total{backend=\"b\",model=\"m\",reason=\"misplaced\"}") > 5.0);
    }
}

#[test]
fn a_slow_first_token_is_tried_elsewhere_and_is_no_error() {
    let slow = Fake::start(|_| [vec![Act::Wait(Duration::from_secs(6))], stream(&chat_stream("m"), 40)].concat());
    // Times to the first token are kept in milliseconds.
    let fast = Fake::start(|_| [vec![Act::Wait(Duration::from_millis(5))], stream(&chat_stream("m"), 40)].concat());
    let limit = "timeouts = { first_token = \"1s\" }";
    let gateway = Gateway::start(&pool("openai", &[slow.url(), fast.url()], limit, "policy = \"round_robin\""));
    let streamed = CALL.replace("\"m\",", "\"m\",\"stream\":true,");
    for _ in 0..6 {
        let answer = gateway.post("/v1/chat/completions", &streamed);
        assert!(answer.status == 200 && answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    }
    assert_eq!(asked(&fast), 6);
    assert!(metric(&gateway, "tidegate_retries_total{backend=\"b\",model=\"m\",reason=\"timeout\"}") >= 3.0);
    gateway.wait_for_metric("tidegate_backend_latency_ewma_seconds{backend=\"b\",target=\"b/1\"} 0.", true);
    assert_eq!(metric(&gateway, "tidegate_breaker_state{"), 0.0);
}

#[test]
fn a_fallback_is_asked_first_while_the_model_s_own_targets_are_set_aside() {
    let fake = good();
    let sections = format!(
        "[backends.d]\nkind = \"openai\"\nurl = \"{}\"\n[backends.g]\nkind = \"openai\"\nurl = \"{}\"\n\
         [models.m]\ntargets = [{{ backend = \"d\" }}]\nfallbacks = [\"n\"]\n[models.n]\ntargets = [{{ backend = \"g\" }}]\n",
        dead(),
        fake.url()
    );
    let gateway = Gateway::start(&sections);
    let answers: Vec<Answer> = (0..6).map(|_| call(&gateway)).collect();
    let attempts: Vec<_> = answers.iter().map(|answer| answer.header("x-tidegate-attempts").unwrap()).collect();
    assert_eq!(attempts, ["2", "2", "2", "1", "1", "1"]);
    for (answer, record) in answers.iter().zip(gateway.records()) {
        assert_eq!((answer.header("x-tidegate-model"), answer.header("x-tidegate-backend")), (Some("n"), Some("g")));
        assert_eq!(answer.json()["model"], "m", "the name that was asked for");
        assert_eq!((&*record.model, &*record.backend, &*record.model_requested), ("n", "g", "m"));
    }
    let counted = |reason: &str| {
        metric(&gateway, &format!("tidegate_fallbacks_total{{backend=\"g\",model=\"m\",reason=\"{reason}\"}}"))
    };
    assert_eq!((counted("unreachable"), counted("set_aside")), (3.0, 3.0));
}

#[test]
fn what_is_known_of_an_address_outlives_a_reload() {
    let broken = Fake::start(|_| vec![Act::Reset]);
    let fake = good();
    let sections = |more: &str| {
        pool(
            "openai",
            &[broken.url(), fake.url()],
            "health = { aside = \"60s\" }",
            &format!("policy = \"round_robin\"\n{more}"),
        )
    };
    let gateway = Gateway::start(&sections(""));
    for _ in 0..20 {
        assert_eq!(call(&gateway).status, 200);
    }
    let seen = asked(&broken);
    assert!((3..=6).contains(&seen), "{seen}");
    gateway.rewrite(&sections("[models.marker]\ntargets = [{ backend = \"b\" }]"));
    gateway.wait_for_model("marker");
    for _ in 0..20 {
        assert_eq!((call(&gateway).status, asked(&broken)), (200, seen));
    }
}

#[test]
fn sessions_and_conversations_stay_where_they_are() {
    let fakes: Vec<Fake> = (0..4).map(|_| good()).collect();
    let urls: Vec<String> = fakes.iter().map(Fake::url).collect();
    let counts = || fakes.iter().map(asked).collect::<Vec<_>>();
    let who = |gateway: &Gateway, headers: &str, body: &str| {
        let before = counts();
        let headers = format!("authorization: Bearer {KEY}\r\n{headers}");
        assert_eq!(gateway.raw(&post("/v1/chat/completions", &headers, body.as_bytes())).status, 200);
        before.iter().zip(counts()).position(|(before, after)| after > *before).unwrap()
    };
    let gateway = Gateway::start(&pool("openai", &urls, "", "policy = \"session\""));
    let mut homes = std::collections::BTreeSet::new();
    for at in 0..24 {
        let home = who(&gateway, &format!("x-session-id: s{at}\r\n"), CALL);
        for body in [CALL.to_owned(), CALL.replace("\"x\"", "\"else\"")] {
            assert_eq!(who(&gateway, &format!("x-session-id: s{at}\r\n"), &body), home);
        }
        let named = CALL.replace("\"model\"", &format!("\"prompt_cache_key\":\"s{at}\",\"model\""));
        assert_eq!(who(&gateway, "", &named), home, "one key, wherever it stands");
        homes.insert(home);
    }
    assert!(homes.len() > 2, "{homes:?}");
    drop(gateway);
    let gateway = Gateway::start(&pool("openai", &urls, "", "policy = \"prefix\""));
    let mut homes = std::collections::BTreeSet::new();
    for at in 0..24 {
        let first = format!(r#"{{"role":"system","content":"You are."}},{{"role":"user","content":"question {at}"}}"#);
        let body = |more: &str| format!(r#"{{"model":"m","messages":[{first}{more}]}}"#);
        let home = who(&gateway, "", &body(""));
        let later = r#",{"role":"assistant","content":"a"},{"role":"user","content":"and then?"}"#;
        assert_eq!(who(&gateway, "", &body(later)), home);
        homes.insert(home);
    }
    assert!(homes.len() > 2, "{homes:?}");
}

#[test]
fn health_settings_that_cannot_be_meant_are_named() {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    for (health, says) in [
        ("errors = 2.0", "backends.b.health.errors: a share of requests above 0 and up to 1"),
        ("failures = 0", "backends.b.health.failures: at least 1"),
        ("aside = \"0s\"", "backends.b.health.aside: longer than nothing"),
    ] {
        std::fs::write(
            &file,
            format!("[backends.b]\nkind = \"openai\"\nurl = \"http://x\"\nhealth = {{ {health} }}\n"),
        )
        .unwrap();
        let problems = tidegate::app::load(Some(file.path()), &[]).unwrap_err();
        assert!(problems[0].to_string().contains(says), "{problems:?}");
    }
}
