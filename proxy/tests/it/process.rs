//! A gateway as a process: for what belongs to a whole process, such as its environment and the files it sees.

use crate::gateway::{Answer, KEY, free_address, post, read_answer};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Process {
    api: SocketAddr,
    admin: SocketAddr,
    child: Child,
    /// Where its files are.
    pub folder: TempDir,
}

impl Process {
    /// Starts it with these sections in a folder that has these files. `command` runs what it is given as arguments; listeners,
    /// ledger and the project `acme/web` are added.
    pub fn start(sections: &str, files: &[(&str, &str)], mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (api, admin) = (free_address(), free_address());
        let config = format!(
            "[server]\nlisten = \"{api}\"\nworkers = 2\n[admin]\nlisten = \"{admin}\"\n[ledger]\npath = \"{}\"\n\
             [organizations.acme.projects.web]\nkeys = [{{ id = \"web-1\", hash = \"{}\" }}]\n{sections}",
            folder.path().join("t.db").display(),
            tidegate::gate::hash_of(KEY),
        );
        for (name, text) in files.iter().chain(&[("t.toml", &*config)]) {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        command.args(["serve", "--config", "t.toml"]);
        command.current_dir(&folder).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let process = Self { api, admin, child, folder };
        let began = Instant::now();
        while !process.page("/readyz").contains(" 200 ") {
            assert!(began.elapsed() < Duration::from_secs(20), "it does not get ready: {}", process.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        process
    }

    /// Writes to one of its files, in place.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// Sends a chat request and leaves the connection open.
    pub fn send(&self, body: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.api).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(&post("/v1/chat/completions", &format!("x-api-key: {KEY}\r\n"), body.as_bytes())).unwrap();
        client
    }

    /// Its answer to a chat request.
    pub fn post(&self, body: &str) -> Answer {
        read_answer(&mut self.send(body))
    }

    /// A page of the operator's listener; empty if it does not answer.
    pub fn page(&self, path: &str) -> String {
        let mut text = String::new();
        if let Ok(mut stream) = TcpStream::connect(self.admin) {
            let _ = write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let _ = stream.read_to_string(&mut text);
        }
        text
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &process]).status().unwrap().success());
    }

    /// Waits for its end, and says with which code it came.
    pub fn ended(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < Duration::from_secs(20), "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the gateway's words:\n{}", self.log());
        }
    }
}

/// The gateway where only it sees what this script has mounted.
pub fn unshared(script: &str) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("{script} && exec \"$0\" \"$@\"");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_tidegate")]);
    command
}

/// Whether a process may have files of its own here, which takes a user namespace.
pub fn may_have_files_of_its_own() -> bool {
    let tried = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "mount", "--bind", "/etc/hosts", "/etc/hosts"])
        .output();
    let may = tried.is_ok_and(|tried| tried.status.success());
    if !may {
        eprintln!("skipped: no user namespaces here, so a process cannot have files of its own");
    }
    may
}

/// Books, journals and the folder they are in.
#[test]
fn what_it_writes_is_not_for_everybody() {
    let process = Process::start("", &[], Command::new(env!("CARGO_BIN_EXE_tidegate")));
    for name in ["t.db", "t.db.spool"] {
        let mode = std::fs::metadata(process.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o027, 0, "{name}: {mode:o}");
    }
}

/// What shells begin with is too few for a gateway.
#[test]
fn it_opens_as_many_files_as_it_may() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 256 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tidegate")]);
    let process = Process::start("", &[], command);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.child.id())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard] = [0, 1].map(|at| line.split_whitespace().nth(at).unwrap().parse().unwrap_or(u64::MAX));
    assert_eq!(soft, hard.min(65_536));
}

#[test]
fn a_wrong_variable_is_named_instead_of_a_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tidegate.toml"), "[server]\ndrain = 1\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("check").current_dir(&folder).env("TIDEGATE_SERVER__BODY_LIMT", "1MiB");
    let output = command.output().unwrap();
    let says = String::from_utf8(output.stderr).unwrap();
    for expect in
        ["\n  TIDEGATE_SERVER__BODY_LIMT: server.body_limt: unknown key", "\n  tidegate.toml:2: server.drain: "]
    {
        assert!(!output.status.success() && says.contains(expect), "{expect} in {says}");
    }
}
