//! {{name}}: gives every call an instruction.

use tidegate_plugin::prelude::*;

/// The plugin, read from `[plugins.{{name}}.config]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Greeting {
    prompt: String,
}

impl Plugin for Greeting {
    type Exchange = ();
    const HOOKS: Hooks = Hooks::ON_CALL;

    fn on_call(&self, call: &Call, _: &mut ()) -> Verdict {
        call.prepend_system(&self.prompt);
        Verdict::Change
    }
}
tidegate_plugin::export!(Greeting);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_plugin::testing::{Chat, Trial};

    use super::*;

    #[test]
    fn the_instruction_comes_first() {
        let trial = Trial::<Greeting>::new(json!({"prompt": "Answer in English."}));
        let request = trial.call(Chat::user("Wie geht's?"));
        assert_eq!(request.verdict, Verdict::Change);
        assert_eq!(request.texts(), ["Answer in English.", "Wie geht's?"]);
    }
}
