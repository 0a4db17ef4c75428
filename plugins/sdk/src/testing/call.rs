//! The call resource, in memory: read from a chat body, edited like the host's.
//!
//! Simpler than the host in two ways: it reads everything at once, and `json` prints what it read, so spacing is not the
//! client's. Members come in alphabetical order.

use std::cell::RefCell;

use serde_json::{Map, Value, json};

use super::Chat;
use crate::{
    Content, Effort, Format, FormatSchema, Image, Parameters, Passage, PassageKind, Place, Raw, Role, Thinking, Tool,
    ToolCall, ToolChoice, ToolContent, ToolFunction, ToolResult, Turn,
};

/// A call.
#[derive(Debug, Clone)]
pub struct Call(RefCell<State>);

#[derive(Debug, Clone, PartialEq)]
struct State {
    body: Map<String, Value>,
    model: String,
    turns: Vec<Turn>,
    tools: Vec<Tool>,
    parameters: Parameters,
}

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        *self.0.borrow() == *other.0.borrow()
    }
}

impl From<&Chat> for Call {
    fn from(chat: &Chat) -> Self {
        let body = chat.body().as_object().cloned().unwrap_or_default();
        let mut state = State {
            model: text(&body, "model").unwrap_or_default(),
            body,
            turns: Vec::new(),
            tools: Vec::new(),
            parameters: Parameters::default(),
        };
        state.read();
        Self(RefCell::new(state))
    }
}

#[allow(missing_docs)] // the functions of the interface, documented there and in `Call`
impl Call {
    pub fn model(&self) -> String {
        self.0.borrow().model.clone()
    }

    pub fn set_model(&self, model: &str) {
        self.0.borrow_mut().model = model.into();
    }

    pub fn size(&self) -> u32 {
        json!(self.0.borrow().body).to_string().len() as u32
    }

    pub fn keys(&self) -> Vec<String> {
        self.0.borrow().body.keys().cloned().collect()
    }

    pub fn json(&self, pointer: &str) -> Option<String> {
        json!(self.0.borrow().body).pointer(pointer).map(Value::to_string)
    }

    pub fn set_json(&self, key: &str, json: Option<&str>) -> Result<(), String> {
        if matches!(key, "model" | "stream") {
            return Err(format!("`{key}` cannot be set this way"));
        }
        let mut state = self.0.borrow_mut();
        match json {
            Some(json) => {
                let value = serde_json::from_str(json).map_err(|error| error.to_string())?;
                state.body.insert(key.into(), value);
            }
            None => {
                state.body.remove(key);
            }
        }
        state.read();
        Ok(())
    }

    pub fn parameters(&self) -> Parameters {
        self.0.borrow().parameters.clone()
    }

    pub fn set_parameters(&self, parameters: &Parameters) {
        self.0.borrow_mut().parameters = parameters.clone();
    }

    pub fn tools(&self) -> Vec<Tool> {
        self.0.borrow().tools.clone()
    }

    pub fn set_tools(&self, tools: &[Tool]) {
        self.0.borrow_mut().tools = tools.to_vec();
    }

    pub fn turn_count(&self) -> u32 {
        self.0.borrow().turns.len() as u32
    }

    pub fn turns(&self, start: u32, count: u32) -> Vec<Turn> {
        self.0.borrow().turns.iter().skip(start as usize).take(count as usize).cloned().collect()
    }

    pub fn splice_turns(&self, start: u32, remove: u32, insert: &[Turn]) {
        let turns = &mut self.0.borrow_mut().turns;
        let start = (start as usize).min(turns.len());
        let end = start.saturating_add(remove as usize).min(turns.len());
        turns.splice(start..end, insert.iter().cloned());
    }

    pub fn texts(&self, start: u32) -> Vec<Passage> {
        let mut passages = Vec::new();
        self.0.borrow_mut().walk(start as usize, |place, role, kind, text| {
            passages.push(Passage { place, role, kind, text: text.clone() });
        });
        passages
    }

    pub fn set_text(&self, place: Place, text: &str) {
        let mut found = false;
        self.0.borrow_mut().walk(place.turn as usize, |at, _, _, old| {
            if at == place {
                *old = text.into();
                found = true;
            }
        });
        assert!(found, "no text at {place:?}: the host would trap");
    }
}

impl State {
    /// Reads the typed view from the body.
    fn read(&mut self) {
        let list = |key: &str| self.body.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let (messages, tools) = (list("messages"), list("tools"));
        self.turns = messages.iter().map(turn).collect();
        self.tools = tools.iter().map(tool).collect();
        self.parameters = parameters(&self.body);
    }

