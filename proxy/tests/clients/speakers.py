"""Backends of every dialect that answer by what they are asked: whoever asks, in whatever way, gets the same said.

A list of replies in order would tie a test to how often and in what order a client asks. Here a test says once what the
model answers to what it was asked, and each backend reads and writes that in its own API, and knows no other.
"""

import itertools
import json
from dataclasses import dataclass, field

import fakes


@dataclass
class Asked:
    """A request, whatever its API."""

    said: list
    """Every text of the conversation, in order, as (role, text)."""
    results: list
    """The texts of all tool results, in order."""
    tools: list
    """The names of the tools that are offered."""
    thinks: bool
    """Whether thinking is asked for."""
    stream: bool

    @property
    def prompt(self):
        """All that users said, in one text."""
        return "\n".join(text for role, text in self.said if role == "user")


@dataclass
class Said:
    """What a model answers: at most one thought, one text, and some calls as (name, input)."""

    text: str = ""
    thought: str = ""
    calls: list = field(default_factory=list)
    error: tuple = ()
    """A status and a message, instead of an answer."""
    cut: bool = False
    """Whether a stream breaks off after the text."""


def flat(content):
    """The text of a content that is a string, parts, or nothing."""
    if isinstance(content, list):
        return "\n".join(part.get("text") or "" for part in content)
    return content or ""


class Speaker:
    """What all have in common; mixed into a fake, which knows the path and the shape of errors."""

    backend: dict

    def answers(self, model):
        """From here on `model`, a function from what was asked to what is said, answers."""
        self.asked = []
        self.numbers = itertools.count(1)
        self.plays(lambda body: self.reply(body, model))

    def reply(self, body, model):
        asked = self.read(body)
        self.asked.append(asked)
        said = model(asked)
        if said.error:
            status, message = said.error
            return fakes.Whole(self.error(status, message), status)
        return self.write(said, body)

    def configuration(self):
        return {**self.backend, "url": self.url}

    def named(self, calls):
        """The calls with ids, which are never the same twice."""
        return [("call_{}".format(next(self.numbers)), name, given) for name, given in calls]


class Chat(Speaker, fakes.OpenAIOnly):
    backend = {"kind": "openai", "dialects": ["chat"]}

    def read(self, body):
        said = [(item["role"], flat(item.get("content"))) for item in body["messages"]]
        effort = body.get("reasoning_effort")
        return Asked(said, [text for role, text in said if role == "tool"], [tool["function"]["name"] for tool in body.get("tools") or []], effort not in (None, "none"), bool(body.get("stream")))

    def write(self, said, body):
        calls = [(call_id, name, json.dumps(given)) for call_id, name, given in self.named(said.calls)]
        finish = "tool_calls" if calls else "stop"
        if not body.get("stream"):
            return fakes.chat(said.text or None, finish, tool_calls=[fakes.call(*call) for call in calls], **({"reasoning_content": said.thought} if said.thought else {}))
        deltas = [{"reasoning_content": piece} for piece in fakes.pieces(said.thought) if piece] + [{"content": piece} for piece in fakes.pieces(said.text) if piece]
        for index, (call_id, name, arguments) in enumerate(calls):
            deltas.append(fakes.tool_delta(index, "", call_id, name))
            deltas += [fakes.tool_delta(index, piece) for piece in fakes.pieces(arguments)]
        return fakes.chat_stream(*deltas, finish=finish, then="cut" if said.cut else "end")(body)


class Messages(Speaker, fakes.AnthropicOnly):
    backend = {"kind": "anthropic"}

    def read(self, body):
        said, results = [("system", flat(body.get("system")))], []
        for message in body["messages"]:
            blocks = message["content"] if isinstance(message["content"], list) else [fakes.text(message["content"])]
            results += [flat(block.get("content")) for block in blocks if block["type"] == "tool_result"]
            said += [(message["role"], block["text"]) for block in blocks if block["type"] == "text"]
        thinking = (body.get("thinking") or {}).get("type")
        return Asked(said, results, [tool["name"] for tool in body.get("tools") or []], thinking in ("enabled", "adaptive"), bool(body.get("stream")))

    def write(self, said, body):
        blocks = [fakes.thinking(said.thought)] if said.thought else []
        blocks += [fakes.text(said.text)] if said.text else []
        blocks += [fakes.tool_use(*call) for call in self.named(said.calls)]
        stop = "tool_use" if said.calls else "end_turn"
        if body.get("stream"):
            return fakes.message_stream(*blocks, stop=stop, then="cut" if said.cut else "end")
        return fakes.message(*blocks, stop=stop)


class Ollama(Speaker, fakes.OllamaOnly):
    backend = {"kind": "ollama", "dialects": ["ollama"]}

    def read(self, body):
        said = [(item["role"], item.get("content") or "") for item in body["messages"]]
        return Asked(said, [text for role, text in said if role == "tool"], [tool["function"]["name"] for tool in body.get("tools") or []], bool(body.get("think")), body.get("stream") is not False)

    def write(self, said, body):
        lines = [{"thinking": piece} for piece in fakes.pieces(said.thought) if piece] + [{"content": piece} for piece in fakes.pieces(said.text) if piece]
        lines += [{"tool_calls": [{"function": {"name": name, "arguments": given}}]} for name, given in said.calls]
        return fakes.ollama_reply(*lines, then="cut" if said.cut else "end")(body)


class Responses(Speaker, fakes.ResponsesOnly):
    backend = {"kind": "openai", "dialects": ["responses"]}

    def read(self, body):
        given = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
        said = [("system", body.get("instructions") or "")] + [(item["role"], flat(item.get("content"))) for item in given if item.get("type", "message") == "message"]
        results = [flat(item["output"]) for item in given if item.get("type") in ("function_call_output", "custom_tool_call_output")]
        effort = (body.get("reasoning") or {}).get("effort")
        return Asked(said, results, [tool.get("name") for tool in body.get("tools") or []], effort not in (None, "none"), bool(body.get("stream")))

    def write(self, said, body):
        items = [fakes.reasoning_item(said.thought)] if said.thought else []
        items += [fakes.message_item(said.text)] if said.text else []
        free = {tool.get("name") for tool in body.get("tools") or [] if tool["type"] == "custom"}
        items += [fakes.custom_item(call_id, name, given["input"]) if name in free else fakes.function_item(call_id, name, json.dumps(given)) for call_id, name, given in self.named(said.calls)]
        if body.get("stream"):
            return fakes.response_stream(*items, then="cut" if said.cut else "end")
        return fakes.response(*items)


ALL = {"chat": Chat, "messages": Messages, "responses": Responses, "ollama": Ollama}
