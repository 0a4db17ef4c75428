//! `tidegate import`: a configuration made from that of another gateway.
//!
//! What is printed is for a person to finish: all that could not be carried over stands in it as a comment, with its line in the
//! file it came from, and no secret does.

mod draft;
mod litellm;
mod place;
mod provider;
mod route;
mod section;
mod why;

use super::From;
use crate::config::Problem;
use clap::{Args, Subcommand};
use draft::Taken;
use figment::providers::{Format as _, Yaml};
use serde_json::Value;
use std::path::{Path, PathBuf};

const EXAMPLE: &str = "Example:\n  tidegate import litellm config.yaml > tidegate.toml\n  \
                       tidegate import litellm config.yaml --config tidegate.toml >> tidegate.toml";

/// Make a configuration from that of another gateway, and print it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Import {
    #[command(flatten)]
    from: From,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// From the `config.yaml` of LiteLLM's proxy. With `--config`, names that are in that configuration are not used again.
    Litellm(Litellm),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
struct Litellm {
    /// LiteLLM's `config.yaml`.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Import {
    pub fn run(self) -> Result<(), String> {
        let Verb::Litellm(Litellm { file }) = self.verb;
        let mut taken = Taken::default();
        // Only where it was named: the one that is here is the one that is to be replaced, as a rule.
        if self.from.config.is_some() {
            let config = self.from.load(&[])?;
            taken.backends = config.backends.keys().map(ToString::to_string).collect();
            taken.models = config.models.keys().map(ToString::to_string).collect();
        }
        let text =
            std::fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let (made, notes) = import(&file, &text, taken)?;
        super::print(&made);
        if notes > 0 {
            let keys = if notes == 1 { "1 key".to_owned() } else { format!("{notes} keys") };
            eprintln!(
                "tidegate: {keys} of {} could not be carried over as they were; see the comments",
                file.display()
            );
        }
        Ok(())
    }
}

