//! Text to tokens and back, as the model's file says.
//!
//! Forward through the `tokenizers` crate; back through a table of bytes per token, because a stream is bytes: one
//! token may end in the middle of a character, and the crate's decoder only knows whole texts.

use super::call::{CLOSING, LIST, OPENING};
use super::gguf::{Gguf, LoadError};
use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::tokenizer::TokenizerFromGguf;
use std::collections::HashMap;
use tokenizers::Tokenizer;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

/// The tokens of a model.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    /// What each token writes; nothing for control tokens, but those that mark calls of tools.
    bytes: Vec<Box<[u8]>>,
    ends: Vec<u32>,
    /// Put in front of each prompt, if the model wants it.
    bos: Option<u32>,
    longest: usize,
}

/// Tokens that end an answer besides the file's own `eos`, by the names model families give them.
const ENDS: [&str; 6] = ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end|>", "<end_of_turn>"];

impl Vocabulary {
    /// Reads the tokenizer out of the file's metadata.
    pub fn read(gguf: &Gguf) -> Result<Vocabulary, LoadError> {
        let missing = |what: &str| gguf.fault(format!("it holds no usable tokenizer ({what})"));
        let tokens = match gguf.content.metadata.get("tokenizer.ggml.tokens") {
            Some(Value::Array(tokens)) => tokens,
            _ => return Err(missing("tokenizer.ggml.tokens is missing")),
        };
        let mut tokenizer = Tokenizer::from_gguf(&gguf.content)
            .map_err(|e| missing(e.to_string().lines().next().unwrap_or("unreadable")))?;
        if gguf.text("tokenizer.ggml.pre") == Some("smollm") {
            // candle's default for names it does not know sets a space in front and keeps digits together.
            let parts = vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()];
            tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(parts))));
        }
        let kinds = match gguf.content.metadata.get("tokenizer.ggml.token_type") {
            Some(Value::Array(kinds)) => kinds.as_slice(),
            _ => &[],
        };
        let alphabet = alphabet();
        let texts: Vec<&str> = tokens.iter().map(|t| t.to_string().map_or("", String::as_str)).collect();
        let bytes: Vec<Box<[u8]>> = texts
            .iter()
            .enumerate()
            .map(|(id, text)| match kinds.get(id) {
                _ if [OPENING, CLOSING, LIST].contains(text) => text.as_bytes().into(),
                Some(Value::I32(3) | Value::U32(3)) => Box::default(),
                // Added by the user of the tokenizer: literal text, not byte letters.
                Some(Value::I32(4) | Value::U32(4)) => text.as_bytes().into(),
                _ => spell(text, &alphabet),
            })
            .collect();
        let id = |key: &str| gguf.number(key).map(|id| id as u32).filter(|&id| (id as usize) < texts.len());
        let mut ends: Vec<u32> =
            ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"]
                .into_iter()
                .filter_map(id)
                .collect();
        ends.extend(
            (0u32..)
                .zip(&bytes)
                .filter(|(id, bytes)| bytes.is_empty() && ENDS.contains(&texts[*id as usize]))
                .map(|(id, _)| id),
        );
        ends.sort_unstable();
        ends.dedup();
        let add_bos = gguf.flag("tokenizer.ggml.add_bos_token").unwrap_or(false);
        let bos = id("tokenizer.ggml.bos_token_id").filter(|_| add_bos);
        // At least one, so that dividing by it is safe; control tokens count by the text that names them.
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(1).max(1);
        Ok(Vocabulary { tokenizer, bytes, ends, bos, longest })
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The tokens of a rendered prompt.
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>, String> {
        let encoding = self.tokenizer.encode_fast(prompt, false).map_err(|e| format!("tokenizer: {e}"))?;
        let mut ids = encoding.get_ids().to_vec();
        if let Some(bos) = self.bos
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// At least this many tokens, known without tokenizing.
    pub fn at_least(&self, prompt: &str) -> usize {
        prompt.len() / self.longest
    }

    /// What a token writes.
    pub fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], |bytes| bytes)
    }

    /// All tokens that end an answer.
    pub fn all_ends(&self) -> &[u32] {
        &self.ends
    }

    /// Whether a token ends the answer.
    pub fn ends(&self, token: u32) -> bool {
        self.ends.binary_search(&token).is_ok()
    }
}

/// A token's text in the metadata, such as the one `tokenizer.ggml.bos_token_id` points at.
pub fn token_text(gguf: &Gguf, key: &str) -> String {
    let id = gguf.number(key).unwrap_or(u64::MAX);
    match gguf.content.metadata.get("tokenizer.ggml.tokens") {
        Some(Value::Array(tokens)) => {
            usize::try_from(id).ok().and_then(|id| tokens.get(id)?.to_string().ok().cloned()).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// GPT-2's letters for bytes: printable Latin-1 stands for itself, the rest is moved up from U+0100 in order.
fn alphabet() -> HashMap<char, u8> {
    let mut moved = 0x100u32;
    (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => (char::from(byte), byte),
            _ => {
                moved += 1;
                (char::from_u32(moved - 1).expect("below U+0200 all are characters"), byte)
            }
        })
        .collect()
}

fn spell(token: &str, alphabet: &HashMap<char, u8>) -> Box<[u8]> {
    let bytes: Option<Box<[u8]>> = token.chars().map(|letter| alphabet.get(&letter).copied()).collect();
    bytes.unwrap_or_else(|| token.as_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_letters_spell_every_byte() {
        let alphabet = alphabet();
        let mut bytes: Vec<u8> = alphabet.values().copied().collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(&*spell("ĠHelloĊ", &alphabet), b" Hello\n");
        assert_eq!(&*spell("Ã©", &alphabet), "é".as_bytes());
        assert_eq!(&*spell("日", &alphabet), "日".as_bytes());
    }
}
