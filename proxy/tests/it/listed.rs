//! Which models are where: asked of the backends, believed where it helps, and told to clients.

use crate::fake::{Act, CHAT, Fake, Seen, json};
use crate::gateway::{Answer, Gateway, one_backend, post, until};
use crate::guest::{Guest, ON_CALL, importing, wat};
use serde_json::json as value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// An Ollama that has these models, of which some are loaded.
fn ollama(has: &'static [&'static str], loaded: &'static [&'static str]) -> Fake {
    let list = |names: &[&str]| {
        let models: Vec<_> =
            names.iter().map(|name| value!({"name": name, "model": name, "context_length": 4096})).collect();
        json(200, "", &value!({ "models": models }).to_string())
    };
    Fake::start(move |seen| match path(seen) {
        "/api/tags" => list(has),
        "/api/ps" => list(loaded),
        "/api/version" => json(200, "", r#"{"version":"0.13.0"}"#),
        _ => json(200, "", CHAT),
    })
}

fn path(seen: &Seen) -> &str {
    seen.head.split(' ').nth(1).unwrap()
}

/// Requests for text.
fn asked(fake: &Fake) -> usize {
    fake.seen().iter().filter(|seen| seen.head.starts_with("post ")).count()
}

fn times(fake: &Fake, at: &str) -> usize {
    fake.seen().iter().filter(|seen| path(seen) == at).count()
}

fn call(gateway: &Gateway, model: &str) -> Answer {
    let body = value!({"model": model, "messages": [{"role": "user", "content": "x"}]});
    gateway.post("/v1/chat/completions", &body.to_string())
}

/// These addresses of one kind, every model of them, and `m`.
fn all(kind: &str, urls: &[String], more: &str) -> String {
    format!(
        "[backends.b]\nkind = \"{kind}\"\nurls = {urls:?}\n{more}\n[models.\"*\"]\npolicy = \"round_robin\"\ntargets = [{{ backend = \"b\" }}]\n\
         [models.m]\ntargets = [{{ backend = \"b\", model = \"a\" }}]\n"
    )
}

/// Waits until so many models of a target are known.
fn wait(gateway: &Gateway, target: &str, state: &str, count: usize) {
    let line = format!("tidegate_discovered_models{{backend=\"b\",state=\"{state}\",target=\"{target}\"}} {count}");
    gateway.wait_for_metric(&line, true);
}

fn names(answer: &Answer) -> Vec<String> {
    let list = answer.json();
    let list = list["data"].as_array().or(list["models"].as_array()).unwrap().clone();
    list.iter().map(|model| model["id"].as_str().or(model["model"].as_str()).unwrap().to_owned()).collect()
}

#[test]
fn requests_go_where_the_model_is() {
    let (first, second) = (ollama(&["a:latest", "both:1"], &[]), ollama(&["b:1", "both:1"], &[]));
    let gateway = Gateway::start(&all("ollama", &[first.url(), second.url()], ""));
    wait(&gateway, "b/0", "cold", 2);
    wait(&gateway, "b/1", "cold", 2);
    for (model, on_first, on_second) in
        [("a", 6, 0), ("a:latest", 6, 0), ("m", 6, 0), ("b:1", 0, 6), ("both:1", 3, 3), ("in-no-list", 3, 3)]
    {
        let before = (asked(&first), asked(&second));
        (0..6).for_each(|_| assert_eq!(call(&gateway, model).status, 200, "{model}"));
        let (first, second) = (asked(&first) - before.0, asked(&second) - before.1);
        assert_eq!((first, second), (on_first, on_second), "{model}");
    }
    assert!(gateway.booked(36).iter().all(|record| record.attempts == 1), "nobody was sent where it is not");
}

#[test]
fn where_it_is_loaded_comes_first_while_there_is_room() {
    let (cold, warm) = (ollama(&["a:latest"], &[]), ollama(&["a:latest"], &["a:latest"]));
    let gateway = Gateway::start(&all("ollama", &[cold.url(), warm.url()], ""));
    wait(&gateway, "b/0", "cold", 1);
    wait(&gateway, "b/1", "loaded", 1);
    (0..10).for_each(|_| assert_eq!(call(&gateway, "a").status, 200));
    assert_eq!((asked(&cold), asked(&warm)), (0, 10));
}

#[test]
fn a_busy_replica_does_not_keep_the_others_cold() {
    let cold = ollama(&["a"], &[]);
    let (hold, held) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(0)));
    let (holds, count) = (hold.clone(), held.clone());
    let warm = Fake::start(move |seen| match path(seen) {
        "/api/tags" | "/api/ps" => json(200, "", r#"{"models":[{"model":"a"}]}"#),
        "/api/version" => json(200, "", "{}"),
        _ => {
            *count.lock().unwrap() += 1;
            while holds.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            json(200, "", CHAT)
        }
    });
    let gateway = Gateway::start(&all("ollama", &[cold.url(), warm.url()], ""));
    wait(&gateway, "b/0", "cold", 1);
    wait(&gateway, "b/1", "loaded", 1);
    std::thread::scope(|scope| {
        for at in 1..=4 {
            scope.spawn(|| assert_eq!(call(&gateway, "a").status, 200));
            until(|| *held.lock().unwrap() == at, "the loaded one has it");
        }
        while asked(&cold) == 0 {
            scope.spawn(|| assert_eq!(call(&gateway, "a").status, 200));
            std::thread::sleep(Duration::from_millis(20));
        }
        hold.store(false, Ordering::SeqCst);
    });
}

