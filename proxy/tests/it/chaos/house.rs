//! A gateway as a process of its own: what is left of it can be counted, and it can be killed.

use super::backend::Chaos;
use super::client::TENANTS;
use crate::gateway::free_address;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate::canon::Record;
use tidegate::store::{Filter, Store};

/// A running gateway.
pub struct House {
    api: SocketAddr,
    admin: SocketAddr,
    process: Child,
    folder: TempDir,
}

/// What is there when nobody asks anything.
#[derive(Debug, Clone)]
pub struct Leftovers {
    /// Requests it thinks are in flight, over all gauges.
    pub in_flight: u64,
    /// Open files and sockets.
    pub files: usize,
    pub threads: usize,
    pub resident_kib: u64,
}

impl House {
    /// Starts a gateway before these backends: one model of the first (`steady`), one of `wild`, one of `wild` that falls back
    /// to `steady` (`rescued`), one over all others (`pool`).
    pub fn start(backends: &[(&str, Chaos)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (api, admin) = (free_address(), free_address());
        std::fs::write(folder.path().join("t.toml"), configuration(folder.path(), api, admin, backends)).unwrap();
        let process = launch(folder.path());
        let house = Self { api, admin, process, folder };
        house.wait_until_ready();
        house
    }

    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// As a crash would.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on what it left.
    pub fn restart(&mut self) {
        self.process = launch(self.folder.path());
        self.wait_until_ready();
    }

    /// Waits until it has nothing to do any more.
    pub fn settle(&self) {
        let began = Instant::now();
        while self.leftovers().in_flight > 0 && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(50));
        }
        // Idle connections to backends are closed after four seconds, when somebody looks: the health thread does each second.
        std::thread::sleep(Duration::from_secs(1));
    }

    pub fn leftovers(&self) -> Leftovers {
        let process = PathBuf::from(format!("/proc/{}", self.process.id()));
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let number = |key: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let metrics = self.operator("/metrics");
        let gauges = metrics.lines().filter(|line| {
            ["tidegate_in_flight", "tidegate_backend_in_flight", "tidegate_model_"]
                .iter()
                .any(|name| line.starts_with(name))
        });
        Leftovers {
            in_flight: gauges.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64,
            files: std::fs::read_dir(process.join("fd")).unwrap().count(),
            threads: number("Threads:") as usize,
            resident_kib: number("VmRSS:"),
        }
    }

    /// All records, the journal's included.
    pub fn records(&self) -> Vec<Record> {
        let path = self.folder.path().join("t.db");
        let mut store = Store::open(&path).unwrap();
        tidegate::ledger::ingest(&mut store, &path).unwrap();
        store.records(&Filter::default()).unwrap()
    }

    fn wait_until_ready(&self) {
        let began = Instant::now();
        while !self.operator("/readyz").contains(" 200 ") {
            assert!(began.elapsed() < Duration::from_secs(20), "it does not get ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn operator(&self, path: &str) -> String {
        let mut text = String::new();
        if let Ok(mut stream) = TcpStream::connect(self.admin) {
            let _ = write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let _ = stream.read_to_string(&mut text);
        }
        text
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            let log = self.log();
            eprintln!("the gateway's last words:\n{}", log.lines().rev().take(20).collect::<Vec<_>>().join("\n"));
        }
    }
}

fn launch(folder: &std::path::Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env("TIDEGATE_LOG", "error").arg("serve").arg("--config").arg(folder.join("t.toml")).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn configuration(folder: &std::path::Path, api: SocketAddr, admin: SocketAddr, backends: &[(&str, Chaos)]) -> String {
    let mut text = format!(
        "[server]\nlisten = \"{api}\"\nworkers = 2\ndrain_delay = \"0ms\"\n[admin]\nlisten = \"{admin}\"\n[ledger]\npath = \"{}\"\n",
        folder.join("t.db").display()
    );
    let timeouts = "timeouts = { connect = \"500ms\", first_token = \"700ms\", idle = \"700ms\" }";
    for (name, backend) in backends {
        // Two dialects between them, so that each client is translated for at some and not at others.
        let speaks = if *name == "bursts" { "[\"messages\"]" } else { "[\"chat\"]" };
        let url = format!("http://{}", backend.address);
        let _ = write!(text, "[backends.{name}]\nkind = \"vllm\"\nurl = \"{url}\"\ndialects = {speaks}\n{timeouts}\n");
    }
    let names: Vec<&str> = backends.iter().map(|(name, _)| *name).collect();
    let (steady, wild) = (names[0], names.get(1).unwrap_or(&names[0]));
    let rest: Vec<String> = names.iter().skip(2).map(|name| format!("{{ backend = \"{name}\" }}")).collect();
    let rest = if rest.is_empty() { format!("{{ backend = \"{steady}\" }}") } else { rest.join(", ") };
    let _ = write!(
        text,
        "[models.steady]\ntargets = [{{ backend = \"{steady}\" }}]\n[models.wild]\nretries = 0\ntargets = [{{ backend = \"{wild}\" }}]\n\
         [models.rescued]\ntargets = [{{ backend = \"{wild}\" }}]\nfallbacks = [\"steady\"]\n[models.pool]\nretries = 3\ntargets = [{rest}]\n"
    );
    for (organization, project, key) in TENANTS {
        let hash = tidegate::gate::hash_of(key);
        let _ = write!(
            text,
            "[organizations.{organization}.projects.{project}]\nkeys = [{{ id = \"{project}-1\", hash = \"{hash}\" }}]\n"
        );
    }
    text
}
