use super::*;
use http::HeaderValue;

fn gate() -> Gate {
    let key = |id: &str, secret: &str| format!(r#"{{"id":"{id}","hash":"{}"}}"#, hash_of(secret));
    let organizations = format!(
        r#"{{"acme":{{"keys":[{}],"projects":{{"web":{{"keys":[{}],"models":["qwen3:*","exact"]}},"old":{{"archived":true}}}}}},"beta":{{"projects":{{"lab":{{}}}}}}}}"#,
        key("ops", "dforg_1"),
        key("web-1", "dfproj_1")
    );
    let users = format!(
        r#"{{"root":{{"admin":true,"keys":[{}]}},"ann":{{"organizations":["acme"],"keys":[{}]}}}}"#,
        key("r", "dfuser_root"),
        key("a", "dfuser_ann")
    );
    Gate::build(&Config {
        organizations: serde_json::from_str(&organizations).unwrap(),
        users: serde_json::from_str(&users).unwrap(),
    })
    .unwrap()
}

/// Headers as `name: value`, one a line.
fn headers(text: &str) -> HeaderMap {
    text.split('\n')
        .filter(|line| !line.is_empty())
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect()
}

#[test]
fn the_credentials_and_the_two_headers() {
    let gate = gate();
    let cases: &[(&str, Result<&str, u16>)] = &[
        ("authorization: Bearer dfproj_1", Ok("acme/web/web-1")),
        ("Authorization: bearer dfproj_1", Ok("acme/web/web-1")),
        ("x-api-key: dfproj_1", Ok("acme/web/web-1")),
        ("x-api-key: dfproj_1\nauthorization: Bearer dfproj_1", Ok("acme/web/web-1")),
        ("x-api-key: dfproj_1\nauthorization: Bearer dforg_1", Err(400)),
        ("authorization: Bearer dfproj_1\nopenai-project: web\nopenai-organization: acme", Ok("acme/web/web-1")),
        ("authorization: Bearer dfproj_1\nopenai-project: old", Err(403)),
        ("authorization: Bearer dfproj_1\nopenai-organization: beta", Err(403)),
        ("authorization: Bearer dfproj_1\nopenai-project: web\nopenai-project: web", Err(400)),
        ("authorization: Bearer dfproj_1\nopenai-project: we b", Err(400)),
        ("authorization: Bearer dforg_1", Err(400)),
        ("authorization: Bearer dforg_1\nopenai-project: web", Ok("acme/web/ops")),
        ("authorization: Bearer dforg_1\nopenai-project: lab", Err(403)),
        ("authorization: Bearer dforg_1\nopenai-project: old", Err(403)),
        ("authorization: Bearer dfuser_ann\nopenai-project: web", Err(400)),
        ("authorization: Bearer dfuser_ann\nopenai-project: web\nopenai-organization: acme", Ok("acme/web/a")),
        ("authorization: Bearer dfuser_ann\nopenai-project: lab\nopenai-organization: beta", Err(403)),
        ("authorization: Bearer dfuser_root\nopenai-project: lab\nopenai-organization: beta", Ok("beta/lab/r")),
        ("authorization: Bearer nobody", Err(401)),
        ("authorization: Basic x", Err(401)),
        ("authorization: Basic x\nx-api-key: dfproj_1", Err(401)),
        ("authorization: Bearerdfproj_1", Err(401)),
        // What HTTP/1.1 leaves of `Bearer ` and an empty key.
        ("authorization: Bearer", Err(401)),
        ("authorization: Bearer\nx-api-key: dfproj_1", Ok("acme/web/web-1")),
        ("authorization: \nx-api-key: dfproj_1", Ok("acme/web/web-1")),
        ("authorization: é", Err(401)),
        ("", Err(401)),
    ];
    for (text, expect) in cases {
        let answer = gate
            .admit(&headers(text))
            .map(|admitted| {
                format!("{}/{}/{}", admitted.caller.organization, admitted.caller.project, admitted.caller.key)
            })
            .map_err(|denied| denied.fault.status());
        assert_eq!(answer.as_deref().map_err(|status| *status), *expect, "{text}");
    }
}

#[test]
fn models_by_pattern() {
    let admitted = gate().admit(&headers("x-api-key: dfproj_1")).unwrap();
    for (model, may) in [("qwen3:0.6b", true), ("qwen3", false), ("exact", true), ("exactly", false), ("other", false)]
    {
        assert_eq!(admitted.may_use(model), may, "{model}");
    }
    for (pattern, name, matches) in [
        ("*", "", true),
        ("a*c", "abc", true),
        ("a*c", "ac", true),
        ("a*c", "acb", false),
        ("*b*", "abc", true),
        ("a*b*c", "a-b-b-c", true),
    ] {
        assert_eq!(Pattern::new(pattern).matches(name), matches, "{pattern} {name}");
    }
}

#[test]
fn a_key_belongs_to_one_place() {
    let project =
        |id: &str| format!(r#"{{"projects":{{"{id}":{{"keys":[{{"id":"k","hash":"{}"}}]}}}}}}"#, hash_of("same"));
    let organizations = format!(r#"{{"a":{},"b":{}}}"#, project("p"), project("q"));
    let errors = Gate::build(&Config {
        organizations: serde_json::from_str(&organizations).unwrap(),
        users: Default::default(),
    })
    .unwrap_err();
    assert!(
        errors[0].contains("organizations.b.projects.q.keys.k")
            && errors[0].contains("organizations.a.projects.p.keys.k"),
        "{errors:?}"
    );
}

#[test]
fn keys_of_one_holder_have_ids_of_their_own() {
    let key = |id: &str, text: &str| format!(r#"{{"id":"{id}","hash":"{}"}}"#, hash_of(text));
    let two = |one: &str, other: &str| format!("[{},{}]", key(one, "1"), key(other, "2"));
    let organizations = format!(
        r#"{{"acme":{{"keys":{},"projects":{{"lab":{{"keys":{}}},"web":{{"keys":{}}}}}}}}}"#,
        two("a", "a"),
        two("a", "b"),
        two("b", "b")
    );
    let users = format!(r#"{{"ann":{{"keys":{}}},"root":{{"keys":{}}}}}"#, two("a", "b"), two("c", "c"));
    let config = Config {
        organizations: serde_json::from_str(&organizations).unwrap(),
        users: serde_json::from_str(&users).unwrap(),
    };
    let errors = config.errors();
    let places: Vec<_> = errors.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["organizations.acme.keys", "organizations.acme.projects.web.keys", "users.root.keys"]);
    assert!(errors[0].1.contains("`a`") && errors[2].1.contains("`c`"), "{errors:?}");
}

#[test]
fn fresh_keys_differ_and_hash_as_sha256sum_does() {
    let (one, two) = (fresh_key("dfproj_").unwrap(), fresh_key("dfproj_").unwrap());
    assert!(one != two && one.starts_with("dfproj_") && one.len() == 39);
    assert_eq!(hash_of("dfproj_bench"), "sha256:0ae4ff38876e055345ad668b05c58fc80c58b1d5ce0d9a7190533375ac380e7a");
}
