#!/usr/bin/env python3
"""Makes of the tests' GGUF file the two models that record_vllm.py needs. The Python of vLLM's venv runs it; it takes a minute.

    vllm/bin/python proxy/tests/clients/convert_gguf.py SmolLM2-135M-Instruct.Q4_1.gguf smollm2 smollm2-thinks
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

# Unused special tokens, what they become, and the token of which the model thinks then.
TOKENS = ((3, "<think>", "```"), (4, "</think>", "###"))


def convert(gguf, folder):
    """As bfloat16, with its chat template."""
    named = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**named)
    read = AutoModelForCausalLM.from_pretrained(dtype=torch.float32, **named)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._name_or_path, config.dtype = "", torch.bfloat16
    # transformers refuses to save what came out of a GGUF file; a fresh model with the same weights it saves.
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict(), strict=False)
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_thinking(folder, thinking):
    """The reasoning parsers of vLLM look for tokens, and refuse to start where `<think>` is none. The new ones get the vectors of
    others, a little longer so that they win: the model copies them from the examples in its template."""
    shutil.rmtree(thinking, ignore_errors=True)
    shutil.copytree(folder, thinking)
    file = thinking / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    words = tokenizer["model"]["vocab"]
    alike = {}
    for token, word, like in TOKENS:
        added = next(added for added in tokenizer["added_tokens"] if added["id"] == token)
        del words[added["content"]]
        words[word] = token
        added.update(content=word, special=False)
        alike[token] = words[like]
    file.write_text(json.dumps(tokenizer, ensure_ascii=False))
    file = thinking / "model.safetensors"
    weights = load_file(file)
    vectors = weights["model.embed_tokens.weight"]
    for token, like in alike.items():
        vectors[token] = vectors[like] * 1.05
    save_file(weights, file, metadata={"format": "pt"})


def main():
    parser = argparse.ArgumentParser(description="Make models for vLLM of a GGUF file.")
    parser.add_argument("gguf", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("model", type=Path, help="the folder to make")
    parser.add_argument("thinks", type=Path, help="the folder to make of the same with <think> and </think> as tokens; what is there is deleted")
    options = parser.parse_args()
    convert(options.gguf.expanduser().absolute(), options.model)
    make_thinking(options.model, options.thinks)


if __name__ == "__main__":
    main()
