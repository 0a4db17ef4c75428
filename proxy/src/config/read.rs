//! From layers to a configuration, or to everything that is wrong with them.
//!
//! serde stops at the first error. So each one is noted, the value it is about is taken out, and reading starts again, until
//! nothing is wrong any more.

use super::place::{Problem, dotted};
use super::{Config, NOT_YET};
use figment::Figment;
use figment::error::{Actual, Kind};
use figment::providers::{Env, Format, Json, Serialized, Toml, Yaml};
use figment::value::{Dict, Value};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// More problems than this are not listed: something is wrong with the file as a whole.
const MOST: usize = 50;

/// Reads a configuration: defaults, then the file, then the environment, then `overrides` (dotted key and value). `check`
/// finds what one key cannot see (references, keys registered twice) and is told where that stands.
///
/// # Errors
/// Every problem, with file, line and key.
pub fn load(
    file: Option<&Path>,
    overrides: &[(String, String)],
    check: impl FnOnce(&Config) -> Vec<Problem>,
) -> Result<Config, Vec<Problem>> {
    let (layers, digest) = layers(file, overrides)?;
    let (config, mut problems) = read(tree(&layers)?);
    match config {
        Some(config) if problems.is_empty() => {
            problems = check(&config);
            if problems.is_empty() {
                return Ok(Config { digest, ..config });
            }
        }
        _ => {}
    }
    place(file, &mut problems);
    Err(problems)
}

/// Finds the variables of the environment and the lines in the file that problems are about, and puts them in order.
pub fn place(file: Option<&Path>, problems: &mut [Problem]) {
    let variables: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    problems.iter_mut().for_each(|problem| problem.blame(&variables));
    if let Some(path) = file
        && let Ok(text) = std::fs::read_to_string(path)
    {
        problems.iter_mut().for_each(|problem| problem.locate(path, &text));
        problems.sort_by_key(|problem| problem.place.as_ref().map(|(_, line)| *line));
    }
}

/// The files a configuration is made of: itself, and all that it names. As far as it can be read.
pub fn files(file: Option<&Path>, overrides: &[(String, String)]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = file.map(Path::to_owned).into_iter().collect();
    let layers = layers(file, overrides).map_err(drop);
    if let Ok(tree) = layers.and_then(|(layers, _)| layers.extract::<Dict>().map_err(drop)) {
        named(&Value::from(tree), &mut Vec::new(), &mut files);
    }
    files
}

/// Keys whose value is the path of a file that is read.
const PATHS: [[&str; 3]; 6] = [
    ["backends", "*", "ca"],
    ["backends", "*", "weights"],
    ["plugins", "*", "path"],
    ["*", "tls", "cert"],
    ["*", "tls", "key"],
    ["*", "tls", "client_ca"],
];

fn named(value: &Value, path: &mut Vec<String>, files: &mut Vec<PathBuf>) {
    match value {
        Value::String(_, text) => {
            let fits = |pattern: &[&str; 3]| {
                path.len() == 3 && path.iter().zip(pattern).all(|(key, fits)| *fits == "*" || key == fits)
            };
            let named = if PATHS.iter().any(fits) { Some(text.as_str()) } else { text.strip_prefix("file:") };
            files.extend(named.map(PathBuf::from));
        }
        Value::Dict(_, members) => {
            for (key, value) in members {
                path.push(key.clone());
                named(value, path, files);
                path.pop();
            }
        }
        Value::Array(_, items) => items.iter().for_each(|item| named(item, path, files)),
        _ => {}
    }
}

