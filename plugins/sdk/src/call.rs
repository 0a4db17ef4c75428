//! The call, as a plugin handles it: the interface's own functions, and the few moves that most plugins make.
//!
//! Reading is lazy: `model`, `size`, `keys` and `json` look at the body's top level, everything else reads the whole call
//! once. Writing is recorded, and counts with [`Verdict::Change`](crate::Verdict) and `Route`.

use std::cell::Cell;

use serde::de::IgnoredAny;

use crate::{Content, Parameters, Passage, Place, Role, Tool, Turn, host, request};

/// What the client wants from a model, whatever API it spoke.
pub struct Call<'a> {
    host: &'a host::Call,
    reply_ignored: Cell<bool>,
}

impl<'a> Call<'a> {
    /// Wraps the host's call. The SDK does this for you; tests of functions that take a call may too.
    pub fn new(host: &'a host::Call) -> Self {
        Self { host, reply_ignored: Cell::new(false) }
    }

    /// The model name asked for.
    pub fn model(&self) -> String {
        self.host.model()
    }

    /// Asks for another model. The client goes on seeing the name it asked for.
    pub fn set_model(&self, model: &str) {
        self.host.set_model(model);
    }

    /// Bytes of the body as received.
    pub fn size(&self) -> u32 {
        self.host.size()
    }

    /// The names of the body's top-level members.
    pub fn keys(&self) -> Vec<String> {
        self.host.keys()
    }

    /// A part of the body as JSON text, exactly as the client wrote it; `pointer` is a JSON Pointer (RFC 6901).
    pub fn json(&self, pointer: &str) -> Option<String> {
        self.host.json(pointer)
    }

    /// Sets a top-level member to this JSON text, or removes it with `None`.
    ///
    /// # Errors
    /// What is wrong with the text, or that the member is `model` or `stream`.
    pub fn set_json(&self, key: &str, json: Option<&str>) -> Result<(), String> {
        self.host.set_json(key, json)
    }

    /// Everything that is neither conversation nor tool.
    pub fn parameters(&self) -> Parameters {
        self.host.parameters()
    }

    /// Replaces the parameters.
    pub fn set_parameters(&self, parameters: &Parameters) {
        self.host.set_parameters(parameters);
    }

    /// Reads the parameters, lets `change` at them, and writes them back if that made a difference. Answers whether it did.
    pub fn edit_parameters(&self, change: impl FnOnce(&mut Parameters)) -> bool {
        let before = self.parameters();
        let mut after = before.clone();
        change(&mut after);
        let differs = before != after;
        if differs {
            self.set_parameters(&after);
        }
        differs
    }

    /// The tools offered.
    pub fn tools(&self) -> Vec<Tool> {
        self.host.tools()
    }

    /// Offers these tools instead.
    pub fn set_tools(&self, tools: &[Tool]) {
        self.host.set_tools(tools);
    }

    /// How many turns the conversation has, system and developer turns included.
    pub fn turn_count(&self) -> u32 {
        self.host.turn_count()
    }

    /// So many turns from `start` on.
    pub fn turns(&self, start: u32, count: u32) -> Vec<Turn> {
        self.host.turns(start, count)
    }

    /// Removes `remove` turns at `start` and puts `insert` there.
    pub fn splice_turns(&self, start: u32, remove: u32, insert: &[Turn]) {
        self.host.splice_turns(start, remove, insert);
    }

    /// Every text a person or model could read, in order, from turn `start` on.
    pub fn texts(&self, start: u32) -> Vec<Passage> {
        self.host.texts(start)
    }

    /// Puts other text in the place a passage came from.
    pub fn set_text(&self, place: Place, text: &str) {
        self.host.set_text(place, text);
    }

    /// Offers every text to `change` and writes those it answers. Says how many that were.
    pub fn edit_texts(&self, mut change: impl FnMut(&Passage) -> Option<String>) -> usize {
        let mut changed = 0;
        for passage in self.texts(0) {
            if let Some(text) = change(&passage) {
                self.set_text(passage.place, &text);
                changed += 1;
            }
        }
        changed
    }

