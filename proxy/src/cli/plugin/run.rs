//! `tidegate plugin run`: a call, and a reply, shown to a plugin without a gateway.

use super::super::log;
use super::{Component, From};
use crate::canon::{Caller, Event, Record};
use crate::plugin::{About, Guests, Seen};
use crate::wire::reply::{fold, read_stream};
use crate::wire::request::Request;
use crate::wire::{Dialect, ReplyHead};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the files speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Speaks {
    /// Chat completions.
    Openai,
    /// Messages.
    Anthropic,
    /// Responses.
    Responses,
    /// Completions.
    Completions,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  echo '{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"mail a@b.example\"}]}' > call.json\n  tidegate plugin run redact.wasm --call call.json"
)]
pub(super) struct Run {
    #[command(flatten)]
    component: Component,
    /// The body of a request.
    #[arg(long, value_name = "FILE")]
    call: PathBuf,
    /// The body of a reply: whole, or a stream as it came from a server.
    #[arg(long, value_name = "FILE")]
    reply: Option<PathBuf>,
    /// What both are written in.
    #[arg(long, value_enum, default_value_t = Speaks::Openai)]
    dialect: Speaks,
}

impl Run {
    pub fn run(self, from: &From) -> Result<(), String> {
        let runtime = super::super::runtime()?;
        let dialect = match self.dialect {
            Speaks::Openai => Dialect::Chat,
            Speaks::Anthropic => Dialect::Messages,
            Speaks::Responses => Dialect::Responses,
            Speaks::Completions => Dialect::Completions,
        };
        let plugins = self.component.load(from, &runtime, false)?.plugins;
        let request = Request::read(dialect, read(&self.call)?).map_err(|fault| fault.message)?;
        let reply = self.reply.as_deref().map(|path| reply(dialect, path)).transpose()?;
        let Some(guests) = plugins.invite("acme", "web", &request.model, |_| about(&request, dialect)) else {
            super::super::print("It subscribes to nothing: it is never called.\n");
            return Ok(());
        };
        // What the plugin logs, and why it failed. Not before: that it was loaded is no news here.
        log::start(false);
        let shown = runtime.block_on(show(guests, request, reply, dialect));
        log::flush();
        shown
    }
}

async fn show(mut guests: Guests, request: Request, reply: Option<Vec<Event>>, dialect: Dialect) -> Result<(), String> {
    let print = |text: String| super::super::print(&text);
    let told = guests.about().clone();
    let before = request.body().clone();
    let judged = match guests.on_call(request).await {
        Ok(judged) => judged,
        Err(fault) => {
            let code = fault.code.as_deref().unwrap_or("none");
            print(format!("on-call   refused: {} {code}: {}\n", fault.status(), fault.message));
            return Ok(());
        }
    };
    if *judged.request.body() == before {
        print("on-call   the call goes on as it came\n".into());
    } else {
        print(format!("on-call   the call goes on as\n{}\n", String::from_utf8_lossy(judged.request.body())));
    }
    judged.backend.iter().for_each(|backend| print(format!("on-call   to the backend {backend}\n")));
    let model = judged.request.asked.clone();
    let mut events = reply.unwrap_or_default();
    if let Some(answered) = judged.answer {
        print("on-call   answered by the plugin\n".into());
        events = answered.events;
        print(text(dialect, &model, events.clone())?);
    }
    if !events.is_empty() {
        match guests.on_events(events).await {
            Seen::Pass(_) => print("on-events the reply goes on as it came\n".into()),
            Seen::Change(events) => {
                print(format!("on-events the reply goes on as\n{}", text(dialect, &model, events)?))
            }
            Seen::End(fault) => print(format!("on-events the reply ends: {} {}\n", fault.status(), fault.message)),
        }
    }
    guests.on_end(&Record { status: 200, outcome: crate::canon::Outcome::Ok, ..Record::default() }).await;
    let notes = told.notes.lock().clone();
    if !notes.tags.is_empty() {
        print(format!("tags      {}\n", notes.tags.join(" ")));
    }
    Ok(())
}

/// A reply as a client would read it, whole.
fn text(dialect: Dialect, model: &str, events: Vec<Event>) -> Result<String, String> {
    let head = ReplyHead { id: "1".into(), model: model.into(), ..ReplyHead::default() };
    let answer = fold(events).map_err(|fault| fault.message)?;
    let body = dialect.codec().write_answer(&answer, &head).map_err(|fault| fault.message)?;
    Ok(format!("{}\n", String::from_utf8_lossy(&body)))
}

fn reply(dialect: Dialect, path: &Path) -> Result<Vec<Event>, String> {
    let body = read(path)?;
    if body.trim_ascii_start().starts_with(b"{") {
        return dialect.codec().read_answer(&body).map_err(|fault| fault.message);
    }
    read_stream(dialect, [body]).map_err(|fault| fault.message)
}

fn read(path: &Path) -> Result<Bytes, String> {
    std::fs::read(path).map(Bytes::from).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// A request as the plugin is told of it.
pub(super) fn about(request: &Request, dialect: Dialect) -> About {
    let caller = Caller { organization: "acme".into(), project: "web".into(), key: "web-1".into(), user: None };
    About {
        id: "00000000-0000-7000-8000-000000000000".into(),
        caller,
        endpoint: Arc::from(dialect.endpoint()),
        family: dialect.words(),
        model: request.asked.clone(),
        stream: request.stream,
        user: request.user(),
        headers: http::HeaderMap::new(),
        route: Mutex::default(),
        notes: Mutex::default(),
        asker: None,
    }
}
