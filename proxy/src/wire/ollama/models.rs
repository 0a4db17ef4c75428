//! Ollama's model objects. What is not known of a model is empty in its fields, which its clients require.

use crate::canon::{About, Listed};
use crate::wire::json;
use crate::wire::put::{comma, key, put_raw, put_some, put_text, put_texts};
use bytes::Bytes;

/// When a model was made is not ours to know; the field is a time, so it is the beginning of it.
const MADE: &str = "1970-01-01T00:00:00Z";
/// What is loaded stays so. Ollama says it with a time that nobody will see, too.
const NEVER: &str = "2999-12-31T00:00:00Z";

/// A model's name, and what is known of it.
pub type Named = (Listed, Option<About>);

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
pub fn write_list(models: &[Named]) -> Bytes {
    list(models, |out, _, about| {
        put_text(out, "modified_at", MADE);
        put_raw(out, "size", about.map_or(0, |about| about.size));
    })
}

/// `GET /api/ps`: the models that are known to be in memory.
pub fn write_running(models: &[Named]) -> Bytes {
    list(models, |out, model, about| {
        put_raw(out, "size", about.map_or(0, |about| about.memory));
        // Of a local model none; of others it is not known.
        put_raw(out, "size_vram", 0);
        put_some(out, "context_length", model.context);
        put_text(out, "expires_at", NEVER);
    })
}

fn list(models: &[Named], more: impl Fn(&mut Vec<u8>, &Listed, Option<&About>)) -> Bytes {
    let mut out = b"{\"models\":[".to_vec();
    for (model, about) in models {
        comma(&mut out);
        out.push(b'{');
        put_text(&mut out, "name", &model.name);
        put_text(&mut out, "model", &model.name);
        put_text(&mut out, "digest", "");
        put_details(&mut out, about.as_ref());
        more(&mut out, model, about.as_ref());
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// `POST /api/show`. Clients look at `capabilities` before they offer tools; those the gateway carries to every server, so
/// they are named where not only vectors are made, and a model that cannot use them says so itself.
pub fn write(model: &Listed, about: Option<&About>, only_embeds: bool) -> Bytes {
    let mut out = b"{".to_vec();
    put_text(&mut out, "license", "");
    put_text(&mut out, "modelfile", "");
    put_text(&mut out, "parameters", "");
    put_text(&mut out, "template", "");
    put_details(&mut out, about);
    key(&mut out, "model_info");
    out.push(b'{');
    // The context is looked for under the architecture's name: clients take that without asking whether it is there, and the
    // other for the name to show.
    let family = about.map_or("unknown", |about| &about.family);
    put_text(&mut out, "general.architecture", family);
    put_text(&mut out, "general.basename", &model.name);
    put_some(&mut out, &format!("{family}.context_length"), model.context);
    if let Some(about) = about {
        put_some(&mut out, "general.parameter_count", about.parameters);
        put_some(&mut out, &format!("{family}.embedding_length"), about.width);
    }
    out.push(b'}');
    put_texts(&mut out, "capabilities", if only_embeds { &["embedding"][..] } else { &["completion", "tools"] });
    put_text(&mut out, "modified_at", MADE);
    out.push(b'}');
    out.into()
}

fn put_details(out: &mut Vec<u8>, about: Option<&About>) {
    let family = about.map(|about| about.family.as_str());
    key(out, "details");
    out.push(b'{');
    put_text(out, "parent_model", "");
    put_text(out, "format", about.map_or("", |about| about.format));
    put_text(out, "family", family.unwrap_or_default());
    put_texts(out, "families", family);
    put_text(out, "parameter_size", &about.and_then(|about| about.parameters).map(in_words).unwrap_or_default());
    put_text(out, "quantization_level", about.map_or("", |about| &about.quantization));
    out.push(b'}');
}

/// A count of weights as Ollama writes it: `134.52M`, `1.2B`.
fn in_words(count: u64) -> String {
    let (unit, letter, digits) = match count {
        1_000_000_000.. => (1e9, "B", 1),
        1_000_000.. => (1e6, "M", 2),
        1_000.. => (1e3, "K", 0),
        _ => return count.to_string(),
    };
    let number = count as f64 / unit;
    let digits = if number.fract() == 0.0 { 0 } else { digits };
    format!("{number:.digits$}{letter}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

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

    #[test]
    fn what_is_known_is_told_and_the_rest_is_empty() {
        let about = About {
            format: "gguf",
            family: "llama".into(),
            parameters: Some(134_515_008),
            quantization: "Q4_1".into(),
            size: 7,
            memory: 9,
            context: 8192,
            width: None,
        };
        let read = |bytes: Bytes| serde_json::from_slice::<Value>(&bytes).unwrap();
        let details = json!({"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "134.52M", "quantization_level": "Q4_1"});
        let known = |name: &str, context| Listed { name: name.into(), context, loaded: true };
        let shown = read(write(&known("a", Some(8192)), Some(&about), false));
        assert_eq!(shown["details"], details);
        let info = json!({"general.architecture": "llama", "general.basename": "a", "general.parameter_count": 134_515_008, "llama.context_length": 8192});
        assert_eq!(shown["model_info"], info);
        let models = [(known("a", Some(8192)), Some(about.clone())), (known("b", None), None)];
        let list = read(write_list(&models));
        assert_eq!((&list["models"][0]["size"], &list["models"][0]["details"]), (&json!(7), &details));
        assert_eq!((&list["models"][1]["size"], &list["models"][1]["details"]["families"]), (&json!(0), &json!([])));
        let running = read(write_running(&models[..1]));
        let first = &running["models"][0];
        assert_eq!((&first["size"], &first["context_length"], &first["name"]), (&json!(9), &json!(8192), &json!("a")));
        let embedder = About { family: "bert".into(), width: Some(384), ..About::default() };
        let shown = read(write(&known("e", None), Some(&embedder), true));
        assert_eq!(
            (&shown["capabilities"], &shown["model_info"]["bert.embedding_length"]),
            (&json!(["embedding"]), &json!(384))
        );
        assert_eq!(read(write(&known("s", None), None, false))["capabilities"], json!(["completion", "tools"]));
    }

    #[test]
    fn weights_are_counted_in_ollamas_words() {
        for (count, expect) in
            [(12, "12"), (22_000, "22K"), (134_515_008, "134.52M"), (7_000_000_000, "7B"), (1_236_000_000, "1.2B")]
        {
            assert_eq!(in_words(count), expect);
        }
    }
}
