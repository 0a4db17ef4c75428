//! Calls asked twice.

use serde_json::{Value, json};
use tidegate_plugin::testing::{Chat, Trial, World};
use tidegate_plugin::{Error, Start, UsageSource};

use super::*;

fn reply(text: &str) -> Vec<Event> {
    let mut reply = Reply::say(text);
    reply.start = Some(Start { id: Some("id-1".into()), model: Some("m".into()) });
    reply.usage.output = Some(3);
    reply.into_events()
}

/// Asks, and lets the backend answer if it is asked. Says whether it was not.
fn ask(trial: &Trial<Cache>, chat: Chat, answer: &str) -> Option<Reply> {
    let mut request = trial.call(chat);
    if let Verdict::Respond(events) = &request.verdict {
        return Some(Reply::of(events));
    }
    request.batch(reply(answer));
    request.end();
    None
}

#[test]
fn the_second_time_it_is_remembered() {
    let trial = Trial::<Cache>::new(json!({}));
    let chat = Chat::user("What is a tide?").with("temperature", 0);
    assert_eq!(ask(&trial, chat.clone(), "Water."), None);
    let again = ask(&trial, chat, "Never asked.").expect("a hit");
    assert_eq!((again.text().as_str(), again.usage.output), ("Water.", Some(3)));
    assert_eq!(again.start.and_then(|start| start.id), None);
    World::with(|world| assert_eq!(world.tags, ["cache_hit"]));
    assert_eq!((World::metric("lookups", "hit"), World::metric("stores", "kept")), (1.0, 1.0));
}

#[test]
fn what_makes_a_difference_and_what_does_not() {
    let base = || Chat::user("hi").with("temperature", 0);
    let cases = [
        ("stream", base().with("stream", true), true),
        ("user", base().with("user", "ada"), true),
        ("metadata", base().with("metadata", json!({"a": "1"})), true),
        ("text", Chat::user("hi!").with("temperature", 0), false),
        ("role", Chat::new().says("developer", "hi").with("temperature", 0), false),
        ("system", base().system("s"), false),
        ("model", base().with("model", "other"), false),
        ("max_tokens", base().with("max_tokens", 5), false),
        ("unknown option", base().with("logit_bias", json!({"1": 2})), false),
        ("no temperature", Chat::user("hi"), false),
        ("a bare prompt", base().with("prompt", "hi"), false),
    ];
    for (name, chat, same) in cases {
        let trial = Trial::<Cache>::new(json!({}));
        ask(&trial, base(), "answer");
        assert_eq!(ask(&trial, chat, "other").is_some(), same, "{name}");
    }
}

