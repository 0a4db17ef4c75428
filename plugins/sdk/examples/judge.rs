//! Asks another model whether a text may pass, and remembers the answer. An example of `model`, `kv` and `metrics`; needs the grants
//! `model` and `kv`.
//!
//! `cargo build --release --target wasm32-wasip2 -p tidegate-plugin --example judge`

use tidegate_plugin::prelude::*;
use tidegate_plugin::{kv, model::Question};

const ASKED: Metric = Metric::counter("asked", "Times the judge was asked.").label("answer", &["yes", "no", "failed"]);

/// The plugin.
#[derive(Deserialize)]
struct Judge {
    /// The model that judges.
    model: String,
    /// What it judges by: "Is this about cooking?"
    question: String,
}

impl Plugin for Judge {
    type Exchange = ();
    const HOOKS: Hooks = Hooks::ON_CALL;
    const METRICS: &'static [Metric] = &[ASKED];

    fn on_call(&self, call: &Call, _: &mut ()) -> Verdict {
        let Some(text) = call.last_user_text() else { return Verdict::Pass };
        // Keys are short; what is asked twice is mostly a short text.
        let key = format!("judged:{}", text.chars().take(100).collect::<String>());
        if let Ok(Some(_)) = kv::get(&key) {
            return Verdict::Pass;
        }
        let asked = Question::new(&self.model)
            .turn(Turn::system(format!("{} Answer yes or no.", self.question)))
            .turn(Turn::user(&text))
            .ask();
        match asked {
            Ok(answer) if answer.text.trim().to_lowercase().starts_with("no") => {
                ASKED.count_as("no");
                Verdict::refuse("off_topic", format!("Not here: {}", self.question))
            }
            Ok(_) => {
                ASKED.count_as("yes");
                // Nothing is lost if it cannot be remembered.
                let _ = kv::set(&key, b"yes", Some(3600));
                Verdict::Pass
            }
            Err(error) => {
                ASKED.count_as("failed");
                log::warn("the judge did not answer", &[("error", &error)]);
                Verdict::Pass
            }
        }
    }
}
tidegate_plugin::export!(Judge);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_plugin::Error;
    use tidegate_plugin::model::Answer;
    use tidegate_plugin::testing::{Chat, Trial, World};

    use super::*;

    #[test]
    fn the_judge_decides_and_is_asked_once() {
        let trial = Trial::<Judge>::new(json!({"model": "small", "question": "Is this about cooking?"}));
        World::with(|world| {
            world.models = Box::new(|question| match question.turns[1].content[0].as_text() {
                Some("a cake") => Ok(Answer::say("Yes.")),
                Some("a car") => Ok(Answer::say("No.")),
                _ => Err(Error::Timeout),
            });
        });
        for (text, refused) in [("a cake", false), ("a cake", false), ("a car", true), ("a boat", false)] {
            assert_eq!(matches!(trial.call(Chat::user(text)).verdict, Verdict::Refuse(_)), refused, "{text}");
        }
        for answer in ["yes", "no", "failed"] {
            assert_eq!(World::metric("asked", answer), 1.0, "{answer}");
        }
    }
}
