//! Plugins from socket to socket: what each answer does to a request and its reply, and what each way to fail does not do.
//!
//! The guests are made in `guest.rs`. First-party plugins are tried by `proxy/tests/clients`.

use crate::fake::{Act, CHAT, Fake, chat_stream, json, stream_head};
use crate::gateway::{Gateway, KEY, one_backend, until};
use crate::guest::{
    CALL, DESCRIBE, Fault, Guest, ON_CALL, ON_END, ON_EVENTS, STREAM, before, fake, faults, importing, store, wat,
};
use crate::process::Process;
use tidegate::canon::Outcome;

#[test]
fn one_that_lets_everything_pass_leaves_no_mark() {
    let guest = Guest::new(&wat(ON_CALL, ""));
    let fake = fake();
    let with = before(&fake, &guest, "");
    let without = Gateway::start(&one_backend("openai", &fake.url(), ""));
    for (path, body) in [
        ("/v1/chat/completions", STREAM.to_owned()),
        ("/v1/chat/completions", STREAM.replace("true}", "true,\"stream_options\":{\"include_usage\":true}}")),
        ("/v1/chat/completions", CALL.to_owned()),
    ] {
        let (one, other) = (with.post(path, &body), without.post(path, &body));
        assert_eq!((one.status, &one.body), (200, &other.body), "{body}");
        assert_eq!(one.header("x-tidegate-plugins"), None);
    }
    // Across dialects, too; ids and times are the gateway's own there.
    let text = |answer: crate::gateway::Answer| answer.json()["content"][0]["text"].clone();
    assert_eq!(text(with.post("/v1/messages", CALL)), text(without.post("/v1/messages", CALL)));
    assert!(with.post("/v1/messages", STREAM).body.contains("message_stop"));
    for record in with.wait_for_records(5) {
        assert_eq!((record.outcome, record.tags.len()), (Outcome::Ok, 0));
    }
    for hook in ["on_call", "on_end"] {
        let line = format!("tidegate_plugin_duration_seconds_count{{hook=\"{hook}\",plugin=\"p\"}} 5");
        with.wait_for_metric(&line, true);
    }
}

/// What a hook does wrong, the kind it is counted as, and what the failing plugin's settings must be for it.
#[test]
fn each_failure_ends_its_own_request_and_nothing_else() {
    let fake = fake();
    for Fault { name, function, body, kind } in faults() {
        let guest = Guest::new(&wat(function, &body));
        let settings = "attach = { projects = [\"web\"] }\nlimits = { output = \"1MiB\", time = \"20ms\" }";
        let gateway = before(&fake, &guest, settings);
        let answer = gateway.post("/v1/chat/completions", CALL);
        assert_eq!(answer.status, 500, "{name}: {}", answer.body);
        assert_eq!(answer.json()["error"]["code"], "plugin_failed", "{name}");
        assert_eq!(answer.header("x-tidegate-plugins"), Some("p"), "{name}");
        assert!(!answer.body.contains("wasm") && !answer.body.contains("guest-"), "{name}: {}", answer.body);
        let streamed = gateway.post("/v1/chat/completions", STREAM);
        let broken =
            streamed.status == 500 || (streamed.body.contains("plugin_failed") && !streamed.body.contains("[DONE]"));
        assert!(broken, "{name}: {} {}", streamed.status, streamed.body);
        let anthropic = gateway.post("/v1/messages", CALL);
        assert_eq!((anthropic.status, anthropic.json()["type"].as_str()), (500, Some("error")), "{name}");
        // Another project does not meet the plugin and is not disturbed.
        let other = gateway.raw(&crate::gateway::post(
            "/v1/chat/completions",
            "authorization: Bearer dfproj_small\r\ncontent-type: application/json\r\n",
            CALL.as_bytes(),
        ));
        assert_eq!(other.status, 200, "{name}: {}", other.body);
        let records = gateway.wait_for_records(4);
        let outcomes = records.iter().filter(|record| record.outcome == Outcome::Plugin).count();
        assert_eq!(outcomes, 3, "{name}: {records:#?}");
        let tagged = records.iter().filter(|record| record.tags == ["plugin:p"]).count();
        assert_eq!(tagged, 3, "{name}: the record says which plugin it was");
        let metrics = gateway.operator("/metrics").body;
        let hook = if function == ON_CALL { "on_call" } else { "on_events" };
        let line = format!("tidegate_plugin_errors_total{{hook=\"{hook}\",kind=\"{kind}\",plugin=\"p\"}} 3");
        assert!(metrics.contains(&line), "{name}: no {line} in\n{metrics}");
        assert!(metrics.contains("error_type=\"plugin_failed\""), "{name}");
    }
}

