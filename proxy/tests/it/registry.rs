//! Plugins from a registry: what is pulled, what is not, and what a start says that gets nothing.

use crate::certificates::{self, authority};
use crate::fake::{Act, Fake, json};
use crate::gateway::{Gateway, one_backend};
use crate::guest::{CALL, Guest, ON_CALL, fake, wat};
use serde_json::{Value, json as object};
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tempfile::tempdir;
use tidegate::plugin::{Folders, Host, Settings};
use tokio_rustls::rustls::ServerConnection;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `ada:secret` as HTTP writes it; the fake sees heads in lower case.
const ADA: &str = "YWRhOnNlY3JldA==";

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// What a registry holds: the component of `pass.wat`, and whatever a case adds or falsifies.
#[derive(Clone, Default)]
struct Content {
    /// What is answered for a digest.
    pieces: HashMap<String, Vec<u8>>,
    /// Whether a token is needed, which `ada` gets.
    guarded: bool,
    /// Bytes that are announced and not sent.
    missing: usize,
    /// Breaks off whatever is asked for the first time.
    flaky: bool,
}

impl Content {
    fn add(&mut self, bytes: &[u8]) -> String {
        self.pieces.insert(digest(bytes), bytes.to_vec());
        digest(bytes)
    }

    fn add_json(&mut self, value: &Value) -> String {
        self.add(value.to_string().as_bytes())
    }

    /// A manifest with one layer of this type, which holds these bytes.
    fn image(&mut self, layer_type: &str, bytes: &[u8]) -> String {
        let layer = self.add(bytes);
        self.manifest(&[(layer_type, &layer, bytes.len() as u64)])
    }

