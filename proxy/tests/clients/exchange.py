"""One exchange through an official client, said in one way for all four: chat or messages, whole or streamed.

A plugin sees one canonical reply whatever both sides speak, so its tests run over clients and backends; here is what
they share: fakes that say the same thing in either dialect, and a reply as the client's own accumulation leaves it.
"""

import itertools
import json
import re
import unittest
from dataclasses import dataclass, field

import fakes
from gateway import PLUGINS, WEB, Case, Gateway

CLIENTS = ("openai", "anthropic")
BACKENDS = ("chat", "messages")
SIZES = (1, 3, 7)
TOOL = {"type": "object", "properties": {"to": {"type": "string"}}}
PRICE = {"currency": "USD", "input": 1.0, "output": 2.0}
# What the fakes report, as the books count it.
REPORTED = {"chat": {"input_tokens": 20, "output_tokens": 7, "cache_read_tokens": 5}, "messages": {"input_tokens": 25, "output_tokens": 9, "cache_read_tokens": 4}}


@dataclass
class Got:
    """A reply as a client has it."""

    text: str = ""
    reasoning: str = ""
    calls: list = field(default_factory=list)
    stop: str = ""
    model: str = ""
    headers: dict = field(default_factory=dict)


def plugin(file, **settings):
    """A declaration under `[plugins]`."""
    path = PLUGINS / (file + ".wasm")
    if not path.is_file():
        raise RuntimeError("there is no {}: run plugins/build.sh, or say --plugins".format(path))
    return {"path": str(path), **settings}


def on(*models, **more):
    """Attached to these models, of whatever backend."""
    return {"models": [name + "-*" for name in models], **more}


def split(text, size):
    return fakes.pieces(text, size) if size else [text]


def ways():
    """Every client before every backend, whole and streamed at every size of chunk."""
    return itertools.product(CLIENTS, BACKENDS, (None, *SIZES))


