//! Ollama's model objects. What is not known of a model is empty in its fields, which its clients require.

use crate::wire::put::{comma, put_raw, put_text};
use bytes::Bytes;
use std::sync::Arc;

/// Nothing is known of a model's file.
const DETAILS: &str =
    r#"{"parent_model":"","format":"","family":"","families":[],"parameter_size":"","quantization_level":""}"#;

/// `GET /api/tags`.
pub fn write_list(names: &[Arc<str>]) -> Bytes {
    let mut out = b"{\"models\":[".to_vec();
    for name in names {
        comma(&mut out);
        out.push(b'{');
        put_text(&mut out, "name", name);
        put_text(&mut out, "model", name);
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

/// `GET /api/ps`: which models backends have in memory is not known here, so none is named.
pub fn write_running() -> Bytes {
    Bytes::from_static(b"{\"models\":[]}")
}

/// `POST /api/show`. Clients look at `capabilities` before they offer tools; those the gateway carries to every server, so
/// they are named, and a model that cannot use them says so itself.
pub fn write() -> Bytes {
    let mut out = b"{".to_vec();
    put_text(&mut out, "license", "");
    put_text(&mut out, "modelfile", "");
    put_text(&mut out, "parameters", "");
    put_text(&mut out, "template", "");
    put_raw(&mut out, "details", DETAILS);
    put_raw(&mut out, "model_info", "{}");
    put_raw(&mut out, "capabilities", r#"["completion","tools"]"#);
    put_text(&mut out, "modified_at", "1970-01-01T00:00:00Z");
    out.push(b'}');
    out.into()
}