/// The layers, and the digest of the file among them: of the very text that was read.
pub(super) fn layers(
    file: Option<&Path>,
    overrides: &[(String, String)],
) -> Result<(Figment, Option<String>), Vec<Problem>> {
    let (mut figment, mut digest) = (Figment::new(), None);
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| vec![Problem::new("", format!("cannot read {}: {error}", path.display()))])?;
        digest = Some(hex::encode(&Sha256::digest(&text)[..6]));
        figment = match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => {
                let line = |error: &<Yaml as Format>::Error| error.location().map_or(1, |at| at.line());
                is_read(path, Yaml::NAME, Yaml::from_str(&text), line)?;
                figment.merge(Yaml::string(&text))
            }
            Some("json") => {
                is_read(path, Json::NAME, Json::from_str(&text), serde_json::Error::line)?;
                figment.merge(Json::string(&text))
            }
            _ => {
                // Read here first: of what is wrong figment keeps a drawing only, of several lines and with what stands there,
                // which may be a secret.
                if let Err(error) = Toml::from_str::<Dict>(&text) {
                    let before = error.span().map_or(0, |span| span.start.min(text.len()));
                    let line = text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count() + 1;
                    let what = format!("this is no TOML 1.0: {}", error.message().trim().replace('\n', ", "));
                    return Err(broken(path, line, what));
                }
                figment.merge(Toml::string(&text))
            }
        };
    }
    // Only names with a section: TIDEGATE_ADMIN_TOKEN and the like are for `env:` values.
    figment = figment.merge(Env::prefixed("TIDEGATE_").filter(|key| key.as_str().contains("__")).split("__"));
    for (key, value) in overrides {
        figment = figment.merge(Serialized::default(key, value));
    }
    Ok((figment, digest))
}

/// Whether the text of a file could be read as this format: of what is wrong figment keeps the words only, and not of which file.
/// Read as any value, since the error of another type would repeat it, which may be a secret.
fn is_read<E: Display>(
    path: &Path,
    format: &str,
    text: Result<Value, E>,
    line: impl FnOnce(&E) -> usize,
) -> Result<(), Vec<Problem>> {
    match text {
        // Nothing at all is a table of no keys in YAML.
        Ok(Value::Dict(..) | Value::Empty(..)) => Ok(()),
        Ok(_) => Err(broken(path, 1, "the file is no table of keys".to_owned())),
        Err(error) => Err(broken(path, line(&error).max(1), format!("this is no {format}: {error}"))),
    }
}

/// What is wrong with the text of a file, and from which line on.
fn broken(path: &Path, line: usize, what: String) -> Vec<Problem> {
    vec![Problem { place: Some((path.to_owned(), line)), ..Problem::new("", what) }]
}

/// The layers as one, with nothing checked yet.
pub(super) fn tree(figment: &Figment) -> Result<Dict, Vec<Problem>> {
    let problem = |error: figment::Error| Problem::new(dotted(&error.path), error.kind.to_string());
    figment.extract().map_err(|error| error.into_iter().map(problem).collect())
}

/// The configuration, or as much of what is wrong with it as single values can tell.
pub(super) fn read(mut tree: Dict) -> (Option<Config>, Vec<Problem>) {
    let mut problems = Vec::new();
    for (pattern, what) in NOT_YET {
        refuse(&mut tree, &pattern.split('.').collect::<Vec<_>>(), &mut Vec::new(), what, &mut problems);
    }
    while problems.len() < MOST {
        let error = match Config::deserialize(&Value::from(tree.clone())) {
            Ok(config) => return (Some(config), problems),
            Err(error) => error,
        };
        let Some(error) = error.into_iter().next() else { break };
        let mut path = error.path.clone();
        let what = match &error.kind {
            Kind::UnknownField(field, known) => {
                if path.last() != Some(field) {
                    path.push(field.clone());
                }
                format!("unknown key `{field}`{}", nearest(field, known))
            }
            Kind::UnknownVariant(word, known) => {
                format!("unknown value `{word}`; it is one of {}{}", known.join(", "), close(word, known))
            }
            Kind::MissingField(field) => {
                let missing = dotted(&[&path[..], &[field.to_string()]].concat());
                let within = format!("{missing}.");
                // What was wrong, or had something wrong in it, and has been taken out is not missing, too.
                if !problems.iter().any(|problem| problem.key == missing || problem.key.starts_with(&within)) {
                    problems.push(Problem::new(dotted(&path), format!("the key `{field}` is missing")));
                }
                // Nothing can be taken out that would make it whole, but the thing that lacks it.
                if !remove(&mut tree, &path) {
                    break;
                }
                continue;
            }
            Kind::InvalidType(found, expected) => mistyped(found, expected),
            kind => kind.to_string(),
        };
        problems.push(Problem::new(dotted(&path), what));
        if !remove(&mut tree, &path) {
            break;
        }
    }
    (None, problems)
}

