"""Three coding agents, headless, before models that are spoken to in every dialect: Claude Code, Codex and Continue.

The model is a script; the agents, their tools and the files they write are real. What a tool said must come back to the
model in the backend's own dialect, whatever the agent speaks. They are kept off the network: what is not on this machine
goes to a proxy that is not there.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import node
import speakers
from gateway import WEB, Case, Gateway

NOTE = "across dialects"
SHELL = "printf '{}' > note.txt && wc -c note.txt && pwd".format(NOTE)
PATCH = "*** Begin Patch\n*** Add File: second.txt\n+{}\n*** End Patch\n".format(NOTE)
PROMPT = "Write '{}' into note.txt and into second.txt.".format(NOTE)
DONE = "Both files are there."
# Codex offers its free-form tool for patches only to a model whose name it knows.
MODELS = ("some-model", "gpt-5.5")
# Node's own `fetch`, by which Continue asks for its newest version, looks at proxies only when it is told to.
OFF = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost", "NODE_USE_ENV_PROXY": "1"}
QUIET = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_TELEMETRY": "1", "DISABLE_AUTOUPDATER": "1", "DISABLE_ERROR_REPORTING": "1"}
CODEX = """
model = "gpt-5.5"
model_provider = "tidegate"
check_for_update_on_startup = false
analytics.enabled = false

[model_providers.tidegate]
name = "Tidegate"
base_url = "{url}/v1"
env_key = "TIDEGATE_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""
CONTINUE = """
name: test
version: 0.0.1
schema: v1
models:
  - name: model
    provider: openai
    model: some-model
    apiBase: {url}/v1
    apiKey: {key}
    roles: [chat]
    capabilities: [tool_use]
"""


def in_claude(asked):
    """The shell, then two tools in one answer, then the last word."""
    if not asked.results:
        return speakers.Said(text="First the shell.", calls=[("Bash", {"command": SHELL, "description": "Write the note"})])
    if len(asked.results) == 1:
        folder = asked.results[0].split("\n")[1]
        write = ("Write", {"file_path": folder + "/second.txt", "content": NOTE + "\n"})
        return speakers.Said(thought="Two things at once.", text="Now the second.", calls=[write, ("Bash", {"command": "cat note.txt", "description": "Look"})])
    return speakers.Said(text=DONE)


def in_codex(asked):
    """The shell, then a patch in Codex's own free form, then the last word."""
    if not asked.results:
        return speakers.Said(text="First the shell.", calls=[("exec_command", {"cmd": SHELL})])
    if len(asked.results) == 1:
        return speakers.Said(thought="A patch.", text="Now the second.", calls=[("apply_patch", {"input": PATCH})])
    return speakers.Said(text=DONE)


def in_continue(asked):
    """The shell, then two tools in one answer, then the last word."""
    if not asked.results:
        return speakers.Said(text="First the shell.", calls=[("Bash", {"command": SHELL})])
    if len(asked.results) == 1:
        folder = asked.results[0].split("\n")[1]
        write = ("Write", {"filepath": folder + "/second.txt", "content": NOTE + "\n"})
        return speakers.Said(thought="Two things at once.", text="Now the second.", calls=[write, ("Bash", {"command": "cat note.txt"})])
    return speakers.Said(text=DONE)


