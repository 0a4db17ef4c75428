//! Calls out, replies back.

use serde_json::json;
use tidegate_plugin::testing::{Chat, Trial, World, splits};
use tidegate_plugin::{Start, StopReason};

use super::*;

fn reply(part: Part, delta: fn(String) -> Event, text: &str) -> Vec<Event> {
    let mut events = vec![Event::Start(Start { id: None, model: None }), Event::Open(part)];
    events.push(delta(text.into()));
    events.extend([Event::Close, Event::Stop(StopReason::EndTurn)]);
    events
}

#[test]
fn calls_leave_with_placeholders() {
    let config = json!({
        "names": ["Ada Lovelace"],
        "rules": [{"label": "TICKET", "pattern": "TCK-[0-9]+"}],
    });
    let trial = Trial::<Redact>::new(config);
    let cases = [
        ("mail a@b.de or c@d.fr, a@b.de", "mail <EMAIL_1> or <EMAIL_2>, <EMAIL_1>"),
        ("I am ADA LOVELACE, 192.168.0.1", "I am <PERSON_1>, <IP_1>"),
        ("card 4111 1111 1111 1111, call +49 30 1234567", "card <CARD_1>, call <PHONE_1>"),
        ("DE89 3704 0044 0532 0130 00 for TCK-77", "<IBAN_1> for <TICKET_1>"),
        ("<EMAIL_1> is what I wrote, not a@b.de", "<EMAIL_1> is what I wrote, not <EMAIL_2>"),
        ("nothing here: 42", "nothing here: 42"),
        // Finds that overlap: all of them leave as one.
        ("for ada.lovelace@corp.com", "for <EMAIL_1>"),
        ("by Ada Lovelace@corp.com", "by <EMAIL_1>"),
        ("to TCK-77@corp.com, TCK-77", "to <EMAIL_1>, <TICKET_1>"),
    ];
    for (text, expect) in cases {
        let request = trial.call(Chat::user(text));
        assert_eq!(request.texts(), [expect], "{text}");
        let changed = text != expect;
        assert_eq!(request.verdict, if changed { Verdict::Change } else { Verdict::Pass }, "{text}");
    }
}

