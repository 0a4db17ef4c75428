//! Every way for a plugin to fail, many times at once, beside a neighbour who must not notice.

use crate::fake::{Act, CHAT, Fake, chat_stream, json, stream};
use crate::gateway::{Answer, Gateway, one_backend};
use crate::guest::{ASK, CALL, Fault, Guest, ON_CALL, ON_END, SEND, STREAM, ask, faults, get, importing, wat};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tidegate::canon::Outcome;

const PATH: &str = "/v1/chat/completions";
/// How long everything goes wrong at least; on a busy machine until enough has, but no longer than `MOST`.
const LENGTH: Duration = Duration::from_secs(3);
const MOST: Duration = Duration::from_secs(30);
/// Connections with failing requests, and with the neighbour's.
const CROWD: usize = 6;
const NEIGHBOURS: usize = 3;

/// The ways to fail, with those that need the world outside: `silent` takes connections and says nothing.
fn all(silent: &str) -> Vec<(Fault, &'static str)> {
    let mut all: Vec<_> = faults().into_iter().map(|fault| (fault, "")).collect();
    let more = |name, function, body: String, kind| Fault { name, function, body, kind };
    all.push((more("trap in on-end", ON_END, "unreachable".into(), "trap"), ""));
    all.push((more("no end in on-end", ON_END, "(loop $l (br $l))".into(), "timeout"), ""));
    // Again and again, as long as it may wait.
    let sleep = format!("(loop $l {} (br $l))", get(silent));
    all.push((more("asleep in http", ON_CALL, sleep, "timeout"), SEND));
    let sleep = format!("(loop $l {} (br $l))", ask("mute", "is it?"));
    all.push((more("asleep in a question", ON_CALL, sleep, "timeout"), ASK));
    all
}

/// Everybody's backend; the model `mute` hangs in it.
fn backend() -> Fake {
    Fake::start(|seen| {
        if seen.body.contains("is it?") {
            return vec![Act::Wait(Duration::from_secs(10)), Act::Close];
        }
        if seen.body.contains("\"stream\":true") { stream(&chat_stream("m"), 40) } else { json(200, "", CHAT) }
    })
}

#[test]
fn the_neighbour_of_a_crowd_of_failing_plugins_does_not_notice() {
    let (fake, silent) = (backend(), Fake::start(|_| vec![Act::Wait(Duration::from_secs(10)), Act::Close]));
    let all = all(&silent.url());
    let guests: Vec<_> =
        all.iter().map(|(fault, import)| Guest::new(&importing(&wat(fault.function, &fault.body), import))).collect();
    let mut sections = format!(
        "{}[models.\"fault-*\"]\ntargets = [{{ backend = \"b\", model = \"served\" }}]\n[models.mute]\ntargets = [{{ backend = \"b\" }}]\n",
        one_backend("openai", &fake.url(), "")
    );
    for (number, guest) in guests.iter().enumerate() {
        let settings = format!(
            "attach = {{ models = [\"fault-{number}\"] }}\ngrants = {{ http = [\"{}\"], model = [\"mute\"] }}\nlimits = {{ output = \"1MiB\", time = \"10ms\", wait = \"150ms\" }}",
            silent.url()
        );
        sections += &guest.section(&format!("p{number}"), &settings);
    }
    let gateway = Gateway::start(&sections);
    let expected = [gateway.post(PATH, CALL), gateway.post(PATH, STREAM)];
    let (stop, turn, calm_turn) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (failed, served) = std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..CROWD).map(|_| scope.spawn(|| fail(&gateway, &all, &stop, &turn))).collect();
        let calm: Vec<_> =
            (0..NEIGHBOURS).map(|_| scope.spawn(|| live(&gateway, &expected, &stop, &calm_turn))).collect();
        let enough = || turn.load(Ordering::Relaxed) > 3 * all.len() + CROWD && calm_turn.load(Ordering::Relaxed) > 50;
        let began = Instant::now();
        while began.elapsed() < LENGTH || (!enough() && began.elapsed() < MOST) {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        let all = |threads: Vec<std::thread::ScopedJoinHandle<'_, Vec<String>>>| {
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<HashSet<_>>()
        };
        (all(crowd), all(calm))
    });
    assert!(failed.len() > 3 * all.len() && served.len() > 50, "{} {}", failed.len(), served.len());
    settled(&gateway);
    every_request_left_one_record(&gateway, &failed, &served);
    let metrics = gateway.operator("/metrics").body;
    for (number, (fault, _)) in all.iter().enumerate() {
        let found = metrics.lines().any(|line| {
            line.starts_with("tidegate_plugin_errors_total{")
                && line.contains(&format!("kind=\"{}\",plugin=\"p{number}\"", fault.kind))
        });
        assert!(found, "{}: no failure of kind {}\n{metrics}", fault.name, fault.kind);
    }
}

