//! Addresses that come and go behind a name.

use crate::fake::{Act, CHAT, Fake, chat_stream, json, slowly};
use crate::gateway::{Gateway, read_answer, until};
use crate::process::{Process, may_have_files_of_its_own, unshared};
use std::net::TcpListener;
use std::time::Duration;

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

/// A backend with this name, and a model on it.
fn named(url: &str, model: &str) -> String {
    format!(
        "[backends.b]\nkind = \"openai\"\ndns = \"{url}\"\nrefresh = \"100ms\"\n[models.m]\nretries = 2\ntargets = [{{ backend = \"b\" }}]\n{model}\n"
    )
}

#[test]
fn a_name_is_resolved_at_the_start_and_said_to_the_backend() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let port = fake.address.port();
    let gateway = Gateway::start(&named(&format!("http://localhost:{port}"), ""));
    let answer = gateway.post("/v1/chat/completions", CALL);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("x-tidegate-backend"), Some("b"));
    assert!(fake.seen()[0].head.contains(&format!("host: localhost:{port}")), "{:?}", fake.seen());
    assert_eq!(&*gateway.record().target, "b/127.0.0.1");
    gateway.wait_for_metric("tidegate_discovered_addresses{backend=\"b\"} ", true);
    gateway.wait_for_metric("tidegate_backend_in_flight{backend=\"b\",target=\"b/127.0.0.1\"} 0", true);
    // Neither its connections nor how it stands are touched by a reload that changes how often it is looked up.
    gateway.rewrite(
        &named(&format!("http://localhost:{port}"), "").replace("100ms", "200ms").replace("models.m", "models.m2"),
    );
    gateway.wait_for_model("m2");
    assert_eq!(gateway.post("/v1/chat/completions", &CALL.replace("\"m\"", "\"m2\"")).status, 200);
    // A backend that is gone is told of no more.
    gateway
        .rewrite(&named("http://nothing.invalid:1", "").replace("backends.b", "backends.c").replace("\"b\"", "\"c\""));
    gateway.wait_for_metric("tidegate_discovered_addresses{backend=\"b\"}", false);
}

