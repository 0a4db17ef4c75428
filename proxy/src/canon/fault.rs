//! A failure: what happened, on whose side, and whether another try may help.
//!
//! A dialect turns a fault into its own error shape; rooms never write one. The status here is the gateway's view; a
//! dialect may move it where its protocol has a better word (529 for Messages, 422 for validation).

use std::borrow::Cow;
use std::time::Duration;

/// Whose fault it is: the prefix of `error_type` in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The request was wrong.
    Caller,
    /// A rule of the operator said no: limits, allowed models.
    Policy,
    /// The backend failed or answered nonsense.
    Backend,
    /// A plugin said no, or failed.
    Plugin,
    /// We did.
    Gateway,
}

/// The closed set of failures. Each has one HTTP status and one metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The body is not what the API takes (400, or 422 where the dialect validates).
    Invalid,
    /// The target cannot do what was asked (400).
    Unsupported,
    /// No or unknown credential (401).
    Unauthenticated,
    /// Known, but not allowed (403).
    Forbidden,
    /// No such model for this caller (404).
    ModelNotFound,
    /// No such path (404).
    PathNotFound,
    /// Wrong method for the path (405).
    Method,
    /// The client did not send its request in time (408).
    RequestTimeout,
    /// The client left before it had sent its request (499, nginx's word: mostly nobody reads it).
    ClientGone,
    /// Body over the limit (413).
    TooLarge,
    /// Content type or encoding we do not read (415).
    MediaType,
    /// Over a limit of the operator's (429).
    RateLimited,
    /// The gateway itself is full or stopping (503).
    Overloaded,
    /// The backend says it is overloaded: 429 or 529 (see [`Fault::status`]).
    BackendBusy,
    /// The backend refused the request as invalid; its status is kept.
    BackendInvalid,
    /// The backend could not be reached (502).
    BackendUnreachable,
    /// The backend answered with an error or nonsense (502).
    BackendError,
    /// Every target is set aside (503).
    BackendUnavailable,
    /// The backend did not answer in time (504).
    BackendTimeout,
    /// The backend's stream broke off (502; mid-stream an error event).
    BackendCut,
    /// A plugin says no; it may say with which status (403).
    PluginRefused,
    /// A plugin failed, and its requests must not go on without it (500).
    PluginFailed,
    /// We failed (500).
    Internal,
}

impl FaultKind {
    /// Label of `error_type` in metrics: blame first, from a closed set.
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid => "caller_invalid",
            Self::Unsupported => "caller_unsupported",
            Self::Unauthenticated => "caller_unauthenticated",
            Self::Forbidden => "policy_forbidden",
            Self::ModelNotFound => "caller_model_not_found",
            Self::PathNotFound => "caller_path_not_found",
            Self::Method => "caller_method",
            Self::RequestTimeout => "caller_timeout",
            Self::ClientGone => "caller_gone",
            Self::TooLarge => "caller_too_large",
            Self::MediaType => "caller_media_type",
            Self::RateLimited => "policy_rate_limited",
            Self::Overloaded => "gateway_overloaded",
            Self::BackendBusy => "backend_busy",
            Self::BackendInvalid => "backend_invalid",
            Self::BackendUnreachable => "backend_unreachable",
            Self::BackendError => "backend_error",
            Self::BackendUnavailable => "backend_unavailable",
            Self::BackendTimeout => "backend_timeout",
            Self::BackendCut => "backend_cut",
            Self::PluginRefused => "plugin_refused",
            Self::PluginFailed => "plugin_failed",
            Self::Internal => "gateway_internal",
        }
    }

    /// Whose side it is on.
    pub fn blame(self) -> Blame {
        match self {
            Self::Forbidden | Self::RateLimited => Blame::Policy,
            Self::Overloaded | Self::Internal => Blame::Gateway,
            Self::PluginRefused | Self::PluginFailed => Blame::Plugin,
            Self::BackendBusy
            | Self::BackendInvalid
            | Self::BackendUnreachable
            | Self::BackendError
            | Self::BackendUnavailable
            | Self::BackendTimeout
            | Self::BackendCut => Blame::Backend,
            _ => Blame::Caller,
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::Invalid | Self::Unsupported | Self::BackendInvalid => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden | Self::PluginRefused => 403,
            Self::ModelNotFound | Self::PathNotFound => 404,
            Self::Method => 405,
            Self::RequestTimeout => 408,
            Self::ClientGone => 499,
            Self::TooLarge => 413,
            Self::MediaType => 415,
            Self::RateLimited | Self::BackendBusy => 429,
            Self::Overloaded | Self::BackendUnavailable => 503,
            Self::BackendUnreachable | Self::BackendError | Self::BackendCut => 502,
            Self::BackendTimeout => 504,
            Self::PluginFailed | Self::Internal => 500,
        }
    }
}

