//! `tidegate plugin bench`: what a plugin costs, on this machine.

use super::super::{Format, table};
use super::run::about;
use super::{Component, From, Loaded};
use crate::canon::{Delta, Event, Fault, Outcome, Part, Record, StopReason};
use crate::plugin::{Guests, Plugins};
use crate::wire::Dialect;
use crate::wire::request::Request;
use bytes::Bytes;
use clap::Args;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Live instances that are weighed together.
const WEIGHED: usize = 64;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate plugin bench redact.wasm\n  tidegate plugin bench redact --config tidegate.toml --format csv"
)]
pub(super) struct Bench {
    #[command(flatten)]
    component: Component,
    /// Requests of each kind.
    #[arg(long, default_value_t = 2000)]
    requests: u32,
    /// How to print what it costs.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Medians, in microseconds.
struct Costs {
    call: f64,
    events: f64,
    end: f64,
}

/// Bytes of the prompts to measure with.
const SMALL: usize = 1 << 10;
const LARGE: usize = 100 << 10;

impl Bench {
    pub fn run(self, from: &From) -> Result<(), String> {
        let runtime = super::super::runtime()?;
        let began = Instant::now();
        let Loaded { plugins: warm, facts, .. } = self.component.load(from, &runtime, false)?;
        let load = began.elapsed().as_secs_f64() * 1e6;
        let fresh = self.component.load(from, &runtime, true)?.plugins;
        let rows = [
            ("warm", SMALL, runtime.block_on(measure(&warm, SMALL, self.requests))?),
            ("warm", LARGE, runtime.block_on(measure(&warm, LARGE, self.requests / 10 + 1))?),
            ("fresh", SMALL, runtime.block_on(measure(&fresh, SMALL, self.requests / 4 + 1))?),
        ];
        let resident = runtime.block_on(weigh(&fresh))?;
        if self.format != Format::Table {
            let columns = [
                "plugin",
                "version",
                "instance",
                "prompt_bytes",
                "on_call_us",
                "on_events_us",
                "on_end_us",
                "load_us",
                "resident_kib",
            ];
            let tenths = |number: f64| Value::from((number * 10.0).round() / 10.0);
            let row = |(instance, bytes, costs): (&str, usize, Costs)| -> Vec<Value> {
                let of: [Value; 4] =
                    [facts.name.as_str().into(), facts.version.as_str().into(), instance.into(), bytes.into()];
                let measured = [costs.call, costs.events, costs.end, load].map(tenths);
                of.into_iter().chain(measured).chain([resident.map_or(Value::Null, tenths)]).collect()
            };
            return table::print(self.format, &columns, &rows.map(row));
        }
        let print = |text: String| super::super::print(&text);
        print(format!(
            "{} {}: microseconds, median; hooks it does not subscribe to cost nothing\n",
            facts.name, facts.version
        ));
        print(format!("  loading                         {load:>10.0}\n"));
        for (instance, bytes, costs) in rows {
            let what = if instance == "warm" { "warm" } else { "fresh instance" };
            let what = format!("{what}, {} KiB prompt", bytes >> 10);
            print(format!(
                "  {what:<29} on-call {:>7.1}   on-events (1 KiB) {:>7.1}   on-end {:>7.1}\n",
                costs.call, costs.events, costs.end
            ));
        }
        match resident {
            Some(kib) => print(format!("  a live instance                 {kib:>7.0} KiB resident\n")),
            None => print("  memory is measured on Linux only\n".into()),
        }
        Ok(())
    }
}

fn call(bytes: usize) -> Result<Request, String> {
    let body = format!(
        r#"{{"model":"m","stream":true,"user":"somebody","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "word ".repeat(bytes / 5)
    );
    Request::read(Dialect::Chat, Bytes::from(body)).map_err(|fault| fault.message)
}

fn invite(plugins: &Plugins, request: &Request) -> Result<Guests, String> {
    plugins
        .invite("acme", "web", "m", |_| about(request, Dialect::Chat))
        .ok_or_else(|| "it subscribes to nothing with these settings".to_owned())
}

/// Nothing can be measured behind a refusal.
fn refused(fault: Fault) -> String {
    format!(
        "the call to measure with (a chat completion of `acme/web`, with a `user`) was refused: {} {}; \
         give settings with which it goes on",
        fault.status(),
        fault.message
    )
}

async fn measure(plugins: &Plugins, bytes: usize, count: u32) -> Result<Costs, String> {
    let request = call(bytes)?;
    let text = Event::Delta(Delta::Text("word ".repeat(205)));
    let record = Record { status: 200, outcome: Outcome::Ok, ..Record::default() };
    let (mut calls, mut batches, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let mut guests = invite(plugins, &request)?;
        let request = request.clone();
        let began = Instant::now();
        guests.on_call(request).await.map_err(refused)?;
        calls.push(began.elapsed());
        guests.on_events(vec![Event::Start { id: None, model: None }, Event::Open(Part::Text)]).await;
        let batch = vec![text.clone()];
        let began = Instant::now();
        guests.on_events(batch).await;
        batches.push(began.elapsed());
        guests.on_events(vec![Event::Close, Event::Stop(StopReason::EndTurn)]).await;
        let began = Instant::now();
        guests.on_end(&record).await;
        ends.push(began.elapsed());
    }
    Ok(Costs { call: median(calls), events: median(batches), end: median(ends) })
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e6
}

/// Resident memory of an instance that has seen a call, in KiB.
async fn weigh(plugins: &Plugins) -> Result<Option<f64>, String> {
    let Some(before) = resident_kib() else { return Ok(None) };
    let request = call(SMALL)?;
    let mut alive = Vec::new();
    for _ in 0..WEIGHED {
        let mut guests = invite(plugins, &request)?;
        guests.on_call(request.clone()).await.map_err(refused)?;
        guests.on_events(vec![Event::Start { id: None, model: None }, Event::Open(Part::Text)]).await;
        alive.push(guests);
    }
    Ok(resident_kib().map(|after| (after - before) / WEIGHED as f64))
}

/// Of this process (proc_pid_status(5)).
fn resident_kib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
