//! Child processes: each on the core it should be on, read through /proc, and gone when the benchmark is.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a process may take to end.
const END: Duration = Duration::from_secs(5);

/// A process that is ended when this is dropped.
pub struct Child(std::process::Child);

impl Child {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// CPU time of all its threads so far, in user and in kernel mode.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // The second field is the name in parentheses and may hold anything, so fields are counted from behind it.
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // The kernel reports in hundredths of a second, whatever its own timer does.
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Asked first: a program that profiles itself writes down what it counted when it ends. It is the shell's own `kill`:
        // small images have no program of that name.
        let _ = works(&["sh", "-c", &format!("kill {}", self.id())]);
        let began = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && began.elapsed() < END {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The command, on one core if one is named. It dies with this process, even when that is killed and drops nothing.
fn command(words: &[&str], core: Option<usize>) -> Command {
    let mut all: Vec<String> = Vec::new();
    if works(&["setpriv", "--pdeathsig", "KILL", "true"]) {
        all.extend(["setpriv", "--pdeathsig", "KILL"].map(String::from));
    }
    if let Some(core) = core {
        all.extend(["taskset".into(), "-c".into(), core.to_string()]);
    }
    all.extend(words.iter().map(|word| (*word).to_owned()));
    let mut command = Command::new(&all[0]);
    command.args(&all[1..]).stdin(Stdio::null());
    command
}

/// Starts a process whose output goes to a file.
pub fn start(words: &[&str], core: Option<usize>, log: &Path) -> Child {
    let log = File::create(log).unwrap();
    let mut command = command(words, core);
    Child(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
}

/// Starts a process that says its address in the first line of its output.
pub fn start_and_hear(words: &[&str], core: Option<usize>) -> (Child, SocketAddr) {
    let mut child = Child(command(words, core).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().parse().unwrap_or_else(|_| panic!("{words:?} did not start"));
    (child, address)
}

fn works(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

pub fn can_pin(cores: &[usize]) -> bool {
    cores.iter().all(|core| works(&["taskset", "-c", &core.to_string(), "true"]))
}

/// Moves a process that has one thread.
pub fn pin(process: u32, core: usize) {
    assert!(works(&["taskset", "-cp", &core.to_string(), &process.to_string()]), "cannot move {process}");
}

/// Two addresses that nobody listened on a moment ago.
pub fn free_addresses() -> [SocketAddr; 2] {
    // All are open before the first is closed, so they differ.
    [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()).map(|listener| listener.local_addr().unwrap())
}

/// A temporary folder.
pub struct Folder(TempDir, std::cell::Cell<usize>);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap(), 0.into())
    }

    /// A new folder inside it.
    pub fn fresh(&self) -> PathBuf {
        self.1.set(self.1.get() + 1);
        let path = self.0.path().join(self.1.get().to_string());
        std::fs::create_dir(&path).unwrap();
        path
    }
}
