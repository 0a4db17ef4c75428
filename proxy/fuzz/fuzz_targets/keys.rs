//! Credentials: whatever the headers say, nobody gets in without a key, and nobody into another's project.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use tidegate_fuzz::gate::{Config, Gate, hash_of};

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(12) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    match gate().admit(&headers) {
        Err(denied) => assert!([400, 401, 403].contains(&denied.fault.status()), "{denied:?}"),
        Ok(admitted) => {
            let carried = |secret: &str| {
                let values = ["authorization", "x-api-key"].iter().flat_map(|name| headers.get_all(*name));
                values.into_iter().any(|value| value.as_bytes().ends_with(secret.as_bytes()))
            };
            let caller = &admitted.caller;
            let expect = match &*caller.key {
                "web-1" => ("dfproj_1", ("acme", "web"), None),
                "ops" => ("dforg_1", ("acme", &*caller.project), None),
                "a" => ("dfuser_ann", ("acme", &*caller.project), Some("ann")),
                "r" => ("dfuser_root", (&*caller.organization, &*caller.project), Some("root")),
                key => panic!("a key nobody made: {key}"),
            };
            assert!(carried(expect.0), "{caller:?} without its key");
            assert_eq!((&*caller.organization, &*caller.project), expect.1);
            assert_eq!(caller.user.as_deref(), expect.2);
            assert_ne!(&*caller.project, "old", "an archived project");
            for (name, is) in [("openai-organization", &caller.organization), ("openai-project", &caller.project)] {
                let said = headers.get(name).map(|value| value.as_bytes().trim_ascii()).filter(|said| !said.is_empty());
                assert!(said.is_none_or(|said| said == is.as_bytes()), "{caller:?} under {name} {said:?}");
            }
        }
    }
});

fn gate() -> &'static Gate {
    static GATE: OnceLock<Gate> = OnceLock::new();
    GATE.get_or_init(|| {
        let key = |id: &str, secret: &str| format!(r#"{{"id":"{id}","hash":"{}"}}"#, hash_of(secret));
        let (ops, web, root, ann) =
            (key("ops", "dforg_1"), key("web-1", "dfproj_1"), key("r", "dfuser_root"), key("a", "dfuser_ann"));
        let organizations = format!(
            r#"{{"acme":{{"keys":[{ops}],"projects":{{"web":{{"keys":[{web}]}},"old":{{"archived":true}}}}}},"beta":{{"projects":{{"lab":{{}}}}}}}}"#
        );
        let users =
            format!(r#"{{"root":{{"admin":true,"keys":[{root}]}},"ann":{{"organizations":["acme"],"keys":[{ann}]}}}}"#);
        let config = Config {
            organizations: serde_json::from_str(&organizations).expect("organizations"),
            users: serde_json::from_str(&users).expect("users"),
        };
        Gate::build(&config).expect("a gate")
    })
}
