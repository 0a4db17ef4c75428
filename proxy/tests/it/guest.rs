//! Plugins to try the gateway with: one in core WebAssembly text (`wit/examples/pass.wat`) with one function's body replaced, so
//! that no toolchain is needed but the one the tests are built with.

use crate::component::component;
use crate::fake::{CHAT, Fake, chat_stream, json, stream};
use crate::gateway::{Gateway, one_backend};
use tempfile::{NamedTempFile, TempPath};

pub const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
pub const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

/// The functions of the example that a case can replace, by how their definition begins.
pub const DESCRIBE: &str = "#describe\")";
pub const ON_CALL: &str = "#on-call\")";
pub const ON_EVENTS: &str = "exchange.on-events\")";
pub const ON_END: &str = "#on-end\")";

/// `pass.wat` with instructions at the beginning of a function.
pub fn wat(function: &str, body: &str) -> String {
    let example = include_str!("../../../wit/examples/pass.wat");
    let at = example.find(function).expect("the example has this function");
    let line = at + example[at..].find('\n').unwrap();
    format!("{}\n{body}\n{}", &example[..line], &example[line..])
}

/// A component file that is gone at the end.
pub struct Guest(pub TempPath);

impl Guest {
    pub fn new(text: &str) -> Self {
        let file = NamedTempFile::with_suffix(".wasm").unwrap();
        std::fs::write(&file, component(text)).unwrap();
        Self(file.into_temp_path())
    }

    pub fn section(&self, name: &str, more: &str) -> String {
        format!("[plugins.{name}]\npath = \"{}\"\n{more}\n", self.0.display())
    }
}

pub fn fake() -> Fake {
    Fake::start(|seen| {
        if seen.body.contains("\"stream\":true") {
            stream(&chat_stream("m"), 9)
        } else {
            json(200, "", &CHAT.replace("served", "m"))
        }
    })
}

/// A gateway with one plugin, in front of a fake that speaks under the model's own name.
pub fn before(fake: &Fake, guest: &Guest, more: &str) -> Gateway {
    Gateway::start(&format!("{}{}", one_backend("openai", &fake.url(), ""), guest.section("p", more)))
}

/// A text at an address, as instructions that store it there.
pub fn store(at: usize, text: &str) -> String {
    text.bytes()
        .enumerate()
        .map(|(index, byte)| format!("(i32.store8 (i32.const {}) (i32.const {byte}))", at + index))
        .collect()
}

/// What a hook does wrong, and what it is counted as.
pub struct Fault {
    pub name: &'static str,
    pub function: &'static str,
    pub body: String,
    pub kind: &'static str,
}

/// The ways to fail that need no more than the example's own imports. Wants `limits.output` of at most 1 MiB.
pub fn faults() -> Vec<Fault> {
    let forever = "(loop $l (br $l))";
    let hoard = "(drop (memory.grow (i32.const 16384)))";
    // A `change` with these events: one of 44 bytes at 1024.
    let change = |event: &str| {
        format!(
            "{event} (i32.store8 (i32.const 512) (i32.const 1)) (i32.store (i32.const 516) (i32.const 1024)) (i32.store (i32.const 520) (i32.const 1)) (return (i32.const 512))"
        )
    };
    let text = |at: usize, length: usize| {
        format!(
            "(i32.store8 (i32.const 1024) (i32.const 2)) (i32.store8 (i32.const 1028) (i32.const 0)) (i32.store (i32.const 1032) (i32.const {at})) (i32.store (i32.const 1036) (i32.const {length}))"
        )
    };
    let unclosed = change("(i32.store8 (i32.const 1024) (i32.const 3))");
    let not_utf8 = change(&format!("(i32.store8 (i32.const 2000) (i32.const 255)) {}", text(2000, 1)));
    let large = change(&format!("(drop (memory.grow (i32.const 48))) {}", text(4096, 2 << 20)));
    let out_of_bounds = change(&text(0, 1 << 30));
    [
        ("trap in on-call", ON_CALL, "unreachable", "trap"),
        ("trap in on-events", ON_EVENTS, "unreachable", "trap"),
        ("no end in on-call", ON_CALL, forever, "timeout"),
        ("no end in on-events", ON_EVENTS, forever, "timeout"),
        ("a gigabyte", ON_CALL, hoard, "memory"),
        ("a call that is kept", ON_CALL, "(return (i32.const 256))", "trap"),
        ("a close without a part", ON_EVENTS, &unclosed, "rejected"),
        ("text that is none", ON_EVENTS, &not_utf8, "trap"),
        ("more than it may answer", ON_EVENTS, &large, "rejected"),
        ("memory that is not its own", ON_EVENTS, &out_of_bounds, "trap"),
    ]
    .map(|(name, function, body, kind)| Fault { name, function, body: body.to_owned(), kind })
    .into()
}

