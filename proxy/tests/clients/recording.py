"""What the recorders of real servers (record.py, record_vllm.py) have in common: requests, golden files, and the notes beside them."""

import http.client
import json
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent.parent / "it" / "golden"
# What the model is called, whatever the server.
MODEL = "smollm2"
PATHS = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "embeddings": "/v1/embeddings",
}

# Examples of calls, for a small model, which repeats what it sees.
EXAMPLES = """{% for city in ['Rome', 'Oslo', 'Bonn', 'Lima'] %}<|im_start|>user
What is the weather in {{ city }}?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "weather", "arguments": {"city": "{{ city }}"}}
</tool_call><|im_end|>
{% endfor %}"""


def calls(examples):
    """The template of a model that calls functions, in the manner of Qwen and Hermes."""
    before = """{%- if tools %}<|im_start|>system
Call functions. They are: <tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools><|im_end|>
"""
    after = """{% endif %}
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
    return before + examples + after


HELLO = "Say hello."
WEATHER = "What is the weather in Paris?"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "The weather of a city.", "parameters": SCHEMA}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
TOOL = {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required"}
MESSAGE_TOOL = {"tools": [{"name": "weather", "description": FUNCTION["description"], "input_schema": SCHEMA}], "tool_choice": {"type": "any"}}
RESPONSE_TOOL = {"tools": [{"type": "function", **FUNCTION}], "tool_choice": "required"}
# More than the context holds.
LONG = "word " * 6000


def both(name, request):
    """Whole and streamed."""
    return [(name + "_whole", request), (name, {**request, "stream": True})]


def chat(content=HELLO, **more):
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 40, **more}


def generate(prompt="Once upon", **more):
    return {"prompt": prompt, "max_tokens": 5, **more}


def respond(content=HELLO, **more):
    return {"input": content, "max_output_tokens": 40, **more}


def exchange(port, method, path, body, headers):
    """The answer, the bytes of its body, and whether the server closed the connection before their end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=180)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        try:
            return answer, answer.read(), False
        except http.client.IncompleteRead as cut:
            return answer, cut.partial, True
    finally:
        connection.close()


def record(port, prefix, dialects, says, headers=()):
    """Writes the golden files of `{dialect: [(case, request)]}`. Returns their lines of the notes."""
    notes = []
    for dialect, cases in dialects.items():
        for case, request in cases:
            body = {"model": MODEL, **({} if dialect == "embeddings" else {"temperature": 0}), **request}
            answer, data, cut = exchange(port, "POST", PATHS[dialect], json.dumps(body), {"content-type": "application/json", **dict(headers)})
            kind = "sse" if answer.headers.get_content_type() == "text/event-stream" else "json"
            file = GOLDEN / dialect / "{}_{}.{}".format(prefix, case, kind)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
            status = "{}, cut".format(answer.status) if cut else answer.status
            notes.append("| `{}/{}` | {} | {} | `{}` |".format(dialect, file.name, status, says, shorten(body).replace("|", "\\|")))
            print(status, file.relative_to(GOLDEN), flush=True)
    return notes


def shorten(request):
    text = json.dumps(request, ensure_ascii=False)
    return text if len(text) < 700 else text[:200] + "…"


def write_notes(prefix, says, notes):
    # Those of files that were not recorded this time stay.
    file = GOLDEN / (prefix + ".md")
    recorded = {note.split("|")[1] for note in notes}
    old = file.read_text().splitlines() if file.exists() else []
    notes = notes + [line for line in old if line.startswith("| `") and line.split("|")[1] not in recorded]
    text = """# Recorded from a real server

{says}

| file | status | model with | request |
|---|---|---|---|
{notes}
"""
    file.write_text(text.format(says=says, notes="\n".join(sorted(notes))))
