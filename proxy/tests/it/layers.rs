//! The layers of a configuration, as a process has them.

use crate::fake::{CHAT, Fake, json};
use crate::gateway::{free_address, one_backend};
use crate::process::Process;
use std::process::Command;

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;

/// Starts the gateway with the operator's address of its file on the command line, too.
const WITH_ADMIN: &str = r#"exec "$0" "$@" --admin "$(sed -n '/^\[admin\]/{n;s/.*"\(.*\)".*/\1/p;}' t.toml)""#;

#[test]
fn the_environment_counts_more_than_the_file_and_less_than_the_command_line() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let mut command = Command::new("sh");
    command
        .args(["-c", WITH_ADMIN, env!("CARGO_BIN_EXE_tidegate")])
        // Where nobody would find it.
        .env("TIDEGATE_ADMIN__LISTEN", free_address().to_string())
        .env("TIDEGATE_BACKENDS__B__URL", fake.url())
        // Nothing of this one is in the file.
        .env("TIDEGATE_BACKENDS__C__KIND", "openai")
        .env("TIDEGATE_BACKENDS__C__URLS", format!("[\"{}\"]", fake.url()))
        // For an `env:` of somebody's: it names no section, so it is no key.
        .env("TIDEGATE_ADMIN_TOKEN", "sesame");
    let file = one_backend("openai", "http://127.0.0.1:9", "") + "[models.n]\ntargets = [{ backend = \"c\" }]\n";
    let gateway = Process::start(&file, &[], command);
    for model in ["m", "n"] {
        let answer = gateway.post(&CALL.replace("\"m\"", &format!("\"{model}\"")));
        assert_eq!(answer.status, 200, "{model}: {answer:?}");
    }
    assert_eq!(fake.seen().len(), 2);
}
