//! Clients of several tenants who speak all dialects, and judge each answer by what they asked for.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The tenants: organization, project, key.
pub const TENANTS: [(&str, &str, &str); 3] =
    [("acme", "web", "dfproj_chaos_web"), ("acme", "app", "dfproj_chaos_app"), ("globex", "lab", "dfproj_chaos_lab")];
/// A client that has waited this long leaves.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What a backend says that was asked to say so many words under this order.
pub fn text(order: &str, words: usize) -> String {
    let words: Vec<String> = (0..words).map(|word| format!("w{word}")).collect();
    format!("{order}: {} .", words.join(" "))
}

/// How a request ended, as its client saw it.
#[derive(Debug, Clone)]
pub struct Ended {
    pub id: String,
    pub tenant: usize,
    pub model: &'static str,
    pub words: usize,
    pub how: How,
    pub took: Duration,
}

impl Ended {
    /// The client has all of a good reply.
    pub fn is_whole(&self) -> bool {
        matches!(self.how, How::Whole)
    }
}

/// See [`Ended`].
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// All of the reply that was asked for.
    Whole,
    /// An error with a status, in the dialect's own shape.
    Refused(u16),
    /// A reply that began, and ended in the dialect's own error event.
    Broken,
    /// The client left.
    Left,
    /// The gateway was not there, or went away: never while it runs.
    Lost(String),
    /// What must not be.
    Wrong(String),
}

/// Clients before one gateway.
pub struct Tenants(SocketAddr);

impl Tenants {
    pub fn before(api: SocketAddr) -> Self {
        Self(api)
    }

    /// So many clients for so long, each one request after the other.
    pub fn run(&self, clients: usize, time: Duration) -> Vec<Ended> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (api, until) = (self.0, Instant::now() + time);
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let tasks: Vec<_> = (0..clients).map(|number| tokio::task::spawn_local(one(api, number, until))).collect();
            let mut all = Vec::new();
            for task in tasks {
                all.extend(task.await.unwrap());
            }
            all
        })
    }
}

async fn one(api: SocketAddr, number: usize, until: Instant) -> Vec<Ended> {
    let mut ended = Vec::new();
    let mut connection = None;
    while Instant::now() < until {
        let order = Order::draw(number % TENANTS.len());
        let began = Instant::now();
        let how = order.put(api, &mut connection).await;
        if matches!(how, How::Lost(_)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let Order { id, tenant, model, words, .. } = order;
        ended.push(Ended { id, tenant, model, words, how, took: began.elapsed() });
    }
    ended
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Api {
    Chat,
    Messages,
    Responses,
    Completions,
    Ollama,
}

/// One request.
struct Order {
    id: String,
    tenant: usize,
    model: &'static str,
    api: Api,
    stream: bool,
    words: usize,
    /// Leaves after this long.
    patience: Duration,
}

impl Order {
    fn draw(tenant: usize) -> Self {
        let of = |all: &[&'static str]| all[fastrand::usize(..all.len())];
        let apis = [Api::Chat, Api::Messages, Api::Responses, Api::Completions, Api::Ollama];
        Self {
            id: format!("chaos-{:016x}", fastrand::u64(..)),
            tenant,
            model: of(&["steady", "pool", "pool", "wild", "rescued"]),
            api: apis[fastrand::usize(..apis.len())],
            stream: fastrand::bool(),
            words: fastrand::usize(..40),
            patience: if fastrand::u8(..20) == 0 { Duration::from_millis(fastrand::u64(..20)) } else { PATIENCE },
        }
    }

    fn say(&self) -> String {
        format!("{}-{}", self.id, self.words)
    }

    async fn put(&self, api: SocketAddr, connection: &mut Option<http1::SendRequest<Full<Bytes>>>) -> How {
        if connection.as_ref().is_none_or(http1::SendRequest::is_closed) {
            *connection = match open(api).await {
                Ok(sender) => Some(sender),
                Err(error) => return How::Lost(error.to_string()),
            };
        }
        let Some(sender) = connection.as_mut() else { return How::Lost("no connection".into()) };
        let answer = tokio::time::timeout(self.patience, async {
            sender.ready().await?;
            let (head, body) = sender.send_request(self.request()).await?.into_parts();
            let body = body.collect().await;
            Ok::<_, hyper::Error>((head, body))
        });
        let how = match answer.await {
            Err(_) => How::Left,
            Ok(Err(error)) => How::Lost(format!("{error:?}")),
            Ok(Ok((_, Err(error)))) => How::Lost(format!("in the body: {error:?}")),
            Ok(Ok((head, Ok(body)))) => {
                let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                let named = head.headers.get("x-request-id").is_some_and(|id| id.as_bytes() == self.id.as_bytes());
                if named { self.judge(head.status.as_u16(), &body) } else { How::Wrong("another's id".into()) }
            }
        };
        if matches!(how, How::Left | How::Lost(_)) {
            *connection = None;
        }
        how
    }

    fn request(&self) -> http::Request<Full<Bytes>> {
        let (model, stream, say) = (self.model, self.stream, format!("say<{}>", self.say()));
        let (path, body) = match self.api {
            Api::Chat => (
                "/v1/chat/completions",
                format!(r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"{say}"}}]}}"#),
            ),
            Api::Messages => (
                "/v1/messages",
                format!(
                    r#"{{"model":"{model}","stream":{stream},"max_tokens":99,"messages":[{{"role":"user","content":"{say}"}}]}}"#
                ),
            ),
            Api::Responses => ("/v1/responses", format!(r#"{{"model":"{model}","stream":{stream},"input":"{say}"}}"#)),
            Api::Completions => {
                ("/v1/completions", format!(r#"{{"model":"{model}","stream":{stream},"prompt":"{say}"}}"#))
            }
            Api::Ollama => (
                "/api/chat",
                format!(r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"{say}"}}]}}"#),
            ),
        };
        http::Request::post(path)
            .header("host", "x")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", TENANTS[self.tenant].2))
            .header("x-request-id", &self.id)
            .body(Full::new(Bytes::from(body)))
            .unwrap()
    }

    fn judge(&self, status: u16, body: &str) -> How {
        if status != 200 {
            return match serde_json::from_str::<Value>(body) {
                Ok(error) if is_error(self.api, &error) => How::Refused(status),
                _ => How::Wrong(format!("{status} is no error of {:?}: {body}", self.api)),
            };
        }
        let said = if self.stream { streamed(self.api, body) } else { whole(self.api, body) };
        match said {
            Ok((text, true)) if text == super::client::text(&self.say(), self.words) => How::Whole,
            Ok((text, false)) if super::client::text(&self.say(), self.words).starts_with(&text) => How::Broken,
            Ok((text, done)) => How::Wrong(format!("{:?}, done {done}: `{text}` for {}", self.api, self.say())),
            Err(why) => How::Wrong(format!("{:?}: {why}: {body}", self.api)),
        }
    }
}