    /// What the user said last, without reading the turns before it into the plugin. Results of tools do not count.
    pub fn last_user_text(&self) -> Option<String> {
        (0..self.turn_count()).rev().find_map(|at| {
            let turn = self.turns(at, 1).pop().filter(|turn| turn.role == Role::User)?;
            let texts: Vec<&str> = turn.content.iter().filter_map(Content::as_text).collect();
            (!texts.is_empty()).then(|| texts.join("\n"))
        })
    }

    /// Whether the client asked for several replies: several choices, or one to each of several prompts. A plugin is shown the
    /// first of them; the others reach the client unseen.
    pub fn asks_for_several(&self) -> bool {
        let prompts = || self.turns(0, 1).iter().flat_map(|turn| &turn.content).any(is_list_of_prompts);
        self.parameters().choices > 1 || (request::endpoint() == "completions" && prompts())
    }

    /// Puts an instruction before the conversation's own, in one turn with it: not every backend takes two.
    pub fn prepend_system(&self, text: &str) {
        match self.turns(0, 1).first() {
            Some(Turn { role: Role::System | Role::Developer, content }) => {
                match content.first().and_then(Content::as_text) {
                    Some(old) => self.set_text(Place { turn: 0, piece: 0, inner: 0 }, &format!("{text}\n\n{old}")),
                    None => self.splice_turns(0, 0, &[Turn::system(text)]),
                }
            }
            _ => self.splice_turns(0, 0, &[Turn::system(text)]),
        }
    }

    /// Puts an instruction behind the conversation's own leading ones.
    pub fn append_system(&self, text: &str) {
        let leads = |turn: &Turn| matches!(turn.role, Role::System | Role::Developer);
        let lead = (0..self.turn_count()).map_while(|at| self.turns(at, 1).pop().filter(leads)).enumerate().last();
        let Some((at, turn)) = lead else { return self.splice_turns(0, 0, &[Turn::system(text)]) };
        let last = turn.content.iter().enumerate().rev().find_map(|(piece, content)| Some((piece, content.as_text()?)));
        match last {
            Some((piece, old)) => {
                self.set_text(Place { turn: at as u32, piece: piece as u32, inner: 0 }, &format!("{old}\n\n{text}"))
            }
            None => self.splice_turns(at as u32 + 1, 0, &[Turn::system(text)]),
        }
    }

    /// This request is of no further interest: no other hook is called for it, and its reply is not even read for this
    /// plugin's sake.
    pub fn ignore_reply(&self) {
        self.reply_ignored.set(true);
    }

    /// Whether [`ignore_reply`](Self::ignore_reply) was called.
    pub fn is_reply_ignored(&self) -> bool {
        self.reply_ignored.get()
    }
}

/// What a completions request asks that is no text: prompts, or one in tokens, which are numbers; also a list of that one alone.
fn is_list_of_prompts(content: &Content) -> bool {
    let Content::Other(prompt) = content else { return false };
    let first = prompt.json.trim_start().strip_prefix('[').unwrap_or_default().trim_start();
    let alone = || serde_json::from_str::<Vec<IgnoredAny>>(&prompt.json).is_ok_and(|prompts| prompts.len() == 1);
    !first.starts_with(|c: char| c.is_ascii_digit()) && !alone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Raw;

    #[test]
    fn one_prompt_in_tokens_is_not_several() {
        for (json, several) in [
            ("[1, 2]", false),
            ("[[1, 2]]", false),
            (" [ [1, 2] ] ", false),
            ("[[1, 2], [3]]", true),
            (r#"["a", "b"]"#, true),
            (r#"["a", [1]]"#, true),
            ("{}", true),
        ] {
            let prompt = Content::Other(Raw { kind: "prompt".into(), json: json.into() });
            assert_eq!(is_list_of_prompts(&prompt), several, "{json}");
        }
        assert!(!is_list_of_prompts(&Content::Text("[]".into())));
    }
}
