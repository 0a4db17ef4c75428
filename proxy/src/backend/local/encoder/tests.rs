//! The whole encoder with a real model: `TIDEGATE_TEST_EMBEDDER` names all-MiniLM-L6-v2's folder (`deploy/demo.py
//! --fetch-embedder` puts it into the cache). Without the variable these tests pass after saying so.

use super::*;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn folder() -> Option<PathBuf> {
    let Some(path) = std::env::var_os("TIDEGATE_TEST_EMBEDDER").map(PathBuf::from) else {
        println!("skipped: TIDEGATE_TEST_EMBEDDER is not set");
        return None;
    };
    assert!(path.is_dir(), "TIDEGATE_TEST_EMBEDDER is set to {}, which is no folder", path.display());
    Some(path)
}

fn encoder() -> Option<&'static Encoder> {
    static ENCODER: OnceLock<Option<Encoder>> = OnceLock::new();
    ENCODER.get_or_init(|| folder().map(|path| Encoder::load(&path, &Options::default()).unwrap())).as_ref()
}

fn job(texts: &[&str]) -> EncodeJob {
    EncodeJob { texts: texts.iter().map(ToString::to_string).collect(), truncate: true, dimensions: None }
}

fn run(encoder: &Encoder, job: EncodeJob) -> Result<Encoded, EncodeError> {
    encoder.submit(job).unwrap().blocking_recv().unwrap()
}

fn cosine(one: &[f32], two: &[f32]) -> f32 {
    one.iter().zip(two).map(|(one, two)| one * two).sum()
}

const SENTENCES: [&str; 3] = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];

/// The figures are those that sentence-transformers' own documentation prints for these sentences and this model
/// (<https://sbert.net/docs/sentence_transformer/usage/usage.html>).
#[test]
fn similarities_are_those_that_are_published() {
    let Some(encoder) = encoder() else { return };
    let encoded = run(encoder, job(&SENTENCES)).unwrap();
    assert_eq!((encoded.tokens, encoded.vectors.len(), encoded.vectors[0].len()), (25, 3, 384));
    for (one, two, expect) in [(0, 0, 1.0), (0, 1, 0.6660), (0, 2, 0.1046), (1, 2, 0.1411)] {
        let found = cosine(&encoded.vectors[one], &encoded.vectors[two]);
        assert!((found - expect).abs() < 1e-4, "{one} {two}: {found}");
    }
}

/// The numbers were computed by another implementation, in 64-bit floats with numpy and a tokenizer of its own.
#[test]
fn vectors_are_those_of_another_implementation() {
    let Some(encoder) = encoder() else { return };
    let long = "word ".repeat(400);
    for (text, tokens, begins) in [
        (SENTENCES[0], 8, [0.019196, 0.120085, 0.159598, 0.067066, 0.050075, -0.025919]),
        ("Grüße aus Köln ☀, naïve 日本 (don't!)", 18, [0.017401, 0.118432, 0.091956, -0.054036, 0.006269, 0.062673]),
        (&long, 256, [-0.008124, -0.095586, -0.038673, 0.049662, -0.043794, 0.02372]),
    ] {
        let encoded = run(encoder, job(&[text])).unwrap();
        assert_eq!(encoded.tokens, tokens, "{text}");
        for (found, expect) in encoded.vectors[0].iter().zip(begins) {
            assert!((found - expect).abs() < 2e-5, "{text}: {:?}", &encoded.vectors[0][..6]);
        }
    }
}

#[test]
fn a_text_has_the_same_vector_in_any_company() {
    let Some(encoder) = encoder() else { return };
    let alone = run(encoder, job(&SENTENCES[..1])).unwrap().vectors.remove(0);
    let many: Vec<String> = (0..40).map(|number| format!("sentence {number} {}", "more ".repeat(number * 3))).collect();
    let mut texts: Vec<&str> = many.iter().map(String::as_str).collect();
    texts.insert(17, SENTENCES[0]);
    texts.push("");
    let crowd = run(encoder, job(&texts)).unwrap();
    assert_eq!(crowd.vectors.len(), 42);
    assert!(cosine(&crowd.vectors[17], &alone) > 0.99999);
    assert!(cosine(&crowd.vectors[16], &alone) < 0.9);
}

