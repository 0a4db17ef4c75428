//! What a backend's failure means: another target may help, or the client must hear of it (docs/api.md, "Errors from backends").

use super::breaker::Ended;
use super::http::{Body, Failure};
use crate::canon::{Fault, FaultKind, Secret};
use crate::wire::Dialect;
use bytes::BytesMut;
use http::{Response, header};
use std::time::Duration;

/// How a try ended without a reply.
pub(super) enum Verdict {
    /// Another target may do better; this is the fault if none does.
    Another(Fault),
    /// This target does not serve the request, and would not at any time: its key or model is wrong. Going on costs it nothing.
    Elsewhere(Fault),
    /// The request itself is the trouble.
    Final(Fault),
}

impl Verdict {
    /// No other target would take it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Final(_))
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
        Failure::Slow => Fault::new(FaultKind::BackendTimeout, "The backend did not begin to answer in time."),
    })
        Failure::Empty => Fault::new(FaultKind::BackendError, "The backend ended its reply before it had begun."),
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
pub(super) async fn refused(dialect: Dialect, head: Response<()>, mut body: Body, key: Option<&Secret>) -> Verdict {
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
    let said = dialect.codec().read_fault(&text).map(|message| without_key(&message, key));
    tracing::debug!(status, said, "a backend refused a request");
    let says = |otherwise: &str| said.clone().filter(|said| !said.is_empty()).unwrap_or_else(|| otherwise.to_owned());
    match status {
        400 | 413 | 422 => Verdict::Final(
            Fault::new(FaultKind::BackendInvalid, says("The backend refused the request as invalid."))
                .with_status(status),
        ),
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
            ..Fault::new(FaultKind::BackendUnavailable, "The backend is not ready; try again later.")
        }),
        _ => {
            Verdict::Another(Fault::new(FaultKind::BackendError, format!("The backend answered with status {status}.")))
        }
    }
}

/// `Retry-After` in seconds or as `retry-after-ms`; a date is left to the client's own back-off.
fn retry_after(head: &Response<()>) -> Option<Duration> {
    let number = |name: &str| {
        head.headers()
            .get(name)?
            .to_str()
            .ok()?
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|number| (0.0..86400e3).contains(number))
    };
    number("retry-after-ms")
        .map(|millis| Duration::from_secs_f64(millis / 1e3))
        .or_else(|| number(header::RETRY_AFTER.as_str()).map(Duration::from_secs_f64))
}

/// A backend's words without the gateway's key there; the dialect has taken out addresses, pages and what looks like a key.
pub(super) fn without_key(message: &str, key: Option<&Secret>) -> String {
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
}
