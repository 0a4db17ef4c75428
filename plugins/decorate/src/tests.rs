//! Rules on calls.

use serde_json::{Value, json};
use tidegate_plugin::testing::{Chat, Trial, World};
use tidegate_plugin::{Effort, Parameters, Thinking};

use super::*;

#[test]
fn instructions_come_before_and_behind() {
    let rule = |rule: Value| json!({"rules": [rule]});
    let cases: &[(Value, Chat, &[&str])] = &[
        (rule(json!({"prepend": "P"})), Chat::user("u"), &["P", "u"]),
        (rule(json!({"prepend": "P"})), Chat::user("u").system("s"), &["P\n\ns", "u"]),
        (rule(json!({"append": "A"})), Chat::user("u"), &["A", "u"]),
        (rule(json!({"append": "A"})), Chat::user("u").system("s"), &["s\n\nA", "u"]),
        (
            rule(json!({"append": "A"})),
            Chat::new().says("system", "s").says("developer", "d").says("user", "u"),
            &["s", "d\n\nA", "u"],
        ),
        (rule(json!({"prepend": "P", "append": "A"})), Chat::user("u").system("s"), &["P\n\ns\n\nA", "u"]),
        (json!({"rules": [{"prepend": "1"}, {"prepend": "2"}]}), Chat::user("u"), &["2\n\n1", "u"]),
        (
            rule(json!({"prepend": "{date} {project} of {organization}, {model}, {unknown} {"})),
            Chat::user("u"),
            &["2023-11-14 web of acme, test, {unknown} {", "u"],
        ),
    ];
    for (config, chat, expect) in cases {
        let trial = Trial::<Decorate>::new(config.clone());
        let request = trial.call(chat.clone());
        assert_eq!(
            (request.texts(), request.verdict),
            (expect.iter().map(|t| (*t).into()).collect(), Verdict::Change),
            "{config}"
        );
    }
}

#[test]
fn parameters_are_filled_set_cut_and_removed() {
    let client = Chat::user("u").with("temperature", 1.5).with("max_tokens", 4000).with("seed", 7);
    let said = Parameters { temperature: Some(1.5), max_tokens: Some(4000), seed: Some(7), ..Parameters::default() };
    let cases: [(Value, Parameters); 7] = [
        (json!({"defaults": {"temperature": 0.0, "top_p": 0.9}}), Parameters { top_p: Some(0.9), ..said.clone() }),
        (json!({"overrides": {"temperature": 0.0}}), Parameters { temperature: Some(0.0), ..said.clone() }),
        (
            json!({"limits": {"temperature": 1.0, "max_tokens": 9000}}),
            Parameters { temperature: Some(1.0), ..said.clone() },
        ),
        (json!({"limits": {"max_tokens": 1000}}), Parameters { max_tokens: Some(1000), ..said.clone() }),
        (
            json!({"remove": ["seed", "max_tokens"], "limits": {"max_tokens": 10}}),
            Parameters { seed: None, max_tokens: Some(10), ..said.clone() },
        ),
        (
            json!({"defaults": {"stop": ["END"], "thinking": "low"}}),
            Parameters { stop: vec!["END".into()], thinking: Some(Thinking::Effort(Effort::Low)), ..said.clone() },
        ),
        (json!({"defaults": {"seed": 8}}), said.clone()),
    ];
    for (rule, expect) in cases {
        let trial = Trial::<Decorate>::new(json!({"rules": [rule]}));
        let request = trial.call(client.clone());
        assert_eq!(request.call.parameters(), expect, "{rule}");
        assert_eq!(request.verdict, if expect == said { Verdict::Pass } else { Verdict::Change }, "{rule}");
    }
}

#[test]
fn rules_fit_by_name() {
    for (rule, fits) in [
        (json!({"projects": ["web"]}), true),
        (json!({"projects": ["mobile", "w*"]}), true),
        (json!({"projects": ["mobile"]}), false),
        (json!({"organizations": ["acme"], "models": ["te*"]}), true),
        (json!({"organizations": ["other"], "models": ["te*"]}), false),
        (json!({"models": ["gpt-*"]}), false),
        (json!({"endpoints": ["chat/*"]}), true),
        (json!({"endpoints": ["messages"]}), false),
    ] {
        let mut config = rule.clone();
        config["prepend"] = "P".into();
        let trial = Trial::<Decorate>::new(json!({"rules": [config]}));
        assert_eq!(trial.call(Chat::user("u")).verdict == Verdict::Change, fits, "{rule}");
        assert_eq!(World::metric("changed", ""), f64::from(u8::from(fits)));
    }
}

#[test]
fn mistakes_in_the_configuration_are_found() {
    for config in [
        json!({}),
        json!({"rules": []}),
        json!({"rules": [{"default": {}}]}),
        json!({"rules": [{"defaults": {"temperature": 3}}]}),
        json!({"rules": [{"defaults": {"heat": 1}}]}),
        json!({"rules": [{"remove": ["model"]}]}),
    ] {
        assert!(Trial::<Decorate>::problem(config.clone()).is_some(), "{config}");
    }
}

#[test]
fn the_examples_load() {
    let configs = readme::configs(include_str!("../README.md"));
    assert!(!configs.is_empty());
    for config in configs {
        assert_eq!(Trial::<Decorate>::problem(config.clone()), None, "{config}");
    }
}
