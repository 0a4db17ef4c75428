//! What finished answers leave in memory, and for whom.

use super::*;

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

#[test]
fn who_left_while_waiting_makes_nothing_forgotten() {
    let Some(engine) = load(Options { slots: 1, ..Options::default() }) else { return };
    let endless = |limit| Job { owner: "a".into(), max_tokens: limit, ..ask(ENDLESS) };
    let mut running = engine.submit(endless(None)).unwrap();
    wait_for_text(&mut running);
    let mut waiting = engine.submit(Job { owner: "b".into(), ..ask(SEA) }).unwrap();
    assert!(matches!(waiting.blocking_recv(), Some(Piece::Start { .. })), "it has no slot yet");
    drop(waiting);
    drop(running);
    let (_, again) = run(&engine, endless(Some(1)));
    let Piece::Start { prompt_tokens } = again[0] else { panic!("{again:?}") };
    assert_eq!(cached(&again), prompt_tokens - 1);
}