#[test]
fn a_gateway_starts_with_a_name_that_does_not_resolve_and_says_so() {
    let gateway = Gateway::start(&named("http://nothing.invalid:8000", ""));
    for path in ["/v1/chat/completions", "/v1/embeddings", "/v1/rerank"] {
        let body =
            r#"{"model":"m","input":"x","query":"x","documents":["x"],"messages":[{"role":"user","content":"x"}]}"#;
        let answer = gateway.post(path, body);
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        assert!(answer.body.contains("`b` has no address at the moment"), "{path}: {answer:?}");
        assert!(!answer.body.contains("nothing.invalid"), "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    gateway.wait_for_metric("tidegate_discovered_addresses{backend=\"b\"} 0", true);
    gateway.wait_for_metric("tidegate_discovery_lookup_failures_total{backend=\"b\"} ", true);
}

#[test]
fn a_fallback_comes_before_a_name_without_addresses() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let other = format!(
        "fallbacks = [\"other\"]\n[backends.o]\nkind = \"openai\"\nurl = \"{}\"\n[models.other]\ntargets = [{{ backend = \"o\" }}]\n",
        fake.url()
    );
    let gateway = Gateway::start(&named("http://nothing.invalid:8000", &other));
    let answer = gateway.post("/v1/chat/completions", CALL);
    assert_eq!((answer.status, answer.header("x-tidegate-attempts")), (200, Some("1")), "{answer:?}");
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    for (backend, says) in [
        (
            "dns = \"http://x:1\"\nurl = \"http://y:1\"",
            "backends.b.dns: either a name in `dns`, or addresses in `url` and `urls`",
        ),
        ("dns = \"http://x\"", "backends.b.dns: `http://x` must say the port"),
        ("dns = \"x:1\"", "backends.b.dns: `x:1` must begin with http:// or https://"),
        ("dns = \"http://x:1/base\"", "backends.b.dns: `http://x:1/base` must end with the port"),
        ("dns = \"http://10.0.0.1:1\"", "backends.b.dns: `http://10.0.0.1:1` names an address already"),
        (
            "url = \"http://x:1\"\nrefresh = \"5s\"\ndiscover = false",
            "backends.b.refresh: `refresh` is for backends with `dns`, or",
        ),
        ("dns = \"http://x:1\"\nrefresh = \"1ms\"", "backends.b.refresh: between 100ms and an hour"),
        (
            "",
            "backends.b: a backend needs a `url` (or several `urls`, or a name in `dns`, or a Service in `kubernetes`)",
        ),
    ] {
        let text = wrong_with(backend);
        assert!(text.contains(says), "{backend}: {text}");
    }
}

#[cfg(not(feature = "kubernetes"))]
#[test]
fn a_program_that_cannot_ask_kubernetes_says_so() {
    let text = wrong_with("kubernetes = \"http://vllm:8000\"");
    assert!(text.contains("backends.b.kubernetes: this program cannot ask Kubernetes"), "{text}");
    assert!(text.contains("--features kubernetes"), "{text}");
}

/// Everything that is wrong with a backend that has these keys.
pub fn wrong_with(backend: &str) -> String {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(&file, format!("[backends.b]\nkind = \"vllm\"\n{backend}\n")).unwrap();
    let found = tidegate::app::load(Some(file.path()), &[]).unwrap_err();
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A gateway that has a file of hosts of its own, which this host's resolver reads each time.
fn with_hosts(sections: &str, hosts: &str) -> Process {
    // Only files: what else would answer for the names of a test must not be asked.
    let files = [("hosts", hosts), ("nsswitch.conf", "hosts: files\n")];
    let script = "mount --bind hosts /etc/hosts && mount --bind nsswitch.conf /etc/nsswitch.conf";
    Process::start(sections, &files, unshared(script))
}

/// Two backends on one port of two addresses.
fn replicas(first: impl Fn(&crate::fake::Seen) -> Vec<Act> + Send + Sync + 'static) -> (Fake, Fake, u16) {
    let first_at = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = first_at.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.3", port)).unwrap();
    (Fake::serve(first_at, first), Fake::serve(second, |_| json(200, "", CHAT)), port)
}

#[test]
fn addresses_come_and_leave_and_no_request_notices() {
    if !may_have_files_of_its_own() {
        return;
    }
    let (first, second, port) = replicas(|seen| {
        if !seen.body.contains("\"stream\":true") {
            return json(200, "", CHAT);
        }
        slowly(&chat_stream("m"), Duration::from_millis(300))
    });
    let gateway =
        with_hosts(&named(&format!("http://replicas:{port}"), "policy = \"round_robin\""), "127.0.0.2 replicas\n");
    let calls = |of: &Fake| of.seen().len();
    assert_eq!(gateway.post(CALL).status, 200);
    assert_eq!((calls(&first), calls(&second)), (1, 0));
    let mut long = gateway.send(STREAM);
    until(|| calls(&first) == 2, "the stream has begun");
    // It has moved: requests go to where it is now, and the stream goes on where it is.
    gateway.write("hosts", "127.0.0.3 replicas\n");
    until(
        || {
            assert_eq!(gateway.post(CALL).status, 200);
            calls(&second) > 0
        },
        "the new address is asked",
    );
    let before = calls(&first);
    (0..20).for_each(|_| assert_eq!(gateway.post(CALL).status, 200));
    assert_eq!(calls(&first), before, "the old one is not");
    let answer = read_answer(&mut long);
    assert!(answer.whole && answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    until(|| first.open() == 0, "no connection is kept to an address that left");
    until(
        || {
            let gauges = gateway.page("/metrics");
            gauges.contains("target=\"b/127.0.0.3\"") && !gauges.contains("target=\"b/127.0.0.2\"")
        },
        "only the new one is told of",
    );
    // It does not resolve any more: what is known is kept.
    gateway.write("hosts", "\n");
    until(
        || {
            !gateway.page("/metrics").contains("lookup_failures_total{backend=\"b\"} 0")
                && gateway.page("/metrics").contains("lookup_failures_total{backend=\"b\"}")
        },
        "it fails",
    );
    (0..20).for_each(|_| assert_eq!(gateway.post(CALL).status, 200));
    assert!(gateway.page("/metrics").contains("tidegate_discovered_addresses{backend=\"b\"} 1"));
    // Both.
    gateway.write("hosts", "127.0.0.2 replicas\n127.0.0.3 replicas\n");
    until(
        || {
            assert_eq!(gateway.post(CALL).status, 200);
            calls(&first) > before
        },
        "the first is back",
    );
    assert_eq!(gateway.log().matches("does not resolve").count(), 1, "said once: {}", gateway.log());
}