/// One thing wrong with a request body, in pydantic's terms (the words of DeepFellow's 422 answers).
#[derive(Debug, Clone, PartialEq)]
pub struct Detail {
    /// Where: `["body", "messages", "0", "role"]`; all-digit segments are indices.
    pub loc: Vec<String>,
    /// What is wrong, for people.
    pub msg: String,
    /// Pydantic's error type: `missing`, `string_type`, `json_invalid`, ….
    pub kind: &'static str,
    /// The offending value as JSON text, shortened; empty when there is none.
    pub input: String,
}

/// A failed request or reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Which of the closed set.
    pub kind: FaultKind,
    /// What happened and what to do, for the caller. Never holds keys, addresses or a backend's raw page.
    pub message: String,
    /// A stable word for programs (`model_not_found`), where the dialect has a place for it.
    pub code: Option<Cow<'static, str>>,
    /// The offending request field, where there is one.
    pub param: Option<String>,
    /// Everything wrong with the body, when there is more to say than `message`.
    pub details: Vec<Detail>,
    /// The HTTP status where it differs from the kind's own (a backend's 529, 413, 422).
    pub status: Option<u16>,
    /// When to come back, if somebody said so.
    pub retry_after: Option<Duration>,
    /// True when our own retries are used up, so that clients do not multiply them (`x-should-retry: false`).
    pub exhausted: bool,
}

impl Fault {
    /// A fault of this kind.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            code: None,
            param: None,
            details: Vec::new(),
            status: None,
            retry_after: None,
            exhausted: false,
        }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Invalid, message)
    }

    /// The target cannot express a feature, named by its field.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(FaultKind::Unsupported, message) }
    }

    /// A broken promise of our own.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Internal, message)
    }

    /// The backend's stream ended before it had said so.
    pub fn cut() -> Self {
        Self::new(FaultKind::BackendCut, "The backend's stream broke off before the reply was complete.")
    }

    /// The backend took longer for its whole reply than it may.
    pub fn too_long() -> Self {
        Self::new(FaultKind::BackendTimeout, "The backend did not finish its reply in the time it has.")
    }

    /// The gateway could wait no longer. Another may be there at once, or the next one within moments.
    pub fn stopping() -> Self {
        let message = "The gateway is stopping and could not wait for the end of this reply.";
        Self { retry_after: Some(Duration::from_secs(1)), ..Self::new(FaultKind::Overloaded, message) }
    }

    /// The model is unknown or not this caller's; both read the same.
    pub fn model_not_found(model: &str) -> Self {
        let model: String = model.chars().take(256).collect();
        let mut fault = Self::new(
            FaultKind::ModelNotFound,
            format!(
                "The model `{model}` does not exist or you do not have access to it. GET /v1/models lists the ones you may use."
            ),
        );
        fault.code = Some("model_not_found".into());
        fault.param = Some("model".into());
        fault
    }

    /// Every detail at once; the message sums them up.
    pub fn from_details(details: Vec<Detail>) -> Self {
        let message = details
            .iter()
            .map(|detail| format!("{}: {}", dotted(&detail.loc), detail.msg))
            .collect::<Vec<_>>()
            .join("; ");
        let param = details.first().map(|detail| dotted(&detail.loc)).filter(|param| !param.is_empty());
        Self { details, param, ..Self::new(FaultKind::Invalid, message) }
    }

    /// With a stable code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// With the request field it is about.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// With an HTTP status of its own.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status.unwrap_or(self.kind.status())
    }
}

/// `["body", "messages", "0", "role"]` as `messages[0].role`.
fn dotted(loc: &[String]) -> String {
    let mut path = String::new();
    for segment in loc.iter().skip_while(|segment| *segment == "body") {
        if !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push_str(&format!("[{segment}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(segment);
        }
    }
    if path.is_empty() { "body".into() } else { path }
}
