//! Tagged replies, cut everywhere.

use serde_json::{Value, json};
use tidegate_plugin::testing::{Chat, Trial, World};
use tidegate_plugin::{Start, StopReason, Usage};

use super::*;

/// The parts that leave: `t:` text, `r:` reasoning.
fn parts(config: &Value, text: &str) -> Vec<String> {
    let trial = Trial::<Think>::new(config.clone());
    let reply = trial.same_at_every_split(Chat::user("hi"), &Reply::say(text).into_events());
    let name = |part: &Part| if *part == Part::Thinking { "r" } else { "t" };
    reply.parts.iter().map(|piece| format!("{}:{}", name(&piece.part), piece.text)).collect()
}

#[test]
fn tags_become_parts() {
    let plain = json!({});
    let hide = json!({"mode": "hide"});
    let anywhere = json!({"anywhere": true});
    let opened = json!({"opened": true});
    let two = json!({"tags": [["<think>", "</think>"], ["[THINK]", "[/THINK]"]], "anywhere": true});
    let cases: &[(&Value, &str, &[&str])] = &[
        (&plain, "<think>\nhm, é\n\nso.\n</think>\n\nYes.", &["r:hm, é\n\nso.", "t:Yes."]),
        (&plain, "\n <think>hm</think>Yes.", &["r:hm", "t:Yes."]),
        (&plain, "<think>\n\n</think>\n\nYes.", &["t:Yes."]),
        (&plain, "<think>cut off", &["r:cut off"]),
        (&plain, "<think>a </thin k> b</think>c", &["r:a </thin k> b", "t:c"]),
        (&plain, "<think>all</think>\n", &["r:all"]),
        (&plain, "<think>a</think><think>b</think>c", &["r:a", "r:b", "t:c"]),
        (&plain, "Yes. <think>no</think>", &["t:Yes. <think>no</think>"]),
        (&plain, "<thing> is", &["t:<thing> is"]),
        (&plain, "  indented", &["t:  indented"]),
        (&plain, "<thin", &["t:<thin"]),
        (&plain, "", &["t:"]),
        (&plain, " ", &["t: "]),
        (&hide, "<think>hm</think>\nYes.", &["t:Yes."]),
        (&hide, "<think>hm", &[]),
        (&hide, "Yes.", &["t:Yes."]),
        (&anywhere, "a <think>hm</think> b", &["t:a ", "r:hm", "t:b"]),
        (&anywhere, "a <thin b", &["t:a <thin b"]),
        (&anywhere, "a <", &["t:a <"]),
        (&anywhere, "<think>x</think>a<think>y</think>b", &["r:x", "t:a", "r:y", "t:b"]),
        (&opened, "hm</think>Yes.", &["r:hm", "t:Yes."]),
        (&opened, "hm", &["r:hm"]),
        (&two, "[THINK]a[/THINK]b<think>c</think>", &["r:a", "t:b", "r:c"]),
    ];
    for (config, text, expect) in cases {
        assert_eq!(parts(config, text), *expect, "{config} {text}");
    }
}

#[test]
fn a_reply_without_a_tag_passes_once_that_is_certain() {
    let trial = Trial::<Think>::new(json!({}));
    let start = Event::Start(Start { id: None, model: None });
    let usage = Event::Usage(Usage::default());
    let text = |text: &str| vec![Event::text(text)];
    let cases = [
        // The opening waits for the first character, and leaves with it.
        vec![
            (vec![start.clone(), Event::Open(Part::Text)], false),
            (text("Y"), false),
            (text("es"), true),
            (text("<think>"), true),
        ],
        vec![(vec![start.clone(), Event::Open(Part::Text), Event::text("Y")], true), (text("es"), true)],
        vec![
            (vec![start.clone()], true),
            (vec![Event::Open(Part::Text), Event::text("<")], false),
            (text("b>"), false),
            (text("x"), true),
        ],
        vec![(
            vec![
                start,
                Event::Open(Part::Text),
                Event::text("Yes"),
                Event::Close,
                usage,
                Event::Stop(StopReason::EndTurn),
            ],
            true,
        )],
    ];
    for batches in cases {
        let mut request = trial.call(Chat::user("hi"));
        for (batch, passes) in batches {
            assert_eq!(request.batch(batch.clone()), passes, "{batch:?}");
        }
    }
}

#[test]
fn random_texts_are_split_alike_wherever_they_are_cut() {
    let pieces = ["<think>", "</think>", "<", "</", "think>", " ", "\n", "a", "é", "[T]", "[/T]", "<thi"];
    let mut state = 3_u32;
    let mut next = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for round in 0..400 {
        let text: String = (0..next(9)).map(|_| pieces[next(pieces.len())]).collect();
        let tags = [["<think>", "</think>"], ["[T]", "[/T]"]];
        let mode = ["thinking", "hide"][round % 2];
        parts(&json!({"tags": tags, "mode": mode, "anywhere": round % 4 < 2, "opened": round % 8 < 4}), &text);
    }
}

#[test]
fn other_parts_and_citations_stay() {
    let trial = Trial::<Think>::new(json!({}));
    let cite = || Event::Delta(Delta::Citation("{}".into()));
    let events = vec![
        Event::Start(Start { id: None, model: None }),
        Event::Open(Part::Thinking),
        Event::thinking("<think>"),
        Event::Close,
        Event::Open(Part::Text),
        Event::text("<think>a"),
        cite(),
        Event::text("b</think>c"),
        cite(),
        Event::Close,
        Event::Open(Part::Text),
        Event::text("<think>d</think>"),
        Event::Close,
        Event::Stop(StopReason::EndTurn),
    ];
    let reply = trial.same_at_every_split(Chat::user("hi"), &events);
    let texts: Vec<&str> = reply.parts.iter().map(|piece| piece.text.as_str()).collect();
    assert_eq!(texts, ["<think>", "ab", "c", "<think>d</think>"]);
    assert_eq!(reply.parts[2].citations.len(), 1);
}

#[test]
fn finds_are_counted_and_keep_wants_nothing() {
    let trial = Trial::<Think>::new(json!({}));
    trial.call(Chat::user("hi")).batch(Reply::say("<think>a</think>b").into_events());
    trial.call(Chat::user("hi")).batch(Reply::say("b").into_events());
    assert_eq!(World::metric("found", ""), 1.0);
    assert_eq!(Trial::<Think>::new(json!({"mode": "keep"})).description.hooks, Hooks::empty());
    for config in [json!({"mode": "x"}), json!({"tags": []}), json!({"tags": [["<a>"]]}), json!({"tags": [["", "x"]]})]
    {
        assert!(Trial::<Think>::problem(config.clone()).is_some(), "{config}");
    }
}

#[test]
fn the_examples_load() {
    let configs = readme::configs(include_str!("../README.md"));
    assert!(!configs.is_empty());
    for config in configs {
        assert_eq!(Trial::<Think>::problem(config.clone()), None, "{config}");
    }
}
