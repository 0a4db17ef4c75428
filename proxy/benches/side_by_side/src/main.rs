//! What the gateway costs beside the least that a proxy in Rust can cost; `make bench` runs it.
//!
//! Figures in requests per second tell more about the machine than about the gateway. So this measures the CPU time of
//! the proxy process, per request or per streamed chunk, and sets it against `floor` (a bare forwarder, see floor.rs)
//! that is measured in turns with the gateway, on the same core, with the same mock backend and the same load. The
//! ratio of the two holds from one machine to the next, and the project keeps limits for it.
//!
//! `BENCH_SECONDS=5 make bench` measures longer (windows of 5 s, five of each); `--quick` does not, and is how a profile is taken.
//! It measures the release binary of `tidegate` beside its own, or that of `TIDEGATE_BIN=path`. Linux only: it reads /proc.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

#[path = "../../../tests/it/component.rs"]
mod component;
mod floor;
mod load;
mod mock;
mod process;

use load::{Api, Call, Load, Window};
use process::{Child, Folder};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The proxies have this core for themselves, except in a1.
const PROXY_CORE: usize = 0;
/// The mock and the load generator are here.
const OTHER_CORE: usize = 1;
const STREAMS: usize = 300;

/// One row of the table.
struct Scenario {
    name: &'static str,
    what: &'static str,
    load: Load,
    per_chunk: bool,
    /// With one request at a time every hop would wake a sleeping core, which in a virtual machine costs more than the
    /// proxy. On one core there is nothing to wake.
    one_core: bool,
    /// The project's limit for the ratio; nothing where the floor cannot do it.
    limit: Option<f64>,
    /// Hooks of a plugin that lets everything pass, as `flags hooks` of wit/plugin.wit has them.
    hooks: Option<u8>,
}

/// A plugin that sees calls and their ends, and one that sees all of replies, too.
const ENDS: u8 = 0b101;
const ALL: u8 = 0b111;

fn scenarios() -> Vec<Scenario> {
    let whole = |api, bytes, connections| Load { call: Call::whole(api, bytes), connections, spread: Duration::ZERO };
    let full_speed =
        |api| Load { call: Call::stream(api, 200, 0), connections: 16, spread: Duration::from_millis(100) };
    let row =
        |name, what, load, limit| Scenario { name, what, load, per_chunk: false, one_core: false, limit, hooks: None };
    vec![
        Scenario { one_core: true, ..row("a1", "1 KiB, 1 connection", whole(Api::Chat, 1 << 10, 1), Some(1.5)) },
        row("a32", "1 KiB, 32 connections", whole(Api::Chat, 1 << 10, 32), Some(1.5)),
        row("b", "100 KiB, 32 connections", whole(Api::Chat, 100 << 10, 32), Some(1.3)),
        Scenario {
            per_chunk: true,
            ..row("c", "16 streams of 200 chunks at full speed, per chunk", full_speed(Api::Chat), Some(1.3))
        },
        Scenario {
            per_chunk: true,
            ..row("d", "300 streams, 20 ms between chunks, per chunk", slow_streams(), Some(1.3))
        },
        row("h", "a32, Messages translated to chat", whole(Api::Messages, 1 << 10, 32), None),
        Scenario {
            per_chunk: true,
            ..row("hs", "c, Messages translated to chat, per chunk", full_speed(Api::Messages), None)
        },
        row("hb", "b, Messages translated to chat", whole(Api::Messages, 100 << 10, 32), None),
        Scenario {
            one_core: true,
            hooks: Some(ENDS),
            ..row("p1", "a1, with a plugin that does nothing", whole(Api::Chat, 1 << 10, 1), None)
        },
        Scenario {
            hooks: Some(ENDS),
            ..row("p32", "a32, with a plugin that does nothing", whole(Api::Chat, 1 << 10, 32), None)
        },
        Scenario {
            per_chunk: true,
            hooks: Some(ALL),
            ..row("pc", "c, with a plugin that sees all and does nothing, per chunk", full_speed(Api::Chat), None)
        },
    ]
}

/// Many streams at the pace of a model: started over one second, so that they do not all tick at once.
fn slow_streams() -> Load {
    Load { call: Call::stream(Api::Chat, 50, 20), connections: STREAMS, spread: Duration::from_secs(1) }
}

