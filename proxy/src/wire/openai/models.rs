//! OpenAI's model objects.

use crate::canon::Listed;
use crate::wire::json::{self, write_str};
use crate::wire::put::{comma, put_some};
use bytes::Bytes;

/// Reads such a list; `None`: this is none. vLLM adds `max_model_len`, llama.cpp what the file says of the context and, where it
/// serves several models, which of them are loaded.
pub fn read_list(body: &[u8]) -> Option<Vec<Listed>> {
    let list = json::validate(body).ok()?.get("data").filter(|list| list.kind() == json::Kind::Array)?;
    let read = |model: json::Json<'_>| {
        let name = model.get("id")?.as_str()?;
        let trained = || model.get("meta")?.get("n_ctx_train")?.as_u64();
        let context = model.get("max_model_len").and_then(json::Json::as_u64).or_else(trained);
        let status = model.get("status").and_then(|status| status.get("value"));
        let loaded = status.and_then(json::Json::as_str).is_none_or(|status| status == "loaded");
        Some(Listed { name: name.into(), context: context.filter(|tokens| *tokens > 0), loaded })
    };
    Some(list.items().filter_map(read).collect())
}

/// `GET /v1/models`.
pub fn write_list(models: &[Listed]) -> Bytes {
    let mut out = b"{\"object\":\"list\",\"data\":[".to_vec();
    for model in models {
        comma(&mut out);
        write_one(&mut out, model);
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// `GET /v1/models/{id}`.
pub fn write(model: &Listed) -> Bytes {
    let mut out = Vec::new();
    write_one(&mut out, model);
    out.into()
}

/// The context, where it is known, as vLLM says it: OpenAI has no field for it.
fn write_one(out: &mut Vec<u8>, model: &Listed) {
    out.extend_from_slice(b"{\"id\":");
    write_str(out, &model.name);
    // When a model was made is not ours to know; the field is required, so it is the beginning of time.
    out.extend_from_slice(b",\"object\":\"model\",\"created\":0,\"owned_by\":\"tidegate\"");
    put_some(out, "max_model_len", model.context);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_servers_are_read() {
        for (text, expected) in [
            (
                r#"{"object":"list","data":[{"id":"Qwen/Qwen3","max_model_len":40960,"root":"x"},{"id":"lora","max_model_len":null}]}"#,
                "Qwen/Qwen3 Some(40960) true, lora None true",
            ),
            (
                r#"{"models":[{}],"data":[{"id":"a.gguf","meta":{"n_ctx_train":8192,"n_params":1}}]}"#,
                "a.gguf Some(8192) true",
            ),
            (
                r#"{"data":[{"id":"a","status":{"value":"unloaded"}},{"id":"b","status":{"value":"loaded","args":[]}}]}"#,
                "a None false, b None true",
            ),
            (r#"{"data":[{"id":1},{},7,{"id":"c","max_model_len":-1}]}"#, "c None true"),
            (r#"{"data":[]}"#, ""),
        ] {
            let read = read_list(text.as_bytes()).unwrap();
            let read: Vec<_> = read.iter().map(|of| format!("{} {:?} {}", of.name, of.context, of.loaded)).collect();
            assert_eq!(read.join(", "), expected, "{text}");
        }
        for none in ["", "<html>", "{}", r#"{"data":{}}"#, r#"{"data":null}"#, "[]", "7"] {
            assert!(read_list(none.as_bytes()).is_none(), "{none}");
        }
    }
}
