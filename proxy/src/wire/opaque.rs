//! What is carried without being understood: rankings, sound, pictures, moderation. Only the model's name is read and, where it
//! is another one at the target, put into its place; every other byte stays.

use super::beyond::{NEVER, forbidden};
use super::form::{self, Part};
use super::json::Json;
use super::object::Object;
use super::request::refused;
use crate::canon::header::essence;
use crate::canon::{Fault, FaultKind};
use bytes::{Bytes, BytesMut};
use http::HeaderValue;

/// An API of which only the model is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Opaque {
    /// Its path, here and below a backend's base address.
    pub path: &'static str,
    /// Its path class.
    pub endpoint: &'static str,
    json: bool,
    form: bool,
}

const fn takes_json(path: &'static str, endpoint: &'static str) -> Opaque {
    Opaque { path, endpoint, json: true, form: false }
}

const fn takes_form(path: &'static str, endpoint: &'static str) -> Opaque {
    Opaque { path, endpoint, json: false, form: true }
}

/// All of them. Three servers have three paths for rankings.
pub static ALL: [Opaque; 10] = [
    takes_json("/v1/rerank", "rerank"),
    takes_json("/v2/rerank", "rerank"),
    takes_json("/rerank", "rerank"),
    takes_form("/v1/audio/transcriptions", "audio/transcriptions"),
    takes_form("/v1/audio/translations", "audio/translations"),
    takes_json("/v1/audio/speech", "audio/speech"),
    takes_json("/v1/images/generations", "images/generations"),
    Opaque { json: true, ..takes_form("/v1/images/edits", "images/edits") },
    takes_form("/v1/images/variations", "images/variations"),
    takes_json("/v1/moderations", "moderations"),
];

/// A body to be carried.
#[derive(Debug)]
pub struct Parcel {
    /// Where it goes.
    pub to: &'static Opaque,
    /// The model it names.
    pub model: String,
    /// The end user it names.
    pub user: Option<String>,
    /// It asks for a stream.
    pub stream: bool,
    /// Fields that go nowhere.
    pub dropped: Vec<String>,
    /// As it came.
    pub content_type: HeaderValue,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Json(Object),
    Form(Bytes, Vec<Part>),
}

impl Opaque {
    /// The one at this path.
    pub fn at(path: &str) -> Option<&'static Self> {
        ALL.iter().find(|one| one.path == path)
    }

    /// How a body of this type is read: known before it has been.
    ///
    /// # Errors
    /// Not at all, or its boundary is none.
    pub fn takes(&self, content_type: Option<&HeaderValue>) -> Result<Shape, Fault> {
        let said = content_type.map_or(b"application/json".as_slice(), HeaderValue::as_bytes);
        let essence = essence(said);
        if self.json && essence.eq_ignore_ascii_case(b"application/json") {
            return Ok(Shape(HeaderValue::from_static("application/json"), None));
        }
        if self.form && essence.eq_ignore_ascii_case(b"multipart/form-data") {
            let boundary = form::boundary(said).map_err(wrong_form)?;
            let content_type = content_type.cloned().unwrap_or(HeaderValue::from_static(""));
            return Ok(Shape(content_type, Some(boundary)));
        }
        let wanted = match (self.json, self.form) {
            (true, true) => "JSON or a form: send `Content-Type: application/json` or `multipart/form-data`",
            (true, false) => "JSON: send `Content-Type: application/json`",
            _ => "a form: send `Content-Type: multipart/form-data`",
        };
        Err(Fault::new(FaultKind::MediaType, format!("The body must be {wanted}.")).with_param("content-type"))
    }
}

/// The type of a body that can be read, and of a form its boundary.
#[derive(Debug)]
pub struct Shape(HeaderValue, Option<String>);

impl Parcel {
    /// Reads a body as far as its model.
    ///
    /// # Errors
    /// It is not of that shape, or names no model, or two.
    pub fn read(to: &'static Opaque, shape: Shape, body: Bytes) -> Result<Self, Fault> {
        let Shape(content_type, boundary) = shape;
        match boundary {
            None => Self::read_json(to, content_type, body),
            Some(boundary) => Self::read_form(to, content_type, body, &boundary),
        }
    }

    fn read_json(to: &'static Opaque, content_type: HeaderValue, body: Bytes) -> Result<Self, Fault> {
        let object = Object::read(body.clone()).map_err(|refusal| refused(&refusal, &body))?;
        let model = match object.get("model") {
            None => return Err(no_model()),
            Some(model) => model.as_str().ok_or_else(|| wrong_model("The field `model` must be a string."))?,
        };
        let model = named(&model)?;
        let user = object.get("user").and_then(Json::as_str).map(|user| user.chars().take(256).collect());
        let stream = object.get("stream").and_then(Json::as_bool).unwrap_or(false);
        let dropped = forbidden(&object).map(str::to_owned).collect();
        Ok(Self { to, model, user, stream, dropped, content_type, held: Held::Json(object) })
    }

    fn read_form(to: &'static Opaque, content_type: HeaderValue, body: Bytes, boundary: &str) -> Result<Self, Fault> {
        let parts = form::parts(&body, boundary).map_err(wrong_form)?;
        let mut models = parts.iter().filter(|part| part.name == "model");
        let part = models.next().ok_or_else(no_model)?;
        if models.next().is_some() {
            return Err(wrong_model("The field `model` stands twice in the form; send it once."));
        }
        if part.file || !part.plain {
            return Err(wrong_model("The field `model` must be plain text, not a file."));
        }
        let text = |part: &Part| std::str::from_utf8(&body[part.content.clone()]).ok();
        let model = named(text(part).ok_or_else(|| wrong_model("The field `model` is no text."))?)?;
        let field = |name: &str| parts.iter().find(|part| part.name == name && !part.file).and_then(text);
        let user = field("user").map(|user| user.chars().take(256).collect());
        let stream = field("stream").is_some_and(|stream| stream.eq_ignore_ascii_case("true"));
        let never = |part: &&Part| NEVER.contains(&part.name.as_str());
        let dropped = parts.iter().filter(never).map(|part| part.name.clone()).collect();
        Ok(Self { to, model, user, stream, dropped, content_type, held: Held::Form(body, parts) })
    }