class Agents(Case):
    @classmethod
    def setUpClass(cls):
        cls.programs = node.installed("agents") / "node_modules"

    def setUp(self):
        """A gateway of its own for every test and backend."""

    def test_claude_code(self):
        [program] = self.programs.glob("@anthropic-ai/claude-code-*/claude")
        command = [str(program), "-p", PROMPT, "--allowedTools", "Bash", "Write", "--output-format", "stream-json", "--verbose"]
        for kind in speakers.ALL:
            with self.subTest(backend=kind), Turn(kind, in_claude) as turn:
                told = turn.run(command, ANTHROPIC_BASE_URL=turn.gateway.url, ANTHROPIC_AUTH_TOKEN=WEB, ANTHROPIC_MODEL="some-model", ANTHROPIC_DEFAULT_HAIKU_MODEL="some-model", **QUIET)
                end = told[-1]
                self.assertEqual((end["type"], end["subtype"], end["is_error"], end["result"]), ("result", "success", False, DONE))
                self.assertEqual({message["message"]["model"] for message in told if message["type"] == "assistant"}, {"some-model"})
                self.judge(turn, "messages", "some-model", ["15 note.txt", "second.txt", NOTE])

    def test_codex(self):
        for kind in speakers.ALL:
            with self.subTest(backend=kind), Turn(kind, in_codex) as turn:
                home = turn.folder / "home" / ".codex"
                home.mkdir()
                (home / "config.toml").write_text(CODEX.format(url=turn.gateway.url))
                program = self.programs / ".bin" / "codex"
                # What it may do is bounded by the script: a sandbox in a container's sandbox can often not be had.
                told = turn.run([str(program), "exec", "--skip-git-repo-check", "--json", "--dangerously-bypass-approvals-and-sandbox", PROMPT], TIDEGATE_KEY=WEB)
                items = [message["item"] for message in told if message["type"] == "item.completed"]
                self.assertEqual([item for item in items if item["type"] == "error"], [])
                self.assertEqual((told[-1]["type"], items[-1].get("text")), ("turn.completed", DONE))
                self.assertEqual([item["type"] for item in items if item["type"] in ("command_execution", "file_change")], ["command_execution", "file_change"])
                self.judge(turn, "responses", "gpt-5.5", ["15 note.txt", "second.txt"])

    def test_continue(self):
        for kind in speakers.ALL:
            with self.subTest(backend=kind), Turn(kind, in_continue) as turn:
                config = turn.folder / "home" / "config.yaml"
                config.write_text(CONTINUE.format(url=turn.gateway.url, key=WEB))
                program = self.programs / ".bin" / "cn"
                told = turn.run([str(program), "-p", PROMPT, "--config", str(config), "--allow", "Bash", "--allow", "Write", "--format", "json"], CONTINUE_METRICS_ENABLED="0")
                self.assertEqual((told[-1]["status"], told[-1]["response"]), ("success", DONE))
                self.judge(turn, "chat/completions", "some-model", ["15 note.txt", "second.txt", NOTE])

    def judge(self, turn, endpoint, model, results):
        """The files are there, the tools' outputs came back in the backend's dialect, and the books say so."""
        self.assertEqual({path.name: path.read_text().strip() for path in turn.work.iterdir()}, {"note.txt": NOTE, "second.txt": NOTE})
        asked = turn.backend.asked
        self.assertEqual([len(one.results) for one in asked], [0, 1, len(results)])
        for given, expected in zip(asked[-1].results, results, strict=True):
            self.assertIn(expected, given)
        self.assertIn(PROMPT, asked[-1].prompt)
        self.assertTrue(all(one.stream for one in asked))
        for record in turn.gateway.records():
            self.assertFields(record, endpoint=endpoint, model_requested=model, outcome="ok", status=200, stream=True, usage_source="reported", organization="acme", project="web")


class Turn:
    """One agent's turn: a scripted backend, a gateway before it, and a home and a folder to work in."""

    def __init__(self, kind, model):
        self.backend = speakers.ALL[kind]()
        self.backend.answers(model)
        self.gateway = Gateway({kind: self.backend.configuration()}, {name: {"targets": [{"backend": kind, "model": "backend-model"}]} for name in MODELS})
        self.holder = tempfile.TemporaryDirectory(prefix="tidegate-agent-", ignore_cleanup_errors=True)
        self.folder = Path(self.holder.name).resolve()
        self.work = self.folder / "work"
        self.work.mkdir()
        (self.folder / "home").mkdir()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.gateway.close()
        self.backend.close()
        self.holder.cleanup()

    def run(self, command, **variables):
        """What the agent tells of its turn, one message a line."""
        path = "{}:{}".format(node.NODE.parent, os.environ["PATH"])
        home = str(self.folder / "home")
        done = subprocess.run(command, cwd=self.work, env={"PATH": path, "HOME": home, "TMPDIR": home, **OFF, **variables}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90)
        if done.returncode != 0:
            raise AssertionError("{} ended with {}:\n{}\n{}\nThe gateway:\n{}".format(Path(command[0]).name, done.returncode, done.stdout[-3000:], done.stderr[-2000:], self.gateway.last_words()))
        return [json.loads(line) for line in done.stdout.splitlines()]
