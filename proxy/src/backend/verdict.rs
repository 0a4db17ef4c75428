//! What a backend's failure means: another target may help, or the client must hear of it (docs/api.md, "Errors from backends").

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
    /// The request itself is the trouble.
    Final(Fault),
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
    let said = dialect.codec().read_fault(&text).map(|message| clean(&message, key));
    tracing::debug!(status, said, "a backend refused a request");
    let says = |otherwise: &str| said.clone().filter(|said| !said.is_empty()).unwrap_or_else(|| otherwise.to_owned());
    match status {
        400 | 413 | 422 => Verdict::Final(
            Fault::new(FaultKind::BackendInvalid, says("The backend refused the request as invalid."))
                .with_status(status),
        ),
        401 | 403 => Verdict::Another(Fault::new(
            FaultKind::BackendError,
            "The backend refused the gateway's own credentials; its operator must look at the backend's key.",
        )),
        404 => Verdict::Another(Fault::new(FaultKind::BackendError, "The backend does not know this model or path.")),
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

/// A backend's words without its keys, addresses and pages.
fn clean(message: &str, key: Option<&Secret>) -> String {
    let lower = message.to_ascii_lowercase();
    if lower.contains("<html") || lower.contains("<!doctype") {
        return String::new();
    }
    let words: Vec<&str> = message
        .split_whitespace()
        .map(|word| {
            let bare = word.trim_matches(|letter: char| {
                !letter.is_ascii_alphanumeric() && !matches!(letter, ':' | '.' | '/' | '[' | ']')
            });
            let is_address = bare.contains("://")
                || bare.parse::<std::net::SocketAddr>().is_ok()
                || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_string().len() > 2);
            let is_secret = key.is_some_and(|key| !key.reveal().is_empty() && word.contains(key.reveal()))
                || bare.starts_with("sk-");
            if is_address || is_secret { "[…]" } else { word }
        })
        .collect();
    words.join(" ").chars().take(1000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_s_words_lose_what_is_nobody_s_business() {
        let key: Secret = serde_json::from_str("\"s3cret\"").unwrap();
        for (said, clean_words) in [
            ("max_tokens must be at least 1", "max_tokens must be at least 1"),
            ("call http://10.0.0.5:8000/v1 failed", "call […] failed"),
            ("peer 10.0.0.5:8000, gone", "peer […] gone"),
            ("key s3cret is wrong, sk-abc too", "key […] is wrong, […] too"),
            ("<html><body>nginx</body></html>", ""),
            ("a\nb", "a b"),
        ] {
            assert_eq!(clean(said, Some(&key)), clean_words, "{said}");
        }
    }
}
