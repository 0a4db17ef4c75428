//! The examples of a README, read: what is shown to people is loaded in the plugin's tests. A crate of its own, because a guest must not
//! carry a TOML reader.

use serde_json::Value;

/// The configuration in each ```` ```toml ```` block that declares `[plugins.NAME]`, as the plugin would get it.
///
/// # Panics
/// If a block is no TOML, or declares no plugin.
pub fn configs(readme: &str) -> Vec<Value> {
    readme.split("```toml\n").skip(1).map(|rest| config(rest.split("```").next().unwrap_or_default())).collect()
}

fn config(block: &str) -> Value {
    let table: Value = toml::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}"));
    let plugins = table["plugins"].as_object().unwrap_or_else(|| panic!("no plugin in {block}"));
    let plugin = plugins.values().next().unwrap_or_else(|| panic!("no plugin in {block}"));
    plugin.get("config").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::default()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn blocks_are_found() {
        let readme = "# X\n```toml\n[plugins.x]\npath = \"x\"\n[plugins.x.config]\na = 1\n```\ntext\n```toml\n[plugins.y]\n```\n";
        assert_eq!(super::configs(readme), [json!({"a": 1}), json!({})]);
    }
}