/// One failing request after the other; their ids.
fn fail(gateway: &Gateway, all: &[(Fault, &str)], stop: &AtomicBool, turn: &AtomicUsize) -> Vec<String> {
    let mut ids = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = turn.fetch_add(1, Ordering::Relaxed);
        let (fault, _) = &all[number % all.len()];
        let body = if (number / all.len()).is_multiple_of(2) { CALL } else { STREAM };
        let answer = gateway.post(PATH, &body.replace("\"m\"", &format!("\"fault-{}\"", number % all.len())));
        // What fails at the end has been answered by then.
        let told = answer.body.contains("plugin_failed") || fault.function == ON_END;
        assert!(told && answer.whole, "{}: {} {}", fault.name, answer.status, answer.body);
        ids.push(id(&answer));
    }
    ids
}

/// One good request after the other: each reply is what it was before the trouble began.
fn live(gateway: &Gateway, expected: &[Answer; 2], stop: &AtomicBool, turn: &AtomicUsize) -> Vec<String> {
    let mut ids = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        for (body, expect) in [CALL, STREAM].into_iter().zip(expected) {
            let began = Instant::now();
            let answer = gateway.post(PATH, body);
            assert_eq!((answer.status, &answer.body, answer.whole), (200, &expect.body, true));
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
            turn.fetch_add(1, Ordering::Relaxed);
            ids.push(id(&answer));
        }
    }
    ids
}

fn id(answer: &Answer) -> String {
    answer.header("x-request-id").unwrap().to_owned()
}

/// All gauges come back to zero.
fn settled(gateway: &Gateway) {
    let gauges = ["tidegate_in_flight{", "tidegate_plugin_instances{", "tidegate_backend_in_flight{"];
    let began = Instant::now();
    loop {
        let metrics = gateway.operator("/metrics").body;
        let lines = metrics.lines().filter(|line| gauges.iter().any(|gauge| line.starts_with(gauge)));
        let busy: Vec<_> = lines.filter(|line| !line.ends_with(" 0")).collect();
        if busy.is_empty() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{busy:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn every_request_left_one_record(gateway: &Gateway, failed: &HashSet<String>, served: &HashSet<String>) {
    let (questions, records): (Vec<_>, Vec<_>) =
        gateway.records().into_iter().partition(|record| &*record.endpoint == "plugin/ask");
    // The two before the trouble began.
    assert_eq!(records.len(), failed.len() + served.len() + 2);
    let ids: HashSet<_> = records.iter().map(|record| &record.request_id).collect();
    assert_eq!(ids.len(), records.len());
    assert!(failed.union(served).all(|id| ids.contains(id)));
    for record in records.iter().filter(|record| served.contains(&record.request_id)) {
        assert_eq!((record.outcome, record.input_tokens, record.tags.len()), (Outcome::Ok, Some(11), 0), "{record:#?}");
    }
    assert!(!questions.is_empty());
    assert!(questions.iter().all(|question| question.outcome == Outcome::ClientGone), "{questions:#?}");
}
