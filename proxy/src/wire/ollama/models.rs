//! Ollama's model objects. What is not known of a model is empty in its fields, which its clients require.

use crate::canon::Listed;
use crate::wire::json;
use crate::wire::put::{comma, put_raw, put_some, put_text};
use bytes::Bytes;

/// Nothing is known of a model's file.
const DETAILS: &str =
    r#"{"parent_model":"","format":"","family":"","families":[],"parameter_size":"","quantization_level":""}"#;

/// Reads `/api/tags`, or `/api/ps`, which also tells the context; `None`: this is neither. Each model passes for loaded.
pub fn read_list(body: &[u8]) -> Option<Vec<Listed>> {
    let list = json::validate(body).ok()?.get("models").filter(|list| list.kind() == json::Kind::Array)?;
    let read = |model: json::Json<'_>| {
        // Older servers say only `name`.
        let name = ["model", "name"].iter().find_map(|key| model.get(key)?.as_str()).filter(|name| !name.is_empty())?;
        let context = model.get("context_length").and_then(json::Json::as_u64).filter(|tokens| *tokens > 0);
        Some(Listed { name: name.into(), context, loaded: true })
    };
    Some(list.items().filter_map(read).collect())
}

/// `GET /api/tags`.
pub fn write_list(models: &[Listed]) -> Bytes {
    let mut out = b"{\"models\":[".to_vec();
    for model in models {
        comma(&mut out);
        out.push(b'{');
        put_text(&mut out, "name", &model.name);
        put_text(&mut out, "model", &model.name);
        // When a model was made is not ours to know; the field is a time, so it is the beginning of it.
        put_text(&mut out, "modified_at", "1970-01-01T00:00:00Z");
        put_raw(&mut out, "size", 0);
        put_text(&mut out, "digest", "");
        put_raw(&mut out, "details", DETAILS);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// `GET /api/ps`. How long a server keeps a model is its own affair; far away means for ever to Ollama's clients.
pub fn write_running(models: &[Listed]) -> Bytes {
    let mut out = b"{\"models\":[".to_vec();
    for model in models {
        comma(&mut out);
        out.push(b'{');
        put_text(&mut out, "name", &model.name);
        put_text(&mut out, "model", &model.name);
        put_raw(&mut out, "size", 0);
        put_text(&mut out, "digest", "");
        put_raw(&mut out, "details", DETAILS);
        put_text(&mut out, "expires_at", "2318-01-01T00:00:00Z");
        put_raw(&mut out, "size_vram", 0);
        put_some(&mut out, "context_length", model.context);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// `POST /api/show`. Clients look at `capabilities` before they offer tools; those the gateway carries to every server, so
/// they are named, and a model that cannot use them says so itself. The context is looked for under the architecture's name,
/// which is not known here.
pub fn write(model: &Listed) -> Bytes {
    let mut out = b"{".to_vec();
    put_text(&mut out, "license", "");
    put_text(&mut out, "modelfile", "");
    put_text(&mut out, "parameters", "");
    put_text(&mut out, "template", "");
    put_raw(&mut out, "details", DETAILS);
    match model.context {
        Some(tokens) => {
            let info = format!(r#"{{"general.architecture":"unknown","unknown.context_length":{tokens}}}"#);
            put_raw(&mut out, "model_info", info);
        }
        None => put_raw(&mut out, "model_info", "{}"),
    }
    put_raw(&mut out, "capabilities", r#"["completion","tools"]"#);
    put_text(&mut out, "modified_at", "1970-01-01T00:00:00Z");
    out.push(b'}');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_servers_are_read() {
        let tags = br#"{"models":[{"name":"a:latest","model":"a:latest","size":1},{"name":"b:1"},{"name":""},{},7]}"#;
        let names: Vec<_> = read_list(tags).unwrap().into_iter().map(|listed| listed.name.to_string()).collect();
        assert_eq!(names, ["a:latest", "b:1"]);
        let running = br#"{"models":[{"name":"a:latest","model":"a:latest","context_length":4096,"size_vram":7}]}"#;
        assert_eq!(read_list(running).unwrap()[0].context, Some(4096));
        for none in ["", "<html>", "{}", r#"{"models":7}"#] {
            assert!(read_list(none.as_bytes()).is_none(), "{none}");
        }
    }
}