#[test]
fn what_the_typed_view_does_not_say_makes_a_difference() {
    let turn = |turn: Value| Chat::new().with("messages", json!([turn]));
    let image = |more: Value| {
        let mut image = json!({"url": "https://x.example/y.png"});
        image.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        turn(json!({"role": "user", "content": [{"type": "image_url", "image_url": image}]}))
    };
    let effort = |word: &str| Chat::user("hi").with("reasoning_effort", word);
    let said = |name: &str| turn(json!({"role": "user", "content": "hi", "name": name}));
    let cases = [
        ("another speaker", said("ada"), said("bob"), false),
        ("the same speaker", said("ada"), said("ada"), true),
        ("the detail of an image", image(json!({"detail": "low"})), image(json!({"detail": "high"})), false),
        ("the same image", image(json!({})), image(json!({})), true),
        ("effort without a word", effort("high"), effort("xhigh"), false),
        ("the same effort", effort("high"), effort("high"), true),
        (
            "where the vendor may cache",
            turn(
                json!({"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}),
            ),
            Chat::user("hi"),
            true,
        ),
    ];
    for (name, first, second, same) in cases {
        let trial = Trial::<Cache>::new(json!({}));
        ask(&trial, first, "answer");
        assert_eq!(ask(&trial, second, "other").is_some(), same, "{name}");
    }
}

#[test]
fn tenants_do_not_meet() {
    let chat = || Chat::user("hi").with("temperature", 0);
    /// A name, what is changed before the second call, the configuration, and whether it is a hit.
    type Case = (&'static str, fn(&mut World), Value, bool);
    let cases: [Case; 6] = [
        ("same", |_| {}, json!({}), true),
        ("project", |world| world.caller.project = "other".into(), json!({}), false),
        ("organization", |world| world.caller.organization = "other".into(), json!({}), false),
        // As if the grant said `scope = "plugin"`: everybody's keys in one place.
        (
            "organization, one store",
            |world| {
                world.caller.organization = "other".into();
                let kept: Vec<_> = world.kv.drain().collect();
                world.kv.extend(kept.into_iter().map(|((_, key), value)| (("other".into(), key), value)));
            },
            json!({}),
            false,
        ),
        ("key", |world| world.caller.key = "other".into(), json!({}), true),
        ("key apart", |world| world.caller.key = "other".into(), json!({"per": "key"}), false),
    ];
    for (name, change, config, same) in cases {
        let trial = Trial::<Cache>::new(config);
        ask(&trial, chat(), "answer");
        World::with(change);
        assert_eq!(ask(&trial, chat(), "other").is_some(), same, "{name}");
    }
}

#[test]
fn some_calls_are_let_through() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let calm = || Chat::user("hi").with("temperature", 0);
    let cases = [
        (json!({}), calm(), true),
        (json!({}), Chat::user("hi"), true),
        (json!({"explicit_temperature": true}), Chat::user("hi"), false),
        (json!({}), Chat::user("hi").with("temperature", 0.5), false),
        (json!({"max_temperature": 1}), Chat::user("hi").with("temperature", 0.5), true),
        (json!({}), calm().with("n", 2), false),
        (json!({}), Chat::new().with("input", "text to embed"), false),
        (json!({}), calm().with("tools", tools.clone()), false),
        (json!({"tools": true}), calm().with("tools", tools), true),
        (json!({"models": ["gpt-*"]}), calm(), false),
        (json!({"models": ["te*"]}), calm(), true),
    ];
    for (config, chat, kept) in cases {
        let trial = Trial::<Cache>::new(config.clone());
        ask(&trial, chat.clone(), "answer");
        assert_eq!(ask(&trial, chat.clone(), "other").is_some(), kept, "{config} {chat:?}");
        assert_eq!(World::metric("lookups", "skipped") == 0.0, kept);
    }
}

/// The view shows the reply to the first prompt alone.
#[test]
fn several_prompts_are_let_through() {
    for (prompt, kept) in [(json!({"type": "prompt"}), false), (json!({"type": "text", "text": "one"}), true)] {
        let trial = Trial::<Cache>::new(json!({}));
        World::with(|world| world.endpoint = "completions".into());
        let chat = || Chat::new().message(json!({"role": "user", "content": [prompt]}));
        ask(&trial, chat(), "answer");
        assert_eq!(ask(&trial, chat(), "other").is_some(), kept, "{prompt}");
    }
}

#[test]
fn clients_may_refuse_it() {
    for (header, looked_up, kept) in
        [("no-cache", false, true), ("max-age=0, No-Store", false, false), ("public", true, true)]
    {
        let trial = Trial::<Cache>::new(json!({}));
        ask(&trial, Chat::user("hi"), "old");
        World::with(|world| world.headers.insert("cache-control".into(), header.into()));
        assert_eq!(ask(&trial, Chat::user("hi"), "new").is_some(), looked_up, "{header}");
        World::with(|world| world.headers.clear());
        let now = ask(&trial, Chat::user("hi"), "").map(|reply| reply.text());
        assert_eq!(now.as_deref(), Some(if kept && !looked_up { "new" } else { "old" }), "{header}");
    }
}

#[test]
fn only_complete_replies_of_a_size_are_kept() {
    let stop = |stop: StopReason| {
        let mut reply = Reply::say("text");
        reply.stop = Some(stop);
        reply.into_events()
    };
    let mut cut = reply("half");
    cut.truncate(3);
    let end = |outcome| End {
        outcome,
        status: 200,
        usage: Default::default(),
        source: UsageSource::Reported,
        stop: None,
        first_token: None,
        duration: 1.0,
    };
    let cases = [
        (reply("whole"), Outcome::Ok, "kept"),
        (stop(StopReason::StopSequence(None)), Outcome::Ok, "kept"),
        (stop(StopReason::MaxTokens), Outcome::Ok, "incomplete"),
        (stop(StopReason::Refusal), Outcome::Ok, "incomplete"),
        (cut, Outcome::Cut, "incomplete"),
        (reply("whole"), Outcome::ClientGone, "incomplete"),
        (reply(&"long ".repeat(100)), Outcome::Ok, "too_large"),
    ];
    for (events, outcome, expect) in cases {
        let trial = Trial::<Cache>::new(json!({"max_bytes": 400}));
        let mut request = trial.call(Chat::user("hi"));
        assert!(request.batch(events.clone()), "it changes nothing");
        request.end_as(end(outcome));
        assert_eq!(World::metric("stores", expect), 1.0, "{expect} of {events:?}");
        World::with(|world| assert_eq!(world.kv.len(), usize::from(expect == "kept")));
    }
}

#[test]
fn it_ends_and_it_fails_quietly() {
    let trial = Trial::<Cache>::new(json!({"ttl": 60}));
    ask(&trial, Chat::user("hi"), "answer");
    World::with(|world| world.now += 61_000.0);
    assert_eq!(ask(&trial, Chat::user("hi"), "answer"), None, "it has ended");
    World::with(|world| world.kv_error = Some(Error::Denied("kv".into())));
    assert_eq!(ask(&trial, Chat::user("hi"), "answer"), None, "it cannot be read");
    assert_eq!(World::metric("lookups", "failed"), 1.0);
    let trial = Trial::<Cache>::new(json!({}));
    let mut request = trial.call(Chat::user("hi"));
    World::with(|world| world.kv_error = Some(Error::Timeout));
    request.batch(reply("x"));
    request.end();
    assert_eq!(World::metric("stores", "failed"), 1.0);
}

#[test]
fn the_examples_load() {
    let configs = readme::configs(include_str!("../README.md"));
    assert!(!configs.is_empty());
    for config in configs {
        assert_eq!(Trial::<Cache>::problem(config.clone()), None, "{config}");
    }
}
