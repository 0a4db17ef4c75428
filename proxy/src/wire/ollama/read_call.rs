//! A request of Ollama's API as a call.
//!
//! Its options are a bag: those with a canonical form are read, those that other open servers know go by their own names, the
//! rest are `options.NAME`. Calls of earlier turns may have no ids; they get `call_N`, and a result without one answers the
//! first open call of its tool's name, else the first open call.

use super::Form;
use crate::canon::call::{Content, Effort, Format, Image, Role, Thinking, Tool, Turn};
use crate::canon::{Call, Fault};
use crate::wire::beyond::{extra, is_shared, lose, lose_lookalikes};
use crate::wire::check::{At, BODY, Check, Fields, present};
use crate::wire::json::{Json, Kind};
use crate::wire::object::Object;
use std::borrow::Cow;

/// Fields with a canonical form, in both forms. Everything else is `extra`.
const KNOWN: &[&str] = &["model", "stream", "think", "format", "options"];
const CHAT: &[&str] = &["messages", "tools"];
const GENERATE: &[&str] = &["prompt", "system", "images"];
/// What is said, in either form.
pub(super) const SPOKEN: &[&str] = &["messages", "tools", "prompt", "system", "images"];
/// Options with a canonical form.
const OPTIONS: &[&str] =
    &["num_predict", "temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "seed", "stop"];

pub(super) fn check(form: Form, request: &Object) -> Result<(), Fault> {
    let mut check = Check::default();
    scalars(&mut check, form, request);
    check.finish(())
}

pub(super) fn read_call(form: Form, request: &Object) -> Result<Call, Fault> {
    let mut check = Check::default();
    let mut call = scalars(&mut check, form, request);
    // Not the top level's to judge: models have levels of their own, and Ollama knows which.
    call.thinking = think(&mut check, request);
    let own = if form == Form::Chat { CHAT } else { GENERATE };
    call.extra =
        extra(request, |name, json| KNOWN.contains(&name) || own.contains(&name) || !says_something(name, json));
    options(&mut check, request, &mut call);
    match form {
        Form::Chat => {
            let at = BODY.key("messages");
            if let Some(messages) = request.get("messages").filter(|messages| check.depth(&at, *messages)) {
                let mut reader = Turns { check: &mut check, call: &mut call, open: Vec::new(), calls: 0 };
                for (index, message) in messages.items().enumerate() {
                    reader.message(&at.index(index), message);
                }
            }
            tools(&mut check, request, &mut call);
        }
        Form::Generate => prompt(&mut check, request, &mut call),
    }
    check.finish(call)
}

/// Empty texts and lists, and `raw: false`, are as good as absent.
fn says_something(name: &str, json: Json<'_>) -> bool {
    match name {
        "raw" => json.as_bool() != Some(false),
        "suffix" | "template" => json.raw() != "\"\"",
        "context" => json.has_items(),
        _ => true,
    }
}

/// The top level: types of everything that is not a list of objects.
fn scalars(check: &mut Check, form: Form, request: &Object) -> Call {
    let mut call = Call {
        model: check.model(request).unwrap_or_default(),
        stream: check.flag(&BODY, request, "stream").unwrap_or(true),
        stream_usage: true,
        choices: 1,
        family: "ollama",
        ..Call::default()
    };
    if let Some(json) = present(request, "think").filter(|json| json.as_bool().is_none() && json.kind() != Kind::String)
    {
        check.wrong(&BODY.key("think"), "bool_type", "Input should be a boolean or a level, as a string", Some(json));
    }
    call.format = format(check, request);
    if let Some(json) = present(request, "options") {
        check.as_dict(&BODY.key("options"), json);
    }
    let lists: &[&str] = if form == Form::Chat { &["messages", "tools"] } else { &["images"] };
    for name in lists.iter().chain(&["context"]) {
        if let Some(json) = present(request, name) {
            check.as_list(&BODY.key(name), json);
        }
    }
    // Chat knows no template and its like, and has them where its calls are given to a server as prompts.
    let texts: &[&str] = if form == Form::Chat { &[] } else { &["prompt", "system"] };
    for name in texts.iter().chain(&["template", "suffix"]) {
        check.text(&BODY, request, name);
    }
    check.flag(&BODY, request, "raw");
    call
}

/// Levels with a canonical form; other words only pass.
fn think(check: &mut Check, request: &Object) -> Option<Thinking> {
    let json = present(request, "think")?;
    if let Some(on) = json.as_bool() {
        return Some(if on { Thinking::Adaptive } else { Thinking::Off });
    }
    if json.kind() != Kind::String {
        return None;
    }
    check.word(&BODY, request, "think", &["minimal", "low", "medium", "high", "xhigh", "max"]).map(|word| {
        Thinking::Effort(match word {
            "minimal" => Effort::Minimal,
            "low" => Effort::Low,
            "medium" => Effort::Medium,
            "high" => Effort::High,
            "xhigh" => Effort::XHigh,
            _ => Effort::Max,
        })
    })
}

/// `"json"`, or a schema. OpenAI's schemas have names; here nobody asks for one.
fn format(check: &mut Check, request: &Object) -> Option<Format> {
    let json = present(request, "format")?;
    match json.kind() {
        Kind::Object => {
            let name = "response".to_owned();
            Some(Format::Schema { json: format!(r#"{{"name":"{name}","schema":{}}}"#, json.raw()), name })
        }
        Kind::String => (check.word(&BODY, request, "format", &["json", ""]) == Some("json")).then_some(Format::Json),
        _ => {
            check.wrong(&BODY.key("format"), "literal_error", "Input should be 'json' or a JSON schema", Some(json));
            None
        }
    }
}

fn options(check: &mut Check, request: &Object, call: &mut Call) {
    let at = BODY.key("options");
    let Some(json) = request.get("options").filter(|json| json.kind() == Kind::Object) else { return };
    let options = Fields::of(json);
    // -1 is "without end", -2 "what the context holds".
    let limit = check.int(&at, &options, "num_predict", -2..=i64::MAX);
    call.max_tokens = limit.filter(|limit| *limit > 0).map(i64::unsigned_abs);
    call.temperature = check.num(&at, &options, "temperature", 0.0..=2.0);
    call.top_p = check.num(&at, &options, "top_p", 0.0..=1.0);
    call.top_k = check.int(&at, &options, "top_k", -1..=i64::MAX).map(|top| u64::try_from(top).unwrap_or(0));
    call.presence_penalty = check.num(&at, &options, "presence_penalty", -2.0..=2.0);
    call.frequency_penalty = check.num(&at, &options, "frequency_penalty", -2.0..=2.0);
    call.seed = check.int(&at, &options, "seed", i64::MIN..=i64::MAX);
    call.stop = check.one_or_more(&at, &options, "stop");
    let mut shared: Vec<(&str, Json<'_>)> = Vec::new();
    for (name, json) in options.beyond(OPTIONS) {
        if is_shared(name) {
            // It may stand there twice, and outside of the options, too: the last counts, as in most parsers.
            shared.retain(|(known, _)| *known != name);
            shared.push((name, json));
        } else {
            call.extra.push((format!("options.{name}"), json.raw().to_owned()));
        }
    }
    call.extra.retain(|(known, _)| !shared.iter().any(|(name, _)| known == name));
    call.extra.extend(shared.into_iter().map(|(name, json)| (name.to_owned(), json.raw().to_owned())));
}

/// Messages as turns: tool messages in a row are one user turn, as in the richer grammar.
struct Turns<'c> {
    check: &'c mut Check,
    call: &'c mut Call,
    /// Calls of the last assistant message that no result has answered: id and name.
    open: Vec<(String, String)>,
    calls: usize,
}

impl Turns<'_> {
    fn message(&mut self, at: &At<'_>, json: Json<'_>) {
        let Some(message) = self.check.as_dict(at, json) else { return };
        if message.get("role").is_none() {
            self.check.wrong(&at.key("role"), "missing", "Field required", Some(json));
            return;
        }
        let Some(role) = self.check.word(at, &message, "role", &["system", "user", "assistant", "tool"]) else {
            return;
        };
        let known = ["role", "content", "images", "thinking", "tool_calls", "tool_name", "name", "tool_call_id"];
        for (name, json) in message.beyond(&known) {
            lose(&mut self.call.extra, format!("messages.{name}"), json);
        }
        let text = self.check.text(at, &message, "content");
        let images = message.get("images").map(|json| images(self.check, &at.key("images"), json)).unwrap_or_default();
        match role {
            "assistant" => self.assistant(at, &message, text, images),
            "tool" => self.result(at, &message, text, images),
            _ => {
                let role = if role == "system" { Role::System } else { Role::User };
                // Nothing but images needs no text beside them.
                let text = text.filter(|text| !text.is_empty() || images.is_empty());
                let content = text.map(Content::Text).into_iter().chain(images).collect();
                self.call.turns.push(Turn { role, content });
            }
        }
    }

    fn assistant(&mut self, at: &At<'_>, message: &Fields<'_>, text: Option<String>, images: Vec<Content>) {
        let mut content = Vec::new();
        if let Some(text) = self.check.text(at, message, "thinking").filter(|text| !text.is_empty()) {
            content.push(Content::Thinking { text, signature: None });
        }
        content.extend(text.filter(|text| !text.is_empty()).map(Content::Text));
        content.extend(images);
        if let Some(calls) = message.get("tool_calls") {
            self.open.clear();
            let at = at.key("tool_calls");
            for (index, json) in self.check.as_list(&at, calls).enumerate() {
                content.extend(self.call(&at.index(index), json));
            }
        }
        self.call.turns.push(Turn { role: Role::Assistant, content });
    }

    fn call(&mut self, at: &At<'_>, json: Json<'_>) -> Option<Content> {
        let call = self.check.as_dict(at, json)?;
        lose_lookalikes(&mut self.call.extra, "tool_calls", &call);
        let id = self.check.text(at, &call, "id").filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| format!("call_{}", self.calls));
        self.calls += 1;
        let json = self.check.need(at, &call, "function")?;
        let at = at.key("function");
        let function = self.check.as_dict(&at, json)?;
        lose_lookalikes(&mut self.call.extra, "function", &function);
        let name = self.check.need_text(&at, &function, "name")?;
        let arguments = match function.get("arguments") {
            Some(json) => self.check.as_dict(&at.key("arguments"), json).map(|_| json.raw().to_owned())?,
            None => String::new(),
        };
        self.open.push((id.clone(), name.clone()));
        Some(Content::ToolCall { id, name, arguments })
    }

    fn result(&mut self, at: &At<'_>, message: &Fields<'_>, text: Option<String>, images: Vec<Content>) {
        let id = message.text("tool_call_id").filter(|id| !id.is_empty());
        let name = message.text("tool_name").or_else(|| message.text("name"));
        let place = match (&id, &name) {
            (Some(id), _) => self.open.iter().position(|(known, _)| known == id),
            (None, Some(name)) => {
                self.open.iter().position(|(_, known)| known == name).or((!self.open.is_empty()).then_some(0))
            }
            (None, None) => (!self.open.is_empty()).then_some(0),
        };
        let answered = place.map(|place| self.open.remove(place).0);
        let Some(id) = id.map(Cow::into_owned).or(answered) else {
            let what = "This tool message answers no tool call of the assistant's message before it";
            self.check.wrong(at, "value_error", what, None);
            return;
        };
        let content = text.map(Content::Text).into_iter().chain(images).collect();
        Turn::add_result(&mut self.call.turns, id, content);
    }
}

/// Images are bytes in base64; of which kind, their first bytes say.
fn images(check: &mut Check, at: &At<'_>, json: Json<'_>) -> Vec<Content> {
    let kinds = [("/9j/", "image/jpeg"), ("R0lG", "image/gif"), ("UklGR", "image/webp"), ("Qk", "image/bmp")];
    let texts = check.texts(at, json).into_iter();
    texts
        .map(|data| {
            let kind = kinds.iter().find(|(head, _)| data.starts_with(head)).map_or("image/png", |(_, kind)| kind);
            Content::Image(Image::Data { media_type: kind.to_owned(), data })
        })
        .collect()
}

fn tools(check: &mut Check, request: &Object, call: &mut Call) {
    let at = BODY.key("tools");
    let Some(list) = request.get("tools").filter(|list| check.depth(&at, *list)) else { return };
    for (index, json) in list.items().enumerate() {
        let at = at.index(index);
        let Some(tool) = check.as_dict(&at, json) else { continue };
        lose_lookalikes(&mut call.extra, "tools", &tool);
        if let Some(kind) = tool.text("type").filter(|kind| kind != "function") {
            call.tools.push(Tool::Hosted { kind: kind.into_owned(), json: json.raw().to_owned() });
            continue;
        }
        let Some(json) = check.need(&at, &tool, "function") else { continue };
        let at = at.key("function");
        let Some(function) = check.as_dict(&at, json) else { continue };
        lose_lookalikes(&mut call.extra, "function", &function);
        let parameters = check.object(&at, &function, "parameters");
        let Some(name) = check.need_text(&at, &function, "name") else { continue };
        call.tools.push(Tool::Function {
            name,
            description: check.text(&at, &function, "description"),
            parameters,
            strict: None,
        });
    }
}

fn prompt(check: &mut Check, request: &Object, call: &mut Call) {
    let text = |check: &mut Check, name| check.text(&BODY, request, name).filter(|text| !text.is_empty());
    if let Some(system) = text(check, "system") {
        call.turns.push(Turn::text(Role::System, system));
    }
    let prompt = text(check, "prompt").map(Content::Text);
    let images = request.get("images").map(|json| images(check, &BODY.key("images"), json)).unwrap_or_default();
    let content: Vec<_> = prompt.into_iter().chain(images).collect();
    if !content.is_empty() {
        call.turns.push(Turn { role: Role::User, content });
    }
}