/// What is wrong with a value of another type, without the value: a token of digits is a secret, and so is a key where its hash
/// belongs.
fn mistyped(found: &Actual, expected: &str) -> String {
    let found = match found {
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    };
    let quoted = if expected == "a string" { "; a text has to be in quotes" } else { "" };
    format!("wrong type: expected {expected}, found {found}{quoted}")
}

/// Takes the value at this path out of the tree; where it is inside a list, the list's holder.
fn remove(tree: &mut Dict, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    if rest.is_empty() {
        return tree.remove(first).is_some();
    }
    let removed = match tree.get_mut(first) {
        Some(Value::Dict(_, inner)) => remove(inner, rest),
        _ => false,
    };
    removed || tree.remove(first).is_some()
}

/// Finds the keys of a pattern such as `backends.*.dns` and takes them out with an explanation.
fn refuse(tree: &mut Dict, pattern: &[&str], path: &mut Vec<String>, what: &str, problems: &mut Vec<Problem>) {
    let Some((first, rest)) = pattern.split_first() else { return };
    let keys: Vec<String> = tree.keys().filter(|key| *first == "*" || key == first).cloned().collect();
    for key in keys {
        path.push(key.clone());
        if rest.is_empty() {
            tree.remove(&key);
            problems.push(Problem::new(dotted(path), what));
        } else if let Some(Value::Dict(_, inner)) = tree.get_mut(&key) {
            refuse(inner, rest, path, what, problems);
        }
        path.pop();
    }
}

/// The nearest name, or all there are.
fn nearest(word: &str, known: &[&str]) -> String {
    match close(word, known) {
        none if none.is_empty() && !known.is_empty() => format!("; known here: {}", known.join(", ")),
        close => close,
    }
}

fn close(word: &str, known: &[&str]) -> String {
    let score = |candidate: &str| strsim::jaro_winkler(word, candidate);
    let best = known.iter().max_by(|a, b| score(a).total_cmp(&score(b))).filter(|best| score(best) > 0.7);
    best.map_or_else(String::new, |best| format!("; did you mean `{best}`?"))
}

