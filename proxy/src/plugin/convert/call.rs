//! The conversation, its tools and its parameters, towards a guest and from one.

use super::{narrow, raw};
use crate::canon::Call;
use crate::canon::call::{Content, Effort, Format, Image, Role, Thinking, Tool, ToolChoice, Turn};
use crate::plugin::bindings::types as wit;

/// A turn towards a guest.
pub(in crate::plugin) fn turn(turn: &Turn) -> wit::Turn {
    wit::Turn { role: role(turn.role), content: turn.content.iter().map(content).collect() }
}

/// Who speaks.
pub(in crate::plugin) fn role(role: Role) -> wit::Role {
    match role {
        Role::System => wit::Role::System,
        Role::Developer => wit::Role::Developer,
        Role::User => wit::Role::User,
        Role::Assistant => wit::Role::Assistant,
    }
}

fn content(content: &Content) -> wit::Content {
    match content {
        Content::Text(text) => wit::Content::Text(text.clone()),
        Content::Image(image) => wit::Content::Image(self::image(image)),
        Content::Thinking { text, signature } => {
            wit::Content::Thinking(wit::Thought { text: text.clone(), signature: signature.clone() })
        }
        Content::RedactedThinking { data } => wit::Content::RedactedThinking(data.clone()),
        Content::Refusal(text) => wit::Content::Refusal(text.clone()),
        Content::ToolCall { id, name, arguments } => {
            wit::Content::ToolCall(wit::ToolCall { id: id.clone(), name: name.clone(), arguments: arguments.clone() })
        }
        Content::ToolResult { id, content, is_error } => wit::Content::ToolResult(wit::ToolResult {
            id: id.clone(),
            content: content.iter().map(inner).collect(),
            is_error: *is_error,
        }),
        Content::Other { kind, json } => wit::Content::Other(raw(kind, json)),
    }
}

/// A piece of a tool's answer: readers put only texts, images and raw parts there.
fn inner(content: &Content) -> wit::ToolContent {
    match content {
        Content::Text(text) | Content::Refusal(text) | Content::Thinking { text, .. } => {
            wit::ToolContent::Text(text.clone())
        }
        Content::Image(image) => wit::ToolContent::Image(self::image(image)),
        Content::Other { kind, json } => wit::ToolContent::Other(raw(kind, json)),
        Content::RedactedThinking { data } => wit::ToolContent::Text(data.clone()),
        Content::ToolCall { arguments, .. } => wit::ToolContent::Text(arguments.clone()),
        Content::ToolResult { id, .. } => wit::ToolContent::Text(id.clone()),
    }
}

fn image(image: &Image) -> wit::Image {
    match image {
        Image::Data { media_type, data } => {
            wit::Image::Data(wit::ImageData { media_type: media_type.clone(), data: data.clone() })
        }
        Image::Url(url) => wit::Image::Url(url.clone()),
    }
}

/// A turn from a guest.
pub(in crate::plugin) fn turn_back(turn: wit::Turn) -> Turn {
    let role = match turn.role {
        wit::Role::System => Role::System,
        wit::Role::Developer => Role::Developer,
        wit::Role::User => Role::User,
        wit::Role::Assistant => Role::Assistant,
    };
    let content = turn.content.into_iter().map(|content| match content {
        wit::Content::Text(text) => Content::Text(text),
        wit::Content::Image(image) => Content::Image(image_back(image)),
        wit::Content::Thinking(thought) => Content::Thinking { text: thought.text, signature: thought.signature },
        wit::Content::RedactedThinking(data) => Content::RedactedThinking { data },
        wit::Content::Refusal(text) => Content::Refusal(text),
        wit::Content::ToolCall(call) => Content::ToolCall { id: call.id, name: call.name, arguments: call.arguments },
        wit::Content::ToolResult(result) => Content::ToolResult {
            id: result.id,
            content: result
                .content
                .into_iter()
                .map(|content| match content {
                    wit::ToolContent::Text(text) => Content::Text(text),
                    wit::ToolContent::Image(image) => Content::Image(image_back(image)),
                    wit::ToolContent::Other(raw) => Content::Other { kind: raw.kind, json: raw.json },
                })
                .collect(),
            is_error: result.is_error,
        },
        wit::Content::Other(raw) => Content::Other { kind: raw.kind, json: raw.json },
    });
    Turn { role, content: content.collect() }
}

fn image_back(image: wit::Image) -> Image {
    match image {
        wit::Image::Data(data) => Image::Data { media_type: data.media_type, data: data.data },
        wit::Image::Url(url) => Image::at(url.clone()).unwrap_or(Image::Url(url)),
    }
}

/// A tool towards a guest.
pub(in crate::plugin) fn tool(tool: &Tool) -> wit::Tool {
    match tool {
        Tool::Function { name, description, parameters, strict } => wit::Tool::Function(wit::ToolFunction {
            name: name.clone(),
            description: description.clone(),
            parameters: parameters.clone(),
            strict: *strict,
        }),
        Tool::Hosted { kind, json } => wit::Tool::Hosted(raw(kind, json)),
    }
}