#[test]
fn no_more_of_a_job_is_read_than_a_step_takes() {
    let Some(path) = folder() else { return };
    let folder = Folder::open(&path).unwrap();
    let worker = Worker {
        net: Net::read(&folder).unwrap(),
        tokenizer: folder.tokenizer().unwrap(),
        longest: folder.longest,
        pooling: folder.pooling,
        normalize: folder.normalize,
        slots: 1,
    };
    let (outlet, _answer) = oneshot::channel();
    let text = "word ".repeat(198);
    let mut job = Running::new(job(&[text.as_str(); 100]), outlet);
    for _ in 0..2 {
        worker.read(&mut job).unwrap();
        assert_eq!((job.texts.len(), job.texts[0].len()), (6, 200), "six of two hundred tokens are more than 1024");
    }
    worker.step(&mut VecDeque::from([job])).unwrap();
}

#[test]
fn lengths_have_bounds() {
    let Some(encoder) = encoder() else { return };
    let long = "word ".repeat(300);
    let strict = run(encoder, EncodeJob { truncate: false, ..job(&["short", &long]) });
    assert!(matches!(&strict, Err(EncodeError::Invalid(message)) if message.contains("256")), "{strict:?}");
    let huge = " ".repeat(1 << 20);
    assert!(run(encoder, EncodeJob { truncate: false, ..job(&[&huge]) }).is_err());
    assert_eq!(run(encoder, job(&[&huge])).unwrap().tokens, 2);
    let short = run(encoder, EncodeJob { dimensions: Some(64), ..job(&SENTENCES[..1]) }).unwrap().vectors.remove(0);
    assert_eq!((short.len(), (cosine(&short, &short) - 1.0).abs() < 1e-5), (64, true));
}

#[test]
fn a_full_queue_refuses_and_forgets_who_has_left() {
    let Some(path) = folder() else { return };
    let options = Options { slots: 1, queue: 1, ..Options::default() };
    let encoder = Encoder::load(&path, &options).unwrap();
    let long = "a long sentence ".repeat(80);
    let busy = encoder.submit(job(&[long.as_str(); 400])).unwrap();
    let began = Instant::now();
    while !encoder.queue.0.state.lock().jobs.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    let waiting = encoder.submit(job(&["x"])).unwrap();
    assert_eq!(encoder.submit(job(&["y"])).unwrap_err(), SubmitError::Full);
    drop(waiting);
    let next = encoder.submit(job(&["y"])).unwrap();
    // Nobody waits for the long one any more: the next has its turn soon.
    drop(busy);
    let began = Instant::now();
    assert_eq!(next.blocking_recv().unwrap().unwrap().tokens, 3);
    assert!(began.elapsed() < Duration::from_secs(30));
    let lost = encoder.submit(job(&[long.as_str(); 100])).unwrap();
    drop(encoder);
    assert!(lost.blocking_recv().is_err());
}

#[test]
fn what_is_no_embedding_model_says_why() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let load = || Encoder::load(folder, &Options::default()).map(|_| ()).unwrap_err().to_string();
    assert!(load().contains("no config.json"), "{}", load());
    let config = |text: &str| std::fs::write(folder.join("config.json"), text).unwrap();
    for (text, says) in [
        ("{", "EOF"),
        (r#"{"model_type":"roberta"}"#, "`roberta`"),
        (r#"{"model_type":"bert"}"#, "max_position_embeddings"),
        (r#"{"model_type":"bert","hidden_act":"mish"}"#, "`mish`"),
        (r#"{"model_type":"bert","position_embedding_type":"relative_key"}"#, "not absolute"),
    ] {
        config(text);
        assert!(load().contains(says), "{text}: {}", load());
    }
    config(
        r#"{"model_type":"bert","hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":9,"max_position_embeddings":4,"type_vocab_size":2}"#,
    );
    assert!(load().contains("tokenizer.json"), "{}", load());
    std::fs::write(folder.join("modules.json"), r#"[{"type":"sentence_transformers.models.Dense","path":"2_Dense"}]"#)
        .unwrap();
    assert!(load().contains("models.Dense"), "{}", load());
}