/// The configuration made of this text, and how many keys need a look.
fn import(file: &Path, text: &str, taken: Taken) -> Result<(String, usize), String> {
    let mut tree: Value = Yaml::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let problem = Problem::new("", format!("this is no YAML: {error}"));
        super::explain(&[Problem { place: Some((file.to_owned(), line)), ..problem }])
    })?;
    section::merge(&mut tree);
    let draft = litellm::read(tree, taken).map_err(|notes| {
        let problem = |note: &section::Note| {
            let place = Some((file.to_owned(), place::line(text, &note.place)));
            Problem { place, ..Problem::new(section::dotted(&note.place), note.why.clone()) }
        };
        super::explain(&notes.iter().map(problem).collect::<Vec<_>>())
    })?;
    Ok(draft.write(&file.display().to_string(), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::Policy;
    use crate::config::Config;

    /// As people write them: anchors, wildcards, several deployments, secrets in the open, a provider that is not known here.
    const CONFIG: &str = r#"model_list:
  - model_name: gpt-4o
    litellm_params: &openai
      model: openai/gpt-4o
      api_key: os.environ/OPENAI_API_KEY
      rpm: 600
      timeout: 300
      stream_timeout: 60
    model_info:
      input_cost_per_token: 0.0000025
      output_cost_per_token: 1e-05
      cache_read_input_token_cost: 0.00000125
      max_tokens: 16384
      mode: chat
      team_id: team-7
  - model_name: gpt-4o
    litellm_params:
      <<: *openai
      api_key: sk-open-secret
      rpm: 200
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://eu.openai.azure.com
      api_key: azure-open-secret
      api_version: "2024-02-01"
  - model_name: qwen
    litellm_params:
      model: hosted_vllm/Qwen/Qwen3-8B
      api_base: http://gpu1:8000/v1
      order: 1
      temperature: 0.2
  - model_name: qwen
    litellm_params:
      model: openai/qwen3
      api_base: https://me:url-open-secret@models.example/v1
      api_key: none
      order: 2
  - model_name: llama
    litellm_params:
      model: ollama_chat/llama3:8b
      api_base: os.environ/OLLAMA_BASE
  - model_name: "claude-*"
    litellm_params:
      model: anthropic/claude-*
  - model_name: "bedrock/*"
    litellm_params:
      model: bedrock/*
      aws_secret_access_key: aws-open-secret
router_settings:
  routing_strategy: simple-shuffle
  num_retries: 2
  model_group_alias: {"gpt-4": "gpt-4o"}
  fallbacks:
    - gpt-4o: [qwen, nowhere]
  redis_password: redis-open-secret
litellm_settings:
  num_retries: 5
  default_fallbacks: [llama]
  drop_params: true
general_settings:
  master_key: sk-master-open-secret
  database_url: postgresql://u:db-open-secret@db/litellm
environment_variables:
  LANGFUSE_SECRET_KEY: langfuse-open-secret
"#;

    /// Reads it as `tidegate check` does. Its variables are not set here: their names stand for what would be in them.
    fn checked(made: &str) -> Config {
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(&file, made.replace("\"env:", "\"")).unwrap();
        crate::app::load(Some(file.path()), &[]).unwrap_or_else(|problems| panic!("{problems:#?}\nin\n{made}"))
    }

    #[test]
    fn a_configuration_of_litellm_becomes_one_of_ours() {
        let (made, _) = import(Path::new("c.yaml"), CONFIG, Taken::default()).unwrap();
        let config = checked(&made);
        let backends = config.backends.iter().map(|(name, backend)| {
            let key = backend.key.as_ref().map_or("-", |key| key.reveal());
            format!("{name} {:?} {} {key}", backend.kind, backend.url.as_deref().unwrap_or_default())
        });
        let backends: Vec<_> = backends.collect();
        assert_eq!(
            backends,
            [
                "anthropic Anthropic https://api.anthropic.com ANTHROPIC_API_KEY",
                "models_example Openai https://models.example -",
                "ollama Ollama http://ollama-base.invalid -",
                "openai Openai https://api.openai.com OPENAI_API_KEY",
                "openai_2 Openai https://api.openai.com OPENAI_2_KEY_TO_SET",
                "vllm Vllm http://gpu1:8000 -",
            ]
        );
        let models = config.models.iter().map(|(name, model)| {
            let targets = model.targets.iter().map(|target| {
                let there = target.model.as_deref().unwrap_or("=");
                format!("{}:{there}*{}@{}", target.backend, target.weight, target.priority)
            });
            let targets = targets.collect::<Vec<_>>().join(" ");
            format!("{name} {targets} retries {} then {}", model.retries, model.fallbacks.join(" "))
        });
        let models: Vec<_> = models.collect();
        assert_eq!(
            models,
            [
                "claude-* anthropic:=*1@0 retries 2 then llama",
                "gpt-4 openai:gpt-4o*3@0 openai_2:gpt-4o*1@0 retries 2 then qwen",
                "gpt-4o openai:=*3@0 openai_2:=*1@0 retries 2 then qwen",
                "llama ollama:llama3:8b*1@0 retries 2 then ",
                "qwen vllm:Qwen/Qwen3-8B*1@1 models_example:qwen3*1@2 retries 2 then llama",
            ]
        );
        let model = &config.models["gpt-4o"];
        let price = model.price.as_ref().unwrap().at(0).unwrap();
        assert_eq!((price.input, price.output, price.cache_read), (2.5, 10.0, Some(1.25)));
        assert_eq!((model.policy, model.max_output), (Policy::Weighted, Some(16384)));
        let timeouts = config.backends["openai"].timeouts;
        assert_eq!((timeouts.first_token.0.as_secs(), timeouts.total.map(|total| total.0.as_secs())), (60, Some(300)));
    }

    #[test]
    fn what_is_not_carried_over_is_told_and_no_secret_is() {
        let (made, count) = import(Path::new("c.yaml"), CONFIG, Taken::default()).unwrap();
        assert!(!made.contains("open-secret"), "{made}");
        let told: Vec<_> = made.lines().filter_map(|line| line.strip_prefix("# c.yaml:")).collect();
        assert_eq!(told.len(), count);
        for start in [
            "6: model_list[0].litellm_params.rpm: limits of backends",
            "15: model_list[0].model_info.team_id: ",
            "19: model_list[1].litellm_params.api_key: a secret does not belong into a configuration: set the variable OPENAI_2_KEY_TO_SET",
            "23: model_list[2].litellm_params.model: there is no kind of backend for the provider `azure`",
            "26: model_list[2].litellm_params.api_version: ",
            "32: model_list[3].litellm_params.temperature: ",
            "36: model_list[4].litellm_params.api_base: what is in front of its host",
            "42: model_list[5].litellm_params.api_base: the address is in the variable OLLAMA_BASE: write it here, or set TIDEGATE_BACKENDS__OLLAMA__URL",
            "48: model_list[7].litellm_params.model: there is no kind of backend for the provider `bedrock`",
            "49: model_list[7].litellm_params.aws_secret_access_key: ",
            "48: model_list[7].litellm_params.model: model `bedrock/*`: nothing is left that serves it",
            "55: router_settings.fallbacks[0].gpt-4o: there is no model `nowhere`",
            "56: router_settings.redis_password: ",
            "58: litellm_settings.num_retries: `router_settings.num_retries` counts",
            "60: litellm_settings.drop_params: ",
            "62: general_settings.master_key: make new keys with `tidegate keys new`",
            "63: general_settings.database_url: ",
            "65: environment_variables.LANGFUSE_SECRET_KEY: set it where Tidegate runs",
        ] {
            assert!(told.iter().any(|line| line.starts_with(start)), "{start}\nin {told:#?}");
        }
    }

    #[test]
    fn names_that_are_taken_are_not_used_again() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let taken = Taken { backends: names(&["openai", "vllm"]), models: names(&["llama"]) };
        let (made, _) = import(Path::new("c.yaml"), CONFIG, taken).unwrap();
        for (part, is_there) in [
            ("[backends.openai]", false),
            ("[backends.vllm_gpu1]", true),
            ("[models.llama]", false),
            ("model `llama`: the configuration has it already", true),
            ("[models.gpt-4o]", true),
        ] {
            assert_eq!(made.contains(part), is_there, "{part} in {made}");
        }
    }

    #[test]
    fn what_is_no_such_configuration_is_named_with_its_line() {
        for (text, says) in [
            ("model_list:\n  - [", "c.yaml:"),
            ("a: 1\n", "c.yaml:1: model_list: it is missing or empty"),
            ("model_list:\n  - 1\n", "c.yaml:2: model_list[0]: a mapping is expected here"),
            (
                "model_list:\n  - model_name: x\n    litellm_params:\n      api_key: open-secret\n",
                "c.yaml:3: model_list[0].litellm_params.model: it is missing",
            ),
        ] {
            let error = import(Path::new("c.yaml"), text, Taken::default()).unwrap_err();
            assert!(error.contains(&format!("\n  {says}")), "{error}");
            assert!(!error.contains("open-secret"), "{error}");
        }
    }
}