/// A tool from a guest.
pub(in crate::plugin) fn tool_back(tool: wit::Tool) -> Tool {
    match tool {
        wit::Tool::Function(function) => Tool::Function {
            name: function.name,
            description: function.description,
            parameters: function.parameters,
            strict: function.strict,
        },
        wit::Tool::Hosted(raw) => Tool::Hosted { kind: raw.kind, json: raw.json },
    }
}

/// What of a call is neither conversation nor tool.
pub(in crate::plugin) fn parameters(call: &Call) -> wit::Parameters {
    wit::Parameters {
        tool_choice: call.tool_choice.as_ref().map(|choice| match choice {
            ToolChoice::Auto => wit::ToolChoice::Auto,
            ToolChoice::None => wit::ToolChoice::Never,
            ToolChoice::Required => wit::ToolChoice::Required,
            ToolChoice::Named(name) => wit::ToolChoice::Named(name.clone()),
        }),
        parallel_tools: call.parallel_tools,
        max_tokens: call.max_tokens.map(narrow),
        temperature: call.temperature,
        top_p: call.top_p,
        top_k: call.top_k.map(narrow),
        presence_penalty: call.presence_penalty,
        frequency_penalty: call.frequency_penalty,
        seed: call.seed,
        stop: call.stop.clone(),
        thinking: call.thinking.map(|thinking| match thinking {
            Thinking::Off => wit::Thinking::Off,
            Thinking::Adaptive => wit::Thinking::Adaptive,
            Thinking::Budget(tokens) => wit::Thinking::Budget(narrow(tokens)),
            Thinking::Effort(effort) => wit::Thinking::Effort(match effort {
                Effort::Minimal => wit::Effort::Minimal,
                Effort::Low => wit::Effort::Low,
                Effort::Medium => wit::Effort::Medium,
                // The interface has no word above it.
                Effort::High | Effort::XHigh | Effort::Max => wit::Effort::High,
            }),
        }),
        format: call.format.as_ref().map(|format| match format {
            Format::Json => wit::Format::Json,
            Format::Schema { name, json } => {
                wit::Format::Schema(wit::FormatSchema { name: name.clone(), json: json.clone() })
            }
        }),
        choices: narrow(call.choices),
    }
}

/// Puts a guest's parameters into a call.
pub(in crate::plugin) fn set_parameters(call: &mut Call, parameters: wit::Parameters) {
    call.tool_choice = parameters.tool_choice.map(|choice| match choice {
        wit::ToolChoice::Auto => ToolChoice::Auto,
        wit::ToolChoice::Never => ToolChoice::None,
        wit::ToolChoice::Required => ToolChoice::Required,
        wit::ToolChoice::Named(name) => ToolChoice::Named(name),
    });
    call.parallel_tools = parameters.parallel_tools;
    call.max_tokens = parameters.max_tokens.map(u64::from);
    call.temperature = parameters.temperature;
    call.top_p = parameters.top_p;
    call.top_k = parameters.top_k.map(u64::from);
    call.presence_penalty = parameters.presence_penalty;
    call.frequency_penalty = parameters.frequency_penalty;
    call.seed = parameters.seed;
    call.stop = parameters.stop;
    // A guest that gives back the highest level it can be shown has not lowered it.
    let highest = match call.thinking {
        Some(Thinking::Effort(level @ (Effort::XHigh | Effort::Max))) => level,
        _ => Effort::High,
    };
    call.thinking = parameters.thinking.map(|thinking| match thinking {
        wit::Thinking::Off => Thinking::Off,
        wit::Thinking::Adaptive => Thinking::Adaptive,
        wit::Thinking::Budget(tokens) => Thinking::Budget(tokens.into()),
        wit::Thinking::Effort(effort) => Thinking::Effort(match effort {
            wit::Effort::Minimal => Effort::Minimal,
            wit::Effort::Low => Effort::Low,
            wit::Effort::Medium => Effort::Medium,
            wit::Effort::High => highest,
        }),
    });
    call.format = parameters.format.map(|format| match format {
        wit::Format::Json => Format::Json,
        wit::Format::Schema(schema) => Format::Schema { name: schema.name, json: schema.json },
    });
    call.choices = parameters.choices.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_guests_have_no_word_for_stays_until_it_is_changed() {
        for level in [Effort::XHigh, Effort::Max] {
            let mut call = Call { thinking: Some(Thinking::Effort(level)), ..Call::default() };
            let (shown, mut lower) = (parameters(&call), parameters(&call));
            set_parameters(&mut call, shown);
            assert_eq!(call.thinking, Some(Thinking::Effort(level)));
            lower.thinking = Some(wit::Thinking::Effort(wit::Effort::Low));
            set_parameters(&mut call, lower);
            assert_eq!(call.thinking, Some(Thinking::Effort(Effort::Low)));
        }
    }
}