class Exchanges(Case):
    """A gateway before two fakes, where each model NAME is there as NAME-chat and NAME-messages."""

    KIND = Gateway
    chat: fakes.OpenAIOnly
    messages: fakes.AnthropicOnly

    @classmethod
    def open(cls, plugins, names, **more):
        cls.chat, cls.messages = fakes.OpenAIOnly(), fakes.AnthropicOnly()
        cls.addClassCleanup(cls.chat.close)
        cls.addClassCleanup(cls.messages.close)
        backends = {"chat": {"kind": "openai", "url": cls.chat.url}, "messages": {"kind": "anthropic", "url": cls.messages.url}, **more.pop("backends", {})}
        models = {"{}-{}".format(name, backend): {"targets": [{"backend": backend, "model": fakes.MODEL}], "price": PRICE} for name in names for backend in BACKENDS}
        cls.gateway = cls.KIND(backends, {**models, **more.pop("models", {})}, plugins=plugins, **more)
        cls.addClassCleanup(cls.gateway.close)
        cls.clients = {}

    def client(self, name, secret):
        if (name, secret) not in self.clients:
            self.clients[name, secret] = getattr(self.gateway, name)(secret)
        return self.clients[name, secret]

    # What the backends say ---------------------------------------------------------------------------------------

    def plays(self, text="", calls=(), size=None, then="end"):
        """Both fakes say this, whole or in pieces of `size` characters. `calls`: name and arguments as text."""
        made = [("call_{}".format(index), name, arguments) for index, (name, arguments) in enumerate(calls)]
        deltas = [{"content": piece} for piece in split(text, size) if piece]
        for index, (call_id, name, arguments) in enumerate(made):
            deltas.append(fakes.tool_delta(index, "", call_id, name))
            deltas += [fakes.tool_delta(index, piece) for piece in split(arguments, size)]
        finish = "tool_calls" if made else "stop"
        whole = fakes.chat(text or None, finish, tool_calls=[fakes.call(*call) for call in made])
        streamed = fakes.chat_stream(*deltas, finish=finish, then=then)
        self.chat.plays(lambda body: streamed(body) if body.get("stream") else whole)

        blocks = [fakes.text(text)] if text else []
        stop = "tool_use" if made else "end_turn"
        pieces = fakes.message_stream(*blocks, *(fakes.tool_use(*call) for call in made), stop=stop, size=size, then=then)

        def message(body):
            if body.get("stream"):
                return pieces
            return fakes.message(*blocks, *(fakes.tool_use(call_id, name, json.loads(given)) for call_id, name, given in made), stop=stop)

        self.messages.plays(message)

    def fake(self, model):
        return self.messages if model.endswith("-messages") else self.chat

    def sent(self, model):
        """The body of the one request the model's backend got, as it came."""
        bodies = self.fake(model).bodies
        self.assertEqual(len(bodies), 1, "the backend must be asked once")
        return bodies[0]

    def asked(self):
        """How often a backend was asked."""
        return len(self.chat.requests) + len(self.messages.requests)

    # What a client asks ------------------------------------------------------------------------------------------

    def ask(self, client, model, prompt="Hello", stream=False, secret=WEB, system=None, tools=(), headers=None, **body):
        """One request through an official client."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        fields = {"model": model, "messages": messages, "max_tokens": 100, "extra_headers": headers or {}, "extra_body": body}
        if client == "openai":
            fields["messages"] = ([{"role": "system", "content": system}] if system else []) + messages
            if tools:
                fields["tools"] = [{"type": "function", "function": {"name": name, "parameters": TOOL}} for name in tools]
            return self.ask_openai(self.client(client, secret), stream, fields)
        fields.update({"system": system} if system else {})
        if tools:
            fields["tools"] = [{"name": name, "input_schema": TOOL} for name in tools]
        return self.ask_anthropic(self.client(client, secret), stream, fields)

    def ask_openai(self, client, stream, fields):
        raw = client.chat.completions.with_raw_response.create(**fields, stream=stream)
        got, calls = Got(headers=dict(raw.headers)), {}
        if stream:
            chunks = list(raw.parse())
            got.model = one({chunk.model for chunk in chunks})
            parts = [(chunk.choices[0].delta, chunk.choices[0].finish_reason) for chunk in chunks if chunk.choices]
        else:
            reply = raw.parse()
            got.model = reply.model
            parts = [(reply.choices[0].message, reply.choices[0].finish_reason)]
        for index, (part, finish) in enumerate(parts):
            got.text += part.content or ""
            got.reasoning += getattr(part, "reasoning_content", None) or ""
            got.stop = finish or got.stop
            for place, call in enumerate(part.tool_calls or []):
                known = calls.setdefault(call.index if stream else place, {"name": call.function.name, "arguments": ""})
                known["arguments"] += call.function.arguments or ""
        got.calls = [(call["name"], json.loads(call["arguments"])) for _, call in sorted(calls.items())]
        return got

    def ask_anthropic(self, client, stream, fields):
        if stream:
            with client.messages.stream(**fields) as events:
                reply, headers = events.get_final_message(), dict(events.response.headers)
        else:
            raw = client.messages.with_raw_response.create(**fields)
            reply, headers = raw.parse(), dict(raw.headers)
        got = Got(headers=headers, model=reply.model, stop=reply.stop_reason)
        for block in reply.content:
            got.text += block.text if block.type == "text" else ""
            got.reasoning += block.thinking if block.type == "thinking" else ""
            got.calls += [(block.name, block.input)] if block.type == "tool_use" else []
        return got

    def raw(self, client, model, prompt="Hello", stream=True, secret=WEB, body=None):
        """Status, headers and bytes of a reply, unread by any client."""
        path = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}[client]
        body = body or {"model": model, "max_tokens": 100, "stream": stream, "messages": [{"role": "user", "content": prompt}]}
        return self.gateway.ask("POST", path, body, {"authorization": "Bearer " + secret})

    # What is left of it ------------------------------------------------------------------------------------------

    def metric(self, name, **labels):
        """The sum of a counter's series that bear these labels."""
        return sum(value for found, own, value in self.gateway.metrics() if found == name and labels.items() <= own.items())

    def counted(self, name, **labels):
        """What a counter has grown by when the returned function is called."""
        before = self.metric(name, **labels)
        return lambda: self.metric(name, **labels) - before

    def hooked(self, plugin, hook):
        """How often a hook of a plugin was called since, when the returned function is called."""
        return self.counted("tidegate_plugin_duration_seconds_count", plugin=plugin, hook=hook)

    def log_since(self):
        """The log from here on, when the returned function is called."""
        size = self.gateway.log.stat().st_size
        return lambda: self.gateway.log.read_bytes()[size:].decode(errors="replace")


def one(values):
    """The only value of a set."""
    if len(values) != 1:
        raise AssertionError("there must be one value: {}".format(values))
    return next(iter(values))


def seen(client, stream_text):
    """All text a raw stream holds, and the type of its last event."""
    data = re.findall(r"^data: (.*)$", stream_text, re.M)
    events = [json.loads(item) for item in data if item != "[DONE]"]
    if client == "openai":
        words = "".join((choice["delta"].get("content") or "") for item in events for choice in item.get("choices", []))
        return words, "done" if data[-1] == "[DONE]" else "error" if "error" in events[-1] else "chunk"
    words = "".join(item["delta"].get("text", "") for item in events if item["type"] == "content_block_delta")
    return words, events[-1]["type"]


def missing(file):
    """Why the tests of a plugin that is no part of a usual build are skipped; nothing if it is there."""
    return None if (PLUGINS / file).is_file() else "no {} among the built plugins (`make plugins` builds it where npm or pip is)".format(file)


def needs(file):
    return unittest.skipIf(missing(file), missing(file))
