//! Conditions, one at a time and together.

use serde_json::{Value, json};
use tidegate_plugin::testing::{Chat, Trial, World};

use super::*;

#[test]
fn conditions() {
    let image = json!([{"type": "image_url", "image_url": {"url": "https://x/y"}}]);
    let with_image = Chat::new().message(json!({"role": "user", "content": image}));
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let hi = || Chat::user("hello there");
    let cases: Vec<(Value, Chat, bool)> = vec![
        (json!({}), hi(), true),
        (json!({"models": ["te*"]}), hi(), true),
        (json!({"models": ["auto"]}), hi(), false),
        (json!({"organizations": ["acme"], "projects": ["w*"]}), hi(), true),
        (json!({"projects": ["x"]}), hi(), false),
        (json!({"endpoints": ["messages"]}), hi(), false),
        (json!({"streamed": true}), hi(), true),
        (json!({"streamed": false}), hi(), false),
        (json!({"header": {"name": "X-Tier"}}), hi(), true),
        (json!({"header": {"name": "x-tier", "value": "go*"}}), hi(), true),
        (json!({"header": {"name": "x-tier", "value": "silver"}}), hi(), false),
        (json!({"header": {"name": "x-none"}}), hi(), false),
        (json!({"min_chars": 11, "max_chars": 11}), hi(), true),
        (json!({"min_chars": 12}), hi(), false),
        (json!({"max_chars": 10}), hi(), false),
        (json!({"min_bytes": 10}), hi(), true),
        (json!({"max_bytes": 10}), hi(), false),
        (json!({"min_turns": 2}), hi(), false),
        (json!({"min_turns": 2}), hi().system("s"), true),
        (json!({"tools": true}), hi(), false),
        (json!({"tools": true}), hi().with("tools", tools), true),
        (json!({"images": true}), with_image.clone(), true),
        (json!({"images": false}), with_image, false),
        (json!({"pattern": "(?i)^HELLO"}), hi(), true),
        (json!({"pattern": "^there"}), hi(), false),
        (json!({"pattern": "hello"}), hi().says("assistant", "?").says("user", "bye"), false),
        (json!({"scripts": ["latin", "greek"]}), hi(), true),
        (json!({"scripts": ["han"]}), Chat::user("你好, world 你好吗今天"), true),
        (json!({"scripts": ["han"]}), Chat::user("123"), false),
        (json!({"streamed": true, "min_chars": 99}), hi(), false),
    ];
    for (rule, chat, fits) in cases {
        let mut config = rule.clone();
        config["name"] = "one".into();
        config["model"] = "large".into();
        let trial = Trial::<Steer>::new(json!({"rules": [config]}));
        World::with(|world| world.headers.insert("x-tier".into(), "gold".into()));
        let verdict = trial.call(chat.clone()).verdict;
        let expect = if fits { Verdict::route_to_model("large") } else { Verdict::Pass };
        assert_eq!(verdict, expect, "{rule} {chat:?}");
        assert_eq!(World::with(|world| world.tags.clone()), if fits { vec!["steer:one"] } else { vec![] });
    }
}

#[test]
fn the_first_rule_decides() {
    let trial = Trial::<Steer>::new(json!({"rules": [
        {"name": "vip", "projects": ["vip"]},
        {"name": "long", "min_chars": 20, "model": "large", "backend": "gpu-2"},
        {"name": "code", "pattern": "fn |def ", "model": "coder"},
        {"name": "rest", "backend": "cheap"},
    ]}));
    let destination = |model: Option<&str>, backend: Option<&str>| {
        Verdict::Route(Destination { model: model.map(Into::into), backend: backend.map(Into::into) })
    };
    for (project, text, expect) in [
        ("vip", "a text that is long enough to be long", Verdict::Pass),
        ("web", "a text that is long enough to be long", destination(Some("large"), Some("gpu-2"))),
        ("web", "def f():", destination(Some("coder"), None)),
        ("web", "hi", destination(None, Some("cheap"))),
    ] {
        World::with(|world| world.caller.project = project.into());
        assert_eq!(trial.call(Chat::user(text)).verdict, expect, "{project} {text}");
    }
    assert_eq!(World::metric("routed", ""), 3.0);
}

#[test]
fn mistakes_in_the_configuration_are_found() {
    for config in [
        json!({}),
        json!({"rules": [{"model": "x"}]}),
        json!({"rules": [{"name": "x", "pattern": "("}]}),
        json!({"rules": [{"name": "x", "scripts": ["klingon"]}]}),
        json!({"rules": [{"name": "x".repeat(80)}]}),
        json!({"rules": [{"name": "x", "unknown": 1}]}),
    ] {
        assert!(Trial::<Steer>::problem(config.clone()).is_some(), "{config}");
    }
}

#[test]
fn the_examples_load() {
    let configs = readme::configs(include_str!("../README.md"));
    assert!(!configs.is_empty());
    for config in configs {
        assert_eq!(Trial::<Steer>::problem(config.clone()), None, "{config}");
    }
}
