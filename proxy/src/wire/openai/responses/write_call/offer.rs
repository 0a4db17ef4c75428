//! The tools of a call, and the choice among them: as functions, or as the client had offered them.

use super::Writer;
use crate::canon::call::{Tool, ToolChoice};
use crate::wire::beyond::drop_named;
use crate::wire::json::{Json, validate};
use crate::wire::openai::tools::Form;
use crate::wire::put::{comma, key, merge, put_raw, put_some, put_text};

impl Writer<'_> {
    pub(super) fn tools(&mut self) {
        let tools = self.tool_list();
        let call = self.call;
        if tools.is_empty() {
            // A choice among no tools is an error to OpenAI; only a forced one was worth anything to the client.
            if matches!(call.tool_choice, Some(ToolChoice::Required | ToolChoice::Named(_))) {
                drop_named(&mut self.dropped, "tool_choice");
            }
            return;
        }
        let out = &mut self.out;
        key(out, "tools");
        out.push(b'[');
        out.extend_from_slice(&tools);
        out.push(b']');
        match &call.tool_choice {
            Some(ToolChoice::Auto) => put_text(out, "tool_choice", "auto"),
            Some(ToolChoice::None) => put_text(out, "tool_choice", "none"),
            Some(ToolChoice::Required) => put_text(out, "tool_choice", "required"),
            Some(ToolChoice::Named(name)) => {
                let named = self.names.find(name);
                key(out, "tool_choice");
                out.push(b'{');
                let custom = named.is_some_and(|named| named.form == Form::Custom);
                put_text(out, "type", if custom { "custom" } else { "function" });
                if let Some(namespace) = named.and_then(|named| named.namespace.as_ref()) {
                    put_text(out, "namespace", namespace);
                }
                put_text(out, "name", named.map_or(name, |named| &named.name));
                out.push(b'}');
            }
            None => {}
        }
        put_some(out, "parallel_tool_calls", call.parallel_tools);
    }

    fn tool_list(&mut self) -> Vec<u8> {
        let mut tools = Vec::new();
        let mut spaces: Vec<&str> = Vec::new();
        for tool in &self.call.tools {
            match tool {
                Tool::Function { name, description, parameters, strict } => match self.names.find(name) {
                    Some(named) => match named.namespace.as_deref() {
                        None => put_item(&mut tools, &named.json),
                        Some(space) if spaces.contains(&space) => {}
                        Some(space) => {
                            spaces.push(space);
                            put_item(&mut tools, &self.space(space));
                        }
                    },
                    None => {
                        comma(&mut tools);
                        tools.extend_from_slice(b"{\"type\":\"function\"");
                        put_text(&mut tools, "name", name);
                        if let Some(description) = description {
                            put_text(&mut tools, "description", description);
                        }
                        put_raw(
                            &mut tools,
                            "parameters",
                            parameters.as_deref().unwrap_or(r#"{"type":"object","properties":{}}"#),
                        );
                        // Absent means strict here and lenient elsewhere.
                        match strict {
                            None if self.own => {}
                            strict => put_raw(&mut tools, "strict", strict.unwrap_or(false)),
                        }
                        tools.push(b'}');
                    }
                },
                Tool::Hosted { json, .. } if self.own => put_item(&mut tools, json),
                Tool::Hosted { kind, .. } => drop_named(&mut self.dropped, &format!("tools.{kind}")),
            }
        }
        tools
    }

    /// A namespace as the client wrote it, with those of its tools that are still there.
    fn space(&self, name: &str) -> String {
        let mut members = b"[".to_vec();
        for tool in &self.call.tools {
            if let Tool::Function { name: flat, .. } = tool
                && let Some(named) = self.names.find(flat).filter(|named| named.namespace.as_deref() == Some(name))
            {
                put_item(&mut members, &named.json);
            }
        }
        members.push(b']');
        let sent = self.call.tools_as_sent.as_deref().and_then(|text| validate(text.as_bytes()).ok());
        let mut spaces = sent.into_iter().flat_map(Json::items);
        let found = spaces.find(|tool| {
            let word = |key: &str| tool.get(key).and_then(Json::as_str);
            word("type").as_deref() == Some("namespace") && word("name").as_deref() == Some(name)
        });
        let merged = merge(found.map_or("{}", Json::raw), &[("tools", &members)]);
        String::from_utf8(merged.unwrap_or_default()).unwrap_or_default()
    }
}

fn put_item(out: &mut Vec<u8>, json: &str) {
    comma(out);
    out.extend_from_slice(json.as_bytes());
}
