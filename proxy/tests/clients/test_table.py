"""Every client before a backend of every dialect: the table in docs/clients.md is what came out of this.

Each is used as its own documentation says, down to its own way of running tools and its own exceptions. The backends
answer by what they were asked (`speakers.py`), so whatever a client got must be the same before all of them.
"""

import json
import subprocess
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import node
import python_clients
import speakers
from gateway import WEB, Gateway

DOCS = Path(__file__).resolve().parents[3] / "docs" / "clients.md"
MODULES = ("openai", "anthropic", "ollama", "ai")
PROMPTS = {"text": "How is it?", "tool": "How is it in Rom?", "thinking": "Think: two and two?", "refused": "Refuse this.", "unknown": "How is it?", "cut": "Break off."}
CASES = [
    {"name": name, "prompt": PROMPTS[name.split()[0]], "stream": name.endswith("streamed") or name == "cut", "tool": name.startswith("tool"), "thinking": name.startswith("thinking")}
    for name in ("text", "text streamed", "tool", "tool streamed", "thinking", "thinking streamed", "refused", "unknown", "cut")
]
CASE_NAMES = [case["name"] for case in CASES]
# What a client must have in the end: text, thoughts, and the calls of its tool.
SAID = {
    "text": ("It is sunny. ☀", "", []),
    "tool": ("It says: Rom: sunny, 21 degrees", "", [["weather", {"city": "Rom"}]]),
    "thinking": ("Four.", "Two and two. ☀", []),
}
# The classes in which a client throws: a request that the backend refused, a model that nobody has, a stream that broke off.
ERRORS = {
    "openai chat": ("BadRequestError", "NotFoundError", "APIError"),
    "openai responses": ("BadRequestError", "NotFoundError", ("status failed", "RuntimeError")),
    "anthropic messages": ("BadRequestError", "NotFoundError", ("APIError", "APIStatusError")),
    "ollama chat": ("ResponseError", "ResponseError", ("Error", "ResponseError")),
    "langchain-openai chat": ("OpenAIContextOverflowError", "OpenAIModelNotFoundError", "APIError"),
    "langchain-openai responses": ("OpenAIContextOverflowError", "OpenAIModelNotFoundError", "ValueError"),
    "langchain-anthropic": ("AnthropicContextOverflowError", "AnthropicModelNotFoundError", "APIStatusError"),
    "langchain-ollama": ("ResponseError", "ResponseError", "ResponseError"),
    **{"ai " + name: ("APICallError", "APICallError", "StreamProviderError") for name in ("openai chat", "openai responses", "openai-compatible", "anthropic", "ollama")},
}
# What a client does not know, whatever is behind it.
UNKNOWN = {
    # OpenAI's chat completions have no place for a model's thoughts.
    "ai openai chat": {"thinking", "thinking streamed"},
    "langchain-openai chat": {"thinking", "thinking streamed"},
    # It takes a line that says an error for a broken one, prints that and goes on.
    "ai ollama": {"cut"},
}


def model(asked):
    """What the model answers."""
    if "Refuse" in asked.prompt:
        return speakers.Said(error=(400, "prompt is too long by 12 tokens"))
    if "Break" in asked.prompt:
        return speakers.Said(text="Half of what", cut=True)
    if asked.results:
        return speakers.Said(text="It says: " + asked.results[-1])
    if asked.tools:
        return speakers.Said(text="Looking.", calls=[("weather", {"city": "Rom"})])
    if "Think" in asked.prompt:
        return speakers.Said(thought="Two and two. ☀", text="Four.") if asked.thinks else speakers.Said(text="Nobody asked for thinking.")
    return speakers.Said(text="It is sunny. ☀")


class Table(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.backends = {name: kind() for name, kind in speakers.ALL.items()}
        for backend in cls.backends.values():
            cls.addClassCleanup(backend.close)
            backend.answers(model)
        models = {"on-" + name: {"targets": [{"backend": name}]} for name in cls.backends}
        cls.gateway = Gateway({name: backend.configuration() for name, backend in cls.backends.items()}, models)
        cls.addClassCleanup(cls.gateway.close)
        cls.cases = [{**case, "model": "nobody-has-this" if case["name"] == "unknown" else "on-" + name} for name in cls.backends for case in CASES]

    def test_javascript(self):
        workshop = node.Workshop("js")
        self.addCleanup(workshop.close)
        with ThreadPoolExecutor(2) as pool:
            for rows in pool.map(lambda module: self.run_module(workshop, module), MODULES):
                self.judge("JavaScript", rows)

    def run_module(self, workshop, module):
        asked = json.dumps({"url": self.gateway.url, "key": WEB, "cases": self.cases})
        done = subprocess.run([str(node.NODE), "table.mjs", module], input=asked, cwd=workshop.folder, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_python(self):
        clients = python_clients.opened(self.gateway.url, WEB)
        self.judge("Python", [{"client": name, "model": case["model"], "case": case["name"], "got": python_clients.run(client, case)} for name, client in clients.items() for case in self.cases])

    def judge(self, language, rows):
        """Every cell is right, and the page says of each client what was found of it."""
        marks = {}
        for row in rows:
            client, case, got = row["client"], row["case"], row["got"]
            backend = "-" if case == "unknown" else row["model"].removeprefix("on-")
            if case in UNKNOWN.get(client, ()):
                continue
            with self.subTest(client=client, backend=backend, case=case):
                self.right(client, case, got)
                marks.setdefault(client, {}).setdefault(backend, set()).add(case)
        page = DOCS.read_text()
        for client, by_backend in marks.items():
            known = [case for case in CASE_NAMES if case not in UNKNOWN.get(client, ())]
            cells = [sum(case in by_backend.get(backend, ()) for case in known if case != "unknown") for backend in self.backends]
            line = "| {} | {} | {} |".format(language, client, " | ".join("{} of {}".format(cell, len(known) - 1) for cell in cells))
            with self.subTest(page=client):
                self.assertIn(line, page, "docs/clients.md must say what was found")

    def right(self, client, case, got):
        refused, unknown, cut = ERRORS[client]
        if case in ("refused", "unknown"):
            self.assertEqual(got.get("error"), refused if case == "refused" else unknown, got)
            self.assertIn(got["status"], (400 if case == "refused" else 404, None))
            # Some clients tell only the status.
            if client != "ai ollama":
                self.assertIn("too long by 12 tokens" if case == "refused" else "nobody-has-this", got["message"])
        elif case == "cut":
            self.assertIn(got.get("error"), cut if isinstance(cut, tuple) else (cut,), got)
            # OpenAI's client for Python has no word for a failed response, and says what it misses.
            if got["error"] != "RuntimeError":
                self.assertIn("broke off", got["message"])
            else:
                self.assertIn("response.completed", got["message"])
        else:
            self.assertNotIn("error", got)
            text, thought, calls = SAID[case.split()[0]]
            # Where it runs the tools by itself, a stream of Vercel's is of the whole turn.
            before = "Looking." if client.startswith("ai ") and case == "tool streamed" else ""
            self.assertEqual((got["text"], got["calls"]), (before + text, calls))
            self.assertEqual(got.get("thinking") or "", thought)
            if case.endswith("streamed") and got.get("pieces") is not None:
                self.assertGreater(got["pieces"], 1, "a stream must come in pieces")
