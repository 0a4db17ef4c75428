#!/usr/bin/env python3
"""Records what a real llama.cpp server says, for the golden tests: proxy/tests/it/golden/<dialect>/recorded_llamacpp_*.

    python3 proxy/tests/clients/record.py --model models/SmolLM2-135M-Instruct.Q4_1.gguf
    TIDEGATE_BLESS=1 cargo nextest run golden      # then read the diff of the .events

`--only embeddings` records that folder alone; the others keep their bytes.

Most golden files were written after servers' sources and documentation, so they repeat what we believe. These are bytes that
came out of a socket, kept as they came. The small model does not call tools or think by itself; where it should, its chat
template is exchanged for one that makes the server itself expect that, which is what a larger model's template would do.
"""

import argparse
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import run
from recording import EXAMPLES, LONG, MESSAGE_TOOL, MODEL, PATHS, RESPONSE_TOOL, TOOL, USAGE, WEATHER, both, calls, chat, generate, record, respond, write_notes

PREFIX = "recorded_llamacpp"
SAYS = """Written by `proxy/tests/clients/record.py`, not by hand. The server is llama.cpp as the Python package xllamacpp {} holds it,
with the model SmolLM2-135M-Instruct (Q4_1). The bytes are as they came. The `.events` beside them are what Tidegate reads in them."""

CALLS = calls(EXAMPLES)

# The template of a model that always thinks first.
THINKS = """{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>
{% endif %}{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %}"""

# Thinking, its end and an answer, as only a grammar can make so small a model say them.
THOUGHT = 'root ::= "A greeting." "\\n</think>\\n" "Hello."'

# By template (None is the model's own), then by dialect: names and requests.
RECORDINGS = {
    None: {
        "chat": [
            *both("text", chat()),
            ("usage", chat(**USAGE)),
            *both("length", chat(max_tokens=4)),
            ("stop_word", chat(stop=["help"], **USAGE)),
            ("choices_two", chat(max_tokens=4, n=2, **USAGE)),
            ("choices_two_whole", chat(max_tokens=4, n=2)),
            ("logprobs", chat(max_tokens=2, logprobs=True, top_logprobs=2, stream=True)),
            ("error_field", chat(max_tokens="many")),
            ("error_too_long", chat(LONG, stream=True)),
        ],
        "messages": [
            *both("text", chat()),
            *both("length", chat(max_tokens=4)),
            *both("stop_word", chat(stop_sequences=["help"])),
            ("error_field", {"max_tokens": 4}),
            ("error_too_long", chat(LONG, stream=True)),
        ],
        "completions": [
            *both("text", generate()),
            ("usage", generate(**USAGE)),
            *both("logprobs", generate(logprobs=2)),
            ("stop_word", generate(max_tokens=40, stop=[","], **USAGE)),
            ("error_field", {"max_tokens": 4}),
        ],
        "responses": [
            *both("text", respond()),
            *both("length", respond(max_output_tokens=4)),
            ("error_field", {"max_output_tokens": 4}),
            ("error_too_long", respond(LONG, stream=True)),
        ],
    },
    CALLS: {
        "chat": both("tool", chat(WEATHER, **TOOL)),
        "messages": both("tool", chat(WEATHER, **MESSAGE_TOOL)),
        "responses": both("tool", respond(WEATHER, **RESPONSE_TOOL)),
    },
    THINKS: {
        "chat": [*both("reasoning", chat(grammar=THOUGHT)), ("reasoning_cut", chat(max_tokens=4, **USAGE))],
        "messages": both("thinking_cut", chat(max_tokens=4)),
        "responses": both("reasoning_cut", respond(max_output_tokens=4)),
    },
}
# A server that makes vectors makes no text. The mean of the last layer is no good embedding; its bytes are as good as any.
EMBEDS = "p.embedding = True\np.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN\n"
EMBEDDINGS = {
    "embeddings": [
        ("floats", {"input": ["Say hello.", "Grüße ☀"]}),
        ("base64", {"input": ["Say hello.", "Grüße ☀"], "encoding_format": "base64"}),
        ("single", {"input": "Say hello."}),
        ("tokens", {"input": [1, 2, 3]}),
        ("error_field", {}),
        ("error_too_long", {"input": LONG}),
    ],
}


def record_all(only):
    """Runs inside the clients' venv."""
    from gateway import Llama

    notes = []
    servers = [
        ("its own template", "", RECORDINGS[None]),
        ("the template `CALLS`", "p.chat_template = {!r}\n".format(CALLS), RECORDINGS[CALLS]),
        ("the template `THINKS`", "p.chat_template = {!r}\n".format(THINKS), RECORDINGS[THINKS]),
        ("`embedding`, mean pooling", EMBEDS, EMBEDDINGS),
    ]
    for says, settings, dialects in servers:
        dialects = {dialect: cases for dialect, cases in dialects.items() if only in (None, dialect)}
        if not dialects:
            continue
        # An alias, since the server would else name the model by its path.
        settings = "p.model_alias = {{{!r}}}\n".format(MODEL) + settings
        named = type("Named", (Llama,), {"SOURCE": Llama.SOURCE.replace("server = ", settings + "server = ")})
        llama = named()
        try:
            notes += record(llama.port, PREFIX, dialects, says)
        finally:
            llama.close()
    return notes


def main():
    parser = argparse.ArgumentParser(description="Record a real llama.cpp server for the golden tests.")
    parser.add_argument("--model", required=True, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--only", choices=sorted(PATHS), help="record this folder alone")
    parser.add_argument("--in-venv", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.in_venv:
        model = run.existing(options.model, "model")
        command = [str(run.prepare_venv()), str(Path(__file__).resolve()), "--in-venv", "--model", str(model)] + (["--only", options.only] if options.only else [])
        # No gateway is started, so no binary of ours is needed.
        return subprocess.run(command, env=run.environment("", model, "")).returncode
    notes = record_all(options.only)
    write_notes(PREFIX, SAYS.format(metadata.version("xllamacpp")), notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
