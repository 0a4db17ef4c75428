"""Client and backend speak the same API: everything either says must survive, also what Tidegate has never heard of.

And what the clients ask the gateway itself: the lists of models.
"""

import fakes
from gateway import RESEARCH, Case, Gateway

HELLO = [{"role": "user", "content": "Hello"}]
# Numbers that a careless reader would change, and nesting.
VENDOR = {"numbers": [1, 2.5, 9007199254740993, -0.0], "nested": {"empty": {}, "null": None, "text": "ü\u2028\U0001f600"}}
NAMES = ["chat-alias", "org/name:tag-1.5", "small:1b", "message-alias"]


class SameDialect(Case):
    @classmethod
    def setUpClass(cls):
        cls.chat, cls.messages = fakes.OpenAIOnly(), fakes.AnthropicOnly()
        cls.addClassCleanup(cls.chat.close)
        cls.addClassCleanup(cls.messages.close)
        backends = {"chat": {"kind": "openai", "url": cls.chat.url}, "claude": {"kind": "anthropic", "url": cls.messages.url}}
        models = {name: {"targets": [{"backend": "claude" if name.startswith("message") else "chat", "model": fakes.MODEL}]} for name in NAMES}
        cls.gateway = Gateway(backends, models)
        cls.addClassCleanup(cls.gateway.close)
        cls.openai, cls.anthropic = cls.gateway.openai(), cls.gateway.anthropic()

    def test_openai_whole(self):
        reply = fakes.chat("Hi")
        reply.body["vendor_note"] = VENDOR
        reply.body["choices"][0]["message"]["vendor_field"] = VENDOR
        self.chat.plays(reply)
        got = self.openai.chat.completions.create(model="chat-alias", messages=HELLO, extra_body={"vendor_option": VENDOR}, seed=7, logit_bias={"50256": -100})
        self.assertFields(self.chat.requests[0], vendor_option=VENDOR, seed=7, logit_bias={"50256": -100}, model=fakes.MODEL)
        self.assertEqual((got.model, got.id, got.vendor_note, got.choices[0].message.vendor_field, got.system_fingerprint), ("chat-alias", "chatcmpl-fake", VENDOR, VENDOR, "fp_fake"))
        self.assertFields(self.only_record(), input_tokens=20, output_tokens=7, cache_read_tokens=5, usage_source="reported", outcome="ok")

    def test_openai_stream(self):
        for asked in (False, True):
            with self.subTest(include_usage=asked):
                self.chat.plays(fakes.chat_stream({"content": "Hi"}, {"content": " there", "vendor_field": VENDOR}))
                options = {"stream_options": {"include_usage": True}} if asked else {}
                chunks = list(self.openai.chat.completions.create(model="chat-alias", messages=HELLO, stream=True, extra_body={"vendor_option": VENDOR}, **options))
                self.assertEqual(self.chat.requests[0]["vendor_option"], VENDOR)
                self.assertTrue(self.chat.requests[0]["stream_options"]["include_usage"], "the books need usage whether the client does or not")
                self.assertEqual({chunk.model for chunk in chunks}, {"chat-alias"})
                self.assertEqual([chunk.choices[0].delta.vendor_field for chunk in chunks if chunk.choices and hasattr(chunk.choices[0].delta, "vendor_field")], [VENDOR])
                self.assertEqual(len([chunk for chunk in chunks if chunk.usage]), int(asked))
                self.assertEqual(len([chunk for chunk in chunks if not chunk.choices]), int(asked))
                self.assertFields(self.only_record(), input_tokens=20, output_tokens=7, usage_source="reported", outcome="ok")

    def test_anthropic_whole(self):
        reply = fakes.message(fakes.thinking("Hm.", "c2lnbmVkIGJ5dGVz"), fakes.text("Hi"), {"type": "vendor_block", "payload": VENDOR})
        reply.body["vendor_note"] = VENDOR
        self.messages.plays(reply)
        got = self.anthropic.messages.create(model="message-alias", max_tokens=50, messages=HELLO, extra_body={"vendor_option": VENDOR}, extra_headers={"anthropic-beta": "vendor-2026-01-01"})
        self.assertFields(self.messages.requests[0], vendor_option=VENDOR, max_tokens=50, model=fakes.MODEL)
        self.assertEqual({name.lower(): value for name, value in self.messages.headers[0].items()}.get("anthropic-beta"), "vendor-2026-01-01")
        self.assertEqual((got.model, got.id, got.vendor_note), ("message-alias", "msg_fake", VENDOR))
        self.assertEqual((got.content[0].signature, got.content[2].to_dict()["payload"]), ("c2lnbmVkIGJ5dGVz", VENDOR))
        self.assertFields(self.only_record(), input_tokens=25, output_tokens=9, cache_read_tokens=4, usage_source="reported", outcome="ok")

    def test_anthropic_stream(self):
        self.messages.plays(fakes.message_stream(fakes.thinking("Hm.", "c2lnbmVkIGJ5dGVz"), fakes.text("Hi there"), fakes.tool_use("toolu_1", "clock", {"zone": 9007199254740993}), stop="tool_use"))
        with self.anthropic.messages.stream(model="message-alias", max_tokens=50, messages=HELLO, extra_body={"vendor_option": VENDOR}) as stream:
            kinds = [event.type for event in stream]
            got = stream.get_final_message()
        self.assertEqual(self.messages.requests[0]["vendor_option"], VENDOR)
        self.assertEqual((got.model, got.id, got.stop_reason), ("message-alias", "msg_fake", "tool_use"))
        self.assertEqual((got.content[0].thinking, got.content[0].signature, got.content[1].text, got.content[2].input), ("Hm.", "c2lnbmVkIGJ5dGVz", "Hi there", {"zone": 9007199254740993}))
        self.assertEqual(kinds.count("message_start"), 1)
        self.assertFields(self.only_record(), input_tokens=25, output_tokens=9, cache_read_tokens=4, usage_source="reported", outcome="ok")

    def test_thinking_goes_back_to_whom_it_came_from(self):
        """Anthropic's own blocks byte for byte; blocks that we signed for another backend never."""
        self.chat.plays(fakes.chat("Four.", reasoning_content="Two and two."))
        ours = self.anthropic.messages.create(model="chat-alias", max_tokens=50, messages=HELLO).content
        theirs = [fakes.thinking("Hm.", "c2lnbmVkIGJ5dGVz"), {"type": "redacted_thinking", "data": "cmVkYWN0ZWQ="}, fakes.text("Four.")]
        self.assertEqual(ours[0].type, "thinking")
        for name, given, expected in [("ours", ours, [fakes.text("Four.")]), ("theirs", theirs, theirs)]:
            with self.subTest(blocks=name):
                self.messages.plays(fakes.message(fakes.text("Right.")))
                self.anthropic.messages.create(model="message-alias", max_tokens=50, messages=[*HELLO, {"role": "assistant", "content": given}, {"role": "user", "content": "Sure?"}])
                blocks = [{name: value for name, value in block.items() if value is not None} for block in self.messages.requests[0]["messages"][1]["content"]]
                self.assertEqual(blocks, expected)
        with self.subTest(blocks="theirs, to a backend of another kind"):
            self.chat.plays(fakes.chat("Right."))
            self.anthropic.messages.create(model="chat-alias", max_tokens=50, messages=[*HELLO, {"role": "assistant", "content": theirs}, {"role": "user", "content": "Sure?"}])
            self.assertNotIn("c2lnbmVkIGJ5dGVz", str(self.chat.requests[0]))
            self.assertNotIn("cmVkYWN0ZWQ=", str(self.chat.requests[0]))

    def test_openai_lists_models(self):
        self.assertEqual(sorted(model.id for model in self.openai.models.list()), sorted(NAMES))
        for name in NAMES:
            with self.subTest(model=name):
                model = self.openai.models.retrieve(name)
                self.assertEqual((model.id, model.object), (name, "model"))

    def test_anthropic_lists_models(self):
        listed = list(self.anthropic.models.list())
        self.assertEqual(sorted(model.id for model in listed), sorted(NAMES))
        self.assertEqual({model.type for model in listed}, {"model"})
        self.assertTrue(all(model.display_name and model.created_at for model in listed))
        for name in NAMES:
            with self.subTest(model=name):
                self.assertEqual(self.anthropic.models.retrieve(name).id, name)

    def test_a_restricted_project_sees_only_its_models(self):
        self.assertEqual([model.id for model in self.gateway.openai(RESEARCH).models.list()], ["small:1b"])
        self.assertEqual([model.id for model in self.gateway.anthropic(RESEARCH).models.list()], ["small:1b"])
