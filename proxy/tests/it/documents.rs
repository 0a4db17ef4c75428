//! What the documentation and the files of `deploy/` say, held against the program: what is named there exists, and what exists
//! is named there.

use clap::{CommandFactory as _, Parser as _};
use figment::providers::{Format, Yaml};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tidegate::cli::Command;

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

fn is_metric(word: &str) -> bool {
    let named = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let ours = word.starts_with("tidegate_") || word.starts_with("gen_ai_");
    // `tidegate_queue_…` stands for several, and two are in a variable of the environment, whatever its case.
    ours && !word.ends_with('_') && !word.contains("__") && word.chars().all(named)
}

/// A metric, without what the series of a histogram end in.
fn family(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// Metrics, and labels that begin as they do, in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    words(text).filter(|word| is_metric(word)).map(family).collect()
}

/// The files of the program.
fn sources() -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![at("proxy/src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

/// The metrics that are constants in the program.
fn constants() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for text in sources() {
        found.extend(text.split('"').filter(|word| is_metric(word)).map(|word| family(word).to_owned()));
    }
    found
}

/// The last text among the arguments that begin here.
fn last_text(arguments: &str) -> &str {
    let (mut depth, mut begin, mut last) = (1, None, "");
    for (at, letter) in arguments.char_indices() {
        match (letter, begin) {
            ('"', None) => begin = Some(at + 1),
            ('"', Some(from)) => (begin, last) = (None, &arguments[from..at]),
            ('(', None) => depth += 1,
            (')', None) => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    last
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

#[test]
fn the_image_runs_commands_that_exist_and_asks_where_it_listens() {
    let image = read("deploy/Dockerfile");
    let words = |instruction: &str| -> Vec<String> {
        let line =
            image.lines().find(|line| line.starts_with(instruction)).unwrap_or_else(|| panic!("no {instruction}"));
        serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap()
    };
    let program = words("ENTRYPOINT ");
    let (serve, health) = ([program.clone(), words("CMD ")].concat(), words("HEALTHCHECK "));
    assert_eq!(&health[..1], program.as_slice());
    for line in [&serve, &health] {
        if let Err(error) = Command::try_parse_from(line) {
            panic!("{line:?}: {error}");
        }
    }
    for option in ["--config", "--admin"] {
        let value = |line: &[String]| line[line.iter().position(|word| word == option).unwrap() + 1].clone();
        assert_eq!(value(&serve), value(&health), "{option}");
    }
}

// None of the project's checks builds the image.
#[test]
fn the_image_is_given_what_it_copies() {
    let (image, ignored) = (read("deploy/Dockerfile"), read(".dockerignore"));
    let mut copied = BTreeSet::new();
    for line in image.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--")) {
        let (sources, _) = line.rsplit_once(' ').unwrap();
        copied.extend(sources.split(' '));
    }
    let passed: BTreeSet<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert_eq!(copied, passed, "what the Dockerfile copies, and what .dockerignore lets through");
}

/// The commands that do something, in words.
fn commands(command: &clap::Command, words: &str, found: &mut Vec<String>) {
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        let words = format!("{words} {}", inner.get_name());
        if !inner.is_subcommand_required_set() {
            found.push(words.clone());
        }
        commands(inner, &words, found);
    }
}

#[test]
fn every_command_is_in_the_table() {
    let (page, mut found) = (read("docs/operations.md"), Vec::new());
    commands(&Command::command(), "tidegate", &mut found);
    assert!(found.len() > 10, "{found:?}");
    let missing: Vec<_> = found.iter().filter(|words| !page.contains(&format!("\n| `{words}` |"))).collect();
    assert!(missing.is_empty(), "docs/operations.md lacks {missing:?}");
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

#[test]
fn every_warning_in_the_log_is_in_the_table() {
    let (page, mut seen) = (read("docs/operations.md").replace('`', ""), 0);
    let mut missing = BTreeSet::new();
    for text in sources() {
        let program = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        for level in ["warn", "error"] {
            for arguments in program.split(&format!("tracing::{level}!(")).skip(1) {
                let message = last_text(arguments).replace('`', "");
                seen += 1;
                if !page.contains(&format!("\n| {message} | ")) {
                    missing.insert(message);
                }
            }
        }
    }
    assert!(seen > 30, "the sources were read: {seen}");
    assert!(missing.is_empty(), "docs/operations.md lacks {missing:?}");
}

#[test]
fn metrics_have_one_name_in_the_program_the_pages_the_rules_and_the_dashboard() {
    let known = constants();
    assert!(known.len() > 40, "the sources were read: {known:?}");
    let page = read("docs/operations.md");
    let listed = metrics(&page);
    let missing: Vec<_> = known.iter().filter(|name| !listed.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/operations.md lacks {missing:?}");
    let dashboard = "deploy/grafana-dashboard.json";
    for path in ["docs/operations.md", "docs/usage.md", "deploy/prometheus-rules.yaml", dashboard] {
        let text = read(path);
        let unknown: Vec<_> = metrics(&text).into_iter().filter(|name| !known.contains(*name)).collect();
        assert!(unknown.is_empty(), "{path} names {unknown:?}");
    }
    let dashboard: Value = serde_json::from_str(&read(dashboard)).unwrap();
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 10));
}

#[test]
fn every_alarm_says_how_bad_it_is_and_what_to_do() {
    let (rules, page) = (yaml("deploy/prometheus-rules.yaml"), read("docs/operations.md"));
    let groups = rules[0]["groups"].as_array().unwrap();
    let alarms: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(alarms.len() > 10);
    for alarm in alarms {
        let name = alarm["alert"].as_str().unwrap();
        assert!(!metrics(alarm["expr"].as_str().unwrap()).is_empty(), "{name} asks for nothing of Tidegate's");
        assert!(matches!(alarm["labels"]["severity"].as_str(), Some("critical" | "warning")), "{name}");
        assert!(alarm["annotations"]["summary"].is_string(), "{name}");
        assert!(page.contains(&format!("\n| `{name}` |")), "docs/operations.md says nothing of {name}");
    }
}
