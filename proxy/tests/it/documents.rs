//! What the documentation and the files of `deploy/` say, held against the program: what is named there exists, and what exists
//! is named there.

use figment::providers::{Format, Yaml};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A file, by its path from the repository's root.
fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a YAML file.
fn yaml(path: &str) -> Vec<Value> {
    let text = read(path);
    let document = |text: &str| -> Value { Yaml::from_str(text).unwrap_or_else(|error| panic!("{path}: {error}")) };
    text.split("\n---\n").map(document).collect()
}

/// Words of letters, digits and `_`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
}

/// The keys in a JSON Schema.
fn keys(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                found.extend(properties.keys().cloned());
            }
            members.values().for_each(|inner| keys(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| keys(inner, found)),
        _ => {}
    }
}

#[test]
fn every_key_of_the_configuration_is_documented_and_in_the_example() {
    let mut known = BTreeSet::new();
    keys(&tidegate::config::schema(), &mut known);
    assert!(known.len() > 100, "the schema was read: {known:?}");
    let (page, example) = (read("docs/configuration.md"), read("deploy/tidegate.example.toml"));
    let code: BTreeSet<&str> = page.split('`').skip(1).step_by(2).flat_map(words).collect();
    let shown: BTreeSet<&str> = words(&example).collect();
    for (place, there) in [("docs/configuration.md", code), ("deploy/tidegate.example.toml", shown)] {
        let missing: Vec<_> = known.iter().filter(|key| !there.contains(key.as_str())).collect();
        assert!(missing.is_empty(), "{place} lacks {missing:?}");
    }
}

#[test]
fn the_example_is_a_good_configuration() {
    let example = tidegate::app::load(Some(&at("deploy/tidegate.example.toml")), &[]);
    assert!(example.is_ok(), "{:?}", example.err());
}

#[cfg(feature = "kubernetes")]
#[test]
fn the_manifest_for_kubernetes_fits_its_configuration_and_the_image() {
    const SECRETS: &str = "/etc/tidegate-secrets";
    let objects = yaml("deploy/kubernetes.yaml");
    let object = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let pod = &object("StatefulSet")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];

    // The Secret is mounted somewhere else here.
    let folder = tempfile::tempdir().unwrap();
    for name in ["admin", "vllm"] {
        std::fs::write(folder.path().join(name), "hunter2").unwrap();
    }
    let text = object("ConfigMap")["data"]["tidegate.toml"].as_str().unwrap();
    let file = folder.path().join("tidegate.toml");
    std::fs::write(&file, text.replace(SECRETS, folder.path().to_str().unwrap())).unwrap();
    let config = tidegate::app::load(Some(&file), &[]).unwrap_or_else(|problems| panic!("{problems:?}"));

    let needed = config.server.drain_delay.0 + config.server.drain.0 + std::time::Duration::from_secs(5);
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace >= needed.as_secs(), "{grace} s are less than the {needed:?} that stopping takes");

    let mounts = container["volumeMounts"].as_array().unwrap();
    let mounted = |path: &str| mounts.iter().any(|mount| mount["mountPath"] == path);
    assert!(mounted(config.ledger.path.parent().unwrap().to_str().unwrap()), "the books are in the volume");
    assert!(mounted("/etc/tidegate") && mounted(SECRETS));

    let image = read("deploy/Dockerfile");
    assert!(image.contains("\"/etc/tidegate/tidegate.toml\""), "it reads the file that is mounted");
    for port in container["ports"].as_array().unwrap() {
        let listens = format!("\"0.0.0.0:{}\"", port["containerPort"]);
        assert!(image.contains(&listens), "the image does not listen on {listens}");
    }
    let user = &pod["securityContext"]["runAsUser"];
    assert!(image.contains(&format!("\nUSER {user}:{user}\n")), "the image has another user than {user}");

    let accounts = yaml("deploy/kubernetes-rbac.yaml");
    let account = accounts.iter().find(|object| object["kind"] == "ServiceAccount").unwrap();
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    assert_eq!(object("StatefulSet")["metadata"]["namespace"], account["metadata"]["namespace"]);
}