    fn manifest(&mut self, layers: &[(&str, &str, u64)]) -> String {
        let layers: Vec<Value> = layers
            .iter()
            .map(|(kind, digest, size)| object!({ "mediaType": kind, "digest": digest, "size": size }))
            .collect();
        let config =
            object!({ "mediaType": "application/vnd.wasm.config.v0+json", "digest": digest(b"{}"), "size": 2 });
        self.add_json(&object!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }))
    }

    fn index(&mut self, manifests: &[(&str, &str)]) -> String {
        let entries: Vec<Value> = manifests
            .iter()
            .map(|(architecture, digest)| {
                object!({ "mediaType": MANIFEST, "digest": digest, "size": 1, "platform": { "architecture": architecture, "os": "wasip2" } })
            })
            .collect();
        self.add_json(&object!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }))
    }

    fn serve(self) -> Fake {
        let known = Mutex::new(HashSet::new());
        Fake::start(move |seen| {
            let path = seen.head.split(' ').nth(1).unwrap_or_default();
            let host = seen.head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
            let has =
                |credential: &str| seen.head.contains(&format!("authorization: {credential}").to_ascii_lowercase());
            if path.starts_with("/token?") {
                assert!(path.contains("scope=repository%3aacme%2fpass%3apull"), "{path}");
                return match has(&format!("basic {ADA}")) {
                    true => json(200, "", r#"{"token":"t0ken"}"#),
                    false => json(401, "", "who are you?"),
                };
            }
            if self.guarded && !has("bearer t0ken") {
                let ask = format!("www-authenticate: Bearer realm=\"http://{host}/token\",service=\"fake\"\r\n");
                return json(401, &ask, r#"{"errors":[{"code":"UNAUTHORIZED","message":"a token, please"}]}"#);
            }
            let name = path.rsplit('/').next().unwrap_or_default();
            let Some(bytes) = self.pieces.get(name) else {
                return match path {
                    "/v2/" => json(200, "", "{}"),
                    _ => json(404, "", r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#),
                };
            };
            let blob = path.contains("/blobs/");
            let broken = self.flaky && known.lock().unwrap().insert(path.to_owned());
            if broken && !blob {
                return vec![Act::Close];
            }
            let missing = if broken { 100 } else { self.missing };
            let (kind, missing) = if blob { ("application/octet-stream", missing) } else { (MANIFEST, 0) };
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                bytes.len() + missing
            );
            vec![Act::Send([head.as_bytes(), bytes].concat()), Act::Close]
        })
    }
}

/// Puts something into a registry and says which digest to ask for.
type Fill<'a> = dyn Fn(&mut Content) -> String + 'a;

/// The bytes of a component that lets everything pass.
fn component() -> Vec<u8> {
    std::fs::read(&Guest::new(&wat(ON_CALL, "")).0).unwrap()
}

/// Loads the plugin as a gateway does: its size, or what is wrong.
fn load(kept: &Path, reference: &str, more: &Value) -> Result<usize, String> {
    let mut settings = object!({ "oci": reference });
    settings.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let settings: Settings = serde_json::from_value(settings).unwrap();
    let folders = Folders { compiled: None, pulled: Some(kept.to_owned()) };
    let host = Host::new(folders, &prometheus::Registry::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(host.load(&Arc::from("p"), &settings)).map(|(_, facts)| facts.size)
}

#[test]
fn components_come_in_each_shape_that_tools_push() {
    let component = component();
    let wasm = "application/wasm";
    let cases: [(&str, &Fill); 5] = [
        ("as the wasm tools push it", &|content| content.image(wasm, &component)),
        ("an older type", &|content| content.image("application/vnd.wasm.content.layer.v1+wasm", &component)),
        ("another older type", &|content| {
            content.image("application/vnd.module.wasm.content.layer.v1+wasm", &component)
        }),
        ("an index of one", &|content| {
            let image = content.image(wasm, &component);
            content.index(&[("amd64", &image)])
        }),
        ("an index with one for wasm, a layer with one that is", &|content| {
            let layer = content.add(&component);
            let readme = content.add(b"# pass");
            let image = content.manifest(&[("text/markdown", &readme, 6), (wasm, &layer, component.len() as u64)]);
            content.index(&[("amd64", &digest(b"other")), ("wasm", &image)])
        }),
    ];
    for (name, fill) in cases {
        let (kept, mut content) = (tempdir().unwrap(), Content::default());
        let digest = fill(&mut content);
        let registry = content.serve();
        let reference = format!("{}/acme/pass:1@{digest}", registry.address);
        assert_eq!(load(kept.path(), &reference, &Value::Null), Ok(component.len()), "{name}");
        // From here on nobody is asked.
        let asked = registry.seen().len();
        assert_eq!(load(kept.path(), &reference, &Value::Null), Ok(component.len()), "{name}, again");
        assert_eq!(registry.seen().len(), asked, "{name}");
    }
}

#[test]
fn what_is_wrong_is_told_and_nothing_is_loaded() {
    let component = component();
    let size = component.len() as u64;
    let wasm = "application/wasm";
    let cases: [(&str, &Fill, &[&str]); 14] = [
        ("not there", &|_| digest(b"nowhere"), &[" has no 127.0.0.1:", "look at repository and digest"]),
        (
            "no layer is wasm",
            &|content| content.image("application/vnd.oci.image.layer.v1.tar+gzip", &component),
            &["is no component", "[application/vnd.oci.image.layer.v1.tar+gzip]", "`wkg oci push`"],
        ),
        (
            "two layers are",
            &|content| {
                let layer = content.add(&component);
                content.manifest(&[(wasm, &layer, size), (wasm, &layer, size)])
            },
            &["must have one layer"],
        ),
        (
            "another manifest",
            &|content| {
                let asked = content.image(wasm, &component);
                content.pieces.insert(asked.clone(), b"{}".to_vec());
                asked
            },
            &["sent something else", "Nothing of it was used"],
        ),
        (
            "another component",
            &|content| {
                let image = content.image(wasm, &component);
                content.pieces.insert(digest(&component), vec![0; component.len()]);
                image
            },
            &["sent something else", "Nothing of it was used"],
        ),
        (
            "more than was said",
            &|content| {
                let image = content.image(wasm, &component);
                content.pieces.insert(digest(&component), [&component[..], b"more"].concat());
                image
            },
            &["sent something else", "more bytes than the manifest says"],
        ),
        (
            "cut off",
            &|content| {
                content.missing = 100;
                content.image(wasm, &component)
            },
            &["stopped after", "try again"],
        ),
        (
            "too large",
            &|content| {
                let layer = content.add(&component);
                content.manifest(&[(wasm, &layer, 1 << 30)])
            },
            &["is 1073741824 bytes large"],
        ),
        (
            "a layer that is no digest",
            &|content| content.manifest(&[(wasm, "sha256:../../x", 1)]),
            &["leads to `sha256:../../x`, which is no SHA-256 digest"],
        ),
        (
            "a layer that is not there",
            &|content| content.manifest(&[(wasm, &digest(b"gone"), 4)]),
            &[" has no 127.0.0.1:"],
        ),
        ("no manifest", &|content| content.add(&component), &["something that is no manifest"]),
        (
            "an index of several",
            &|content| {
                let (one, other) = (content.image(wasm, &component), digest(b"other"));
                content.index(&[("wasm", &one), ("wasm", &other)])
            },
            &["is an index of 2 manifests, 2 of them for wasm", "name the digest of the one"],
        ),
        (
            "an index of indexes",
            &|content| {
                let image = content.image(wasm, &component);
                let inner = content.index(&[("wasm", &image)]);
                content.index(&[("wasm", &inner)])
            },
            &["is an index of indexes"],
        ),
        ("no wasm in it", &|content| content.image(wasm, b"#!/bin/sh"), &["this is no WebAssembly file"]),
    ];
    for (name, fill, says) in cases {
        let (kept, mut content) = (tempdir().unwrap(), Content::default());
        let digest = fill(&mut content);
        let registry = content.serve();
        let error = load(kept.path(), &format!("{}/acme/pass@{digest}", registry.address), &Value::Null).unwrap_err();
        for says in says {
            assert!(error.contains(says), "{name}: {error}");
        }
    }
    // The pin is of the component, wherever it comes from.
    let (kept, mut content) = (tempdir().unwrap(), Content::default());
    let image = content.image(wasm, &component);
    let reference = format!("{}/acme/pass@{image}", content.serve().address);
    let error = load(kept.path(), &reference, &object!({ "sha256": "00" })).unwrap_err();
    assert!(error.contains("not the pinned 00"), "{error}");
    assert_eq!(load(kept.path(), &reference, &object!({ "sha256": digest(&component) })), Ok(component.len()));
}

/// A kept connection that the registry closes the moment it is used, a body that breaks off: the pull goes on where it was.
#[test]
fn a_pull_that_breaks_off_is_tried_again() {
    let component = component();
    let mut content = Content { flaky: true, ..Content::default() };
    let image = content.image("application/wasm", &component);
    let registry = content.serve();
    let kept = tempdir().unwrap();
    let reference = format!("{}/acme/pass@{image}", registry.address);
    assert_eq!(load(kept.path(), &reference, &Value::Null), Ok(component.len()));
    let asked = |what: &str| registry.seen().iter().filter(|seen| seen.head.contains(what)).count();
    assert_eq!((asked("/manifests/"), asked("/blobs/")), (2, 2), "what came is not asked for again");
}

#[test]
fn credentials_are_asked_for_and_used() {
    let component = component();
    let mut content = Content { guarded: true, ..Content::default() };
    let image = content.image("application/wasm", &component);
    let registry = content.serve();
    let reference = format!("{}/acme/pass@{image}", registry.address);
    let kept = tempdir().unwrap();
    let auth = |password: &str| object!({ "registry_auth": { "username": "ada", "password": password } });
    for (more, says) in [
        (Value::Null, ["wants to know who pulls", "add registry_auth"]),
        (auth("wrong"), ["does not let `ada` pull", "who are you?"]),
    ] {
        let error = load(kept.path(), &reference, &more).unwrap_err();
        assert!(says.iter().all(|says| error.contains(says)) && !error.contains("wrong"), "{error}");
    }
    assert_eq!(load(kept.path(), &reference, &auth("secret")), Ok(component.len()));
    // The name and password went to where the token is, and nowhere else.
    let seen = registry.seen();
    let told: Vec<_> = seen.iter().filter(|seen| seen.head.contains(&ADA.to_ascii_lowercase())).collect();
    assert!(!told.is_empty() && told.iter().all(|seen| seen.head.starts_with("get /token?")), "{told:?}");
}

/// A registry that shows a certificate which nobody vouches for; its address.
fn distrusted() -> SocketAddr {
    let (config, listener) =
        (Arc::new(certificates::server("127.0.0.1", &authority())), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // The gateway leaves in the middle.
            let _ = ServerConnection::new(config.clone()).unwrap().complete_io(&mut stream.unwrap());
        }
    });
    address
}

