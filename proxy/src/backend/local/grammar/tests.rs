//! What is let through with the vocabulary of a real model, and what is refused before there is one.

use super::*;
use crate::backend::local::gguf::Gguf;
use std::time::{Duration, Instant};

/// With the vocabulary of a real model, see `local/tests.rs`.
fn vocabulary() -> Option<Vocabulary> {
    let path = std::env::var_os("TIDEGATE_TEST_MODEL")?;
    Some(Vocabulary::read(&Gguf::open(std::path::Path::new(&path)).unwrap()).unwrap())
}

/// Whether an answer of these tokens is let through, and is complete at its end.
fn lets_through(grammar: &mut Grammar, vocabulary: &Vocabulary, answer: &str, times: &mut Vec<Duration>) -> bool {
    let mut complete = false;
    let spoken = |token: &u32| !vocabulary.bytes(*token).is_empty();
    for token in vocabulary.encode(answer).unwrap().into_iter().filter(spoken) {
        let mut scores = vec![0.0; vocabulary.len()];
        let began = Instant::now();
        grammar.mask(&mut scores).unwrap();
        times.push(began.elapsed());
        if scores[token as usize] != 0.0 {
            return false;
        }
        complete = grammar.advance(token).unwrap();
    }
    complete
}

#[test]
fn calls_are_let_through_in_the_form_of_the_model() {
    let Some(vocabulary) = vocabulary() else { return };
    let began = Instant::now();
    let grammars = Grammars::new(&vocabulary).unwrap();
    println!("vocabulary: {:?}", began.elapsed());
    let tool = |name: &str| {
        json!({"function": {"name": name, "parameters": {
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}})
    };
    let tools = [tool("weather \"now\""), tool("tides")];
    let mut times = Vec::new();
    for (form, answer) in [
        (
            Form::Hermes,
            "<tool_call>\n{\"name\": \"tides\", \"arguments\": {\"city\": \"Bonn am Rhein\", \"days\": 3}}\n</tool_call>",
        ),
        (
            Form::Hermes,
            "<tool_call>\n{\"name\": \"weather \\\"now\\\"\", \"arguments\": {\"city\": \"\"}}\n</tool_call>",
        ),
        (Form::Llama, "{\"name\": \"tides\", \"parameters\": {\"city\": \"Bonn\"}}"),
        (Form::Mistral, "[TOOL_CALLS][{\"name\": \"tides\", \"arguments\": {\"city\": \"Bonn\"}}]"),
    ] {
        let wanted = |choice| Wanted { format: &Format::Free, tools: &tools, choice, parallel: false, form };
        let began = Instant::now();
        let mut grammar = grammars.compile(&wanted(&Choice::Required)).unwrap().unwrap();
        println!("{form:?}: {:?}", began.elapsed());
        assert!(lets_through(&mut grammar, &vocabulary, answer, &mut times), "{answer}");
        let named = Choice::Named("weather \"now\"".into());
        let mut grammar = grammars.compile(&wanted(&named)).unwrap().unwrap();
        let right = answer.contains("weather");
        assert_eq!(lets_through(&mut grammar, &vocabulary, answer, &mut times), right, "{answer}");
        assert!(grammars.compile(&wanted(&Choice::Auto)).unwrap().is_none());
    }
    times.sort_unstable();
    let mean = times.iter().sum::<Duration>() / times.len() as u32;
    println!("a mask: mean {mean:?}, median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
}

#[test]
fn looking_for_what_is_to_blame_has_an_end() {
    let mut factory = ParserFactory::new_simple(&ApproximateTokEnv::single_byte_env()).unwrap();
    factory.quiet().limits_mut().verbose_errors = false;
    let grammars = Grammars { factory };
    for (length, expect) in [(9, "/properties/p9"), (200 << 10, "")] {
        let properties = (0..10).map(|number| {
            let part = if number == 9 { json!({"not": {}}) } else { json!({"type": "string"}) };
            (format!("p{number}"), part)
        });
        let properties: Map<String, Value> = properties.collect();
        let shared = json!({"x": {"type": "string", "description": "x".repeat(length)}});
        let schema = json!({"type": "object", "properties": properties, "definitions": shared});
        let fault = grammars.blame(&schema).unwrap_err();
        assert_eq!(fault.place, expect, "{length}: {}", fault.reason);
    }
}

#[test]
fn schemas_have_bounds() {
    let schema = |length: usize| json!({"description": "x".repeat(length)});
    let tool = |name: &str, length| json!({"function": {"name": name, "parameters": schema(length)}});
    let tools = [tool("a", LONGEST / 2), tool("b", LONGEST / 2), tool("c", 9)];
    let named = |name: &str| Choice::Named(name.into());
    for (format, tools, choice, place) in [
        (Format::Schema(schema(LONGEST)), &tools[..0], Choice::Auto, Some("response_format")),
        (Format::Schema(schema(9)), &tools[..], Choice::Auto, Some("tools")),
        (Format::Schema(schema(LONGEST)), &tools[2..], Choice::Required, None),
        (Format::Free, &tools[..], Choice::Required, Some("tools")),
        (Format::Free, &tools[..], named("a"), None),
    ] {
        let wanted = Wanted { format: &format, tools, choice: &choice, parallel: true, form: Form::Hermes };
        let refused = wanted.within_bounds().err();
        assert_eq!(refused.map(|refusal| refusal.place), place.map(Some), "{choice:?}");
    }
}

#[test]
fn a_callers_layout_is_not_taken() {
    let Some(vocabulary) = vocabulary() else { return };
    let grammars = Grammars::new(&vocabulary).unwrap();
    let schema = json!({"type": "array", "items": {"type": "integer"}, "x-guidance": {"item_separator": ";"}});
    let format = Format::Schema(schema);
    let wanted = Wanted { format: &format, tools: &[], choice: &Choice::Auto, parallel: true, form: Form::Hermes };
    for (answer, expect) in [("[1, 2]", true), ("[1;2]", false), ("[1,2]", false)] {
        let mut grammar = grammars.compile(&wanted).unwrap().unwrap();
        assert_eq!(lets_through(&mut grammar, &vocabulary, answer, &mut Vec::new()), expect, "{answer}");
    }
}
