"""What record_vllm.py asks a vLLM, and how the small model is made to call functions and to think for it."""

from typing import NamedTuple

from recording import EXAMPLES, HELLO, LONG, MESSAGE_TOOL, MODEL, PATHS, RESPONSE_TOOL, SCHEMA, TOOL, USAGE, WEATHER, both, calls, chat, generate, respond

CONTINUOUS = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
PAIR = "What is the weather in Paris and Madrid?"
AUTO = {"tools": TOOL["tools"]}
NAMED = {"tools": TOOL["tools"], "tool_choice": {"type": "function", "function": {"name": "weather"}}}
MESSAGE_AUTO = {"tools": MESSAGE_TOOL["tools"]}
MESSAGE_NAMED = {"tools": MESSAGE_TOOL["tools"], "tool_choice": {"type": "tool", "name": "weather"}}
RESPONSE_AUTO = {"tools": RESPONSE_TOOL["tools"]}
RESPONSE_NAMED = {"tools": RESPONSE_TOOL["tools"], "tool_choice": {"type": "function", "name": "weather"}}
FORMAT = {"response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}}
RESPONSE_FORMAT = {"text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA}}}
MESSAGE_FORMAT = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
# With temperature 0 it makes one choice only.
SEEDED = {"temperature": 1, "seed": 1}
# Refused only when the grammar is made: after the head of a stream.
BROKEN = {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}, "required": ["a"]}
CUSTOM = {"tools": [{"type": "custom", "name": "shell", "description": "Runs it."}]}

# Examples of two calls at once, where the user asks for two.
PAIRS = """{% for one, two in [['Rome', 'Oslo'], ['Bonn', 'Lima'], ['Kyiv', 'Bern'], ['Cairo', 'Tunis']] %}<|im_start|>user
What is the weather in {{ one }} and {{ two }}?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "weather", "arguments": {"city": "{{ one }}"}}
</tool_call>
<tool_call>
{"name": "weather", "arguments": {"city": "{{ two }}"}}
</tool_call><|im_end|>
{% endfor %}"""
CALLS_IN_PAIRS = calls("{% if ' and ' in messages[-1].content | string %}" + PAIRS + "{% else %}" + EXAMPLES + "{% endif %}")

# The template of a model that always thinks first, with examples, so that so small a model ends its thoughts by itself.
THINKS_BY_EXAMPLE = """{%- if tools %}<|im_start|>system
Call functions.<|im_end|>
{% for city in ['Rome', 'Oslo', 'Bonn', 'Lima'] %}<|im_start|>user
What is the weather in {{ city }}?<|im_end|>
<|im_start|>assistant
<think>
The weather in {{ city }}.
</think>
<tool_call>
{"name": "weather", "arguments": {"city": "{{ city }}"}}
</tool_call><|im_end|>
{% endfor %}{% else %}
{%- for asked, thought, said in [['Say goodbye.', 'A farewell.', 'Goodbye.'], ['Say thanks.', 'A word of thanks.', 'Thank you.'], ['Say yes.', 'An agreement.', 'Yes.'], ['Say no.', 'A refusal.', 'No.']] %}<|im_start|>user
{{ asked }}<|im_end|>
<|im_start|>assistant
<think>
{{ thought }}
</think>
{{ said }}<|im_end|>
{% endfor %}{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>
{% endif %}{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %}"""

# By dialect: names and requests.
OWN = {
    "chat": [
        *both("text", chat()),
        ("usage", chat(**USAGE)),
        ("continuous", chat(max_tokens=8, **CONTINUOUS)),
        *both("length", chat(max_tokens=4)),
        ("stop_word", chat(stop=["help"], **USAGE)),
        ("stop_word_whole", chat(stop=["help"])),
        *both("stop_token", chat(stop_token_ids=[30])),
        ("choices_two", chat(max_tokens=4, n=2, **SEEDED, **CONTINUOUS)),
        ("choices_two_whole", chat(max_tokens=4, n=2, **SEEDED)),
        ("error_choices_greedy", chat(max_tokens=4, n=2, stream=True)),
        *both("logprobs", chat(max_tokens=2, logprobs=True, top_logprobs=2)),
        *both("schema", chat("Name a city.", **FORMAT)),
        ("token_ids", chat(max_tokens=2, return_token_ids=True, stream=True)),
        ("error_field", chat(max_tokens="many")),
        ("error_missing", {"max_tokens": 4}),
        ("error_model", chat(model="nope")),
        ("error_model_stream", chat(model="nope", stream=True)),
        ("error_range", chat(temperature=-1)),
        ("error_max_tokens", chat(max_tokens=100000)),
        ("error_image", chat([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])),
        ("error_grammar", chat(structured_outputs={"grammar": "root ::= ("}, stream=True)),
        *both("error_schema", chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": BROKEN}})),
        ("error_too_long", chat(LONG, stream=True)),
    ],
    "messages": [
        *both("text", chat()),
        *both("length", chat(max_tokens=4)),
        *both("stop_word", chat(stop_sequences=["help"])),
        *both("schema", chat("Name a city.", **MESSAGE_FORMAT)),
        ("error_field", {"max_tokens": 4}),
        ("error_type", chat(max_tokens="many")),
        ("error_model", chat(model="nope")),
        ("error_range", chat(temperature=-1)),
        *both("error_schema", chat(output_config={"format": {"type": "json_schema", "schema": BROKEN}})),
        ("error_too_long", chat(LONG, stream=True)),
    ],
    "completions": [
        *both("text", generate()),
        ("usage", generate(**USAGE)),
        ("continuous", generate(**CONTINUOUS)),
        *both("logprobs", generate(logprobs=2)),
        ("stop_word", generate(max_tokens=40, stop=[","], **USAGE)),
        ("stop_word_whole", generate(max_tokens=40, stop=[","])),
        ("prompts_two", generate(["Once upon", "Hello"], **CONTINUOUS)),
        ("prompts_two_whole", generate(["Once upon", "Hello"])),
        ("choices_two", generate(n=2, **SEEDED, **USAGE)),
        *both("echo", generate(echo=True)),
        ("tokens", generate([1, 2, 3], stream=True)),
        ("error_field", {"max_tokens": 4}),
        ("error_suffix", generate(suffix="end")),
        ("error_model", generate(model="nope")),
        *both("error_schema", generate(structured_outputs={"json": BROKEN})),
        ("error_too_long", generate(LONG, stream=True)),
    ],
    "responses": [
        *both("text", respond()),
        *both("length", respond(max_output_tokens=4)),
        *both("schema", respond("Name a city.", **RESPONSE_FORMAT)),
        *both("logprobs", respond(max_output_tokens=2, top_logprobs=2, include=["message.output_text.logprobs"])),
        ("error_field", {"max_output_tokens": 4}),
        ("error_type", respond(max_output_tokens="many")),
        ("error_model", respond(model="nope")),
        ("error_previous", respond(previous_response_id="resp_1")),
        ("error_background", respond(background=True)),
        *both("error_schema", respond(text={"format": {"type": "json_schema", "name": "x", "schema": BROKEN}})),
        ("custom_tool", respond(**CUSTOM)),
        ("error_too_long", respond(LONG, stream=True)),
    ],
}
CALLING = {
    "chat": [
        *both("tool", chat(WEATHER, **TOOL)),
        *both("tool_auto", chat(WEATHER, **AUTO)),
        ("tool_auto_usage", chat(WEATHER, **AUTO, **CONTINUOUS)),
        *both("tool_named", chat(WEATHER, **NAMED)),
        *both("tools_parallel", chat(PAIR, **{**AUTO, "max_tokens": 80})),
        *both("tool_cut", chat(WEATHER, **{**AUTO, "max_tokens": 20})),
        *both("tool_required_cut", chat(WEATHER, **{**TOOL, "max_tokens": 12})),
        *both("tool_none", chat(WEATHER, **AUTO, tool_choice="none")),
        ("error_tool_unknown", chat(WEATHER, **{**NAMED, "tool_choice": {"type": "function", "function": {"name": "nope"}}})),
    ],
    "messages": [
        *both("tool", chat(WEATHER, **MESSAGE_TOOL)),
        *both("tool_auto", chat(WEATHER, **MESSAGE_AUTO)),
        *both("tool_named", chat(WEATHER, **MESSAGE_NAMED)),
        *both("tools_parallel", chat(PAIR, **{**MESSAGE_AUTO, "max_tokens": 80})),
        *both("tool_cut", chat(WEATHER, **{**MESSAGE_AUTO, "max_tokens": 20})),
    ],
    "responses": [
        *both("tool", respond(WEATHER, **RESPONSE_TOOL)),
        *both("tool_auto", respond(WEATHER, **RESPONSE_AUTO)),
        *both("tool_named", respond(WEATHER, **RESPONSE_NAMED)),
        *both("tools_parallel", respond(PAIR, **{**RESPONSE_AUTO, "max_output_tokens": 80})),
        *both("tool_cut", respond(WEATHER, **{**RESPONSE_AUTO, "max_output_tokens": 20})),
    ],
}
THINKING = {
    "chat": [
        *both("reasoning", chat()),
        ("reasoning_continuous", chat(**CONTINUOUS)),
        ("reasoning_cut", chat(max_tokens=3, **USAGE)),
        ("reasoning_cut_whole", chat(max_tokens=3)),
        *both("reasoning_tool", chat(WEATHER, **AUTO)),
        *both("reasoning_tool_required", chat(WEATHER, **{**TOOL, "max_tokens": 60})),
        *both("reasoning_hidden", chat(include_reasoning=False)),
    ],
    "messages": [
        *both("thinking", chat()),
        *both("thinking_cut", chat(max_tokens=3)),
        *both("thinking_tool", chat(WEATHER, **MESSAGE_AUTO)),
    ],
    "responses": [
        *both("reasoning", respond()),
        *both("reasoning_cut", respond(max_output_tokens=3)),
        *both("reasoning_tool", respond(WEATHER, **RESPONSE_AUTO)),
    ],
}

# Raw replies, for whoever wants to know: what is no reply of a model, and what is asked of fields. Name, method, path, body (None:
# without one; bytes: as they are) and headers.
KEY = "vllm-secret"
JSON = {"content-type": "application/json"}
BEARER = {**JSON, "authorization": "Bearer " + KEY}
HI = [{"role": "user", "content": HELLO}]


def get(name, path):
    return name, "GET", path, None, {}


def post(name, path, body, headers=JSON):
    return name, "POST", path, body, headers


def ask(name, **more):
    return post(name, PATHS["chat"], {"model": MODEL, "messages": HI, "max_tokens": 1, **more})


def message(name, headers=JSON, **more):
    return post(name, PATHS["messages"], {"model": MODEL, "messages": HI, "max_tokens": 1, **more}, headers)


def tokenize(name, headers=JSON, **more):
    return post(name, "/tokenize", {"model": MODEL, **more}, headers)


def count(name, **more):
    return post(name, "/v1/messages/count_tokens", {"model": MODEL, **more})


def told(name):
    """An earlier answer with its thoughts in this field."""
    messages = [*HI, {"role": "assistant", "content": "Hello.", name: "A greeting."}, *HI]
    return tokenize("key_bearer_history_" + name, BEARER, messages=messages, return_token_strs=True)


NULLABLE = ("temperature", "top_p", "n", "stop", "stream", "stream_options", "tools", "tool_choice", "logprobs", "top_logprobs", "seed", "logit_bias", "parallel_tool_calls")
NULLS = (*NULLABLE, "presence_penalty", "frequency_penalty", "user", "response_format", "max_completion_tokens", "reasoning_effort")
OWN_RAW = [
    *[get(name, "/" + name) for name in ("health", "version", "ping", "load", "metrics")],
    get("models", "/v1/models"),
    get("model_one", "/v1/models/" + MODEL),
    tokenize("tokenize_messages", messages=HI),
    tokenize("tokenize_messages_strings", messages=HI, return_token_strs=True),
    tokenize("tokenize_prompt", prompt="Once upon"),
    tokenize("tokenize_too_long", prompt=LONG),
    tokenize("tokenize_model", model="nope", prompt="x"),
    tokenize("tokenize_nothing"),
    post("detokenize", "/detokenize", {"model": MODEL, "tokens": [9690, 198]}),
    count("count_tokens", messages=HI),
    count("count_tokens_tools", messages=HI, system="Be kind.", tools=MESSAGE_TOOL["tools"]),
    count("count_tokens_too_long", messages=[{"role": "user", "content": LONG}]),
    count("count_tokens_model", model="nope", messages=HI),
    count("count_tokens_missing"),
    post("input_tokens", "/v1/responses/input_tokens", {"model": MODEL, "input": HELLO}),
    get("response_unknown", "/v1/responses/resp_1"),
    post("embeddings", PATHS["embeddings"], {"model": MODEL, "input": HELLO}),
    post("unknown_path", "/v1/nothing", {}),
    get("wrong_method", PATHS["chat"]),
    *[post("invalid_json_" + dialect, PATHS[dialect], b'{"model": ') for dialect in OWN],
    *[post("not_an_object_" + dialect, PATHS[dialect], b"[1]") for dialect in ("chat", "messages")],
    post("no_content_type", PATHS["chat"], {"model": MODEL, "messages": HI, "max_tokens": 1}, {}),
    post("no_model", PATHS["chat"], {"messages": HI, "max_tokens": 1}),
    post("empty_messages", PATHS["chat"], {"model": MODEL, "messages": []}),
    ask("unknown_field", frobnicate=1),
    ask("two_systems", messages=[*HI, {"role": "system", "content": "x"}, *HI]),
    ask("nulls_chat", **dict.fromkeys(NULLS)),
    *[ask("null_" + field, **{field: None}) for field in (*NULLABLE, "max_tokens")],
    *[ask("reasoning_effort_" + effort, reasoning_effort=effort) for effort in ("none", "minimal", "odd")],
    ask("cache_salt", cache_salt="tenant"),
    ask("priority", priority=1),
    post("x_request_id", PATHS["chat"], {"model": MODEL, "messages": HI, "max_tokens": 1}, {**JSON, "x-request-id": "ours-1"}),
    message("message_x_api_key", {**JSON, "x-api-key": "anything"}),
    message("messages_thinking_disabled", thinking={"type": "disabled"}),
    message("messages_thinking_enabled", thinking={"type": "enabled", "budget_tokens": 1024}),
    post("messages_no_max_tokens", PATHS["messages"], {"model": MODEL, "messages": HI}),
]
CALLING_RAW = [
    tokenize("tokenize_tools", messages=HI, tools=TOOL["tools"]),
    tokenize("tokenize_without_tools", messages=HI),
    count("count_tokens_calls", messages=HI, tools=MESSAGE_TOOL["tools"]),
    post("custom_tool", PATHS["responses"], {"model": MODEL, **respond(WEATHER, **CUSTOM)}),
    post("hosted_tool", PATHS["responses"], {"model": MODEL, **respond(WEATHER, tools=[{"type": "web_search"}])}),
]
# This server wants a key.
THINKING_RAW = [
    *[get("key_" + name, "/" + name) for name in ("health", "version", "metrics")],
    get("key_none", "/v1/models"),
    tokenize("key_none_tokenize", prompt="x"),
    message("key_none_messages"),
    message("key_x_api_key", {**JSON, "x-api-key": KEY}),
    message("key_bearer_messages", BEARER),
    told("reasoning"),
    told("reasoning_content"),
    post("key_bearer_cached", PATHS["chat"], {"model": MODEL, **chat(max_tokens=1)}, BEARER),
    post("key_bearer_cached_stream", PATHS["chat"], {"model": MODEL, **chat(max_tokens=2, **CONTINUOUS)}, BEARER),
    post("key_bearer_cached_messages", PATHS["messages"], {"model": MODEL, **chat(max_tokens=1)}, BEARER),
    post("key_bearer_cached_messages_stream", PATHS["messages"], {"model": MODEL, **chat(max_tokens=1, stream=True)}, BEARER),
]


class Server(NamedTuple):
    """How it is started, and what it is asked."""

    template: str
    golden: dict
    raw: list
    # With the model that has tokens for the ends of its thoughts.
    thinks: bool = False
    arguments: tuple = ()
    key: str = ""

    @property
    def says(self):
        says = "the template `{}`".format(self.template) if self.template else "its own template"
        return says + (", `{}`".format(" ".join(self.arguments)) if self.arguments else "")


TEMPLATES = {"CALLS_IN_PAIRS": CALLS_IN_PAIRS, "THINKS_BY_EXAMPLE": THINKS_BY_EXAMPLE}
SERVERS = [
    Server("", OWN, OWN_RAW),
    Server("CALLS_IN_PAIRS", CALLING, CALLING_RAW),
    Server("THINKS_BY_EXAMPLE", THINKING, THINKING_RAW, True, ("--reasoning-parser", "deepseek_r1", "--enable-prompt-tokens-details"), KEY),
]
