//! Anthropic's model objects.

use crate::canon::Listed;
use crate::wire::json::write_str;
use crate::wire::put::comma;
use bytes::Bytes;

/// `GET /v1/models` as Anthropic pages it: all on one page.
pub fn write_list(models: &[Listed]) -> Bytes {
    let mut out = b"{\"data\":[".to_vec();
    for model in models {
        comma(&mut out);
        write_one(&mut out, &model.name);
    }
    out.extend_from_slice(b"],\"has_more\":false,\"first_id\":");
    write_id(&mut out, models.first());
    out.extend_from_slice(b",\"last_id\":");
    write_id(&mut out, models.last());
    out.push(b'}');
    out.into()
}

/// `GET /v1/models/{id}`.
pub fn write(name: &str) -> Bytes {
    let mut out = Vec::new();
    write_one(&mut out, name);
    out.into()
}

fn write_one(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"{\"type\":\"model\",\"id\":");
    write_str(out, name);
    out.extend_from_slice(b",\"display_name\":");
    write_str(out, name);
    // When a model was made is not ours to know; the field is required, so it is the beginning of time.
    out.extend_from_slice(b",\"created_at\":\"1970-01-01T00:00:00Z\"}");
}

fn write_id(out: &mut Vec<u8>, model: Option<&Listed>) {
    match model {
        Some(model) => write_str(out, &model.name),
        None => out.extend_from_slice(b"null"),
    }
}