/// A proxy under test.
struct Proxy {
    child: Child,
    address: SocketAddr,
    /// From the start of the process to the first reply of 200.
    start: Duration,
}

fn start_floor(backend: SocketAddr, pinned: bool) -> (Child, SocketAddr) {
    let this = std::env::current_exe().unwrap();
    process::start_and_hear(&[this.to_str().unwrap(), "floor", &backend.to_string()], pinned.then_some(PROXY_CORE))
}

fn start_mock(pinned: bool) -> (Child, SocketAddr) {
    let this = std::env::current_exe().unwrap();
    process::start_and_hear(&[this.to_str().unwrap(), "mock"], pinned.then_some(OTHER_CORE))
}

/// The plugin of the repository's example, with these hooks.
fn plugin(hooks: u8) -> Vec<u8> {
    let text = include_str!("../../../../wit/examples/pass.wat");
    let (all, some) = ("(i32.const 80) (i32.const 7)", format!("(i32.const 80) (i32.const {hooks})"));
    assert!(text.contains(all), "the example says which hooks it has");
    component::component(&text.replace(all, &some))
}

async fn start_gateway(backend: SocketAddr, folder: &Folder, pinned: bool, hooks: Option<u8>) -> Proxy {
    let beside = || std::env::current_exe().unwrap().with_file_name("tidegate");
    let binary = std::env::var_os("TIDEGATE_BIN").map_or_else(beside, PathBuf::from);
    let binary = binary.to_str().unwrap();
    let [address, admin] = process::free_addresses();
    // Each gateway gets books of its own: opening those that a killed one left would be part of its start.
    let place = folder.fresh();
    let (config, log) = (place.join("tidegate.toml"), place.join("log"));
    let plugin = hooks.map(|hooks| {
        let path = place.join("plugin.wasm");
        std::fs::write(&path, plugin(hooks)).unwrap();
        format!("[plugins.nothing]\npath = \"{}\"\n", path.display())
    });
    let text = format!(
        r#"server.listen = "{address}"
admin.listen = "{admin}"
ledger.path = "{ledger}"
[backends.mock]
kind = "openai"
url = "http://{backend}"
[models."mock-model"]
targets = [ {{ backend = "mock" }} ]
price = {{ currency = "USD", input = 0.10, output = 0.40 }}
[organizations.bench.projects.load]
keys = [ {{ id = "load", hash = "sha256:0ae4ff38876e055345ad668b05c58fc80c58b1d5ce0d9a7190533375ac380e7a" }} ]
{plugin}"#,
        ledger = place.join("ledger.db").display(),
        plugin = plugin.unwrap_or_default()
    );
    std::fs::write(&config, text).unwrap();
    let began = Instant::now();
    let command = [binary, "serve", "--config", config.to_str().unwrap()];
    let child = process::start(&command, pinned.then_some(PROXY_CORE), &log);
    let call = Call::whole(Api::Chat, 1 << 10);
    loop {
        match load::once(address, &call).await {
            Ok(()) => return Proxy { child, address, start: began.elapsed() },
            Err(error) if began.elapsed() > Duration::from_secs(20) => {
                panic!("no gateway: {error}\n{}", std::fs::read_to_string(&log).unwrap_or_default())
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Resident memory of a proxy that has had one request, in MiB, and what an open stream adds to it, in KiB.
async fn memory(proxy: &Proxy, errors: &mut Vec<String>) -> (f64, f64) {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let idle = proxy.child.resident_kib();
    let load = slow_streams();
    let window = Window { before: load.spread + Duration::from_millis(500), length: Duration::ZERO };
    let seen = load::run(proxy.address, &load, &window, &proxy.child).await;
    errors.extend(seen.errors);
    (idle as f64 / 1024.0, (seen.resident_kib as f64 - idle as f64) / STREAMS as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs everything and prints the table; the errors that it met.
async fn bench(length: Duration, repetitions: usize) -> Vec<String> {
    let pinned = process::can_pin(&[PROXY_CORE, OTHER_CORE]);
    let busy = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let move_rest = |mock: &Child, core| {
        if pinned {
            process::pin(mock.id(), core);
            process::pin(std::process::id(), core);
        }
    };
    let mut errors = Vec::new();
    let folder = Folder::new();
    let (mock, backend) = start_mock(pinned);
    move_rest(&mock, OTHER_CORE);

    let mut starts = Vec::new();
    for _ in 0..2 {
        starts.push(start_gateway(backend, &folder, pinned, None).await.start.as_secs_f64() * 1e3);
    }
    let gateway = start_gateway(backend, &folder, pinned, None).await;
    starts.push(gateway.start.as_secs_f64() * 1e3);
    let (gateway_idle, gateway_stream) = memory(&gateway, &mut errors).await;
    let (child, address) = start_floor(backend, pinned);
    let floor = Proxy { child, address, start: Duration::ZERO };
    errors.extend(load::once(address, &Call::whole(Api::Chat, 1 << 10)).await.err());
    let (floor_idle, floor_stream) = memory(&floor, &mut errors).await;

    println!("\n| scenario | floor µs | gateway µs | ratio | limit |\n|---|---:|---:|---:|---:|");
    let mut over = Vec::new();
    for scenario in scenarios() {
        let plugged = match scenario.hooks {
            Some(_) => Some(start_gateway(backend, &folder, pinned, scenario.hooks).await),
            None => None,
        };
        let gateway = plugged.as_ref().unwrap_or(&gateway);
        move_rest(&mock, if scenario.one_core { PROXY_CORE } else { OTHER_CORE });
        let before = scenario.load.spread + Duration::from_millis(300);
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..repetitions {
            for (proxy, costs) in [&floor, gateway].into_iter().zip(&mut costs) {
                if scenario.limit.is_none() && std::ptr::eq(proxy, &floor) {
                    continue;
                }
                let window = Window { before, length };
                let seen = load::run(proxy.address, &scenario.load, &window, &proxy.child).await;
                let done = if scenario.per_chunk { seen.chunks } else { seen.requests };
                costs.push(seen.cpu.as_secs_f64() * 1e6 / done as f64);
                errors.extend(seen.errors.into_iter().map(|error| format!("{}: {error}", scenario.name)));
            }
        }
        let [floor, gateway] = costs.map(median);
        let row = format!("| {} ({})", scenario.name, scenario.what);
        match scenario.limit {
            Some(limit) => {
                println!("{row} | {floor:.1} | {gateway:.1} | {:.2} | {limit} |", gateway / floor);
                over.extend((gateway / floor > limit).then_some(scenario.name));
            }
            None => println!("{row} | – | {gateway:.1} | – | – |"),
        }
    }

    println!("\nThe gateway had its first reply {:.0} ms after its start.", median(starts));
    println!(
        "Idle it holds {gateway_idle:.1} MiB (floor {floor_idle:.1}), and {gateway_stream:.0} KiB more for each of"
    );
    println!("{STREAMS} open streams (floor {floor_stream:.0}).\n");
    println!("CPU time of the proxy, median of {repetitions} windows of {} s each. Differences", length.as_secs_f64());
    println!(
        "under 10 % mean nothing. {}.",
        if over.is_empty() { "All within the limits".into() } else { format!("Over the limit: {}", over.join(", ")) }
    );
    if !pinned {
        println!("Nothing was pinned (that takes `taskset` and two cores), so expect more noise than that.");
    }
    println!("Load of the machine when this began: {}.", busy.split(' ').next().unwrap_or("unknown"));
    errors
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match arguments.first().map(String::as_str) {
        Some("mock") => runtime.block_on(mock::serve()),
        Some("floor") => runtime.block_on(floor::serve(arguments[1].parse().unwrap())),
        _ => {}
    }
    if !cfg!(target_os = "linux") {
        eprintln!("This benchmark reads CPU time from /proc, so it runs on Linux only. Nothing was measured.");
        return ExitCode::FAILURE;
    }
    // /proc counts in steps of 10 ms: shorter windows than 2 s would measure the steps.
    let asked = std::env::var("BENCH_SECONDS").ok().filter(|_| !arguments.iter().any(|word| word == "--quick"));
    let (seconds, repetitions) = asked.map_or((2.0, 3), |text| (text.parse::<f64>().unwrap().clamp(2.0, 60.0), 5));
    let errors = runtime.block_on(bench(Duration::from_secs_f64(seconds), repetitions));
    if errors.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("\n{} errors, so the figures above are worth nothing. The first of them:", errors.len());
    errors.iter().take(5).for_each(|error| eprintln!("  {error}"));
    ExitCode::FAILURE
}