#[test]
fn lists_tell_clients_of_what_they_may_use() {
    let fake = ollama(&["a:latest", "b:1"], &["a:latest"]);
    let gateway = Gateway::start(&all("ollama", &[fake.url()], ""));
    wait(&gateway, "b/0", "loaded", 1);
    assert_eq!(names(&gateway.get("/v1/models", "")), ["a:latest", "b:1", "m"]);
    assert_eq!(names(&gateway.get("/v1/models", "anthropic-version: 2023-06-01\r\n")), ["a:latest", "b:1", "m"]);
    assert_eq!(names(&gateway.get("/api/tags", "")), ["a:latest", "b:1", "m:latest"]);
    assert_eq!(names(&gateway.get("/api/ps", "")), ["a:latest", "m:latest"]);
    assert_eq!(gateway.get("/api/ps", "").json()["models"][0]["context_length"], 4096);
    let info = gateway.post("/api/show", r#"{"model":"m"}"#).json()["model_info"].clone();
    let architecture = info["general.architecture"].as_str().unwrap();
    assert_eq!(info[format!("{architecture}.context_length")], 4096);
    let unknown = value!({"general.architecture": "unknown", "general.basename": "b:1"});
    assert_eq!(gateway.post("/api/show", r#"{"model":"b:1"}"#).json()["model_info"], unknown);
    assert_eq!(gateway.get("/v1/models/a", "").json()["max_model_len"], 4096, "by its other name");
    assert!(gateway.get("/v1/models/b:1", "").json().get("max_model_len").is_none());
    // Who may use `m` only hears of no other.
    for (at, name) in [("/v1/models", "m"), ("/api/tags", "m:latest"), ("/api/ps", "m:latest")] {
        let request = format!("GET {at} HTTP/1.1\r\nhost: x\r\nx-api-key: dfproj_small\r\n\r\n");
        assert_eq!(names(&gateway.raw(request.as_bytes())), [name], "{at}");
    }
}

/// As Open WebUI asks for it, which puts the default tag behind a name without.
#[test]
fn a_name_may_be_asked_for_with_ollama_s_default_tag() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let sections = one_backend("openai", &fake.url(), "") + "[models.\"*\"]\ntargets = [{ backend = \"b\" }]\n";
    let gateway = Gateway::start(&sections);
    let asks = r#"{"model":"m:latest","stream":false,"messages":[{"role":"user","content":"x"}]}"#;
    for at in ["/api/chat", "/v1/chat/completions", "/v1/messages"] {
        assert_eq!(gateway.post(at, asks).json()["model"], "m:latest", "{at}");
    }
    assert!(gateway.booked(3).iter().all(|record| record.model_requested == "m"), "one model, one row of a bill");
    let called = |seen: &Seen| seen.body.contains(r#""model":"served""#) || !seen.head.starts_with("post ");
    assert!(asked(&fake) == 3 && fake.seen().iter().all(called), "the target is told its own name");
    assert_eq!(gateway.post("/api/show", r#"{"model":"m:latest"}"#).status, 200);
    // What holds for the name holds for it with the tag.
    let small = |model: &str| {
        let body = asks.replace("m:latest", model);
        gateway.raw(&post("/v1/chat/completions", "x-api-key: dfproj_small\r\n", body.as_bytes())).status
    };
    assert_eq!([small("m:latest"), small("served:latest")], [200, 404]);
    let model = "(import \"tidegate:plugin/calls@0.1.0\" \"[method]call.model\" (func $model (param i32 i32)))";
    let knows = "(call $model (local.get $call) (i32.const 3600)) (if (i32.ne (i32.load (i32.const 3604)) (i32.const 1)) (then unreachable))";
    let knows = Guest::new(&importing(&wat(ON_CALL, knows), model));
    let shown = Gateway::start(&(sections.clone() + &knows.section("p", "")));
    assert_eq!(shown.post("/v1/chat/completions", asks).json()["model"], "m:latest", "its plugin is told of `m`");
    let trap = Guest::new(&wat(ON_CALL, "unreachable"));
    let guarded = Gateway::start(&(sections + &trap.section("p", "attach = { models = [\"m\"] }")));
    assert_eq!(guarded.post("/v1/chat/completions", asks).json()["error"]["code"], "plugin_failed");
}

#[test]
fn a_server_s_own_words_for_its_context_are_passed_on() {
    for (kind, list, context) in [
        ("vllm", r#"{"object":"list","data":[{"id":"served","max_model_len":32768,"root":"/x"}]}"#, 32768),
        ("llamacpp", r#"{"models":[],"data":[{"id":"served","meta":{"n_ctx_train":8192}}]}"#, 8192),
    ] {
        let fake =
            Fake::start(move |seen| if path(seen) == "/v1/models" { json(200, "", list) } else { json(200, "", CHAT) });
        let gateway = Gateway::start(&one_backend(kind, &fake.url(), ""));
        wait(&gateway, "b/0", "loaded", 1);
        let shown = gateway.get("/v1/models/m", "").json();
        assert_eq!((&shown["id"], &shown["max_model_len"]), (&value!("m"), &value!(context)), "{kind}");
        let asked = fake.seen().into_iter().find(|seen| path(seen) == "/v1/models").unwrap();
        assert!(asked.head.contains("authorization: bearer backend-key"), "{asked:?}");
    }
}

#[test]
fn nonsense_is_no_list_and_keeps_nobody_from_anything() {
    for (what, answer) in [
        ("a page", json(200, "", "<html>hello</html>")),
        ("nothing there", json(404, "", r#"{"error":"no"}"#)),
        ("an error", json(500, "", "{}")),
        ("an empty list", json(200, "", r#"{"data":[]}"#)),
        ("a redirect", json(302, "location: http://127.0.0.1:1/\r\n", "")),
        ("a reset", vec![Act::Reset]),
        ("nothing in time", vec![Act::Wait(Duration::from_secs(7))]),
    ] {
        let bad =
            Fake::start(move |seen| if path(seen) == "/v1/models" { answer.clone() } else { json(200, "", CHAT) });
        let good = Fake::start(|seen| match path(seen) {
            "/v1/models" => json(200, "", r#"{"data":[{"id":"other"}]}"#),
            _ => json(200, "", CHAT),
        });
        let gateway = Gateway::start(&all("vllm", &[bad.url(), good.url()], ""));
        until(|| times(&bad, "/v1/models") > 0 && times(&good, "/v1/models") > 0, what);
        (0..6).for_each(|_| assert_eq!(call(&gateway, "in-no-list").status, 200, "{what}"));
        assert!(asked(&bad) > 0 && asked(&good) > 0, "{what}: a model in no list may be at each of them");
        assert_eq!(gateway.get("/v1/models", "").status, 200);
    }
}

#[test]
fn a_list_without_end_is_none_and_odd_names_are_passed_over() {
    let list = |count: usize| {
        let models: Vec<_> = (0..count).map(|at| value!({"id": format!("model-{at}")})).collect();
        let odd = [value!({"id": "x".repeat(300)}), value!({"id": ""}), value!({"id": "a\nb"})];
        let models = [&odd[..], &models[..]].concat();
        value!({ "data": models }).to_string()
    };
    let serve =
        |list: String| Fake::start(move |seen| json(200, "", if path(seen) == "/v1/models" { &list } else { CHAT }));
    let (long, endless) = (serve(list(2000)), serve(list(2001)));
    let gateway = Gateway::start(&all("vllm", &[long.url(), endless.url()], ""));
    wait(&gateway, "b/0", "loaded", 2000);
    until(|| times(&endless, "/v1/models") > 0, "the other is asked, too");
    let names = names(&gateway.get("/v1/models", ""));
    assert_eq!(names.len(), 2001, "and `m`");
    assert!(names.iter().all(|name| name == "m" || name.starts_with("model-")));
    (0..6).for_each(|_| assert_eq!(call(&gateway, "model-7").status, 200));
    assert!(asked(&endless) > 0, "nobody knows what it lacks");
}

#[test]
fn a_silent_address_keeps_nobody_s_list_back_and_is_asked_again_soon() {
    let silent = Arc::new(AtomicBool::new(true));
    let still = silent.clone();
    let starting = Fake::start(move |seen| match path(seen) {
        "/v1/models" if still.load(Ordering::SeqCst) => vec![Act::Wait(Duration::from_secs(60))],
        "/v1/models" => json(200, "", r#"{"data":[{"id":"late"}]}"#),
        _ => json(200, "", CHAT),
    });
    let ready = ollama(&["soon"], &[]);
    let gateway = Gateway::start(&format!(
        "[backends.b]\nkind = \"ollama\"\nurl = \"{}\"\n[backends.c]\nkind = \"vllm\"\nurl = \"{}\"\n\
         [models.\"*\"]\ntargets = [{{ backend = \"b\" }}, {{ backend = \"c\" }}]\n",
        ready.url(),
        starting.url()
    ));
    until(|| times(&starting, "/v1/models") > 0, "it is asked");
    let began = Instant::now();
    gateway.wait_for_model("soon");
    assert!(began.elapsed() < Duration::from_secs(4), "it takes five to give the other up");
    silent.store(false, Ordering::SeqCst);
    gateway.wait_for_model("late");
    assert!(began.elapsed() < Duration::from_secs(25), "not only after thirty");
}

#[test]
fn a_model_that_no_address_lists_is_tried_before_its_fallback() {
    let (own, other) = (ollama(&["x"], &[]), ollama(&["other"], &["other"]));
    let sections = format!(
        "[backends.b]\nkind = \"ollama\"\nurl = \"{}\"\n[backends.o]\nkind = \"ollama\"\nurl = \"{}\"\n\
         [models.m]\ntargets = [{{ backend = \"b\" }}]\nfallbacks = [\"other\"]\n[models.other]\ntargets = [{{ backend = \"o\" }}]\n",
        own.url(),
        other.url()
    );
    let gateway = Gateway::start(&sections);
    wait(&gateway, "b/0", "cold", 1);
    assert_eq!(call(&gateway, "m").header("x-tidegate-backend"), Some("b"));
}

#[test]
fn changes_are_seen_without_hammering() {
    let many = Arc::new(AtomicBool::new(false));
    let (at_once, grown) = (Arc::new(Mutex::new((0, 0))), many.clone());
    let most = at_once.clone();
    let fake = Fake::start(move |seen| {
        if !path(seen).starts_with("/api/") {
            return json(200, "", CHAT);
        }
        if path(seen) != "/api/version" {
            let mut now = most.lock().unwrap();
            *now = (now.0 + 1, now.1.max(now.0 + 1));
            drop(now);
            std::thread::sleep(Duration::from_millis(50));
            most.lock().unwrap().0 -= 1;
        }
        let more = if grown.load(Ordering::SeqCst) { r#",{"name":"new"}"# } else { "" };
        json(200, "", &format!(r#"{{"models":[{{"name":"a"}}{more}]}}"#))
    });
    let gateway = Gateway::start(&all("ollama", &[fake.url()], "refresh = \"1s\""));
    gateway.wait_for_model("a");
    many.store(true, Ordering::SeqCst);
    gateway.wait_for_model("new");
    // What is configured anew is not asked anew.
    let steady = ollama(&["a"], &[]);
    let quiet = Gateway::start(&all("ollama", &[steady.url()], ""));
    quiet.wait_for_model("a");
    quiet.rewrite(&all("ollama", &[steady.url()], "").replace("models.m", "models.m2"));
    quiet.wait_for_model("m2");
    assert_eq!(names(&quiet.get("/v1/models", "")), ["a", "m2"], "known through a reload");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((times(&steady, "/api/tags"), times(&steady, "/api/ps")), (1, 1));
    assert_eq!(at_once.lock().unwrap().1, 1, "one question at a time");
}

#[test]
fn who_is_asked_is_a_setting() {
    for (kind, more, is_asked) in [
        ("vllm", "", true),
        ("vllm", "discover = false", false),
        ("openai", "", false),
        ("openai", "discover = true", true),
        ("anthropic", "", false),
    ] {
        let fake = Fake::start(|_| json(200, "", r#"{"data":[{"id":"served"}]}"#));
        let gateway = Gateway::start(&one_backend(kind, &fake.url(), more));
        if is_asked {
            wait(&gateway, "b/0", "loaded", 1);
        } else {
            std::thread::sleep(Duration::from_millis(300));
        }
        assert_eq!(times(&fake, "/v1/models") > 0, is_asked, "{kind} {more}");
    }
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    for (backend, says) in [
        (
            "kind = \"anthropic\"\nurl = \"http://x\"\ndiscover = true",
            "backends.b.discover: `discover` is for kinds that list their models",
        ),
        (
            "kind = \"openai\"\nurl = \"http://x\"\nrefresh = \"5s\"",
            "backends.b.refresh: `refresh` is for backends with `dns`, or that are asked",
        ),
    ] {
        std::fs::write(&file, format!("[backends.b]\n{backend}\n")).unwrap();
        let found = tidegate::app::load(Some(file.path()), &[]).unwrap_err();
        assert!(found.iter().any(|problem| problem.to_string().contains(says)), "{backend}: {found:?}");
    }
}