/// The example with one more import.
pub fn importing(text: &str, import: &str) -> String {
    let first = "(import \"tidegate:plugin/calls@0.1.0\" \"[resource-drop]call\"";
    text.replace(first, &format!("{import}\n{first}"))
}

/// `model.ask`, `kv.get` and `http.send` as imports.
pub const ASK: &str = r#"(import "tidegate:plugin/model@0.1.0" "ask" (func $ask (param i32 i32)))"#;
pub const GET: &str = r#"(import "tidegate:plugin/kv@0.1.0" "get" (func $get (param i32 i32 i32)))"#;
pub const SEND: &str =
    r#"(import "tidegate:plugin/http@0.1.0" "send" (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;

/// Asks a model about a text; the result is at 3600. A question is at 3200: model, turns (one at 3128), no tools, no parameters.
pub fn ask(model: &str, text: &str) -> String {
    format!(
        "{}{} (i32.store8 (i32.const 3128) (i32.const 2)) (i32.store (i32.const 3132) (i32.const 3144)) (i32.store (i32.const 3136) (i32.const 1)) \
         (i32.store8 (i32.const 3144) (i32.const 0)) (i32.store (i32.const 3148) (i32.const 3064)) (i32.store (i32.const 3152) (i32.const {})) \
         (i32.store (i32.const 3200) (i32.const 3000)) (i32.store (i32.const 3204) (i32.const {})) \
         (i32.store (i32.const 3208) (i32.const 3128)) (i32.store (i32.const 3212) (i32.const 1)) (call $ask (i32.const 3200) (i32.const 3600))",
        store(3000, model),
        store(3064, text),
        text.len(),
        model.len()
    )
}

/// Gets this address over HTTP; the result is at 3600.
pub fn get(url: &str) -> String {
    format!(
        "{}{} (call $send (i32.const 3000) (i32.const 3) (i32.const 3064) (i32.const {}) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 3600))",
        store(3000, "GET"),
        store(3064, url),
        url.len()
    )
}

/// Ends `on-call` with a refusal that tells the result at 3600: 450 and the text at 3604 for a good one, 460 and the number of the
/// error's case, with its text, for another.
pub fn tell() -> String {
    "(call $done (local.get $call)) (i32.store8 (i32.const 256) (i32.const 4)) (i32.store8 (i32.const 288) (i32.const 0)) \
     (i32.store16 (i32.const 260) (i32.const 450)) (i32.store (i32.const 264) (i32.const 16)) (i32.store (i32.const 268) (i32.const 4)) \
     (i32.store (i32.const 272) (i32.load (i32.const 3604))) (i32.store (i32.const 276) (i32.load (i32.const 3608))) \
     (if (i32.load8_u (i32.const 3600)) (then \
       (i32.store16 (i32.const 260) (i32.add (i32.const 460) (i32.load8_u (i32.const 3604)))) \
       (i32.store (i32.const 272) (i32.load (i32.const 3608))) (i32.store (i32.const 276) (i32.load (i32.const 3612))) \
       (if (i32.and (i32.ge_u (i32.load8_u (i32.const 3604)) (i32.const 2)) (i32.le_u (i32.load8_u (i32.const 3604)) (i32.const 4))) \
         (then (i32.store (i32.const 276) (i32.const 0)))))) \
     (global.set $heap (i32.const 4096)) (return (i32.const 256))"
        .to_owned()
}
