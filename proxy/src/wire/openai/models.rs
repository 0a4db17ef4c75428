//! OpenAI's model objects.

use crate::wire::json::write_str;
use bytes::Bytes;
use std::sync::Arc;

/// `GET /v1/models`.
pub fn write_list(names: &[Arc<str>]) -> Bytes {
    let mut out = b"{\"object\":\"list\",\"data\":[".to_vec();
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_one(&mut out, name);
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// `GET /v1/models/{id}`.
pub fn write(name: &str) -> Bytes {
    let mut out = Vec::new();
    write_one(&mut out, name);
    out.into()
}

fn write_one(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"{\"id\":");
    write_str(out, name);
    // When a model was made is not ours to know; the field is required, so it is the beginning of time.
    out.extend_from_slice(b",\"object\":\"model\",\"created\":0,\"owned_by\":\"tidegate\"}");
}