/// Each would be followed to the end of the text.
#[test]
fn brackets_that_nothing_closes_cost_little() {
    let (trial, brackets) = (Trial::<Redact>::new(json!({})), "<".repeat(1 << 19));
    let began = std::time::Instant::now();
    let request = trial.call(Chat::user(&format!("{brackets} a@b.de")));
    assert_eq!(request.texts(), [format!("{brackets} <EMAIL_1>")]);
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[test]
fn every_passage_is_read_and_arguments_stay_json() {
    let trial = Trial::<Redact>::new(json!({}));
    let chat = Chat::user("ask a@b.de")
        .system("you write to z@b.de")
        .calls("1", "send", r#"{"to": "a@b.de", "text": "hi\nc@d.fr", "n": 1.50}"#)
        .answers("1", "sent to a@b.de");
    let request = trial.call(chat);
    assert_eq!(
        request.texts(),
        [
            "you write to <EMAIL_1>",
            "ask <EMAIL_2>",
            r#"{"to": "<EMAIL_2>", "text": "hi\n<EMAIL_3>", "n": 1.50}"#,
            "sent to <EMAIL_2>",
        ]
    );
    assert_eq!(World::metric("redacted", "email"), 5.0);
}

#[test]
fn replies_are_restored_wherever_they_are_cut() {
    let trial = Trial::<Redact>::new(json!({"rules": [{"label": "QUOTE", "pattern": "\"[a-z]+\""}]}));
    let chat = Chat::user(r#"a@b.de and c@d.fr and "x""#);
    let cases = [
        (Part::Text, Event::text as fn(String) -> Event, "to <EMAIL_1>, <EMAIL_2>.", "to a@b.de, c@d.fr."),
        (Part::Text, Event::text, "<<EMAIL_1>> <EMAIL_3> <EMAIL_ <EMAIL_1", "<a@b.de> <EMAIL_3> <EMAIL_ <EMAIL_1"),
        (Part::Text, Event::text, "say <QUOTE_1> é<", r#"say "x" é<"#),
        (Part::Thinking, Event::thinking, "mail <EMAIL_2>", "mail c@d.fr"),
        (Part::Refusal, Event::text, "not <EMAIL_1>", "not a@b.de"),
    ];
    for (part, delta, text, expect) in cases {
        let left = trial.same_at_every_split(chat.clone(), &reply(part, delta, text));
        assert_eq!(left.parts[0].text, expect, "{text}");
    }
    let call = Part::ToolCall(tidegate_plugin::ToolHead { id: "1".into(), name: "send".into() });
    for (text, expect) in [
        (r#"{"to":"<EMAIL_1>"}"#, r#"{"to":"a@b.de"}"#),
        (r#"{"to":"\u003cEMAIL_1\u003E"}"#, r#"{"to":"a@b.de"}"#),
        (r#"{"q":"<QUOTE_1>"}"#, r#"{"q":"\"x\""}"#),
        (r#"{"q":"\\u003cEMAIL_1>"}"#, r#"{"q":"\\u003cEMAIL_1>"}"#),
        (r#"{"q":"\n\u003"}"#, r#"{"q":"\n\u003"}"#),
    ] {
        let left = trial.same_at_every_split(chat.clone(), &reply(call.clone(), Event::arguments, text));
        assert_eq!(left.parts[0].text, expect, "{text}");
    }
}

#[test]
fn a_reply_without_placeholders_passes_as_it_came() {
    let trial = Trial::<Redact>::new(json!({}));
    for batches in splits(&reply(Part::Text, Event::text, "1 < 2, <b>bold</b>, <EMIL_1>")) {
        let mut request = trial.call(Chat::user("a@b.de"));
        let mut seen = Reply::default();
        let mut holds = 0;
        for batch in &batches {
            batch.iter().for_each(|event| seen.fold(event));
            holds += usize::from(["<", "<E", "<EM"].iter().any(|end| seen.text().ends_with(end)));
        }
        let changed = batches.iter().filter(|batch| !request.batch(batch.to_vec())).count();
        assert!(changed <= 2 * holds, "{changed} changed, {holds} held: {batches:?}");
    }
    let mut request = trial.call(Chat::user("nothing to hide"));
    assert!(request.batch(reply(Part::Text, Event::text, "<EMAIL_1>")), "its reply is not even read");
}

#[test]
fn restoring_can_be_limited() {
    let text = reply(Part::Text, Event::text, "<EMAIL_1>");
    let thought = reply(Part::Thinking, Event::thinking, "<EMAIL_1>");
    for (config, in_text, in_thought) in [
        (json!({}), true, true),
        (json!({"restore": false}), false, false),
        (json!({"restore_in": ["text"]}), true, false),
        (json!({"restore_in": []}), false, false),
    ] {
        let trial = Trial::<Redact>::new(config.clone());
        for (events, restored) in [(&text, in_text), (&thought, in_thought)] {
            let mut request = trial.call(Chat::user("a@b.de"));
            let left = request.whole(events.clone()).parts[0].text.clone();
            assert_eq!(left == "a@b.de", restored, "{config}");
        }
    }
}

#[test]
fn without_numbers_there_is_no_way_back() {
    let trial = Trial::<Redact>::new(json!({"placeholders": false}));
    assert_eq!(trial.description.hooks, Hooks::ON_CALL);
    let request = trial.call(Chat::user("a@b.de and c@d.fr"));
    assert_eq!((request.texts(), request.verdict), (vec!["<EMAIL> and <EMAIL>".into()], Verdict::Change));
}

#[test]
fn unreadable_parts_can_be_refused() {
    let image = json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]});
    let audio = json!({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]});
    for (config, message, refused) in [
        (json!({}), &image, false),
        (json!({"refuse_parts": ["image"]}), &image, true),
        (json!({"refuse_parts": ["image"]}), &audio, false),
        (json!({"refuse_parts": ["other"]}), &audio, true),
    ] {
        let request = Trial::<Redact>::new(config.clone());
        let verdict = request.call(Chat::new().message(message.clone())).verdict;
        assert_eq!(matches!(verdict, Verdict::Refuse(_)), refused, "{config}");
    }
}

/// A row of numbers that is the same each time.
fn numbers(seed: u32) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    }
}

#[test]
fn what_went_out_comes_back() {
    let pieces = [
        "ada@example.org",
        "4111 1111 1111 1111",
        "+49 30 1234567",
        "192.168.0.1",
        "2001:db8::1",
        "é",
        "<",
        ">",
        "_1>",
        " ",
        "\\n",
        "\n",
        "DE89370400440532013000",
        "Ada",
        "Lovelace",
        "@",
        "::",
        "12",
        "-",
        ".",
        "(415) 555-0100",
        "<EMAIL",
        "\"",
        "漢",
    ];
    let trial = Trial::<Redact>::new(json!({"names": ["Ada Lovelace", "Ada"]}));
    let mut next = numbers(7);
    for _ in 0..2000 {
        let text: String = (0..next(12)).map(|_| pieces[next(pieces.len())]).collect();
        let mut request = trial.call(Chat::user(&text));
        let sent = request.texts().remove(0);
        let events = reply(Part::Text, Event::text, &sent);
        let cut = (0..3).map(|_| next(sent.len() + 1)).map(|at| sent.floor_char_boundary(at));
        let mut cuts: Vec<usize> = cut.chain([0, sent.len()]).collect();
        cuts.sort_unstable();
        request.batch(events[..2].to_vec());
        for pair in cuts.windows(2) {
            request.batch(vec![Event::text(&sent[pair[0]..pair[1]])]);
        }
        request.batch(events[3..].to_vec());
        assert_eq!(request.reply.text(), text, "sent as {sent}");
    }
}

#[test]
fn mistakes_in_the_configuration_are_found() {
    for (config, good) in [
        (json!({"kinds": ["email"]}), true),
        (json!({"kinds": ["e-mail"]}), false),
        (json!({"rules": [{"label": "x", "pattern": "a"}]}), false),
        (json!({"rules": [{"label": "X", "pattern": "("}]}), false),
        (json!({"rules": [{"label": "X", "pattern": "a*"}]}), false),
        (json!({"names": ["?"]}), false),
        (json!({"unknown": 1}), false),
    ] {
        assert_eq!(Trial::<Redact>::problem(config.clone()).is_none(), good, "{config}");
    }
}

#[test]
fn the_examples_load() {
    let configs = readme::configs(include_str!("../README.md"));
    assert!(!configs.is_empty());
    for config in configs {
        assert_eq!(Trial::<Redact>::problem(config.clone()), None, "{config}");
    }
}
