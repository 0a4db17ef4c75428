//! What a backend's failure means: another target may help, or the client must hear of it (docs/api.md, "Errors from backends").

use super::breaker::Ended;
use super::http::{Body, Failure};
use crate::canon::{Fault, FaultKind, Secret};
use crate::wire::complaint;
use bytes::BytesMut;
use http::{Response, header};
use std::time::{Duration, SystemTime};

/// How a try ended without a reply.
pub(super) enum Verdict {
    /// Another target may do better; this is the fault if none does.
    Another(Fault),
    /// This target does not serve the request, and would not at any time: its key or model is wrong. Going on costs it nothing.
    Elsewhere(Fault),
    /// This target cannot be told what is asked for. Others may; where none can, this is what is wrong with the request.
    Unable(Fault),
    /// The request itself is the trouble.
    Final(Fault),
}

impl Verdict {
    /// No other target would take it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Final(_))
    }

    /// Whether the target may have computed something, if it had the request: it did not say no.
    pub fn worked(&self) -> bool {
        let no = [FaultKind::BackendBusy, FaultKind::BackendUnavailable];
        matches!(self, Self::Another(fault) if !no.contains(&fault.kind))
    }
}

/// More of an error body is not read.
const READ: usize = 64 << 10;
/// An error body that does not come must not hold the request.
const WAIT: Duration = Duration::from_secs(5);

/// No reply at all.
pub(super) fn unreachable(failure: &Failure) -> Verdict {
    tracing::debug!(?failure, "no reply from a backend");
    Verdict::Another(match failure {
        Failure::Connect(_) => {
            Fault::new(FaultKind::BackendUnreachable, "The backend of this model could not be reached.")
        }
        Failure::Broken(_) => {
            Fault::new(FaultKind::BackendUnreachable, "The backend closed the connection before it answered.")
        }
        Failure::Empty => Fault::new(FaultKind::BackendError, "The backend ended its reply before it had begun."),
        Failure::Slow => Fault::new(FaultKind::BackendTimeout, "The backend did not begin to answer in time."),
    })
}

/// What an error reply says of the address it comes from.
#[derive(Debug, PartialEq)]
pub(super) enum Says {
    /// Something that counts.
    Ended(Ended),
    /// It is full, for so long.
    Full(Option<Duration>),
    /// Nothing: slow is no error, and an unknown model or API may be what the client asked for.
    Nothing,
}

/// See [`Says`].
pub(super) fn says(head: &Response<()>) -> Says {
    match head.status().as_u16() {
        429 | 503 | 529 => Says::Full(retry_after(head)),
        403 | 404 | 408 | 501 | 504 => Says::Nothing,
        // The gateway's own key is wrong there, whoever asks for whatever.
        401 => Says::Ended(Ended::Failed),
        400..=499 => Says::Ended(Ended::Refused),
        _ => Says::Ended(Ended::Failed),
    }
}

