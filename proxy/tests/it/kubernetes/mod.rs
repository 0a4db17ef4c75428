//! Backends behind a Service of Kubernetes.

mod cluster;

use crate::discovery::wrong_with;
use crate::fake::{CHAT, Fake, chat_stream, json, slowly};
use crate::gateway::{read_answer, until};
use crate::process::{Process, may_have_files_of_its_own, unshared};
use cluster::{Cluster, Mood, TOKEN};
use serde_json::{Value, json as value};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

/// A backend that is this Service, and a model on it.
fn behind(url: &str) -> String {
    format!(
        "[backends.b]\nkind = \"openai\"\nkubernetes = \"{url}\"\n[models.m]\npolicy = \"round_robin\"\n\
         targets = [{{ backend = \"b\" }}]\n"
    )
}

/// A gateway outside of the cluster, which knows of it what `kubectl` would.
fn outside(cluster: &Cluster, url: &str) -> Process {
    let kubeconfig = value!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": {
            "server": format!("https://{}", cluster.address), "certificate-authority": "ca.pem" } }],
        "users": [{ "name": "u", "user": { "token": TOKEN } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u", "namespace": "elsewhere" } }],
    });
    let files = [("kubeconfig", &*kubeconfig.to_string()), ("ca.pem", &cluster.authority)];
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env("KUBECONFIG", "kubeconfig").env("TIDEGATE_LOG", "info");
    Process::start(&behind(url), &files, command)
}

/// A pod of the Service, as an endpoint.
fn pod(ip: &str, ready: bool) -> Value {
    value!({ "addresses": [ip], "conditions": { "ready": ready, "serving": ready, "terminating": false },
        "targetRef": { "kind": "Pod", "uid": ip } })
}

fn calls(of: &Fake) -> usize {
    of.seen().len()
}

/// Calls until this server has had one more.
fn until_asked(gateway: &Process, fake: &Fake, what: &str) {
    let before = calls(fake);
    let asked = || {
        assert_eq!(gateway.post(CALL).status, 200);
        calls(fake) > before
    };
    until(asked, what);
}

/// How many watches have failed.
fn failures(gateway: &Process) -> u64 {
    let page = gateway.page("/metrics");
    let line =
        page.lines().find_map(|line| line.strip_prefix("tidegate_discovery_lookup_failures_total{backend=\"b\"} "));
    line.map_or(0, |number| number.parse().unwrap())
}

/// Servers at one port of two addresses, and one that is elsewhere.
fn servers() -> (Fake, Fake, Fake, u16) {
    let first_at = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = first_at.local_addr().unwrap().port();
    let second_at = TcpListener::bind(("127.0.0.3", port)).unwrap();
    let first = Fake::serve(first_at, |seen| {
        if !seen.body.contains("\"stream\":true") {
            return json(200, "", CHAT);
        }
        slowly(&chat_stream("m"), Duration::from_millis(200))
    });
    let [second, third] = [second_at, TcpListener::bind("127.0.0.4:0").unwrap()]
        .map(|listener| Fake::serve(listener, |_| json(200, "", CHAT)));
    (first, second, third, port)
}

