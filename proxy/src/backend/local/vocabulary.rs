//! Text to tokens and back, as the model's file says.
//!
//! Forward through the `tokenizers` crate; back through a table of bytes per token, because a stream is bytes: one
//! token may end in the middle of a character, and the crate's decoder only knows whole texts.

use super::call::{CLOSING, LIST, OPENING};
use super::gguf::{Gguf, LoadError};
use candle_core::quantized::gguf_file::{Content, Value};
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
        let name = gguf.text("tokenizer.ggml.pre");
        let cut = Cut::named(name).ok_or_else(|| {
            let name = name.unwrap_or_default();
            gguf.fault(format!("its tokenizer cuts text as {name:?} does, which is not known here"))
        })?;
        let mut tokenizer = Tokenizer::from_gguf(&cut.for_candle(gguf))
            .map_err(|e| missing(e.to_string().lines().next().unwrap_or("unreadable")))?;
        if let Some(own) = cut.own() {
            tokenizer.with_pre_tokenizer(Some(own));
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

/// How text is cut into words before the bytes of each are joined to tokens. With another cut a model is shown tokens that it
/// never saw together, and answers badly without anybody knowing why; so a name that is not known is an error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// GPT-2's words.
    Words,
    /// The same, each digit by itself.
    Digits,
    /// Llama 3's: up to three digits together, and a word that is a token is taken whole.
    Llama3,
    /// Qwen's: each digit by itself, letters with their accents composed.
    Qwen2,
}

impl Cut {
    /// By the name in the file, as llama.cpp's converter writes it.
    fn named(name: Option<&str>) -> Option<Cut> {
        Some(match name {
            // Files from before there were names.
            None | Some("default" | "gpt-2" | "gpt2" | "olmo") => Cut::Words,
            Some("smollm" | "starcoder" | "refact" | "command-r" | "minerva-7b") => Cut::Digits,
            Some("llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" | "smaug-bpe") => Cut::Llama3,
            Some("qwen2" | "deepseek-r1-qwen" | "megrez" | "kormo") => Cut::Qwen2,
            Some(_) => return None,
        })
    }

    /// What candle's reader of tokenizers needs of the file, with the name that it has for this cut.
    fn for_candle(self, gguf: &Gguf) -> Content {
        let ours = gguf.content.metadata.iter().filter(|(key, _)| key.starts_with("tokenizer."));
        let mut metadata: HashMap<String, Value> = ours.map(|(key, value)| (key.clone(), value.clone())).collect();
        let name = match self {
            Cut::Words | Cut::Digits => "gpt-2",
            Cut::Llama3 => "llama3",
            Cut::Qwen2 => "qwen2",
        };
        metadata.insert("tokenizer.ggml.pre".into(), Value::String(name.into()));
        if self == Cut::Llama3 {
            metadata.insert("tokenizer.ggml.ignore_merges".into(), Value::Bool(true));
        }
        Content { magic: gguf.content.magic, metadata, tensor_infos: HashMap::new(), tensor_data_offset: 0 }
    }

    /// In place of candle's default, which sets a space in front and keeps digits together.
    fn own(self) -> Option<PreTokenizerWrapper> {
        let words = ByteLevel::new(false, true, true);
        match self {
            Cut::Words => Some(words.into()),
            Cut::Digits => Some(Sequence::new(vec![Digits::new(true).into(), words.into()]).into()),
            Cut::Llama3 | Cut::Qwen2 => None,
        }
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
    use super::super::gguf::tests::{entry, header, string};
    use super::*;

    /// A file with this name for its cut, if any, and the tokens that tell one cut from another.
    fn vocabulary(name: Option<&str>) -> Result<Vocabulary, String> {
        let list = |texts: &[&str]| {
            let bytes: Vec<u8> = texts.iter().flat_map(|text| string(text)).collect();
            [&8u32.to_le_bytes()[..], &(texts.len() as u64).to_le_bytes(), &bytes].concat()
        };
        let tokens = ["1", "2", "3", "4", "a", "Ġ", "12", "123", "1234", "b", "ab"];
        let mut entries = vec![
            entry("tokenizer.ggml.model", 8, &string("gpt2")),
            entry("tokenizer.ggml.tokens", 9, &list(&tokens)),
            entry("tokenizer.ggml.merges", 9, &list(&["1 2", "12 3", "123 4"])),
        ];
        entries.extend(name.map(|name| entry("tokenizer.ggml.pre", 8, &string(name))));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.gguf");
        std::fs::write(&path, header(0, entries.len() as u64, &entries.concat())).unwrap();
        Vocabulary::read(&Gguf::open(&path).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn text_is_cut_as_the_file_says() {
        let cases: &[(Option<&str>, &[u32])] = &[
            (None, &[8, 4, 9]),
            (Some("gpt-2"), &[8, 4, 9]),
            (Some("smollm"), &[0, 1, 2, 3, 4, 9]),
            (Some("llama-bpe"), &[7, 3, 10]),
            (Some("llama3"), &[7, 3, 10]),
            (Some("qwen2"), &[0, 1, 2, 3, 4, 9]),
            (Some("deepseek-r1-qwen"), &[0, 1, 2, 3, 4, 9]),
        ];
        for &(name, expect) in cases {
            assert_eq!(vocabulary(name).unwrap().encode("1234ab").unwrap(), expect, "{name:?}");
        }
        let error = vocabulary(Some("tekken")).map(|_| ()).unwrap_err();
        assert!(error.contains("\"tekken\"") && error.contains("llama.cpp"), "{error}");
    }

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
