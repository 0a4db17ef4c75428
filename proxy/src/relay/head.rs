//! The heads of our replies.

use super::Body;
use crate::canon::{Fault, header as name};
use crate::ledger::Tab;
use crate::wire::Dialect;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

/// The caller's own request id, if it is one we can repeat: at most 128 visible characters.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(&name::X_REQUEST_ID)?.to_str().ok()?;
    (1..=128).contains(&id.len()).then_some(id).filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// Says which request this was, what served it, who had a part in it and at what cost of time.
pub(super) fn describe(headers: &mut HeaderMap, dialect: Dialect, tab: &Tab) {
    let id = text(tab.request_id());
    if dialect == Dialect::Messages {
        headers.insert(name::REQUEST_ID, id.clone());
    }
    headers.insert(name::X_REQUEST_ID, id);
    if !tab.backend().is_empty() {
        headers.insert(name::X_TIDEGATE_BACKEND, text(tab.backend()));
        headers.insert(name::X_TIDEGATE_MODEL, text(tab.model()));
        headers.insert(name::X_TIDEGATE_ATTEMPTS, HeaderValue::from(tab.attempts()));
    }
    name_list(headers, "x-tidegate-plugins", &tab.acted());
    let overhead = tab.overhead().as_micros();
    headers.insert(name::X_TIDEGATE_OVERHEAD_MS, text(&format!("{}.{:03}", overhead / 1000, overhead % 1000)));
}

/// Says that the body comes piece by piece, to whoever stands between.
pub(super) fn stream(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx in front of us would hold the stream back otherwise.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}

/// Bytes of a list of names: some are the caller's own, and proxies refuse a reply whose head has more than 4 or 8 KiB.
const LIST: usize = 1024;

/// A list of names as a header's value, as far as there is room; nothing for an empty list.
pub(super) fn name_list(headers: &mut HeaderMap, name: &'static str, list: &[String]) {
    let mut value = String::new();
    for one in list {
        let comma = if value.is_empty() { "" } else { ", " };
        let fits = value.len() + comma.len() + one.len() <= LIST;
        value.extend([comma, if fits { one.as_str() } else { "..." }]);
        if !fits {
            break;
        }
    }
    if !list.is_empty() {
        headers.insert(HeaderName::from_static(name), text(&value));
    }
}

/// A header's value; what no header can carry becomes `?`.
fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| {
        let clean: String =
            text.chars().map(|letter| if letter.is_ascii_graphic() || letter == ' ' { letter } else { '?' }).collect();
        HeaderValue::from_str(&clean).unwrap_or(HeaderValue::from_static("?"))
    })
}

/// A fault in the caller's dialect.
pub fn fault_response(dialect: Dialect, fault: &Fault, request_id: &str) -> Response<Body> {
    let codec = dialect.codec();
    let mut response =
        plain_response(codec.fault_status(fault), "application/json", codec.write_fault(fault, request_id));
    let headers = response.headers_mut();
    if let Some(wait) = fault.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil() as u64));
        headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(wait.as_millis() as u64));
    }
    if fault.exhausted {
        headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
    }
    response
}

/// A whole body with its type.
pub fn plain_response(status: u16, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_is_as_long_as_a_head_can_bear() {
        let long = "x".repeat(LIST);
        let cut = format!("{long}, ...");
        for (list, value) in [
            (vec!["a", "é\n"], "a, ??"),
            (vec!["a", long.as_str(), "b"], "a, ..."),
            (vec![long.as_str()], long.as_str()),
            (vec![long.as_str(), "b"], cut.as_str()),
        ] {
            let (mut headers, list) = (HeaderMap::new(), list.into_iter().map(str::to_owned).collect::<Vec<_>>());
            name_list(&mut headers, "x-tidegate-dropped", &list);
            assert_eq!(headers["x-tidegate-dropped"].as_bytes(), value.as_bytes());
        }
        let mut headers = HeaderMap::new();
        name_list(&mut headers, "x-tidegate-dropped", &[]);
        assert!(headers.is_empty());
    }
}
