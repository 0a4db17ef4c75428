//! Answers that are held to something: a schema, any JSON, calls of tools.

use super::*;

fn weather() -> Value {
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
        "required": ["city", "days"],
        "additionalProperties": false,
    });
    let function = |name: &str| json!({"type": "function", "function": {"name": name, "description": "Tells.", "parameters": parameters}});
    json!([function("get_weather"), function("get_tides")])
}

#[test]
fn an_answer_is_json_of_its_schema() {
    let Some(engine) = engine() else { return };
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 1, "maximum": 120},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1, "maxItems": 3},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": false,
        "$defs": {"tag": {"enum": ["red", "green", "ä\n"]}},
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    for seed in 0..8 {
        let temperature = seed as f32 / 4.0;
        let format = Format::Schema(schema.clone());
        let job = Job { format, temperature, seed: Some(seed), max_tokens: Some(120), ..ask("Describe a person.") };
        let (text, others) = run(engine, job);
        assert!(matches!(others[1], Piece::End { reason: End::Stop, .. }), "{others:?} {text}");
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(validator.is_valid(&answer), "{text}");
    }
    let cut = Job { format: Format::Schema(schema), max_tokens: Some(6), ..ask("Describe a person.") };
    assert!(matches!(run(engine, cut).1[1], Piece::End { reason: End::Length, completion_tokens: 6, .. }));
    let any = Job { format: Format::Json, max_tokens: Some(200), ..ask("Give me JSON with a city and a country.") };
    let (text, others) = run(engine, any);
    if matches!(others[1], Piece::End { reason: End::Stop, .. }) {
        assert!(serde_json::from_str::<serde_json::Map<String, Value>>(&text).is_ok(), "{text}");
    }
    assert!(text.starts_with('{'), "{text}");
}

#[test]
fn a_schema_that_nothing_can_be_held_to_is_refused_with_its_place() {
    let Some(engine) = engine() else { return };
    for (schema, expect) in [
        (json!({"type": "strin"}), "/type"),
        (json!({"properties": {"a": {"type": 5}}}), "/properties/a/type"),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {"not": {}}}}}),
            "/properties/a/items: ",
        ),
        (json!({"$ref": "#/$defs/x"}), "$defs"),
        (json!({"type": "string", "pattern": "("}), "unclosed group"),
    ] {
        let job = Job { format: Format::Schema(schema), ..ask(SEA) };
        let (_, others) = run(engine, job);
        let [Piece::Refused(Refusal { place: Some("response_format"), message })] = others.as_slice() else {
            panic!("{others:?}")
        };
        println!("{message}");
        assert!(message.contains(expect), "{message}");
    }
    let mut tools = weather();
    tools[1]["function"]["parameters"]["properties"]["city"] = json!({"if": {}});
    let (_, others) = run(engine, Job { tools: Some(tools), choice: Choice::Required, ..ask(SEA) });
    let [Piece::Refused(Refusal { place: Some("tools"), message })] = others.as_slice() else { panic!("{others:?}") };
    assert!(message.contains("`get_tides` at /properties/city"), "{message}");
}

#[test]
fn a_tool_that_must_be_called_is() {
    let Some(engine) = engine() else { return };
    for (choice, parallel) in
        [(Choice::Required, true), (Choice::Required, false), (Choice::Named("get_tides".into()), false)]
    {
        let job = Job {
            tools: Some(weather()),
            choice: choice.clone(),
            parallel,
            max_tokens: Some(600),
            ..ask("How is the weather in Bonn?")
        };
        let (text, others) = run(engine, job);
        assert_eq!(text, "", "{others:?}");
        let calls: Vec<&ToolCall> =
            others.iter().filter_map(|piece| if let Piece::Call(call) = piece { Some(call) } else { None }).collect();
        println!("{calls:?}");
        assert!(!calls.is_empty() && (parallel || calls.len() == 1), "{others:?}");
        for call in calls {
            assert!(choice != Choice::Named("get_tides".into()) || call.name == "get_tides");
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
            assert!(
                arguments["city"].is_string() && (1..=7).contains(&arguments["days"].as_u64().unwrap()),
                "{call:?}"
            );
        }
    }
    let nobody = Job { tools: Some(weather()), choice: Choice::Named("nobody".into()), ..ask(SEA) };
    assert!(matches!(run(engine, nobody).1.as_slice(), [Piece::Refused(Refusal { place: Some("tool_choice"), .. })]));
}

#[test]
fn an_answer_with_tools_and_a_schema_is_one_or_the_other() {
    let Some(engine) = engine() else { return };
    let schema = json!({"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"], "additionalProperties": false});
    let format = Format::Schema(schema);
    let job = Job { tools: Some(weather()), format, max_tokens: Some(200), ..ask("Say whether water is wet.") };
    let (text, others) = run(engine, job);
    let called = others.iter().any(|piece| matches!(piece, Piece::Call(_)));
    assert!(called && text.is_empty() || text == "{\"x\": true}" || text == "{\"x\": false}", "{text} {others:?}");
}

/// A call of hundreds of tokens comes at once; who waits for it must be able to tell that from silence.
#[test]
fn tokens_of_a_call_are_counted_while_it_is_held() {
    let Some(engine) = engine() else { return };
    let job = Job { tools: Some(weather()), choice: Choice::Required, parallel: false, ..ask("How is the weather?") };
    let mut pieces = engine.submit(Job { max_tokens: Some(200), ..job }).unwrap();
    let (mut counts, mut called) = (Vec::new(), false);
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Token { completion_tokens } => counts.push(completion_tokens),
            Piece::Call(_) => called = true,
            Piece::End { completion_tokens, .. } => {
                assert!(called && counts.len() + 2 >= completion_tokens, "{counts:?}")
            }
            other => assert!(matches!(other, Piece::Start { .. }), "{other:?}"),
        }
    }
    assert!(counts.len() > 8 && counts.is_sorted() && counts[0] == 1, "{counts:?}");
}
