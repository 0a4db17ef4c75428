//! Pages in browsers: of which origins they may ask, and what a browser must be told for it (CORS, Fetch §3.3).
//!
//! A browser lets a page read only what names the page's origin, and asks beforehand, without the key, whether the page may send
//! one. That is all there is to it: a key stands in a header that a page has to know and set, and nothing the browser has of its
//! own (cookies, certificates) is ever allowed to go with it. By hand: a layer of tower-http would be there for every request,
//! and this is not where nobody asked for it.

use crate::relay::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::borrow::Cow;

/// How long a browser may go by what it was told. What it then gets still names its origin, or not.
const MAX_AGE: &str = "7200";

/// Origins as browsers write them: `https://chat.example.org`, `app://obsidian.md`, `null`; or `*`, all there are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Origins(Vec<HeaderValue>);

impl<'de> Deserialize<'de> for Origins {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let read = |text: &String| {
            origin(text).ok_or_else(|| {
                D::Error::custom(format!(
                    "`{text}` is no origin: write scheme, host and port as browsers do, such as \"https://chat.example.org\", without a path and without a `*` in it; \"null\"; or \"*\" for all"
                ))
            })
        };
        texts.iter().map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl JsonSchema for Origins {
    fn schema_name() -> Cow<'static, str> {
        "Origins".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": { "type": "string" } })
    }
}

/// An origin (RFC 6454 §6). Programs that show pages of their own have schemes of their own, and some have no host.
fn origin(text: &str) -> Option<HeaderValue> {
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@*".contains(&byte));
    let written = |(scheme, host): (&str, &str)| !scheme.is_empty() && plain(scheme) && plain(host);
    let known = matches!(text, "*" | "null") || text.split_once("://").is_some_and(written);
    HeaderValue::from_str(text).ok().filter(|_| known)
}

impl Origins {
    /// No page may ask.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, origin: &[u8]) -> bool {
        self.0.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(origin))
    }
}

/// The page that a request comes from, as far as it matters where pages may ask.
pub(super) struct Page {
    /// What its browser is told; `None`: it is no page, or none that may ask.
    origin: Option<HeaderValue>,
    /// Another page is told something else.
    differs: bool,
}

impl Page {
    /// Of a request with this head.
    pub fn of(headers: &HeaderMap, origins: &Origins) -> Self {
        let differs = !origins.has(b"*");
        let asks = headers.get(header::ORIGIN).filter(|origin| !differs || origins.has(origin.as_bytes()));
        let origin = asks.map(|origin| if differs { origin.clone() } else { HeaderValue::from_static("*") });
        Self { origin, differs }
    }

    /// The answer to what a browser asks beforehand. It sends no key with that, and there is nothing to book.
    pub fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let asks = request.headers();
        let beforehand =
            request.method() == Method::OPTIONS && asks.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !beforehand || self.origin.is_none() {
            return None;
        }
        let mut response = Response::new(Body::whole(Bytes::new()));
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST"));
        // Clients have headers of their own making, and no `*` stands for `Authorization`.
        if let Some(names) = asks.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        Some(response)
    }

    /// Says in any reply whose page may read it, and that it may read the whole head.
    pub fn tell(self, headers: &mut HeaderMap) {
        if self.differs {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = self.origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_write() {
        for (text, good) in [
            ("*", true),
            ("null", true),
            ("https://chat.example.org", true),
            ("http://[::1]:3000", true),
            ("app://obsidian.md", true),
            ("file://", true),
            ("https://chat.example.org/", false),
            ("https://a.example/x", false),
            ("https://*.example.org", false),
            ("https://me@a.example", false),
            ("chat.example.org", false),
            ("://a", false),
            ("https://a b", false),
            ("", false),
        ] {
            assert_eq!(origin(text).is_some(), good, "{text}");
        }
        let wrong = serde_json::from_str::<Origins>(r#"["https://a.example/"]"#).unwrap_err().to_string();
        assert!(wrong.contains("`https://a.example/` is no origin"), "{wrong}");
    }

    #[test]
    fn a_page_is_told_its_own_origin_or_nothing() {
        let told = |origins: &str, origin: &str| {
            let origins: Origins = serde_json::from_str(origins).unwrap();
            let mut asks = HeaderMap::new();
            if !origin.is_empty() {
                asks.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            let mut headers = HeaderMap::new();
            Page::of(&asks, &origins).tell(&mut headers);
            let said = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            (said.map(|said| said.to_str().unwrap().to_owned()), headers.contains_key(header::VARY))
        };
        let one = r#"["https://a.example","null"]"#;
        for (origins, origin, expect) in [
            (one, "https://a.example", (Some("https://a.example"), true)),
            (one, "null", (Some("null"), true)),
            (one, "https://a.example.evil", (None, true)),
            (one, "http://a.example", (None, true)),
            (one, "", (None, true)),
            (r#"["*"]"#, "https://b.example", (Some("*"), false)),
            (r#"["*"]"#, "", (None, false)),
        ] {
            let (origin_told, differs) = told(origins, origin);
            assert_eq!((origin_told.as_deref(), differs), expect, "{origins} {origin}");
        }
    }
}