#[test]
fn endpoints_come_and_leave_and_no_request_notices() {
    let (first, second, third, port) = servers();
    let cluster = Cluster::start();
    cluster.set("vllm-a", port, &value!([pod("127.0.0.2", true), pod("127.0.0.3", false)]));
    // The Service's own port, which is not the pods'.
    let gateway = outside(&cluster, "http://vllm.models:80");
    (0..4).for_each(|_| assert_eq!(gateway.post(CALL).status, 200));
    assert_eq!((calls(&first), calls(&second)), (4, 0), "one is not ready");
    assert!(first.seen()[0].head.contains("host: vllm.models:80"), "{:?}", first.seen()[0]);
    let mut long = gateway.send(STREAM);
    until(|| calls(&first) == 5, "the stream has begun");
    // The first is told to stop, the second has started.
    let leaving =
        value!({ "addresses": ["127.0.0.2"], "conditions": { "ready": false, "serving": true, "terminating": true } });
    cluster.set("vllm-a", port, &value!([leaving, pod("127.0.0.3", true)]));
    until_asked(&gateway, &second, "the new one is asked");
    let before = calls(&first);
    (0..10).for_each(|_| assert_eq!(gateway.post(CALL).status, 200));
    assert_eq!(calls(&first), before, "the old one is not");
    let answer = read_answer(&mut long);
    assert!(answer.whole && answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    until(|| first.open() == 0, "no connection is kept to one that left");
    // Another slice, of pods with another port.
    cluster.set("vllm-b", third.address.port(), &value!([pod("127.0.0.4", true)]));
    until_asked(&gateway, &third, "the one of the other slice is asked");
    until_asked(&gateway, &second, "and those of the first are");
    let targets = [format!("b/127.0.0.3:{port}"), format!("b/{}", third.address)];
    let shown = || {
        let page = gateway.page("/metrics");
        targets.iter().all(|target| page.contains(&format!("target=\"{target}\""))) && !page.contains("b/127.0.0.2")
    };
    until(shown, "gauges are of those that are there");
    cluster.remove("vllm-b");
    until(|| gateway.page("/metrics").contains("tidegate_discovered_addresses{backend=\"b\"} 1"), "a slice is gone");
    // Scaled to zero, which is an answer.
    cluster.set("vllm-a", port, &value!(null));
    until(|| gateway.post(CALL).status == 503, "there is none");
    let answer = gateway.post(CALL);
    assert!(
        answer.body.contains("`b` has no address at the moment: Kubernetes names none that is ready"),
        "{answer:?}"
    );
    cluster.set("vllm-a", port, &value!([pod("127.0.0.3", true)]));
    until(|| gateway.post(CALL).status == 200, "it is back");
    assert_eq!((failures(&gateway), cluster.lists()), (0, 1), "all of it was told: {}", gateway.log());
}

#[test]
fn an_api_that_fails_takes_no_address_away() {
    let (first, second, third, port) = servers();
    let cluster = Cluster::start();
    cluster.set("vllm-a", port, &value!([pod("127.0.0.2", true)]));
    let gateway = outside(&cluster, "http://vllm.models.svc:80");
    until_asked(&gateway, &first, "it is found");
    // To be told that one has to list again is nothing wrong.
    until(|| cluster.watches() == 1, "it watches");
    cluster.forget();
    until(|| cluster.watches() == 1 && cluster.lists() == 2, "it lists again");
    assert_eq!(failures(&gateway), 0, "{}", gateway.log());
    // A watch that is cut is begun again, and what happened meanwhile is known then.
    cluster.cut();
    cluster.set("vllm-a", port, &value!([pod("127.0.0.2", true), pod("127.0.0.3", true)]));
    until_asked(&gateway, &second, "it watches again");
    // Nobody there.
    let before = failures(&gateway);
    cluster.feel(Mood::Away);
    cluster.set("vllm-b", third.address.port(), &value!([pod("127.0.0.4", true)]));
    until(|| failures(&gateway) >= before + 2, "it is tried again");
    (0..20).for_each(|_| assert_eq!(gateway.post(CALL).status, 200));
    assert!(gateway.page("/metrics").contains("tidegate_discovered_addresses{backend=\"b\"} 2"));
    cluster.feel(Mood::Well);
    until_asked(&gateway, &third, "the API is back");
    until(|| gateway.log().contains("Kubernetes says where a backend is again"), "and that is said");
    let log = gateway.log();
    let said = log.matches("Kubernetes does not say where a backend is").count();
    let again = log.matches("Kubernetes says where a backend is again").count();
    assert!(said == again && said <= 2, "once for each time that it failed: {log}");
    let mut alarms = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    assert!(alarms.all(|line| line.contains("does not say where a backend is")), "nobody else talks of it: {log}");
    // Nobody uses it any more.
    let config = std::fs::read_to_string(gateway.folder.path().join("t.toml")).unwrap();
    gateway
        .write("t.toml", &config.replace("kubernetes = \"http://vllm.models.svc:80\"", "url = \"http://127.0.0.1:1\""));
    until(|| cluster.watches() == 0, "nobody watches");
}

#[test]
fn what_the_gateway_may_not_ask_is_said() {
    let (first, _second, _third, port) = servers();
    let cluster = Cluster::start();
    cluster.set("vllm-a", port, &value!([pod("127.0.0.2", true)]));
    cluster.feel(Mood::Refuses(403));
    let gateway = outside(&cluster, "http://vllm.models:80");
    assert_eq!(gateway.post(CALL).status, 503);
    until(|| failures(&gateway) >= 2, "it is tried again");
    let log = gateway.log();
    assert!(log.contains("cannot list resource") && log.contains("needs the verbs `list` and `watch`"), "{log}");
    assert_eq!(log.matches("does not say where").count(), 1, "said once: {log}");
    // What a list says counts, also if nothing may be watched; and that is no recovery.
    let before = failures(&gateway);
    cluster.feel(Mood::OnlyLists);
    until(|| gateway.post(CALL).status == 200, "it is found");
    until(|| failures(&gateway) > before, "the watch fails");
    assert!(!gateway.log().contains("is again"), "{}", gateway.log());
    cluster.feel(Mood::Well);
    until(|| gateway.log().contains("Kubernetes says where a backend is again"), "it may");
    until_asked(&gateway, &first, "it is there");
}

#[test]
fn a_pod_knows_its_cluster_and_its_namespace() {
    if !may_have_files_of_its_own() {
        return;
    }
    let (first, _second, _third, port) = servers();
    let cluster = Cluster::start();
    cluster.set("vllm-a", port, &value!([pod("127.0.0.2", true)]));
    let files = [("token", TOKEN), ("ca.crt", &*cluster.authority), ("namespace", "models")];
    // As the kubelet does it; the folder of a test machine must not change.
    let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount \
                  && cp token ca.crt namespace /run/secrets/kubernetes.io/serviceaccount/";
    let mut command = unshared(script);
    command.env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    command.env("KUBERNETES_SERVICE_HOST", cluster.address.ip().to_string());
    command.env("KUBERNETES_SERVICE_PORT", cluster.address.port().to_string());
    let gateway = Process::start(&behind(&format!("http://vllm:{port}")), &files, command);
    until_asked(&gateway, &first, "it is found");
    until(|| gateway.page("/metrics").contains("target=\"b/127.0.0.2\""), "called as with `dns`");
}

#[test]
fn a_service_that_is_not_there_and_no_cluster_are_said() {
    let cluster = Cluster::start();
    let gateway = outside(&cluster, "http://vllm.models:80");
    assert_eq!(gateway.post(CALL).status, 503);
    until(|| gateway.log().contains("there is no EndpointSlice"), "a name that is wrong is said");
    assert_eq!(failures(&gateway), 0);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env("KUBECONFIG", "no-such-file").env_remove("KUBERNETES_SERVICE_HOST");
    let gateway = Process::start(&behind("http://vllm.models:80"), &[], command);
    until(|| failures(&gateway) > 0 && gateway.log().contains("no-such-file"), "why there is no cluster is said");
    assert_eq!(gateway.post(CALL).status, 503);
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    for (backend, says) in [
        (
            "kubernetes = \"http://x:1\"\nurl = \"http://y:1\"",
            "backends.b.kubernetes: either a Service in `kubernetes`, or",
        ),
        (
            "kubernetes = \"http://x:1\"\ndns = \"http://y:1\"",
            "backends.b.kubernetes: either a Service in `kubernetes`, or",
        ),
        ("kubernetes = \"http://x.y\"", "backends.b.kubernetes: `http://x.y` must say the port"),
        ("kubernetes = \"x:1\"", "backends.b.kubernetes: `x:1` must begin with http:// or https://"),
        ("kubernetes = \"http://x.y.z:1\"", "backends.b.kubernetes: `http://x.y.z:1` must name a Service"),
        ("kubernetes = \"http://x:1/base\"", "backends.b.kubernetes: `http://x:1/base` must end with the port"),
        (
            "kubernetes = \"http://x:1\"\nrefresh = \"5s\"\ndiscover = false",
            "backends.b.refresh: `refresh` is for backends with `dns`, or",
        ),
    ] {
        let text = wrong_with(backend);
        assert!(text.contains(says), "{backend}: {text}");
    }
}