#[test]
fn a_plugin_without_a_free_instance_is_full() {
    let chunk = chat_stream("m").split_inclusive("\n\n").nth(1).unwrap().to_owned();
    let fake = Fake::start(move |seen| match seen.body.contains("\"stream\":true") {
        true => vec![stream_head(), Act::Forever(chunk.clone().into())],
        false => json(200, "", CHAT),
    });
    let gateway = before(&fake, &Guest::new(&wat(ON_CALL, "")), "limits = { instances = 1 }");
    let client = gateway.send("/v1/chat/completions", KEY, STREAM);
    until(|| !fake.seen().is_empty(), "the stream has the instance");
    let answer = gateway.post("/v1/chat/completions", CALL);
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (503, Some("plugin_failed")));
    assert_eq!(answer.header("retry-after"), Some("1"));
    gateway.wait_for_metric("tidegate_plugin_errors_total{hook=\"on_call\",kind=\"full\",plugin=\"p\"} 1", true);
    drop(client);
    until(|| gateway.post("/v1/chat/completions", CALL).status == 200, "it is free again");
}

#[test]
fn all_memories_of_an_instance_share_its_limit() {
    let grow = "(drop (memory.grow $more (i32.const 600))) (drop (memory.grow $most (i32.const 600)))";
    let memories = "(memory $more 0) (memory $most 0) (global $heap";
    let guest = Guest::new(&wat(ON_CALL, grow).replace("(global $heap", memories));
    let fake = fake();
    for (limit, status) in [("128MiB", 200), ("64MiB", 500)] {
        let gateway = before(&fake, &guest, &format!("limits = {{ memory = \"{limit}\" }}"));
        let answer = gateway.post("/v1/chat/completions", CALL);
        assert_eq!(answer.status, status, "{limit}: {}", answer.body);
        let line = "tidegate_plugin_errors_total{hook=\"on_call\",kind=\"memory\",plugin=\"p\"} 1";
        gateway.wait_for_metric(line, status == 500);
    }
}

#[test]
fn all_edits_of_a_call_together_have_a_bound() {
    let import = "(import \"tidegate:plugin/calls@0.1.0\" \"[method]call.set-json\" (func $set (param i32 i32 i32 i32 i32 i32 i32)))";
    // Eight times a number of 256Ki digits.
    let body = format!(
        "(local $left i32) {} (drop (memory.grow (i32.const 16))) (memory.fill (i32.const 65536) (i32.const 49) (i32.const 262144)) \
         (local.set $left (i32.const 8)) \
         (loop $more (call $set (local.get $call) (i32.const 3000) (i32.const 1) (i32.const 1) (i32.const 65536) (i32.const 262144) (i32.const 3600)) \
         (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br_if $more (local.get $left)))",
        store(3000, "k")
    );
    let guest = Guest::new(&importing(&wat(ON_CALL, &body), import));
    let fake = fake();
    for (limit, status) in [("4MiB", 200), ("1MiB", 500)] {
        let gateway = before(&fake, &guest, &format!("limits = {{ output = \"{limit}\", time = \"2s\" }}"));
        let answer = gateway.post("/v1/chat/completions", CALL);
        assert_eq!(answer.status, status, "{limit}: {}", answer.body);
        let line = "tidegate_plugin_errors_total{hook=\"on_call\",kind=\"rejected\",plugin=\"p\"} 1";
        gateway.wait_for_metric(line, status == 500);
    }
}

