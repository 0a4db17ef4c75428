"""A gateway for a test: started from a configuration, asked, looked into, stopped or killed.

Every test module needs the same few things (a running binary, its ledger, its metrics, the official clients pointed
at it); they are here so that the tests say only what they test.
"""

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import anthropic
import ollama
import openai

from ports import free_port

BINARY = os.environ.get("TIDEGATE_TEST_BINARY", "")
MODEL = os.environ.get("TIDEGATE_TEST_MODEL", "")
PLUGINS = Path(os.environ.get("TIDEGATE_TEST_PLUGINS", ""))

WEB = "dfproj_" + "w" * 32
RESEARCH = "dfproj_" + "r" * 32
APP = "dfproj_" + "a" * 32
OPS = "dforg_" + "o" * 32
ROOT = "dfuser_" + "u" * 32


def toml(value):
    """A TOML value on one line. JSON's strings, numbers and booleans are TOML's."""
    if isinstance(value, dict):
        return "{ " + ", ".join("{} = {}".format(json.dumps(key), toml(item)) for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def key(key_id, secret):
    return {"id": key_id, "hash": "sha256:" + hashlib.sha256(secret.encode()).hexdigest()}


def tenants():
    """Two organizations, three projects (one restricted), and a key of every kind."""
    return {
        "organizations": {
            "acme": {
                "keys": [key("ops", OPS)],
                "projects": {"web": {"keys": [key("web-1", WEB)]}, "research": {"keys": [key("research-1", RESEARCH)], "models": ["small*"]}},
            },
            "globex": {"projects": {"app": {"keys": [key("app-1", APP)]}}},
        },
        "users": {"root": {"admin": True, "keys": [key("root-1", ROOT)]}},
    }


class Gateway:
    """One gateway process and its folder. The folder outlives the process, so that it can be started again."""

    # Seconds until it must be ready.
    PATIENCE = 60

    def __init__(self, backends, models, **more):
        self.folder = Path(tempfile.mkdtemp(prefix="tidegate-clients-"))
        self.port, self.admin_port = free_port(), free_port()
        self.config = self.folder / "tidegate.toml"
        self.log = self.folder / "log.txt"
        settings = {
            "server": {"listen": "127.0.0.1:{}".format(self.port)},
            "admin": {"listen": "127.0.0.1:{}".format(self.admin_port)},
            "ledger": {"path": str(self.folder / "tidegate.db")},
            "backends": backends,
            "models": models,
            **tenants(),
            **more,
        }
        self.config.write_text("".join("{} = {}\n".format(name, toml(value)) for name, value in settings.items()))
        self.process = None
        self.clients = []
        self.start()

    def start(self):
        self.launch([BINARY, "serve", "--config", str(self.config)])

    def launch(self, command, files=()):
        """Runs it, with these files open, until it is ready."""
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, pass_fds=files)
        deadline = time.monotonic() + self.PATIENCE
        while self.readiness() != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the gateway did not become ready:\n" + self.last_words())
            time.sleep(0.02)

    def readiness(self):
        try:
            return self.ask("GET", "/readyz", port=self.admin_port)[0]
        except (OSError, http.client.HTTPException):
            return 0

    def logged(self, word):
        """The lines of its log that hold this word."""
        return [line for line in self.log.read_text().splitlines() if word in line]

    def last_words(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def kill(self):
        """As a crash would: nothing is flushed, nobody is told."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """As an operator would."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()

    def close(self):
        for client in self.clients:
            client.close()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self):
        return "http://127.0.0.1:{}".format(self.port)

    def anthropic(self, secret=WEB, **options):
        return self.kept(anthropic.Anthropic(base_url=self.url, api_key=secret, max_retries=0, timeout=60, **options))

    def openai(self, secret=WEB, **options):
        return self.kept(openai.OpenAI(base_url=self.url + "/v1", api_key=secret, max_retries=0, timeout=60, **options))

    def ollama(self, secret=WEB):
        return self.kept(ollama.Client(host=self.url, headers={"Authorization": "Bearer " + secret}, timeout=60))

    def kept(self, client):
        """Closed with the gateway."""
        self.clients.append(client)
        return client

    def ask(self, method, path, body=None, headers=(), port=None):
        """A plain request, for what the official clients would not send. Returns status, headers and text."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=60)
        try:
            data = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
            connection.request(method, path, data, {"content-type": "application/json", **dict(headers)})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def records(self):
        """The ledger as the command line shows it. Works beside a running gateway and after its death; never waits."""
        done = subprocess.run([BINARY, "usage", "--records", "--format", "json", "--config", str(self.config)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError("tidegate usage failed: " + done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def metrics(self):
        """[(name, labels, value)] of the admin listener's page."""
        text = self.ask("GET", "/metrics", port=self.admin_port)[2]
        found = (re.match(r"^(\w+)(?:\{(.*)\})? (\S+)$", line) for line in text.splitlines() if not line.startswith("#"))
        return [(match[1], dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")), float(match[3])) for match in found if match]

    def backend_in_flight(self, backend):
        values = [value for name, labels, value in self.metrics() if name == "tidegate_backend_in_flight" and labels.get("backend") == backend]
        return sum(values) if values else None


class Llama:
    """A real llama.cpp server in a process of its own."""

    SOURCE = """
import sys, time, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.hostnames, p.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
p.n_ctx, p.n_parallel, p.endpoint_metrics = 4096, 2, True
p.cpuparams.n_threads = 2
server = xllamacpp.Server(p)
sys.stdin.read()
"""

    def __init__(self):
        self.port = free_port()
        self.log = tempfile.TemporaryFile()
        # It ends when its standard input does: also when the tests are killed.
        self.process = subprocess.Popen([sys.executable, "-c", self.SOURCE, MODEL, str(self.port)], stdin=subprocess.PIPE, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                raise RuntimeError("llama.cpp did not start:\n" + self.log.read().decode(errors="replace")[-2000:])
            time.sleep(0.05)

    @property
    def url(self):
        return "http://127.0.0.1:{}".format(self.port)

    def healthy(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def openai(self):
        """The official client, straight to llama.cpp; close it."""
        return openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=60)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.log.close()


class Case(unittest.TestCase):
    """A test that looks at the records its own requests left."""

    gateway: Gateway
    maxDiff = 4000

    def setUp(self):
        super().setUp()
        self.before = {record["id"] for record in self.gateway.records()}

    def new_records(self):
        return [record for record in self.gateway.records() if record["id"] not in self.before]

    def only_record(self):
        """The one record since the test began, or since the last call of this."""
        records = self.new_records()
        self.assertEqual(len(records), 1, "there must be exactly one record: {}".format(records))
        self.before.add(records[0]["id"])
        return records[0]

    def only_record_within(self, seconds):
        """For requests that end without telling the client: the gateway may take a moment to notice."""
        self.eventually(lambda: self.new_records(), seconds, "no record was written")
        return self.only_record()

    def eventually(self, holds, seconds, otherwise):
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                self.fail("{} within {} s".format(otherwise, seconds))
            time.sleep(0.02)

    def assertFields(self, record, **fields):
        """Compares the named fields; says all that differ."""
        self.assertEqual({name: record.get(name) for name in fields}, fields)
