//! What a new configuration changes, in names and never in values: those may be secret.

use super::Config;
use super::place::dotted;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is new, changed or removed, by section and name.
pub fn changes(before: &Config, after: &Config) -> Vec<String> {
    let mut found = Vec::new();
    for (section, same) in [
        ("server", before.server == after.server),
        ("admin", before.admin == after.admin),
        ("ledger", before.ledger == after.ledger),
        ("limits", before.limits == after.limits),
        ("api", before.api == after.api),
    ] {
        if !same {
            found.push(format!("{section} changed"));
        }
    }
    compare("backends", &before.backends, &after.backends, &mut found);
    compare("models", &before.models, &after.models, &mut found);
    compare("organizations", &before.organizations, &after.organizations, &mut found);
    compare("users", &before.users, &after.users, &mut found);
    compare("plugins", &before.plugins, &after.plugins, &mut found);
    found
}

fn compare<T: PartialEq>(
    section: &str,
    before: &BTreeMap<Arc<str>, T>,
    after: &BTreeMap<Arc<str>, T>,
    found: &mut Vec<String>,
) {
    let key = |name: &str| dotted(&[section.to_owned(), name.to_owned()]);
    for (name, item) in after {
        match before.get(name) {
            None => found.push(format!("{} added", key(name))),
            Some(old) if old != item => found.push(format!("{} changed", key(name))),
            Some(_) => {}
        }
    }
    found.extend(before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("{} removed", key(name))));
}

/// Keys that differ from what the process was started with and are read at start only.
pub fn waiting(started: &Config, now: &Config) -> Vec<&'static str> {
    [
        ("server.listen", started.server.listen == now.server.listen),
        ("server.reuse_port", started.server.reuse_port == now.server.reuse_port),
        ("server.workers", started.server.workers == now.server.workers),
        ("admin.listen", started.admin.listen == now.admin.listen),
        ("ledger.path", started.ledger.path == now.ledger.path),
        ("limits.redis", started.limits.redis == now.limits.redis),
        ("limits.redis_ca", started.limits.redis_ca == now.limits.redis_ca),
    ]
    .into_iter()
    .filter_map(|(key, same)| (!same).then_some(key))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn changes_are_told_by_name() {
        let before = config(
            r#"{"models":{"a.b":{"targets":[]},"c":{"targets":[]}},"organizations":{"acme":{}},"backends":{"gpu":{"kind":"vllm","url":"http://x","key":"hunter2"}}}"#,
        );
        let after = config(
            r#"{"models":{"a.b":{"targets":[],"retries":3}},"organizations":{"acme":{},"globex":{}},"backends":{"gpu":{"kind":"vllm","url":"http://x","key":"hunter3"}},"server":{"drain":"1s","workers":7},"limits":{"redis":"redis://x"}}"#,
        );
        let found = changes(&before, &after);
        assert_eq!(
            found,
            [
                "server changed",
                "limits changed",
                "backends.gpu changed",
                "models.\"a.b\" changed",
                "models.c removed",
                "organizations.globex added"
            ]
        );
        assert_eq!(changes(&after, &after), [""; 0]);
        assert_eq!(
            (waiting(&before, &after), waiting(&after, &after)),
            (vec!["server.workers", "limits.redis"], vec![])
        );
    }
}