#[test]
fn a_failure_that_may_be_passed_over_is() {
    let fake = fake();
    for (function, hook) in [(ON_CALL, "on_call"), (ON_EVENTS, "on_events"), (ON_END, "on_end")] {
        let guest = Guest::new(&wat(function, "unreachable"));
        let gateway = before(&fake, &guest, "on_failure = \"open\"");
        let without = Gateway::start(&one_backend("openai", &fake.url(), ""));
        for body in [CALL, STREAM] {
            let (one, other) = (gateway.post("/v1/chat/completions", body), without.post("/v1/chat/completions", body));
            assert_eq!((one.status, one.body), (200, other.body), "{hook}");
        }
        let records = gateway.wait_for_records(2);
        assert!(
            records.iter().all(|record| record.outcome == Outcome::Ok && record.input_tokens == Some(11)),
            "{records:#?}"
        );
        let line = format!("tidegate_plugin_errors_total{{hook=\"{hook}\",kind=\"trap\",plugin=\"p\"}} 2");
        gateway.wait_for_metric(&line, true);
    }
}

#[test]
fn a_backend_is_chosen_for_the_model_of_then() {
    let route = format!(
        "(call $done (local.get $call)) {} (i32.store8 (i32.const 272) (i32.const 1)) (i32.store (i32.const 276) (i32.const 3000)) \
         (i32.store (i32.const 280) (i32.const 1)) (i32.store8 (i32.const 256) (i32.const 3)) (return (i32.const 256))",
        store(3000, "b")
    );
    let set_model =
        "(import \"tidegate:plugin/calls@0.1.0\" \"[method]call.set-model\" (func $set (param i32 i32 i32)))";
    let change = format!(
        "{} (call $set (local.get $call) (i32.const 3000) (i32.const 5)) (call $done (local.get $call)) \
         (i32.store8 (i32.const 256) (i32.const 1)) (return (i32.const 256))",
        store(3000, "other")
    );
    let first = Guest::new(&wat(ON_CALL, &route));
    let second = Guest::new(&importing(&wat(ON_CALL, &change), set_model));
    let (b, c) = (fake(), fake());
    let other = format!(
        "[backends.c]\nkind = \"openai\"\nurl = \"{}\"\nkey = \"k\"\n[models.other]\ntargets = [{{ backend = \"c\" }}]\n",
        c.url()
    );
    let sections = format!("{other}{}{}", first.section("first", ""), second.section("second", ""));
    let gateway = Gateway::start(&format!("{}{sections}", one_backend("openai", &b.url(), "")));
    let answer = gateway.post("/v1/chat/completions", CALL);
    assert_eq!((answer.status, b.seen().len(), c.seen().len()), (200, 0, 1), "{}", answer.body);
}

/// The plugin is shown an empty call, and falls over it.
#[test]
fn an_invalid_call_is_its_clients_fault() {
    let count =
        "(import \"tidegate:plugin/calls@0.1.0\" \"[method]call.turn-count\" (func $count (param i32) (result i32)))";
    let body = "(if (i32.eqz (call $count (local.get $call))) (then unreachable))";
    let guest = Guest::new(&importing(&wat(ON_CALL, body), count));
    let fake = fake();
    for on_failure in ["closed", "open"] {
        let gateway = before(&fake, &guest, &format!("on_failure = \"{on_failure}\""));
        assert_eq!(gateway.post("/v1/chat/completions", CALL).status, 200);
        let answer = gateway.post("/v1/chat/completions", &CALL.replace("\"role\":\"user\",", ""));
        assert_eq!(answer.status, 400, "{on_failure}: {}", answer.body);
        assert!(answer.body.contains("role"), "{}", answer.body);
        assert!(!gateway.operator("/metrics").body.contains("tidegate_plugin_errors_total{"), "{on_failure}");
    }
    assert_eq!(fake.seen().len(), 2, "what is invalid goes nowhere");
}

#[test]
fn lines_that_are_not_written_leave_their_room_to_others() {
    let write = "(import \"tidegate:plugin/log@0.1.0\" \"write\" (func $log (param i32 i32 i32 i32 i32)))";
    // 60 of level `debug`, then one of level `warn`; no fields.
    let body = format!(
        "(local $left i32) {}{} (local.set $left (i32.const 60)) \
         (loop $more (call $log (i32.const 0) (i32.const 3000) (i32.const 6) (i32.const 0) (i32.const 0)) \
         (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br_if $more (local.get $left))) \
         (call $log (i32.const 2) (i32.const 3100) (i32.const 6) (i32.const 0) (i32.const 0))",
        store(3000, "unread"),
        store(3100, "heeded")
    );
    let guest = Guest::new(&importing(&wat(ON_CALL, &body), write));
    let fake = fake();
    let sections = format!("{}{}", one_backend("openai", &fake.url(), ""), guest.section("p", ""));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env("TIDEGATE_LOG", "info");
    let process = Process::start(&sections, &[], command);
    assert_eq!(process.post(CALL).status, 200);
    until(|| process.log().contains("heeded"), "its line is written");
    assert!(!process.log().contains("unread"), "{}", process.log());
}