    fn walk(&mut self, start: usize, mut see: impl FnMut(Place, Role, PassageKind, &mut String)) {
        for (turn, content) in self.turns.iter_mut().enumerate().skip(start) {
            for (piece, content_piece) in content.content.iter_mut().enumerate() {
                let mut place = Place { turn: turn as u32, piece: piece as u32, inner: 0 };
                match content_piece {
                    Content::Text(text) => see(place, content.role, PassageKind::Text, text),
                    Content::Refusal(text) => see(place, content.role, PassageKind::Refusal, text),
                    Content::Thinking(thought) => {
                        let before = thought.text.clone();
                        see(place, content.role, PassageKind::Thinking, &mut thought.text);
                        if thought.text != before {
                            thought.signature = None;
                        }
                    }
                    Content::ToolCall(call) => see(place, content.role, PassageKind::Arguments, &mut call.arguments),
                    Content::ToolResult(result) => {
                        for (inner, answer) in result.content.iter_mut().enumerate() {
                            place.inner = inner as u32;
                            if let ToolContent::Text(text) = answer {
                                see(place, content.role, PassageKind::ToolResult, text);
                            }
                        }
                    }
                    Content::Image(_) | Content::RedactedThinking(_) | Content::Other(_) => {}
                }
            }
        }
    }
}

fn text(object: &Map<String, Value>, key: &str) -> Option<String> {
    object.get(key).and_then(Value::as_str).map(Into::into)
}

fn turn(message: &Value) -> Turn {
    let word = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
    let role = match message["role"].as_str() {
        Some("system") => Role::System,
        Some("developer") => Role::Developer,
        Some("assistant") => Role::Assistant,
        _ => Role::User,
    };
    if message["role"] == "tool" {
        let content = vec![ToolContent::Text(word("content"))];
        let result = ToolResult { id: word("tool_call_id"), content, is_error: false };
        return Turn { role, content: vec![Content::ToolResult(result)] };
    }
    let mut content = match &message["content"] {
        Value::String(text) => vec![Content::Text(text.clone())],
        Value::Array(parts) => parts.iter().map(part).collect(),
        _ => Vec::new(),
    };
    content.extend(message["refusal"].as_str().map(|text| Content::Refusal(text.into())));
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        content.push(Content::ToolCall(ToolCall {
            id: word(&call["id"]),
            name: word(&call["function"]["name"]),
            arguments: word(&call["function"]["arguments"]),
        }));
    }
    Turn { role, content }
}

fn part(part: &Value) -> Content {
    match (part["type"].as_str(), part["text"].as_str(), part["image_url"]["url"].as_str()) {
        (Some("text"), Some(text), _) => Content::Text(text.into()),
        (Some("image_url"), _, Some(url)) => Content::Image(Image::Url(url.into())),
        (Some("thinking"), _, _) => Content::Thinking(crate::Thought {
            text: part["thinking"].as_str().unwrap_or_default().into(),
            signature: part["signature"].as_str().map(Into::into),
        }),
        (kind, _, _) => Content::Other(Raw { kind: kind.unwrap_or_default().into(), json: part.to_string() }),
    }
}

fn tool(tool: &Value) -> Tool {
    let function = &tool["function"];
    match function["name"].as_str() {
        Some(name) => Tool::Function(ToolFunction {
            name: name.into(),
            description: function["description"].as_str().map(Into::into),
            parameters: function.get("parameters").map(Value::to_string),
            strict: function["strict"].as_bool(),
        }),
        None => Tool::Hosted(Raw { kind: tool["type"].as_str().unwrap_or_default().into(), json: tool.to_string() }),
    }
}

fn parameters(body: &Map<String, Value>) -> Parameters {
    let float = |key: &str| body.get(key).and_then(Value::as_f64);
    let whole = |key: &str| body.get(key).and_then(Value::as_u64).map(|number| number as u32);
    let format = body.get("response_format");
    Parameters {
        tool_choice: body.get("tool_choice").map(|choice| match choice.as_str() {
            Some("none") => ToolChoice::Never,
            Some("required") => ToolChoice::Required,
            Some(_) => ToolChoice::Auto,
            None => ToolChoice::Named(choice["function"]["name"].as_str().unwrap_or_default().into()),
        }),
        parallel_tools: body.get("parallel_tool_calls").and_then(Value::as_bool),
        max_tokens: whole("max_completion_tokens").or(whole("max_tokens")),
        temperature: float("temperature"),
        top_p: float("top_p"),
        top_k: whole("top_k"),
        presence_penalty: float("presence_penalty"),
        frequency_penalty: float("frequency_penalty"),
        seed: body.get("seed").and_then(Value::as_i64),
        stop: match body.get("stop") {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(texts)) => texts.iter().filter_map(|text| text.as_str().map(Into::into)).collect(),
            _ => Vec::new(),
        },
        thinking: body.get("reasoning_effort").and_then(Value::as_str).map(|effort| {
            Thinking::Effort(match effort {
                "minimal" => Effort::Minimal,
                "low" => Effort::Low,
                "high" => Effort::High,
                _ => Effort::Medium,
            })
        }),
        format: format.and_then(|format| match format["type"].as_str()? {
            "json_object" => Some(Format::Json),
            "json_schema" => Some(Format::Schema(FormatSchema {
                name: format["json_schema"]["name"].as_str().unwrap_or_default().into(),
                json: format["json_schema"].to_string(),
            })),
            _ => None,
        }),
        choices: whole("n").unwrap_or(1),
    }
}