    /// The body for a target that calls the model so.
    pub fn body(&self, model: &str) -> Bytes {
        let renamed = model != self.model;
        match &self.held {
            Held::Json(object) => object.addressed(&self.model, model, &self.dropped),
            Held::Form(body, _) if !renamed && self.dropped.is_empty() => body.clone(),
            Held::Form(body, parts) => {
                let mut out = BytesMut::with_capacity(body.len() + model.len());
                let mut kept = 0;
                for part in parts {
                    let (range, instead) = match part.name.as_str() {
                        "model" if renamed => (part.content.clone(), model),
                        name if NEVER.contains(&name) => (part.whole.clone(), ""),
                        _ => continue,
                    };
                    out.extend_from_slice(&body[kept..range.start]);
                    out.extend_from_slice(instead.as_bytes());
                    kept = range.end;
                }
                out.extend_from_slice(&body[kept..]);
                out.freeze()
            }
        }
    }
}

/// The name, if it can be one.
fn named(model: &str) -> Result<String, Fault> {
    match model {
        "" => Err(no_model()),
        model if model.chars().any(char::is_control) => Err(wrong_model("The model's name holds a control character.")),
        model => Ok(model.to_owned()),
    }
}

fn no_model() -> Fault {
    wrong_model("Name a model in the field `model`: here it decides which backend serves the request.")
}

fn wrong_model(message: &'static str) -> Fault {
    Fault::invalid(message).with_param("model")
}

fn wrong_form(why: &'static str) -> Fault {
    Fault::invalid(format!("The form cannot be read: {why}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, content_type: &str, body: &str) -> Result<Parcel, Fault> {
        let to = Opaque::at(path).unwrap();
        let content_type = HeaderValue::from_str(content_type).unwrap();
        Parcel::read(to, to.takes(Some(&content_type))?, Bytes::copy_from_slice(body.as_bytes()))
    }

    fn form(body: &str) -> Result<Parcel, Fault> {
        read("/v1/audio/transcriptions", "multipart/form-data; boundary=B", body)
    }

    fn field(head: &str, content: &str) -> String {
        format!("--B\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
    }

    #[test]
    fn only_the_models_name_is_exchanged() {
        let json = read(
            "/v1/rerank",
            "application/json; charset=utf-8",
            r#"{ "query":"model", "model" : "m" , "user":"u","api_key":"k"}"#,
        );
        let json = json.unwrap();
        assert_eq!((json.model.as_str(), json.user.as_deref(), json.dropped.len()), ("m", Some("u"), 1));
        assert_eq!(json.body("a\"b"), r#"{ "query":"model", "model" : "a\"b" , "user":"u"}"#.as_bytes());
        let (file, model) = (field("name=\"file\"; filename=\"model\"", "\0\r\nm"), field("name=model", "m"));
        for (before, after) in [
            (format!("{model}{file}--B--\r\n"), format!("{}{file}--B--\r\n", field("name=model", "served"))),
            (format!("\r\n{file}{model}--B--"), format!("\r\n{file}{}--B--", field("name=model", "served"))),
            (
                format!("{}{model}{}{file}--B--", field("name=api_base", "x"), field("name=stream", "True")),
                format!("{}{}{file}--B--", field("name=model", "served"), field("name=stream", "True")),
            ),
        ] {
            let parcel = form(&before).unwrap();
            assert_eq!((parcel.model.as_str(), parcel.stream), ("m", before.contains("True")));
            assert_eq!(parcel.body("served"), after.as_bytes(), "{before}");
            assert_eq!(parcel.body("m").len() == before.len(), parcel.dropped.is_empty());
        }
    }

    #[test]
    fn a_model_that_is_none_or_two_is_refused() {
        let model = field("name=\"model\"", "m");
        for (body, says) in [
            (field("name=\"file\"; filename=x", "x"), "Name a model"),
            (field("name=\"model\"", ""), "Name a model"),
            (format!("{model}{model}"), "twice"),
            (format!("{model}{}", field("name=model; filename=x", "m")), "twice"),
            (field("name=\"model\"; filename=\"x\"", "m"), "not a file"),
            (field("name=\"model\"\r\nContent-Transfer-Encoding: base64", "bQ=="), "plain text"),
            (field("name=\"model\"", "m\r\nx"), "control character"),
        ] {
            let fault = form(&format!("{body}--B--")).unwrap_err();
            assert!(fault.message.contains(says) && fault.status() == 400, "{body}: {fault:?}");
        }
        for (body, says) in [
            ("{}", "Name a model"),
            (r#"{"model":7}"#, "string"),
            (r#"{"model":"a","model":"b"}"#, "twice"),
            ("x", "JSON"),
        ] {
            assert!(read("/v1/moderations", "application/json", body).unwrap_err().message.contains(says), "{body}");
        }
        for (path, content_type) in [
            ("/v1/moderations", "multipart/form-data; boundary=B"),
            ("/v1/audio/translations", "application/json"),
            ("/v1/images/edits", "text/plain"),
        ] {
            assert_eq!(read(path, content_type, "").unwrap_err().status(), 415, "{path}");
        }
        assert_eq!(read("/v1/images/edits", "multipart/form-data", "").unwrap_err().status(), 400);
    }
}