#[test]
fn what_cannot_be_loaded_is_refused_with_a_reason() {
    let good = Guest::new(&wat(ON_CALL, ""));
    let traps = Guest::new(&wat(DESCRIBE, "unreachable"));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let empty = wat::parse_str("(component)").unwrap();
    let core = wat::parse_str("(module)").unwrap();
    let import =
        wat::parse_str("(component (import \"tidegate:plugin/nothing@0.1.0\" (instance (export \"f\" (func)))))")
            .unwrap();
    let cases = [
        (folder.path().join("absent.wasm"), "", "cannot read"),
        (file("text.wasm", b"hello"), "", "no WebAssembly file"),
        (file("core.wasm", &core), "", "not a component"),
        (file("empty.wasm", &empty), "", "does not fit the interface"),
        (file("import.wasm", &import), "", "tidegate:plugin/nothing"),
        (good.0.to_path_buf(), "sha256 = \"00\"", "not the pinned"),
        (good.0.to_path_buf(), "limits = { memory = \"1GiB\" }", "at most 256MiB"),
        (good.0.to_path_buf(), "grants = { http = [\"sink\"] }", "grants.http"),
        (traps.0.to_path_buf(), "", "`describe` failed"),
    ];
    let registry = prometheus::Registry::new();
    let host = tidegate::plugin::Host::new(tidegate::plugin::Folders::default(), &registry).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (path, more, why) in cases {
        let text = format!("[p]\npath = \"{}\"\n{more}\n", path.display());
        let config: tidegate::plugin::Config = figment::Figment::new()
            .merge(<figment::providers::Toml as figment::providers::Format>::string(&text))
            .extract()
            .unwrap();
        let errors = runtime.block_on(tidegate::plugin::Plugins::load(&config, &host)).err().expect(why);
        assert_eq!(errors[0].0, "plugins.p");
        assert!(errors[0].1.contains(why), "{why}: {}", errors[0].1);
    }
}

#[test]
fn a_refusal_is_told_in_the_caller_s_words_and_is_no_failure() {
    // verdict `refuse` (4) at 256: status at 260, code at 264, message at 272, retry-after at 280.
    let body = format!(
        "(call $done (local.get $call)) {}{} (i32.store8 (i32.const 256) (i32.const 4)) (i32.store16 (i32.const 260) (i32.const 451)) \
         (i32.store (i32.const 264) (i32.const 3000)) (i32.store (i32.const 268) (i32.const 8)) \
         (i32.store (i32.const 272) (i32.const 3100)) (i32.store (i32.const 276) (i32.const 6)) \
         (i32.store8 (i32.const 280) (i32.const 1)) (i32.store (i32.const 284) (i32.const 7)) (return (i32.const 256))",
        store(3000, "No Names"),
        store(3100, "not so")
    );
    let guest = Guest::new(&wat(ON_CALL, &body));
    let fake = fake();
    let gateway = before(&fake, &guest, "on_failure = \"open\"");
    let answer = gateway.post("/v1/chat/completions", CALL);
    assert_eq!((answer.status, answer.header("retry-after")), (451, Some("7")));
    assert_eq!(answer.header("x-tidegate-plugins"), Some("p"));
    let error = &answer.json()["error"];
    assert_eq!((&error["message"], &error["code"]), (&"not so".into(), &"_o__ames".into()));
    let answer = gateway.post("/v1/messages", STREAM);
    assert_eq!((answer.status, &answer.json()["error"]["message"]), (451, &"not so".into()));
    assert!(fake.seen().is_empty(), "no backend was asked");
    for record in gateway.wait_for_records(2) {
        assert_eq!((record.outcome, record.status, record.tags.join(" ")), (Outcome::Plugin, 451, "plugin:p".into()));
    }
    let metrics = gateway.operator("/metrics").body;
    assert!(metrics.contains("tidegate_plugin_actions_total{action=\"refuse\",plugin=\"p\"} 2"), "{metrics}");
    assert!(!metrics.contains("tidegate_plugin_errors_total{"), "{metrics}");
}

