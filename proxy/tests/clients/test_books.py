"""The promise of the books under the worst: a gateway killed right after a reply, a client that vanishes in the middle.

A reply whose last byte a client has read is in the ledger, once, also if the gateway is dead the next moment; and a
stream that nobody reads to its end leaves one record with the tokens so far.
"""

import json
import socket
import struct
import threading

import fakes
from gateway import WEB, Case, Gateway

HELLO = [{"role": "user", "content": "Hello"}]
PATHS = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}


class Books(Case):
    @classmethod
    def setUpClass(cls):
        cls.chat, cls.messages = fakes.OpenAIOnly(), fakes.AnthropicOnly()
        cls.addClassCleanup(cls.chat.close)
        cls.addClassCleanup(cls.messages.close)
        backends = {"chat": {"kind": "openai", "url": cls.chat.url}, "claude": {"kind": "anthropic", "url": cls.messages.url}}
        price = {"currency": "USD", "input": 1.0, "output": 2.0}
        models = {"on-chat": {"targets": [{"backend": "chat", "model": fakes.MODEL}], "price": price}, "on-messages": {"targets": [{"backend": "claude", "model": fakes.MODEL}], "price": price}}
        cls.gateway = Gateway(backends, models)
        cls.addClassCleanup(cls.gateway.close)

    def setUp(self):
        super().setUp()
        if self.gateway.process.poll() is not None:
            self.gateway.start()

    def read_a_reply(self, client, model, stream):
        """Reads one reply to its last byte; returns its request id."""
        self.chat.plays(fakes.chat_stream({"content": "Hi"}) if stream else fakes.chat("Hi"))
        self.messages.plays(fakes.message_stream(fakes.text("Hi")) if stream else fakes.message(fakes.text("Hi")))
        if client == "openai":
            reply = self.gateway.openai().chat.completions.with_raw_response.create(model=model, messages=HELLO, stream=stream)
        else:
            reply = self.gateway.anthropic().messages.with_raw_response.create(model=model, max_tokens=10, messages=HELLO, stream=stream)
        if stream:
            list(reply.parse())
        return reply.headers["x-request-id"]

    def test_killed_right_after_a_reply(self):
        for client in PATHS:
            for model in ("on-chat", "on-messages"):
                for stream in (False, True):
                    with self.subTest(client=client, model=model, stream=stream):
                        if self.gateway.process.poll() is not None:
                            self.gateway.start()
                        before = {record["id"] for record in self.gateway.records()}
                        asked = [self.read_a_reply(client, model, stream) for _ in range(3)]
                        self.gateway.kill()
                        self.check_booked(asked, before, "dead")
                        self.gateway.start()
                        self.check_booked(asked, before, "started again")
                        self.read_a_reply(client, model, stream)
                        self.gateway.kill()
                        self.assertEqual(len([record for record in self.gateway.records() if record["id"] not in before]), 4)

    def check_booked(self, asked, before, when):
        records = [record for record in self.gateway.records() if record["id"] not in before]
        self.assertEqual([record["request_id"] for record in records], asked, "the ledger when the gateway is " + when)
        for record in records:
            self.assertFields(record, outcome="ok", status=200, usage_source="reported")
            self.assertGreater(record["cost"], 0)

    def test_the_client_vanishes_in_the_middle(self):
        """By an orderly close and by a reset; in both dialects, translated and not."""
        for client in PATHS:
            for model, fake in (("on-chat", self.chat), ("on-messages", self.messages)):
                for reset in (False, True):
                    with self.subTest(client=client, model=model, reset=reset):
                        self.chat.plays(fakes.chat_stream(*({"content": word} for word in ["one ", "two ", "three"]), then="silence"))
                        self.messages.plays(fakes.message_stream(fakes.text("one two three"), then="silence"))
                        self.vanish(client, model, b"three" if model == "on-chat" else b" three", reset)
                        record = self.only_record_within(10)
                        self.assertFields(record, outcome="client_gone", status=200, stream=True, model_requested=model, usage_source="estimated")
                        self.assertEqual(record["output_tokens"], 3 if model == "on-chat" else record["output_tokens"])
                        self.assertGreater(record["output_tokens"], 0)
                        self.assertGreater(record["input_tokens"], 0)
                        self.assertGreater(record["cost"], 0)
                        self.assertTrue(fake.left.wait(10), "the backend must be told at once")

    def test_the_client_vanishes_before_a_whole_reply(self):
        """Nothing was sent yet: the record says 499 and charges the input as estimated."""
        over = threading.Event()
        self.addCleanup(over.set)
        self.chat.plays(lambda _: (over.wait(30), fakes.chat("Too late"))[1])
        body = json.dumps({"model": "on-chat", "messages": HELLO}).encode()
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=10) as connection:
            connection.sendall(self.head("anthropic", len(body)) + body)
            self.eventually(lambda: self.chat.requests, 10, "the backend was not asked")
        record = self.only_record_within(10)
        self.assertFields(record, outcome="client_gone", status=499, stream=False, usage_source="estimated", stop_reason=None)
        self.assertGreater(record["input_tokens"], 0)
        self.assertFalse(record["output_tokens"])

    def head(self, client, length):
        lines = ["POST {} HTTP/1.1".format(PATHS[client]), "host: x", "authorization: Bearer " + WEB, "content-type: application/json", "content-length: {}".format(length), "", ""]
        return "\r\n".join(lines).encode()

    def vanish(self, client, model, until, reset):
        """Reads a stream up to a word, then closes the socket."""
        body = json.dumps({"model": model, "stream": True, "max_tokens": 100, "messages": HELLO}).encode()
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=10) as connection:
            connection.sendall(self.head(client, len(body)) + body)
            seen = b""
            while until not in seen:
                piece = connection.recv(65536)
                self.assertTrue(piece, "the stream ended early: {!r}".format(seen))
                seen += piece
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def test_totals_and_metrics_agree_with_the_records(self):
        """Counted by one fresh process from its first request on."""
        gateway = Gateway({"chat": {"kind": "openai", "url": self.chat.url}}, {"on-chat": {"targets": [{"backend": "chat", "model": fakes.MODEL}]}})
        self.addCleanup(gateway.close)
        self.chat.plays(fakes.chat("Hi"))
        for _ in range(5):
            gateway.openai().chat.completions.create(model="on-chat", messages=HELLO)
        gateway.ask("POST", "/v1/messages", {}, {"authorization": "Bearer " + WEB})
        gateway.ask("POST", "/v1/messages", {"model": "on-chat", "messages": HELLO}, {"authorization": "Bearer nobody"})
        records = gateway.records()
        self.assertEqual(len(records), 7)
        series = gateway.metrics()
        self.assertEqual(sum(value for name, _, value in series if name == "tidegate_requests_total"), 7)
        for kind, field in (("input", "input_tokens"), ("output", "output_tokens"), ("cache_read", "cache_read_tokens")):
            counted = sum(value for name, labels, value in series if name == "tidegate_tokens_total" and labels["kind"] == kind)
            self.assertEqual(counted, sum(record[field] or 0 for record in records), kind)
