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
import http.client
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import run

GOLDEN = run.HERE.parent / "it" / "golden"
PREFIX = "recorded_llamacpp"

# The template of a model that calls functions, in the manner of Qwen and Hermes. Its examples are for this small model,
# which repeats what it sees.
CALLS = """{%- if tools %}<|im_start|>system
Call functions. They are: <tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools><|im_end|>
{% for city in ['Rome', 'Oslo', 'Bonn', 'Lima'] %}<|im_start|>user
What is the weather in {{ city }}?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "weather", "arguments": {"city": "{{ city }}"}}
</tool_call><|im_end|>
{% endfor %}{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{%- if message.content %}
{{ message.content }}{% endif %}
{%- if message.tool_calls %}{% for tool_call in message.tool_calls %}{% if tool_call.function %}{% set tool_call = tool_call.function %}{% endif %}
<tool_call>
{"name": "{{ tool_call.name }}", "arguments": {{ tool_call.arguments | tojson }}}
</tool_call>{% endfor %}{% endif %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

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

HELLO = "Say hello."
WEATHER = "What is the weather in Paris?"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "The weather of a city.", "parameters": SCHEMA}
# More than the context holds.
LONG = "word " * 6000
# Thinking, its end and an answer, as only a grammar can make so small a model say them.
THOUGHT = 'root ::= "A greeting." "\\n</think>\\n" "Hello."'


def both(name, request):
    """Whole and streamed."""
    return [(name + "_whole", request), (name, {**request, "stream": True})]


def chat(content=HELLO, **more):
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 40, **more}


def generate(prompt="Once upon", **more):
    return {"prompt": prompt, "max_tokens": 5, **more}


def respond(content=HELLO, **more):
    return {"input": content, "max_output_tokens": 40, **more}


USAGE = {"stream": True, "stream_options": {"include_usage": True}}
TOOL = {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required"}
MESSAGE_TOOL = {"tools": [{"name": "weather", "description": FUNCTION["description"], "input_schema": SCHEMA}], "tool_choice": {"type": "any"}}
RESPONSE_TOOL = {"tools": [{"type": "function", **FUNCTION}], "tool_choice": "required"}

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
PATHS = {"embeddings": "/v1/embeddings", "chat": "/v1/chat/completions", "messages": "/v1/messages", "completions": "/v1/completions", "responses": "/v1/responses"}


def ask(port, path, body):
    """Status, media type and the bytes of the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.headers.get_content_type(), answer.read()
    finally:
        connection.close()


def shorten(request):
    text = json.dumps(request, ensure_ascii=False)
    return text if len(text) < 700 else text[:200] + "…"


def record(only):
    """Runs inside the clients' venv."""
    from gateway import Llama

    notes = []
    servers = [
        ("its own template", "", RECORDINGS[None]),
        ("the template `CALLS`", "p.chat_template = {!r}\n".format(CALLS), RECORDINGS[CALLS]),
        ("the template `THINKS`", "p.chat_template = {!r}\n".format(THINKS), RECORDINGS[THINKS]),
        ("`embedding`, mean pooling", EMBEDS, EMBEDDINGS),
    ]
    for name, settings, dialects in servers:
        dialects = {dialect: cases for dialect, cases in dialects.items() if only in (None, dialect)}
        if not dialects:
            continue
        # An alias, since the server would else name the model by its path.
        settings = "p.model_alias = {'smollm2'}\n" + settings
        named = type("Named", (Llama,), {"SOURCE": Llama.SOURCE.replace("server = ", settings + "server = ")})
        llama = named()
        try:
            for dialect, recordings in dialects.items():
                for case, request in recordings:
                    body = {"model": "smollm2", **({} if dialect == "embeddings" else {"temperature": 0}), **request}
                    status, kind, data = ask(llama.port, PATHS[dialect], body)
                    file = GOLDEN / dialect / "{}_{}.{}".format(PREFIX, case, "sse" if kind == "text/event-stream" else "json")
                    file.parent.mkdir(exist_ok=True)
                    file.write_bytes(data)
                    notes.append("| `{}/{}` | {} | {} | `{}` |".format(dialect, file.name, status, name, shorten(body).replace("|", "\\|")))
                    print(status, file.relative_to(GOLDEN))
        finally:
            llama.close()
    return notes


def write_notes(notes):
    # Those of files that were not recorded this time stay.
    file = GOLDEN / (PREFIX + ".md")
    recorded = {note.split("|")[1] for note in notes}
    notes = notes + [line for line in file.read_text().splitlines() if line.startswith("| `") and line.split("|")[1] not in recorded]
    text = """# Recorded from a real server

Written by `proxy/tests/clients/record.py`, not by hand. The server is llama.cpp as the Python package xllamacpp {version} holds it,
with the model SmolLM2-135M-Instruct (Q4_1). The bytes are as they came. The `.events` beside them are what Tidegate reads in them.

| file | status | model with | request |
|---|---|---|---|
{notes}
"""
    file.write_text(text.format(version=metadata.version("xllamacpp"), notes="\n".join(sorted(notes))))


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
    write_notes(record(options.only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
