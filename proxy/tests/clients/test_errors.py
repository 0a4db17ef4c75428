"""Errors must reach both official clients as the exceptions that their users catch.

A client that cannot tell a wrong key from a busy backend retries what it must not, or gives up where it need not.
"""

import anthropic
import openai

import fakes
from gateway import APP, OPS, RESEARCH, ROOT, WEB, Case, Gateway

HELLO = [{"role": "user", "content": "Hello"}]
BOTH = ("anthropic", "openai")


class Errors(Case):
    @classmethod
    def setUpClass(cls):
        cls.chat, cls.messages = fakes.OpenAIOnly(), fakes.AnthropicOnly()
        cls.addClassCleanup(cls.chat.close)
        cls.addClassCleanup(cls.messages.close)
        backends = {"chat": {"kind": "openai", "url": cls.chat.url, "key": "backend-secret"}, "claude": {"kind": "anthropic", "url": cls.messages.url, "key": "backend-secret"}}
        cls.gateway = Gateway(backends, {"on-chat": {"targets": [{"backend": "chat", "model": fakes.MODEL}]}, "on-messages": {"targets": [{"backend": "claude", "model": fakes.MODEL}]}})
        cls.addClassCleanup(cls.gateway.close)

    def setUp(self):
        super().setUp()
        self.chat.plays(fakes.chat("Hi"))
        self.messages.plays(fakes.message(fakes.text("Hi")))

    def ask(self, client, model="on-chat", secret=WEB, stream=False, headers=None, **fields):
        """One request through one of the clients; a stream is read to its end."""
        if client == "openai":
            done = self.gateway.openai(secret).chat.completions.create(**{"model": model, "messages": HELLO, "stream": stream, "extra_headers": headers, **fields})
        else:
            done = self.gateway.anthropic(secret).messages.create(**{"model": model, "max_tokens": 10, "messages": HELLO, "stream": stream, "extra_headers": headers, **fields})
        return list(done) if stream else done

    def expect(self, name, client, outcome="refused", **asked):
        """The request must raise the client's own exception of this name, and leave one record."""
        kind = getattr(anthropic if client == "anthropic" else openai, name)
        with self.assertRaises(kind) as caught:
            self.ask(client, **asked)
        self.assertTrue(caught.exception.message)
        self.assertFields(self.only_record(), outcome=outcome, status=caught.exception.status_code, output_tokens=None, cost=None)
        return caught.exception

    def test_unknown_key(self):
        for client in BOTH:
            with self.subTest(client=client):
                self.expect("AuthenticationError", client, secret="dfproj_" + "x" * 32)
        self.assertEqual((self.chat.requests, self.messages.requests), ([], []))

    def test_unknown_model(self):
        for client in BOTH:
            with self.subTest(client=client):
                error = self.expect("NotFoundError", client, model="nobody-has-this")
                wanted = "model_not_found" if client == "openai" else "not_found_error"
                self.assertIn(wanted, str(error.body))

    def test_model_that_the_project_may_not_use(self):
        for client in BOTH:
            with self.subTest(client=client):
                self.expect("NotFoundError", client, secret=RESEARCH)

    def test_headers_that_contradict_the_key(self):
        cases = [(APP, {"OpenAI-Project": "web"}), (WEB, {"OpenAI-Organization": "globex"}), (OPS, {"OpenAI-Project": "app"}), (OPS, {"OpenAI-Organization": "globex", "OpenAI-Project": "app"})]
        for client in BOTH:
            for secret, headers in cases:
                with self.subTest(client=client, key=secret[:6], headers=headers):
                    self.expect("PermissionDeniedError", client, secret=secret, headers=headers)

    def test_headers_that_are_missing(self):
        cases = [(OPS, {}), (ROOT, {"OpenAI-Project": "web"}), (ROOT, {"OpenAI-Organization": "acme"})]
        for client in BOTH:
            for secret, headers in cases:
                with self.subTest(client=client, key=secret[:6], headers=headers):
                    self.expect("BadRequestError", client, secret=secret, headers=headers)

    def test_every_kind_of_key_with_its_headers(self):
        cases = [(WEB, {}), (WEB, {"OpenAI-Organization": "acme", "OpenAI-Project": "web"}), (OPS, {"OpenAI-Project": "web"}), (ROOT, {"OpenAI-Organization": "acme", "OpenAI-Project": "web"})]
        for client in BOTH:
            for secret, headers in cases:
                with self.subTest(client=client, key=secret[:6], headers=headers):
                    self.ask(client, secret=secret, headers=headers)
                    self.assertFields(self.only_record(), organization="acme", project="web", outcome="ok")

    def test_wrong_types(self):
        with self.subTest(client="openai"):
            self.expect("BadRequestError", "openai", temperature="warm")
        with self.subTest(client="anthropic"):
            error = self.expect("UnprocessableEntityError", "anthropic", stop_sequences=[5], extra_body={"temperature": "warm"})
            self.assertEqual({tuple(item["loc"][:2]) for item in error.body["detail"]}, {("body", "temperature"), ("body", "stop_sequences")})
        self.assertEqual((self.chat.requests, self.messages.requests), ([], []))

    def test_busy_backend_keeps_its_retry_after(self):
        for client in BOTH:
            for model, fake in (("on-chat", self.chat), ("on-messages", self.messages)):
                with self.subTest(client=client, model=model):
                    fake.plays(fakes.Whole(fake.error(429, "Too many requests"), 429, {"retry-after": "7"}))
                    error = self.expect("RateLimitError", client, "backend_error", model=model)
                    self.assertEqual(error.response.headers.get("retry-after"), "7")

    def test_backend_refuses_the_request(self):
        for client in BOTH:
            for model, fake in (("on-chat", self.chat), ("on-messages", self.messages)):
                with self.subTest(client=client, model=model):
                    fake.plays(fakes.Whole(fake.error(400, "prompt is too long by 12 tokens"), 400))
                    error = self.expect("BadRequestError", client, "backend_error", model=model)
                    self.assertIn("too long by 12 tokens", str(error))
                    self.assertEqual(len(fake.requests), 1, "a wrong request must not be tried again")

    def test_our_key_refused_by_the_backend_is_not_the_clients_fault(self):
        for client in BOTH:
            for model, fake in (("on-chat", self.chat), ("on-messages", self.messages)):
                with self.subTest(client=client, model=model):
                    fake.plays(fakes.Whole(fake.error(401, "Incorrect API key backend-secret"), 401))
                    error = self.expect("InternalServerError", client, "backend_error", model=model)
                    self.assertEqual(error.status_code, 502)
                    self.assertNotIn("backend-secret", str(error.body))

    def test_backend_fails(self):
        for client in BOTH:
            with self.subTest(client=client):
                self.chat.plays(fakes.Whole(self.chat.error(500, "out of memory"), 500))
                self.assertIn(self.expect("InternalServerError", client, "backend_error").status_code, (502, 503))

    def test_backend_breaks_off_in_the_middle(self):
        for client in BOTH:
            for model in ("on-chat", "on-messages"):
                with self.subTest(client=client, model=model):
                    self.chat.plays(fakes.chat_stream(*({"content": word} for word in ["one ", "two ", "three"]), then="cut"))
                    self.messages.plays(fakes.message_stream(fakes.text("one two three"), then="cut"))
                    with self.assertRaises(anthropic.APIError if client == "anthropic" else openai.APIError) as caught:
                        self.ask(client, model=model, stream=True)
                    self.assertNotIsInstance(caught.exception, (anthropic.APIConnectionError, openai.APIConnectionError), "the error must come as an event, not as a broken connection")
                    record = self.only_record()
                    self.assertFields(record, outcome="cut", status=200, stream=True)
                    self.assertGreater(record["output_tokens"] or 0, 0, "what passed is charged")
