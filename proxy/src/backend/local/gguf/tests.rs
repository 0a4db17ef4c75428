//! Files that are cut, hostile or of another kind, and the bytes they are made of.

use super::*;

/// A header: version 3, the given counts, then `rest`.
pub fn header(tensors: u64, entries: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(entries.to_le_bytes());
    bytes.extend(rest);
    bytes
}

/// A text with its length before it.
pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// An entry of the metadata.
pub fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(key), &kind.to_le_bytes()[..], value].concat()
}

fn tensor(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let dims_bytes: Vec<u8> = dims.iter().flat_map(|d| d.to_le_bytes()).collect();
    let count = (dims.len() as u32).to_le_bytes();
    [&string(name), &count[..], &dims_bytes, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

fn load(name: &str, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let result = Gguf::open(&path).and_then(|mut gguf| gguf.model());
    let error = result.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(name), "names the file: {error}");
    error
}

#[test]
fn hostile_files_are_refused() {
    let llama = entry("general.architecture", 8, &string("llama"));
    let split = [entry("split.no", 2, &0u16.to_le_bytes()), entry("split.count", 2, &2u16.to_le_bytes())].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "letters GGUF"),
        ("zip", b"PK\x03\x04 something else".to_vec(), "letters GGUF"),
        ("magic-only", b"GGUF".to_vec(), "header cannot be read"),
        ("version", [b"GGUF".as_slice(), &99u32.to_le_bytes(), &[0; 64]].concat(), "header cannot be read"),
        ("many-tensors", header(u64::MAX, 0, &[]), "header cannot be read"),
        ("many-entries", header(0, u64::MAX / 2, &[0; 64]), "header cannot be read"),
        ("long-key", header(0, 1, &[&u64::MAX.to_le_bytes()[..], b"abcdefgh"].concat()), "header cannot be read"),
        (
            "long-array",
            header(0, 1, &entry("a", 9, &[&5u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat())),
            "header cannot be read",
        ),
        ("alignment", header(0, 1, &entry("general.alignment", 4, &0u32.to_le_bytes())), "header makes no sense"),
        ("huge-shape", header(1, 0, &tensor("t", &[u64::MAX / 2, 1 << 40], 0, 0)), "impossible shape"),
        // IQ4_NL
        (
            "other-type",
            header(1, 0, &tensor("t", &[32], 20, 0)),
            "type 20, which is not known here; use a file in Q4_0",
        ),
        ("odd-shape", header(1, 0, &tensor("t", &[33], 3, 0)), "impossible shape"),
        ("far-offset", header(1, 0, &tensor("t", &[32], 0, u64::MAX - 8)), "beyond the file's end"),
        ("cut", header(1, 0, &tensor("t", &[1024], 0, 0)), "beyond the file's end"),
        ("nothing", header(0, 0, &[]), "lacks general.architecture"),
        ("other", header(0, 1, &entry("general.architecture", 8, &string("mamba"))), "computes llama, qwen2, qwen3"),
        ("no-sizes", header(0, 1, &llama), "lacks llama.embedding_length"),
        ("first-of-two", header(0, 3, &[&llama[..], &split].concat()), "it is part 1 of 2 of a model; fetch all parts"),
    ];
    for (name, bytes, expect) in cases {
        let error = load(name, &bytes);
        assert!(error.contains(expect), "{name}: {error}");
    }
}

const TABLE: &[u64] = &[32, 4];
const SQUARE: &[u64] = &[32, 32];
const ROW: &[u64] = &[32];

/// A model of one layer, all zeros, of which these tensors are there.
fn model(tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let sizes = [("embedding_length", 32), ("attention.head_count", 2), ("feed_forward_length", 32)];
    let mut rest = entry("general.architecture", 8, &string("llama"));
    for (key, size) in sizes.into_iter().chain([("block_count", 1u32)]) {
        rest.extend(entry(&format!("llama.{key}"), 4, &size.to_le_bytes()));
    }
    rest.extend(tensors.iter().flat_map(|(name, dims)| tensor(name, dims, 0, 0)));
    let mut bytes = header(tensors.len() as u64, 5, &rest);
    bytes.resize(bytes.len().next_multiple_of(32) + 32 * 32 * 4, 0);
    bytes
}

#[test]
fn a_missing_tensor_is_named() {
    let bytes = model(&[("token_embd.weight", TABLE)]);
    assert!(load("missing", &bytes).contains("no tensor blk.0.attn_norm.weight"));
}

#[test]
fn what_would_not_be_computed_is_refused() {
    let square = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let square = square.map(|part| format!("blk.0.{part}.weight"));
    let mut tensors: Vec<(&str, &[u64])> = square.iter().map(|name| (name.as_str(), SQUARE)).collect();
    tensors.push(("token_embd.weight", TABLE));
    tensors.extend(["blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"].map(|name| (name, ROW)));
    tensors.push(("blk.0.attn_rot_embd.weight", ROW));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole");
    std::fs::write(&path, model(&tensors)).unwrap();
    Gguf::open(&path).and_then(|mut gguf| gguf.model()).map(|_| ()).unwrap();
    for name in ["blk.0.ffn_up.bias", "blk.0.attn_output.bias", "output.bias"] {
        let mut more = tensors.clone();
        more.push((name, ROW));
        assert!(load("more", &model(&more)).contains(&format!("its tensor {name} is a part")), "{name}");
    }
}