#[cfg(test)]
mod tests {
    use super::super::place::segments;
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        problems_of(".toml", text)
    }

    fn problems_of(suffix: &str, text: &str) -> Vec<String> {
        let file = tempfile::NamedTempFile::with_suffix(suffix).unwrap();
        std::fs::write(&file, text).unwrap();
        let check = |config: &Config| {
            let names = config.backends.keys();
            names.map(|name| Problem::new(format!("backends.{name}.url"), "it is out of fashion")).collect()
        };
        let problems = load(Some(file.path()), &[], check).err().unwrap_or_default();
        let name = file.path().display().to_string();
        problems.iter().map(|problem| problem.to_string().replace(&name, "F")).collect()
    }

    #[test]
    fn every_problem_is_told_with_its_line_and_the_nearest_name() {
        let text = "[server]\nlisten = \"127.0.0.1:1\"\nbody_limt = \"1MiB\"\ndrain = 30\n\n[backends.gpu]\nkind = \"vlm\"\nurl = \"http://x\"\n\n[models.\"a.b\"]\ntargets = [ { backend = \"gpu\" } ]\n\n[ledger]\npostgres = \"y\"\n";
        let found = problems(text);
        for expect in [
            "F:3: server.body_limt: unknown key `body_limt`; did you mean `body_limit`?",
            "F:4: server.drain: a period needs a unit: write \"30s\" for seconds",
            "F:7: backends.gpu.kind: unknown value `vlm`; it is one of vllm, ollama, llamacpp, openai, anthropic, tidegate, local; did you mean `vllm`?",
            "F:14: ledger.postgres: PostgreSQL is not available in this version; the books are in SQLite",
        ] {
            assert!(found.iter().any(|line| line == expect), "{expect}\nin {found:#?}");
        }
    }

    #[test]
    fn values_are_not_repeated() {
        let text =
            "[admin]\ntoken = 4711\n[organizations.acme]\nkeys = [ \"hunter2\" ]\n[server]\nworkers = \"hunter2\"\n";
        let found = problems(text);
        for expect in [
            "F:2: admin.token: wrong type: expected a string, found a number; a text has to be in quotes",
            "F:4: organizations.acme.keys.0: wrong type: expected struct Key, found a text",
            "F:6: server.workers: wrong type: expected usize, found a text",
        ] {
            assert!(found.iter().any(|line| line == expect), "{expect}\nin {found:#?}");
        }
        assert!(found.iter().all(|line| !line.contains("hunter2") && !line.contains("4711")), "{found:#?}");
    }

    #[test]
    fn what_the_check_finds_and_broken_files_have_a_line() {
        let found = problems("[backends.gpu]\nkind = \"vllm\"\nurl = \"http://x\"\n");
        assert_eq!(found, ["F:3: backends.gpu.url: it is out of fashion"]);
        let found = problems("[server]\nlisten = \n");
        assert!(found[0].starts_with("F:2: this is no TOML"), "{found:?}");
        // Newer versions of TOML have tables in braces over several lines.
        let found = problems("[models.m]\ntargets = [ { backend = \"hunter2\",\n  weight = 2 } ]\n");
        assert!(found.len() == 1 && found[0].starts_with("F:2: this is no TOML 1.0: "), "{found:?}");
        assert!(!found[0].contains('\n') && !found[0].contains("hunter2"), "{found:?}");
        assert_eq!(problems("[server]\nlisten = \"127.0.0.1:1\"\n"), [""; 0]);
    }

    #[test]
    fn other_formats_that_are_broken_have_a_file_and_a_line() {
        for (suffix, text, says) in [
            (".yaml", "server:\n  listen: a: b\n", "F:2: this is no YAML: "),
            (".yml", "listen = hunter2\n", "F:1: the file is no table of keys"),
            (".json", "{\n  \"server\": {,\n", "F:2: this is no JSON: "),
            (".json", "[ \"hunter2\" ]", "F:1: the file is no table of keys"),
        ] {
            let found = problems_of(suffix, text);
            assert!(found.len() == 1 && found[0].starts_with(says), "{text}: {found:?}");
            assert!(!found[0].contains("hunter2"), "{found:?}");
        }
        assert_eq!(problems_of(".yaml", "server:\n  drain: 1s\n"), [""; 0]);
        assert_eq!(problems_of(".yaml", "# Nothing yet.\n"), [""; 0]);
        assert_eq!(problems_of(".json", "{ \"server\": { \"drain\": \"1s\" } }"), [""; 0]);
    }

    #[test]
    fn a_configuration_knows_the_text_it_was_read_from() {
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(&file, "[server]\nlisten = \"127.0.0.1:1\"\n").unwrap();
        let digest = |file| load(file, &[], |_| Vec::new()).unwrap().digest;
        assert_eq!(digest(Some(file.path())).as_deref(), Some("221808ede154"), "as sha256sum has it");
        assert_eq!(digest(None), None);
    }

    #[test]
    fn a_configuration_names_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        let text = "[backends.gpu]\nkind = \"vllm\"\nurl = \"http://x\"\nkey = \"file:k\"\nca = \"c.pem\"\n\
                    [backends.here]\nweights = \"w.gguf\"\n[server.tls]\ncert = \"s.pem\"\nkey = \"s.key\"\n[plugins.p]\npath = \"p.wasm\"\nconfig = { deep = [ { token = \"file:t\" } ], path = \"no\" }\n";
        std::fs::write(&path, text).unwrap();
        let found = files(Some(&path), &[]);
        let mut names: Vec<_> = found[1..].iter().map(|file| file.display().to_string()).collect();
        names.sort();
        assert_eq!(
            (&found[0], names.join(" ")),
            (&path, "c.pem k p.wasm s.key s.pem t w.gguf".into()),
            "those of a bad one, too"
        );
        std::fs::write(&path, "[").unwrap();
        assert_eq!(files(Some(&path), &[]), std::slice::from_ref(&path));
    }

    #[test]
    fn keys_split_and_join() {
        for key in ["a.b", "models.\"x.y:z\".targets"] {
            assert_eq!(dotted(&segments(key)), key);
        }
    }
}