/// A reply that is an error.
pub(super) async fn refused(head: Response<()>, mut body: Body, key: Option<&Secret>) -> Verdict {
    let mut text = BytesMut::new();
    let read = async {
        while let Some(Ok(data)) = body.data().await {
            text.extend_from_slice(&data);
            if text.len() > READ {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(WAIT, read).await;
    let status = head.status().as_u16();
    let complaint = complaint(&text);
    let said = complaint.as_ref().map(|complaint| without_key(&complaint.message, key));
    tracing::debug!(status, said, "a backend refused a request");
    let says = |otherwise: &str| said.clone().unwrap_or_else(|| otherwise.to_owned());
    match status {
        400 | 413 | 422 => {
            let mut fault = complaint.map_or_else(
                || Fault::new(FaultKind::BackendInvalid, "The backend refused the request as invalid."),
                Fault::from,
            );
            hide_key(&mut fault, key);
            Verdict::Final(fault.with_status(status))
        }
        401 | 403 => Verdict::Elsewhere(Fault::new(
            FaultKind::BackendError,
            "The backend refused the gateway's own credentials; its operator must look at the backend's key.",
        )),
        404 => Verdict::Elsewhere(Fault::new(FaultKind::BackendError, "The backend does not know this model or path.")),
        408 | 504 => Verdict::Another(Fault::new(FaultKind::BackendTimeout, "The backend ran out of time.")),
        429 => Verdict::Another(Fault {
            retry_after: retry_after(&head),
            ..Fault::new(FaultKind::BackendBusy, says("The backend is busy; try again later."))
        }),
        529 => Verdict::Another(Fault {
            retry_after: retry_after(&head),
            ..Fault::new(FaultKind::BackendBusy, "The backend is overloaded; try again later.").with_status(529)
        }),
        503 => Verdict::Another(Fault {
            retry_after: retry_after(&head),
            ..Fault::new(FaultKind::BackendUnavailable, says("The backend is not ready; try again later."))
        }),
        _ => {
            let message = match said {
                Some(said) => format!("The backend answered with status {status}: {said}"),
                None => format!("The backend answered with status {status}."),
            };
            Verdict::Another(Fault::new(FaultKind::BackendError, message))
        }
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110 §10.2.3), or `retry-after-ms`; nothing beyond a day.
fn retry_after(head: &Response<()>) -> Option<Duration> {
    const MOST: Duration = Duration::from_secs(86400);
    let said = |name: &str| head.headers().get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok();
    let wait = match said("retry-after-ms").and_then(number) {
        Some(millis) => Duration::try_from_secs_f64(millis / 1e3).ok()?,
        None => {
            let text = said(header::RETRY_AFTER.as_str())?;
            match number(text) {
                Some(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
                None => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
            }
        }
    };
    Some(wait).filter(|wait| *wait < MOST)
}

/// Takes the gateway's key there out of what a backend said is wrong.
pub(super) fn hide_key(fault: &mut Fault, key: Option<&Secret>) {
    let hidden = |text: &str| without_key(text, key);
    fault.message = hidden(&fault.message);
    fault.code = fault.code.take().map(|code| hidden(&code).into());
    fault.param = fault.param.take().map(|param| hidden(&param));
}

/// A backend's words without the gateway's key there; the dialect has taken out addresses, pages and what looks like a key.
fn without_key(message: &str, key: Option<&Secret>) -> String {
    match key.map(Secret::reveal).filter(|key| !key.is_empty()) {
        Some(key) => message.replace(key, "[hidden]"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_load_nor_a_client_s_errors_count_against_an_address() {
        for (status, header, says_so) in [
            (429, Some("7"), Says::Full(Some(Duration::from_secs(7)))),
            (503, None, Says::Full(None)),
            (529, Some("soon"), Says::Full(None)),
            (504, None, Says::Nothing),
            (408, None, Says::Nothing),
            (404, None, Says::Nothing),
            (501, None, Says::Nothing),
            (403, None, Says::Nothing),
            (400, None, Says::Ended(Ended::Refused)),
            (413, None, Says::Ended(Ended::Refused)),
            (422, None, Says::Ended(Ended::Refused)),
            (401, None, Says::Ended(Ended::Failed)),
            (500, None, Says::Ended(Ended::Failed)),
            (502, None, Says::Ended(Ended::Failed)),
            (302, None, Says::Ended(Ended::Failed)),
        ] {
            let mut head = Response::builder().status(status);
            if let Some(value) = header {
                head = head.header("retry-after", value);
            }
            assert_eq!(says(&head.body(()).unwrap()), says_so, "{status}");
        }
    }

    #[test]
    fn the_gateway_s_key_is_not_repeated() {
        let key: Secret = serde_json::from_str("\"s3cret\"").unwrap();
        assert_eq!(without_key("key s3cret is wrong", Some(&key)), "key [hidden] is wrong");
        assert_eq!(without_key("as it was", None), "as it was");
    }

    #[test]
    fn a_wait_is_told_in_three_ways() {
        let date = |ahead: u64| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(ahead));
        for (name, value, least, most) in [
            ("retry-after", "1.5".to_owned(), 1500, 1500),
            ("retry-after-ms", "250".to_owned(), 250, 250),
            ("retry-after", date(30), 28_000, 30_000),
            ("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT".to_owned(), 0, 0),
        ] {
            let head = Response::builder().header(name, &value).body(()).unwrap();
            let wait = retry_after(&head).unwrap().as_millis();
            assert!((least..=most).contains(&wait), "{name}: {value}: {wait}");
        }
        for value in ["-1", "soon", "inf", "nan", "1e300", &date(100_000)] {
            let head = Response::builder().header("retry-after", value).body(()).unwrap();
            assert_eq!(retry_after(&head), None, "{value}");
        }
    }
}
