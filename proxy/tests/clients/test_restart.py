"""Restarts, renewed certificates and TLS, with official clients at work: no request fails that could have been served.

The tests in Rust hold the rules of one process; here one process takes over from another, as operators do it.
"""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

import anthropic
import httpx2
import openai

import certificates
from fakes import OpenAIOnly, Stream, chat, chat_stream
from gateway import BINARY, WEB, Case, Gateway
from node import HERE, NODE
from ports import free_port


def answer(body):
    """Whole replies at once, streams over a quarter of a second."""
    if not body.get("stream"):
        return chat("Hi")
    stream = chat_stream(*({"content": word} for word in "one two three four five six".split()))(body)

    def slowly():
        for frame in stream.frames:
            time.sleep(0.025)
            yield frame

    return Stream(slowly())


class Load:
    """Clients that ask all the time, each over connections that it keeps, and remember what went wrong."""

    def __init__(self, make, threads=6):
        self.served, self.errors, self.slowest = 0, [], 0.0
        self.lock, self.over = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(make, number)) for number in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self, make, number):
        with make() as client:
            while not self.over.is_set():
                began = time.monotonic()
                try:
                    self.ask(client, number)
                except Exception as error:
                    with self.lock:
                        self.errors.append(error)
                    time.sleep(0.05)
                    continue
                with self.lock:
                    self.served += 1
                    self.slowest = max(self.slowest, time.monotonic() - began)
                # Some go on at once, some keep the connection idle for a while.
                time.sleep((0, 0, 0.005, 0.02, 0.1, 0.3)[number % 6])

    def ask(self, client, number):
        asked = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        if number % 2:
            reply = client.chat.completions.create(**asked)
            assert reply.choices[0].message.content == "Hi", reply
            return
        chunks = list(client.chat.completions.create(**asked, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "onetwothreefourfivesix" and chunks[-1].choices[0].finish_reason == "stop", text

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()
        return self


class Generations(Gateway):
    """Processes that take over from each other. All of them have the configuration and the books in common."""

    def __init__(self, fake, server, inherited=None, tls=False, mutual=False):
        port = inherited.getsockname()[1] if inherited else free_port()
        self.inherited, self.context, self.papers = inherited, None, Path(tempfile.mkdtemp(prefix="tidegate-papers-"))
        settings = {"listen": "127.0.0.1:{}".format(port), **server}
        if tls:
            certificates.make(self.papers)
            settings["tls"] = {"cert": str(self.papers / "server.pem"), "key": str(self.papers / "server.key")}
            self.context = ssl.create_default_context(cafile=str(self.papers / "ca.pem"))
            if mutual:
                settings["tls"]["client_ca"] = str(self.papers / "ca.pem")
                self.context.load_cert_chain(self.papers / "client.pem", self.papers / "client.key")
        backends, models = {"b": {"kind": "openai", "url": fake.url}}, {"m": {"targets": [{"backend": "b"}]}}
        super().__init__(backends, models, server=settings, api={"deepfellow_compat": True})
        self.port = port

    def close(self):
        super().close()
        shutil.rmtree(self.papers)

    def start(self):
        self.admin_port = free_port()
        command = [BINARY, "serve", "--config", str(self.config), "--admin", "127.0.0.1:{}".format(self.admin_port)]
        files = ()
        if self.inherited:
            # As systemd does: the first socket is descriptor 3, and the variables name the process.
            command = ["sh", "-c", 'exec 3<&{}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'.format(self.inherited.fileno()), "sh", *command]
            files = (self.inherited.fileno(),)
        self.launch(command, files)

    def succeed(self):
        """The next one comes, then this one goes."""
        before = self.process
        self.start()
        before.terminate()
        return before.wait(40)

    @property
    def url(self):
        return "{}://127.0.0.1:{}".format("https" if self.context else "http", self.port)

    def client(self, **options):
        """An official client that tries nothing twice."""
        http = httpx2.Client(verify=self.context) if self.context else None
        return openai.OpenAI(base_url=self.url + "/v1", api_key=WEB, max_retries=0, timeout=60, http_client=http, **options)


class Restart(Case):
    def setUp(self):
        self.fake = OpenAIOnly()
        self.addCleanup(self.fake.close)
        self.fake.plays(answer)

    def starts(self, **how):
        self.gateway = Generations(self.fake, **how)
        self.addCleanup(self.gateway.close)
        return self.gateway

    def nothing_failed(self, load, least):
        self.eventually(lambda: load.errors or load.served > least, 60, "too few were served")
        load.end()
        self.assertEqual([repr(error) + " from " + repr(error.__cause__) for error in load.errors], [])
        self.gateway.stop()
        records = self.gateway.records()
        self.assertEqual((len(records), {record["outcome"] for record in records}), (load.served, {"ok"}))

    def was_asked(self):
        """The newest process."""
        return sum(value for name, _, value in self.gateway.metrics() if name == "tidegate_requests_total") > 0

    def test_one_process_takes_over_from_another_at_the_same_address(self):
        gateway = self.starts(server={"reuse_port": True})
        load = Load(gateway.client)
        self.addCleanup(load.end)
        left = lambda: len(gateway.logged("the gateway before this one has left the ledger"))
        for number in range(1, 6):
            time.sleep(0.3)
            self.assertEqual(gateway.succeed(), 0)
            self.eventually(lambda: left() == number, 10, "the next one does not know that it has left")
        time.sleep(0.5)
        self.nothing_failed(load, 200)

    def test_the_same_over_tls_while_certificates_and_configurations_change(self):
        gateway = self.starts(server={"reuse_port": True}, tls=True)
        load = Load(gateway.client)
        self.addCleanup(load.end)
        text = gateway.config.read_text()
        for number in range(4):
            certificates.make(gateway.papers)
            gateway.process.send_signal(signal.SIGHUP)
            time.sleep(0.3)
            new = gateway.folder / "new.toml"
            new.write_text(text.replace('"deepfellow_compat" = true', '"deepfellow_compat" = {}'.format("false" if number % 2 else "true")))
            os.replace(new, gateway.config)
            time.sleep(0.3)
            self.assertEqual(gateway.succeed(), 0)
        time.sleep(1.5)
        self.assertTrue(gateway.logged("configuration reloaded"))
        self.nothing_failed(load, 200)

    def test_the_same_over_http2_with_clients_certificates(self):
        gateway = self.starts(server={"reuse_port": True}, tls=True, mutual=True)
        asked = {"url": gateway.url, "papers": str(gateway.papers), "key": WEB, "clients": 6}
        client = subprocess.Popen([NODE, HERE / "js" / "http2.mjs", json.dumps(asked)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(client.kill)
        for _ in range(5):
            time.sleep(0.5)
            self.eventually(self.was_asked, 30, "a process was not asked")
            self.assertEqual(gateway.succeed(), 0)
        self.eventually(lambda: self.was_asked() and len(self.fake.requests) > 220, 60, "too few were asked for")
        said = json.loads(client.communicate("", 30)[0])
        self.assertEqual(said["errors"], [])
        self.assertGreater(said["served"], 200)
        # Each process was asked, over connections that the one before had told to go.
        self.assertGreaterEqual(said["sessions"], 3 + 5)
        gateway.stop()
        records = gateway.records()
        self.assertEqual((len(records), {record["outcome"] for record in records}), (said["served"], {"ok"}))

    def test_a_socket_that_outlives_its_processes(self):
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(1024)
            gateway = self.starts(server={"drain_delay": "100ms"}, inherited=listening)
            load = Load(gateway.client)
            self.addCleanup(load.end)
            for _ in range(4):
                time.sleep(0.5)
                gateway.stop()
                gateway.start()
            time.sleep(0.5)
            self.nothing_failed(load, 100)

    def test_a_stop_without_a_successor_only_refuses_connections(self):
        gateway = self.starts(server={"drain_delay": "300ms"})
        load = Load(gateway.client, threads=12)
        self.addCleanup(load.end)
        time.sleep(1)
        self.assertEqual(load.errors, [])
        gateway.stop()
        load.end()
        self.assertTrue(load.errors)
        self.assertEqual({type(error.__cause__) for error in load.errors}, {httpx2.ConnectError}, load.errors[:3])
        records = gateway.records()
        self.assertEqual((len(records), {record["outcome"] for record in records}), (load.served, {"ok"}))


class Certificates(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.fake = OpenAIOnly()
        cls.addClassCleanup(cls.fake.close)
        cls.fake.plays(answer)
        cls.gateway = Generations(cls.fake, server={"workers": 2}, tls=True)
        cls.addClassCleanup(cls.gateway.close)

    def test_official_clients_over_https(self):
        with self.gateway.client() as client:
            reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
            self.assertEqual(reply.choices[0].message.content, "Hi")
            chunks = list(client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True))
            self.assertGreater(len(chunks), 5)
        http = httpx2.Client(verify=self.gateway.context)
        with anthropic.Anthropic(base_url=self.gateway.url, api_key=WEB, max_retries=0, http_client=http) as client:
            reply = client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}])
            self.assertEqual(reply.content[0].text, "Hi")
        with openai.OpenAI(base_url=self.gateway.url + "/v1", api_key=WEB, max_retries=0) as stranger:
            with self.assertRaises(openai.APIConnectionError) as failed:
                stranger.models.list()
            self.assertIn("CERTIFICATE_VERIFY_FAILED", str(failed.exception.__cause__))
        # The client knows of it first.
        deadline = time.monotonic() + 20
        counted = {}
        while counted.get("refused") != 1 and time.monotonic() < deadline:
            counted = {labels["reason"]: value for name, labels, value in self.gateway.metrics() if name == "tidegate_tls_handshake_failures_total"}
        self.assertEqual(counted["refused"], 1, counted)

    def test_check_looks_at_the_files(self):
        def check():
            done = subprocess.run([BINARY, "check", "--config", str(self.gateway.config)], capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr

        self.assertEqual(check()[0], 0)
        key = self.gateway.papers / "server.key"
        text = key.read_text()
        self.addCleanup(key.write_text, text)
        key.write_text((self.gateway.papers / "ca.key").read_text())
        code, said = check()
        self.assertEqual(code, 1)
        self.assertRegex(said, r"tidegate\.toml:1: server\.tls\.key: the key in \S+server\.key does not belong to the first certificate in \S+server\.pem")


if __name__ == "__main__":
    unittest.main()