async fn open(api: SocketAddr) -> Result<http1::SendRequest<Full<Bytes>>, Box<dyn std::error::Error>> {
    let stream = tokio::net::TcpStream::connect(api).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

fn is_error(api: Api, body: &Value) -> bool {
    match api {
        Api::Chat | Api::Responses | Api::Completions => body["error"]["message"].is_string(),
        Api::Messages => body["type"] == "error" && body["error"]["type"].is_string(),
        Api::Ollama => body["error"].is_string(),
    }
}

/// Text of a whole reply.
fn whole(api: Api, body: &str) -> Result<(String, bool), String> {
    let body: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let (text, end) = match api {
        Api::Chat => (&body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"] == "stop"),
        Api::Completions => (&body["choices"][0]["text"], body["choices"][0]["finish_reason"] == "stop"),
        Api::Messages => (&body["content"][0]["text"], body["stop_reason"] == "end_turn"),
        Api::Responses => (&body["output"][0]["content"][0]["text"], body["status"] == "completed"),
        Api::Ollama => (&body["message"]["content"], body["done"] == true),
    };
    text.as_str().filter(|_| end).map(|text| (text.to_owned(), true)).ok_or_else(|| "no whole reply".to_owned())
}

/// Text of a stream, and whether it is complete; not so, it ended in an error event.
fn streamed(api: Api, body: &str) -> Result<(String, bool), String> {
    let mut text = String::new();
    let mut end = None;
    let lines =
        body.lines().filter_map(|line| if api == Api::Ollama { Some(line) } else { line.strip_prefix("data: ") });
    for line in lines.filter(|line| !line.is_empty()) {
        if let Some(done) = end {
            return Err(format!("something follows the end ({done})"));
        }
        if line == "[DONE]" {
            end = Some(true);
            continue;
        }
        let event: Value = serde_json::from_str(line).map_err(|error| format!("{error} in {line}"))?;
        let failed = event["type"] == "response.failed" || event["type"] == "error";
        if failed || is_error(api, &event) {
            end = Some(false);
            continue;
        }
        let delta = match api {
            Api::Chat => &event["choices"][0]["delta"]["content"],
            Api::Completions => &event["choices"][0]["text"],
            Api::Messages => &event["delta"]["text"],
            Api::Responses if event["type"] == "response.output_text.delta" => &event["delta"],
            Api::Responses => &Value::Null,
            Api::Ollama => &event["message"]["content"],
        };
        text.push_str(delta.as_str().unwrap_or_default());
        let last = match api {
            Api::Chat | Api::Completions => false,
            Api::Messages => event["type"] == "message_stop",
            Api::Responses => event["type"] == "response.completed",
            Api::Ollama => event["done"] == true,
        };
        if last {
            end = Some(true);
        }
    }
    end.map(|done| (text, done)).ok_or_else(|| "a stream without an end".to_owned())
}
