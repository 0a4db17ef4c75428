//! What models write, and what they meant.

use serde_json::{Value, json};
use tidegate_plugin::testing::{Chat, Trial, World};
use tidegate_plugin::{Start, StopReason};

use super::*;

fn call(arguments: &str) -> Vec<Event> {
    let mut events = vec![Event::Start(Start { id: None, model: None }), Event::tool_call("1", "look")];
    if !arguments.is_empty() {
        events.push(Event::arguments(arguments));
    }
    events.extend([Event::Close, Event::Stop(StopReason::ToolUse)]);
    events
}

#[test]
fn what_was_meant() {
    let cases = [
        // As it stands.
        ("single quotes", "{'a': 'it is', 'b': 1}", json!({"a": "it is", "b": 1})),
        ("apostrophe", "{'a': 'it's here', 'b': 1}", json!({"a": "it's here", "b": 1})),
        ("trailing commas", r#"{"a": [1, 2,], "b": 3,}"#, json!({"a": [1, 2], "b": 3})),
        ("unquoted names", "{city: \"Oslo\", _n: 2, with-dash: 3}", json!({"city": "Oslo", "_n": 2, "with-dash": 3})),
        ("unquoted value", "{\"city\": Oslo, \"n\": 2}", json!({"city": "Oslo", "n": 2})),
        (
            "python",
            "{'a': True, 'b': False, 'c': None, 'd': (1, 2)}",
            json!({"a": true, "b": false, "c": null, "d": [1, 2]}),
        ),
        ("fence", "```json\n{\"a\": 1}\n```", json!({"a": 1})),
        ("fence, words around", "Sure:\n```\n{\"a\": 1,}\n```\nDone.", json!({"a": 1})),
        ("words before", "Here you go: {\"a\": 1}", json!({"a": 1})),
        ("words after", "{\"a\": 1} I hope this helps", json!({"a": 1})),
        ("missing closers", r#"{"a": {"b": [1, 2"#, json!({"a": {"b": [1, 2]}})),
        ("missing inner closer", r#"{"a": [1, 2}"#, json!({"a": [1, 2]})),
        ("closer too many", r#"{"a": 1}}"#, json!({"a": 1})),
        ("wrong closer", r#"{"a": 1]}"#, json!({"a": 1})),
        ("line comments", "{\"a\": 1, // one\n # two\n \"b\": 2}", json!({"a": 1, "b": 2})),
        ("block comment", "{\"a\": /* one */ 1}", json!({"a": 1})),
        ("no comment in text", r#"{'u': "https://x.y/z#q"}"#, json!({"u": "https://x.y/z#q"})),
        ("cut in text", r#"{"a": "half a sen"#, json!({"a": "half a sen"})),
        ("cut in a name", r#"{"a": 1, "b"#, json!({"a": 1})),
        ("cut before a value", r#"{"a": 1, "b":"#, json!({"a": 1})),
        ("cut in a word", r#"{"a": tru"#, json!({"a": true})),
        ("cut in a number", r#"{"a": 1."#, json!({"a": 1.0})),
        ("cut in an escape", r#"{"a": "b\"#, json!({"a": "b"})),
        ("missing comma", "{\"a\": 1\n\"b\": 2}", json!({"a": 1, "b": 2})),
        ("missing comma in line", r#"{"a": "x" "b": "y"}"#, json!({"a": "x", "b": "y"})),
        ("missing comma in a list", r#"{"a": [{"b": 1} {"b": 2}]}"#, json!({"a": [{"b": 1}, {"b": 2}]})),
        ("equals", "{a = 1, 'b' => 2}", json!({"a": 1, "b": 2})),
        ("raw line feed", "{\"a\": \"one\ntwo\"}", json!({"a": "one\ntwo"})),
        ("bad escape", r#"{"a": "C:\dir \'x\' \x41 \u00e9"}"#, json!({"a": "C:\\dir 'x' A é"})),
        ("surrogates", r#"{'a': "\ud83d\ude00"}"#, json!({"a": "😀"})),
        ("half a surrogate", r#"{'a': "\ud83d\u0041 \ud83d\n\ud83d"}"#, json!({"a": "\u{fffd}A \u{fffd}\n\u{fffd}"})),
        ("two first halves", r#"{'a': "\ud83d\ud83d\ude00\ude00"}"#, json!({"a": "\u{fffd}😀\u{fffd}"})),
        ("half an escape", r#"{'a': "\ud83d\u12"}"#, json!({"a": "\u{fffd}\\u12"})),
        ("inner quotes", r#"{"a": "say "hi" now", "b": 1}"#, json!({"a": "say \"hi\" now", "b": 1})),
        (
            "comma after inner quotes",
            r#"{"a": "he said "no", then left", "b": 1}"#,
            json!({"a": "he said \"no\", then left", "b": 1}),
        ),
        ("curly quotes", "{“a”: “b”}", json!({"a": "b"})),
        ("backticks", "{\"code\": `let x = \"1\";`}", json!({"code": "let x = \"1\";"})),
        ("long string", "{\"a\": \"\"\"one \"two\" three\"\"\"}", json!({"a": "one \"two\" three"})),
        (
            "numbers",
            "{a: +1, b: 007, c: .5, d: 1_000, e: 0x1F, f: -2.50e+3}",
            json!({"a": 1, "b": 7, "c": 0.5, "d": 1000, "e": 31, "f": -2500.0}),
        ),
        ("no number", "{a: 2024-01-15, b: 1.2.3}", json!({"a": "2024-01-15", "b": "1.2.3"})),
        ("in a string", r#""{\"a\": 1}""#, json!({"a": 1})),
        ("in a list", r#"[{"a": 1}]"#, json!({"a": 1})),
        ("empty string", r#"{"a": "", 'b': ''}"#, json!({"a": "", "b": ""})),
        ("byte order mark", "\u{feff}{\"a\": 1}", json!({"a": 1})),
        ("name without a value", r#"{"a", "b": 1}"#, json!({"b": 1})),
        ("nothing cut", "{", json!({})),
    ];
    for (name, text, expect) in cases {
        let repaired = repair::repair(text).unwrap_or_else(|| panic!("{name}: {text} was given up"));
        assert_eq!(serde_json::from_str::<Value>(&repaired).ok(), Some(expect), "{name}: {text} became {repaired}");
    }
}

#[test]
fn digits_are_kept() {
    let repaired = repair::repair("{'n': 12345678901234567890.10, 'm': 1.0}");
    assert_eq!(repaired.as_deref(), Some(r#"{"n":12345678901234567890.10,"m":1.0}"#));
}

#[test]
fn some_things_are_given_up() {
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "call the tool",
        "[1, 2]",
        "42",
        r#"{"a": 1} {"a": 2}"#,
        r#"[{"a": 1}, {"a": 2}]"#,
        &format!("{{a: {deep}"),
    ] {
        assert_eq!(repair::repair(text), None, "{}", &text[..text.len().min(40)]);
    }
}

#[test]
fn nothing_hangs_or_breaks() {
    let seeds = ["{'a': [1, {b: \"x\\u12\", }], // c\n d: ```e```, ‘f’: None}", "{\"\":\"\"\"}{[(:,=>#/*é"];
    for seed in seeds {
        let chars: Vec<char> = seed.chars().collect();
        for start in 0..chars.len() {
            for end in start..=chars.len() {
                let text: String = chars[start..end].iter().collect();
                if let Some(repaired) = repair::repair(&text) {
                    assert!(repair::is_object(&repaired), "{text}");
                }
            }
        }
    }
}

#[test]
fn calls_are_repaired_wherever_they_are_cut() {
    let trial = Trial::<FixJson>::new(json!({}));
    for (arguments, expect) in [
        ("{'a': \"é\",}", r#"{"a":"é"}"#),
        (r#"{"good":  1.50}"#, r#"{"good":  1.50}"#),
        ("no json", "no json"),
        ("", ""),
    ] {
        let reply = trial.same_at_every_split(Chat::user("hi"), &call(arguments));
        assert_eq!(reply.parts[0].text, expect);
    }
}

#[test]
fn outcomes_are_counted_and_text_is_not_looked_at() {
    let trial = Trial::<FixJson>::new(json!({"max_bytes": 20}));
    for arguments in ["{}", "{'a':1}", "nothing", "{'a': 'longer than twenty bytes'}"] {
        trial.call(Chat::user("hi")).batch(call(arguments));
    }
    for outcome in ["good", "repaired", "irreparable", "too_long"] {
        assert_eq!(World::metric("calls", outcome), 1.0, "{outcome}");
    }
    let mut request = trial.call(Chat::user("hi"));
    assert!(request.batch(call("{\"a\": 1}")), "good arguments in one batch pass as they came");
    let mut request = trial.call(Chat::user("hi"));
    request.batch(Reply::say("{'a': 1}").into_events());
    assert_eq!(request.rewrites, [Rewrite::Pass]);
}

#[test]
fn the_examples_load() {
    let configs = readme::configs(include_str!("../README.md"));
    assert!(!configs.is_empty());
    for config in configs {
        assert_eq!(Trial::<FixJson>::problem(config.clone()), None, "{config}");
    }
}
