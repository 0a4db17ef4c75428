//! `tidegate health`, as a container asks it: another process, which knows the configuration at most.

use crate::certificates::{authority, pair};
use crate::gateway::{Gateway, free_address, until};
use std::net::TcpListener;
use std::process::Command;
use std::time::Instant;

/// Whether the command ends well, and what it says.
fn health(arguments: &[&str]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let done = command.arg("health").args(arguments).current_dir(&folder).output().unwrap();
    (done.status.success(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
}

fn well() -> (bool, String) {
    (true, "ok\n".to_owned())
}

#[test]
fn it_tells_whether_a_gateway_takes_requests() {
    let missing = "[backends.here]\nkind = \"local\"\nweights = \"no-such.gguf\"\n";
    let ill = (false, "tidegate: local model here failed to load\n".to_owned());
    for (sections, ready) in [("", well()), (missing, ill)] {
        let gateway = Gateway::start(sections);
        until(|| !gateway.operator("/readyz").body.contains("being loaded"), "it is being loaded");
        let admin = gateway.admin.to_string();
        assert_eq!(health(&["--admin", &admin]), ready);
        assert_eq!(health(&["--admin", &admin, "--live"]), well());
    }
}

#[test]
fn it_finds_the_listener_in_a_configuration_that_may_be_bad_by_now() {
    let gateway = Gateway::start("");
    let (admin, port) = (gateway.admin.to_string(), gateway.admin.port());
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let path = file.path().to_str().unwrap();
    let bad =
        format!("[admin]\nlisten = \"0.0.0.0:{port}\"\ntoken = \"file:nowhere\"\n[server]\nlisten = 1\nlistn = 2\n");
    std::fs::write(&file, bad).unwrap();
    assert_eq!(health(&["--config", path]), well());
    std::fs::write(&file, "[admin").unwrap();
    assert_eq!(health(&["--config", path, "--admin", &admin]), well());
    let (ended_well, says) = health(&["--config", path]);
    assert!(!ended_well && says.contains(":1: this is no TOML"), "{says}");
}

#[test]
fn who_gives_no_answer_in_time_is_not_well() {
    let (ended_well, says) = health(&["--admin", &free_address().to_string()]);
    assert!(!ended_well && says.starts_with("tidegate: nobody answers at 127."), "{says}");
    // Connections are made and nothing comes of them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (began, address) = (Instant::now(), silent.local_addr().unwrap().to_string());
    assert_eq!(health(&["--admin", &address]), (false, format!("tidegate: no answer from {address} within 3 s\n")));
    assert!((3..9).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[test]
fn it_speaks_tls_unless_it_would_have_to_show_a_certificate() {
    let (ours, folder) = (authority(), tempfile::tempdir().unwrap());
    // For the name that clients know.
    let (certificate, key) = pair("gateway.example", &ours);
    let name = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(name("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(name("tls.key"), key.serialize_pem()).unwrap();
    let tls = format!("[admin.tls]\ncert = \"{}\"\nkey = \"{}\"\n", name("tls.crt"), name("tls.key"));
    let gateway = Gateway::start(&tls);
    let (admin, file) = (gateway.admin.to_string(), name("t.toml"));
    let listen = format!("[admin]\nlisten = \"{admin}\"\n");
    std::fs::write(&file, format!("{listen}{tls}")).unwrap();
    assert_eq!(health(&["--config", &file]), well());
    // Without the file it cannot know.
    let (ended_well, says) = health(&["--admin", &admin]);
    assert!(!ended_well && says.ends_with(" answered 400 Bad Request: This port speaks TLS: use https://\n"), "{says}");
    std::fs::write(&file, format!("{listen}{tls}client_ca = \"{}\"\n", name("tls.crt"))).unwrap();
    let (ended_well, says) = health(&["--config", &file]);
    assert!(!ended_well && says.contains("`client_ca` in [admin.tls]"), "{says}");
}