#[test]
fn an_error_names_who_changed_the_call_before_it() {
    let change = "(call $done (local.get $call)) (i32.store8 (i32.const 256) (i32.const 1)) (return (i32.const 256))";
    let (changes, passes) = (Guest::new(&wat(ON_CALL, change)), Guest::new(&wat(ON_CALL, "")));
    let fake = Fake::start(|_| json(500, "", "{}"));
    let sections = format!("{}{}", changes.section("first", ""), passes.section("second", ""));
    let gateway = Gateway::start(&format!("{}{sections}", one_backend("openai", &fake.url(), "")));
    let answer = gateway.post("/v1/chat/completions", CALL);
    assert_eq!((answer.status, answer.header("x-tidegate-plugins")), (502, Some("first")));
    assert_eq!(gateway.record().tags, ["plugin:first"]);
}

#[test]
fn a_client_is_told_of_no_model_but_its_own() {
    // verdict `route` (3): the model at 260 (some, pointer, length), the backend at 272 (none or some).
    let route = |model: &str, backend: &str| {
        let some = |at: usize, from: usize, name: &str| {
            let (tag, length) = (usize::from(!name.is_empty()), name.len());
            let texts = store(from, name);
            format!(
                "{texts} (i32.store8 (i32.const {at}) (i32.const {tag})) (i32.store (i32.const {}) (i32.const {from})) (i32.store (i32.const {}) (i32.const {length}))",
                at + 4,
                at + 8
            )
        };
        let (model, backend) = (some(260, 3000, model), some(272, 3100, backend));
        format!(
            "(call $done (local.get $call)) {model} {backend} (i32.store8 (i32.const 256) (i32.const 3)) (return (i32.const 256))"
        )
    };
    let fake = fake();
    // Where it is sent to, by whose key, and what comes of it.
    for (model, backend, key, status) in [
        ("served", "", "dfproj_small", 404),
        ("hidden-model", "", "dfproj_test", 404),
        ("served", "no-backend", "dfproj_test", 500),
        ("served", "b", "dfproj_test", 200),
    ] {
        let guest = Guest::new(&wat(ON_CALL, &route(model, backend)));
        let gateway = before(&fake, &guest, "");
        let head = format!("authorization: Bearer {key}\r\ncontent-type: application/json\r\n");
        let answer = gateway.raw(&crate::gateway::post("/v1/chat/completions", &head, CALL.as_bytes()));
        assert_eq!(answer.status, status, "{model} {backend} {}", answer.body);
        assert!(!answer.body.contains(model), "{}", answer.body);
        assert_eq!(answer.body.contains("`m`"), status == 404, "{}", answer.body);
        assert_eq!(answer.header("x-tidegate-plugins"), Some("p"));
        let record = gateway.record();
        assert_eq!((record.model_requested.as_str(), record.tags), ("m", vec!["plugin:p".to_owned()]));
    }
}

#[test]
fn credentials_are_withheld_however_they_are_asked_for() {
    let import = "(import \"tidegate:plugin/calls@0.1.0\" \"[resource-drop]call\" (func $done (param i32)))";
    let header =
        format!("{import}\n(import \"tidegate:plugin/request@0.1.0\" \"header\" (func $header (param i32 i32 i32)))");
    let fake = fake();
    for (name, visible) in
        [("authorization", false), ("Authorization", false), ("X-API-Key", false), ("cookie", false), ("x-seen", true)]
    {
        // Traps if there is such a header: option's tag at 3200.
        let body = format!(
            "{} (call $header (i32.const 3000) (i32.const {}) (i32.const 3200)) (if (i32.load8_u (i32.const 3200)) (then unreachable))",
            store(3000, name),
            name.len()
        );
        let guest = Guest::new(&wat(ON_CALL, &body).replace(import, &header));
        let gateway = before(&fake, &guest, "");
        let answer = gateway.raw(&crate::gateway::post(
            "/v1/chat/completions",
            "x-api-key: dfproj_test\r\nauthorization: Bearer dfproj_test\r\ncookie: a=b\r\nx-seen: yes\r\ncontent-type: application/json\r\n",
            CALL.as_bytes(),
        ));
        assert_eq!(answer.status, if visible { 500 } else { 200 }, "{name}: {}", answer.body);
    }
}