/// A server that knows no TLS, and says so in its own words; its address.
fn plain() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
        }
    });
    address
}

#[test]
fn a_registry_on_this_machine_is_spoken_to_as_the_configuration_says() {
    let (kept, image) = (tempdir().unwrap(), digest(b"x"));
    let secure = object!({ "registry_insecure": false });
    let error = load(kept.path(), &format!("{}/acme/pass@{image}", distrusted()), &secure).unwrap_err();
    assert!(error.contains("cannot be trusted (invalid peer certificate: UnknownIssuer)"), "{error}");
    assert!(error.contains("SSL_CERT_FILE") && !error.contains("registry_insecure"), "{error}");
    for (status, words, says) in [
        (400, "Client sent an HTTP request to an HTTPS server.", "speaks TLS, and plain HTTP was spoken to it"),
        (500, "unknown error", "with status 500 (unknown error): try again later, or ask who runs it. Is the digest"),
    ] {
        let registry = Fake::start(move |_| json(status, "", words));
        let error = load(kept.path(), &format!("{}/acme/pass@{image}", registry.address), &Value::Null).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let error = load(kept.path(), &format!("{}/acme/pass@{image}", plain()), &secure).unwrap_err();
    assert!(error.contains("A registry without TLS needs registry_insecure = true"), "{error}");
}

#[test]
fn a_gateway_starts_again_while_the_registry_is_gone() {
    let component = component();
    let mut content = Content::default();
    let image = content.image("application/wasm", &component);
    // Nothing listens there once the probe is dropped.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let kept = tempdir().unwrap();
    let unreachable = load(kept.path(), &format!("{gone}/acme/pass@{image}"), &Value::Null).unwrap_err();
    assert!(unreachable.contains("cannot be reached") && unreachable.contains("refused"), "{unreachable}");

    let registry = content.serve();
    assert!(load(kept.path(), &format!("{}/acme/pass@{image}", registry.address), &Value::Null).is_ok());
    // The digest says what it is, not who has it.
    assert_eq!(load(kept.path(), &format!("{gone}/acme/pass@{image}"), &Value::Null), Ok(component.len()));
    let file = kept.path().join(digest(&component).replace(':', "-"));
    std::fs::write(&file, b"\0asm tampered with").unwrap();
    let error = load(kept.path(), &format!("{gone}/acme/pass@{image}"), &Value::Null).unwrap_err();
    assert!(error.contains("cannot be reached"), "{error}");

    let backend = fake();
    let section = format!("[plugins.p]\noci = \"{}/acme/pass@{image}\"\n", registry.address);
    let gateway = Gateway::start(&format!("{}{section}", one_backend("openai", &backend.url(), "")));
    assert_eq!(gateway.post("/v1/chat/completions", CALL).status, 200);
    let metrics = gateway.operator("/metrics").body;
    assert!(metrics.contains("tidegate_plugin_duration_seconds_count{hook=\"on_call\",plugin=\"p\"} 1"), "{metrics}");
}

#[test]
fn check_asks_no_registry_unless_it_is_told_to() {
    let component = component();
    let mut content = Content { guarded: true, ..Content::default() };
    let image = content.image("application/wasm", &component);
    let registry = content.serve();
    let reference = format!("{}/acme/pass@{image}", registry.address);
    let root = tempdir().unwrap();
    let folder = root.path();
    let auth = format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{ADA}\"}}}}}}", registry.address);
    std::fs::write(folder.join("config.json"), auth).unwrap();
    std::fs::write(folder.join("tidegate.toml"), format!("[plugins.p]\noci = \"{reference}\"\n")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(arguments).current_dir(folder).env("DOCKER_CONFIG", folder).env("XDG_CACHE_HOME", folder);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (good, says) = run(&["check"]);
    assert!(good && says.contains("plugins.p was not looked into"), "{says}");
    assert!(registry.seen().is_empty());
    let (good, says) = run(&["check", "--pull"]);
    assert!(good && says.contains("1 plugins") && !says.contains("looked into"), "{says}");
    let asked = registry.seen().len();
    let (good, says) = run(&["check"]);
    assert!(good && says.contains("1 plugins") && !says.contains("looked into"), "{says}");
    assert_eq!(registry.seen().len(), asked);
    let nowhere = reference.replace(&image, &digest(b"nowhere"));
    std::fs::write(folder.join("nowhere.toml"), format!("\n[plugins.p]\noci = \"{nowhere}\"\n")).unwrap();
    let (good, says) = run(&["check", "--pull", "--config", "nowhere.toml"]);
    assert!(!good && says.contains(&format!("  nowhere.toml:2: plugins.p: {} has no ", registry.address)), "{says}");
    let (good, says) = run(&["plugin", "check", &reference]);
    assert!(good && says.contains(&format!("{} bytes", component.len())), "{says}");
    let (good, says) = run(&["plugin", "check", "p", "--format", "json"]);
    let told: serde_json::Value = serde_json::from_str(&says).unwrap_or_else(|_| panic!("{says}"));
    assert_eq!((good, &told["file"], &told["size"]), (true, &reference.into(), &component.len().into()));
}
