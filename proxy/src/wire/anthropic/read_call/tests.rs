//! Messages requests as calls.

use super::*;
use bytes::Bytes;

fn read(text: &str) -> Result<Call, Fault> {
    read_call(&Object::read(Bytes::copy_from_slice(text.as_bytes())).unwrap())
}

#[test]
fn everything_wrong_is_said_at_once() {
    let cases: &[(&str, &[&str])] = &[
        ("{}", &["body.model missing", "body.messages missing"]),
        (r#"{"model":null,"messages":null}"#, &["body.model string_type", "body.messages list_type"]),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":0,"temperature":1.5,"top_p":-1,"top_k":-1,"stream":1,"system":3,"stop_sequences":["a",1],
                "metadata":[],"thinking":{"type":"maybe"},"tool_choice":{"type":"tool"},"tools":{},"service_tier":"gold"}"#,
            &[
                "body.stop_sequences.1 string_type",
                "body.system string_type",
                "body.tools list_type",
                "body.metadata dict_type",
                "body.service_tier literal_error",
                "body.max_tokens greater_than_equal",
                "body.temperature less_than_equal",
                "body.top_p greater_than_equal",
                "body.top_k greater_than_equal",
                "body.stream bool_type",
                "body.thinking union_tag_invalid",
                "body.tool_choice.tool.name missing",
            ],
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":"9","thinking":{"type":"enabled"}}"#,
            &["body.max_tokens int_parsing", "body.thinking.enabled.budget_tokens missing"],
        ),
    ];
    for (text, expect) in cases {
        let object = Object::read(Bytes::copy_from_slice(text.as_bytes())).unwrap();
        let fault = check(&object).unwrap_err();
        let found: Vec<_> =
            fault.details.iter().map(|detail| format!("{} {}", detail.loc.join("."), detail.kind)).collect();
        assert_eq!(found, *expect, "{text}");
    }
    let fault = read(r#"{"model":"m","messages":[{"role":"bot","content":"x"},{"role":"user"},{"role":"user","content":[{"type":"text"},{},{"type":"tool_use","id":1,"name":"f","input":[]},{"type":"image","source":{"type":"url","url":"data:https://example.com/a.png"}}]}],"tools":[{"name":"f"},{"input_schema":{}}]}"#).unwrap_err();
    let found: Vec<_> =
        fault.details.iter().map(|detail| format!("{} {}", detail.loc.join("."), detail.kind)).collect();
    assert_eq!(
        found,
        [
            "body.messages.0.role literal_error",
            "body.messages.1.content missing",
            "body.messages.2.content.0.text.text missing",
            "body.messages.2.content.1 union_tag_not_found",
            "body.messages.2.content.2.tool_use.id string_type",
            "body.messages.2.content.2.tool_use.input dict_type",
            "body.messages.2.content.3.image.source.url value_error",
            "body.tools.0.input_schema missing",
            "body.tools.1.name missing",
        ]
    );
}

#[test]
fn defaults_and_details() {
    let call = read(
        r#"{"model":"m","system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"messages":[
            {"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="}},{"type":"document","source":{}}]},
            {"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"sig"},{"type":"redacted_thinking","data":"d"},{"type":"tool_use","id":"a","name":"f","input":{"n": 12345678901234567890}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","is_error":true,"content":[{"type":"text","text":"r"}]}]},{"role":"system","content":"late"}],
            "tool_choice":{"type":"any","disable_parallel_tool_use":true},"tools":[{"type":"web_search_20250305","name":"web_search"},{"name":"f","input_schema":{"type":"object"}}],
            "thinking":{"type":"adaptive"},"output_config":{"effort":"low"},"context_management":{},"metadata":{"user_id":"u"}}"#,
    )
    .unwrap();
    assert_eq!(
        (call.max_tokens, call.thinking, call.parallel_tools, call.tool_choice),
        (Some(8000), Some(Thinking::Effort(Effort::Low)), Some(false), Some(ToolChoice::Required))
    );
    assert_eq!(
        call.turns.iter().map(|turn| turn.role).collect::<Vec<_>>(),
        [Role::System, Role::User, Role::Assistant, Role::User, Role::System]
    );
    assert_eq!(
        call.turns[2].content[2],
        Content::ToolCall { id: "a".into(), name: "f".into(), arguments: "{\"n\": 12345678901234567890}".into() }
    );
    assert_eq!(
        call.extra.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["context_management", "content.cache_control"]
    );
    assert_eq!(call.user.as_deref(), Some("u"));
    for (word, level) in [
        ("high", Thinking::Effort(Effort::High)),
        ("xhigh", Thinking::Effort(Effort::XHigh)),
        ("max", Thinking::Effort(Effort::Max)),
        ("new", Thinking::Adaptive),
    ] {
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"thinking":{{"type":"adaptive"}},"output_config":{{"effort":"{word}"}}}}"#
        );
        assert_eq!(read(&body).unwrap().thinking, Some(level), "{word}");
    }
    assert_eq!(
        read(r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#).unwrap().thinking,
        Some(Thinking::Off)
    );
}
