//! Conversations with tools for chat templates that know none: told in plain messages, in the form of Hermes.
//!
//! The form is the one most small models have seen; the words around it are Qwen's.

use super::call::{CLOSING, OPENING};
use serde_json::{Map, Value, json};

const BEFORE: &str = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
    You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n";
const AFTER: &str = "\n</tools>\n\nFor each function call, return a json object with function name and arguments within \
    <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n\
    </tool_call>";

/// Says `tools`, and the calls and results among `messages`, in the texts of messages.
pub fn tell(messages: Vec<Map<String, Value>>, tools: Option<&Vec<Value>>) -> Vec<Map<String, Value>> {
    let mut told: Vec<Map<String, Value>> = Vec::with_capacity(messages.len() + 1);
    let mut in_results = false;
    for mut message in messages {
        let is_result = message.get("role").is_some_and(|role| role == "tool");
        if is_result {
            let result = format!("<tool_response>\n{}\n</tool_response>", text(&message));
            match told.last_mut().filter(|_| in_results) {
                Some(last) => {
                    let all = format!("{}\n{result}", text(last));
                    last.insert("content".into(), all.into());
                }
                None => told.push(plain("user", result)),
            }
        } else {
            if let Some(Value::Array(calls)) = message.remove("tool_calls") {
                let said = text(&message);
                let calls = calls.iter().map(|call| {
                    let part = |name: &str| call.pointer(name).cloned().unwrap_or_else(|| json!({}));
                    let call = json!({"name": part("/function/name"), "arguments": part("/function/arguments")});
                    format!("{OPENING}\n{}\n{CLOSING}", dump(&call))
                });
                let texts = (!said.is_empty()).then(|| said.to_owned()).into_iter().chain(calls);
                let all = texts.collect::<Vec<_>>().join("\n");
                message.insert("content".into(), all.into());
            }
            told.push(message);
        }
        in_results = is_result;
    }
    let Some(tools) = tools else { return told };
    let tools = tools.iter().map(dump).collect::<Vec<_>>().join("\n");
    let tools = format!("{BEFORE}{tools}{AFTER}");
    match told.first_mut().filter(|first| first.get("role").is_some_and(|role| role == "system")) {
        Some(first) => {
            let all = format!("{}\n\n{tools}", text(first));
            first.insert("content".into(), all.into());
        }
        None => told.insert(0, plain("system", tools)),
    }
    told
}

fn plain(role: &str, content: String) -> Map<String, Value> {
    Map::from_iter([("role".to_owned(), role.into()), ("content".to_owned(), content.into())])
}

fn text(message: &Map<String, Value>) -> &str {
    message.get("content").and_then(Value::as_str).unwrap_or_default()
}

/// JSON as Python writes it, which models were trained on: a space behind commas and colons.
pub fn dump(value: &Value) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Python);
    // Writing a JSON value into memory has no way to fail.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    String::from_utf8_lossy(&out).into_owned()
}

struct Python;

impl serde_json::ser::Formatter for Python {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(messages: Value, tools: Value) -> Value {
        let messages: Vec<Map<String, Value>> = serde_json::from_value(messages).unwrap();
        json!(tell(messages, tools.as_array()))
    }

    #[test]
    fn tools_stand_in_the_system_message() {
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
        let line = r#"{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}"#;
        let alone = told(json!([{"role": "user", "content": "Hi"}]), tools.clone());
        assert_eq!(alone[0], json!({"role": "system", "content": format!("{BEFORE}{line}{AFTER}")}));
        assert_eq!(alone[1]["content"], "Hi");
        let beside = told(json!([{"role": "system", "content": "Be brief."}]), tools);
        assert_eq!(beside, json!([{"role": "system", "content": format!("Be brief.\n\n{BEFORE}{line}{AFTER}")}]));
    }

    #[test]
    fn calls_and_results_are_told() {
        let call =
            |city: &str| json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": {"city": city}}});
        let messages = json!([
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "Let me see.", "tool_calls": [call("Bonn"), call("Köln")]},
            {"role": "tool", "tool_call_id": "1", "content": "rain"},
            {"role": "tool", "tool_call_id": "2", "content": "sun"},
            {"role": "user", "content": "Thanks"},
        ]);
        let expect = json!([
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "Let me see.\n\
                <tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Bonn\"}}\n</tool_call>\n\
                <tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>"},
            {"role": "user", "content": "<tool_response>\nrain\n</tool_response>\n<tool_response>\nsun\n</tool_response>"},
            {"role": "user", "content": "Thanks"},
        ]);
        assert_eq!(told(messages, Value::Null), expect);
    }
}
