//! Every dependency is a tenant: it comes from the registry, with a checksum, under a licence we may pass on.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Licences that ask for no more than their notice.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn dependencies_come_from_the_registry_under_licences_we_may_pass_on() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--manifest-path"])
        .arg(manifest)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`cargo fetch --locked` brings what is missing here: {error}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours = metadata["workspace_members"].as_array().unwrap();
    let mut wrong = Vec::new();
    for package in packages.iter().filter(|package| !ours.contains(&package["id"])) {
        let name = format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        if !package["source"].as_str().is_some_and(|source| source.starts_with("registry+")) {
            wrong.push(format!("{name} does not come from the registry: {}", package["source"]));
        }
        let licence = package["license"].as_str().unwrap_or_default();
        let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX);
        let free = expression.is_ok_and(|expression| {
            expression.evaluate(|need| need.license.id().is_some_and(|id| LICENCES.contains(&id.name)))
        });
        if !free {
            wrong.push(format!("{name} is under `{licence}`"));
        }
    }
    assert!(packages.len() > 100, "the list was read");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
