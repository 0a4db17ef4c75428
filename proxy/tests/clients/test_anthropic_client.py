"""The official Anthropic client in front of a backend that speaks only OpenAI's chat completions.

What Claude Code and its kin do all day: messages, tools and tool results, streamed or not, must arrive as a chat
request that an OpenAI-compatible server understands, and its answer must come back as a message the client accepts.
"""

import json

import fakes
from gateway import Case, Gateway

WEATHER = {"name": "weather", "description": "The weather of a city", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
CLOCK = {"name": "clock", "description": "The time", "input_schema": {"type": "object", "properties": {}}}
HELLO = [{"role": "user", "content": "Hello"}]


class AnthropicClient(Case):
    @classmethod
    def setUpClass(cls):
        cls.fake = fakes.OpenAIOnly()
        cls.addClassCleanup(cls.fake.close)
        cls.gateway = Gateway({"chat": {"kind": "openai", "url": cls.fake.url}}, {"claude-alias": {"targets": [{"backend": "chat", "model": fakes.MODEL}]}})
        cls.addClassCleanup(cls.gateway.close)
        cls.client = cls.gateway.anthropic()

    def create(self, **fields):
        return self.client.messages.create(**{"model": "claude-alias", "max_tokens": 100, "messages": HELLO, **fields})

    def stream(self, **fields):
        return self.client.messages.stream(**{"model": "claude-alias", "max_tokens": 100, "messages": HELLO, **fields})

    def sent(self):
        self.assertEqual(len(self.fake.requests), 1, "the backend must be asked once")
        return self.fake.requests[0]

    def test_whole_message(self):
        self.fake.plays(fakes.chat("It is sunny."))
        # This client no longer names temperature and top_p among its arguments.
        reply = self.create(system="Be brief.", stop_sequences=["END"], extra_body={"temperature": 0.5, "top_p": 0.9})
        self.assertEqual([block.type for block in reply.content], ["text"])
        self.assertEqual((reply.content[0].text, reply.stop_reason, reply.model, reply.role, reply.type), ("It is sunny.", "end_turn", "claude-alias", "assistant", "message"))
        self.assertTrue(reply.id.startswith("msg_"), reply.id)
        # The cache is inside OpenAI's prompt_tokens and outside Anthropic's input_tokens.
        self.assertEqual((reply.usage.input_tokens, reply.usage.cache_read_input_tokens, reply.usage.output_tokens), (15, 5, 7))
        sent = self.sent()
        self.assertEqual(sent["messages"], [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])
        self.assertFields(sent, model=fakes.MODEL, temperature=0.5, top_p=0.9, stop=["END"])
        self.assertEqual(sent.get("max_tokens") or sent.get("max_completion_tokens"), 100)
        self.assertFalse(sent.get("stream", False))
        self.assertFields(self.only_record(), organization="acme", project="web", key="web-1", endpoint="messages", dialect="anthropic", model_requested="claude-alias",
                          model=fakes.MODEL, backend="chat", attempts=1, stream=False, outcome="ok", status=200, input_tokens=20, cache_read_tokens=5, output_tokens=7, usage_source="reported")

    def test_max_tokens_defaults_to_8000(self):
        self.fake.plays(fakes.chat("Hi"))
        status, _, text = self.gateway.ask("POST", "/v1/messages", {"model": "claude-alias", "messages": HELLO}, {"x-api-key": self.client.api_key})
        self.assertEqual(status, 200, text)
        self.assertEqual(self.sent().get("max_tokens") or self.sent().get("max_completion_tokens"), 8000)

    def test_system_blocks_come_first(self):
        self.fake.plays(fakes.chat("Hi"))
        self.create(system=[{"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "Two."}])
        first, second = self.sent()["messages"]
        self.assertEqual((first["role"], second["role"]), ("system", "user"))
        for words in ("One.", "Two."):
            self.assertIn(words, json.dumps(first["content"]))
        self.assertNotIn("cache_control", json.dumps(self.sent()))

    def test_streamed_text(self):
        self.fake.plays(fakes.chat_stream(*({"content": piece} for piece in ["It ", "is ", "sun", "ny. ☀"])))
        with self.stream() as stream:
            kinds = [event.type for event in stream]
            reply = stream.get_final_message()
        self.assertEqual(reply.content[0].text, "It is sunny. ☀")
        self.assertEqual((reply.stop_reason, reply.model, reply.usage.input_tokens, reply.usage.cache_read_input_tokens, reply.usage.output_tokens), ("end_turn", "claude-alias", 15, 5, 7))
        raw = [kind for kind in kinds if kind.startswith(("message_", "content_block_")) and kind != "content_block_delta"]
        self.assertEqual(raw, ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"])
        self.assertIs(self.sent()["stream"], True)
        self.assertEqual(self.sent()["stream_options"]["include_usage"], True)
        self.assertFields(self.only_record(), stream=True, outcome="ok", input_tokens=20, output_tokens=7, cache_read_tokens=5, usage_source="reported", stop_reason="end_turn")

    def test_streamed_parallel_tool_calls(self):
        self.fake.plays(fakes.chat_stream(
            {"content": "Looking."},
            fakes.tool_delta(0, "", "call_a", "weather"), fakes.tool_delta(0, '{"ci'), fakes.tool_delta(0, 'ty": "Ber'), fakes.tool_delta(0, 'lin"}'),
            fakes.tool_delta(1, "", "call_b", "weather"), fakes.tool_delta(1, '{"city": "Rom"}'),
            fakes.tool_delta(2, "", "call_c", "clock"),
            finish="tool_calls"))
        with self.stream(tools=[WEATHER, CLOCK]) as stream:
            fragments = [event.partial_json for event in stream if event.type == "input_json"]
            reply = stream.get_final_message()
        self.assertEqual([block.type for block in reply.content], ["text", "tool_use", "tool_use", "tool_use"])
        calls = [(block.id, block.name, block.input) for block in reply.content[1:]]
        self.assertEqual(calls, [("call_a", "weather", {"city": "Berlin"}), ("call_b", "weather", {"city": "Rom"}), ("call_c", "clock", {})])
        self.assertEqual(reply.stop_reason, "tool_use")
        self.assertGreaterEqual(len([fragment for fragment in fragments if fragment]), 4, "fragments must be passed on as they come")
        self.assertEqual(json.loads("".join(fragments).split("}")[0] + "}"), {"city": "Berlin"})

    def test_whole_tool_calls_keep_big_integers(self):
        self.fake.plays(fakes.chat(None, "tool_calls", tool_calls=[fakes.call("call_a", "weather", '{"city": "Berlin", "id": 9007199254740993}'), fakes.call("call_b", "clock", "")]))
        reply = self.create(tools=[WEATHER, CLOCK])
        self.assertEqual([(block.id, block.name, block.input) for block in reply.content], [("call_a", "weather", {"city": "Berlin", "id": 9007199254740993}), ("call_b", "clock", {})])
        self.assertEqual(reply.stop_reason, "tool_use")

    def test_tools_are_translated(self):
        self.fake.plays(fakes.chat("Hi"))
        choices = [({"type": "auto"}, "auto"), ({"type": "any"}, "required"), ({"type": "none"}, "none"), ({"type": "tool", "name": "weather"}, {"type": "function", "function": {"name": "weather"}})]
        for given, expected in choices:
            with self.subTest(choice=given["type"]):
                self.fake.plays(fakes.chat("Hi"))
                self.create(tools=[WEATHER], tool_choice=given)
                self.assertEqual(self.sent()["tools"], [{"type": "function", "function": {"name": "weather", "description": "The weather of a city", "parameters": WEATHER["input_schema"]}}])
                self.assertEqual(self.sent()["tool_choice"], expected)
        self.fake.plays(fakes.chat("Hi"))
        self.create(tools=[WEATHER], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
        self.assertIs(self.sent()["parallel_tool_calls"], False)

    def test_tool_results_go_back(self):
        self.fake.plays(fakes.chat("Sunny and noon."))
        self.create(tools=[WEATHER, CLOCK], messages=[
            {"role": "user", "content": "Weather and time?"},
            {"role": "assistant", "content": [fakes.text("Looking."), fakes.tool_use("toolu_1", "weather", {"city": "Rom"}), fakes.tool_use("toolu_2", "clock", {})]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": [fakes.text("noon")]},
                fakes.text("And now?")]},
        ])
        asked, called, first, second, last = self.sent()["messages"]
        self.assertEqual([message["role"] for message in self.sent()["messages"]], ["user", "assistant", "tool", "tool", "user"])
        self.assertEqual(flat(called["content"]), "Looking.")
        self.assertEqual([(item["id"], item["type"], item["function"]["name"], json.loads(item["function"]["arguments"])) for item in called["tool_calls"]],
                         [("toolu_1", "function", "weather", {"city": "Rom"}), ("toolu_2", "function", "clock", {})])
        self.assertEqual([(item["tool_call_id"], flat(item["content"])) for item in (first, second)], [("toolu_1", "sunny"), ("toolu_2", "noon")])
        self.assertEqual(flat(last["content"]), "And now?")

    def test_a_whole_conversation_with_a_tool(self):
        """What a tool loop does: the reply's own blocks go back, with the result."""
        self.fake.plays(fakes.chat_stream(fakes.tool_delta(0, '{"city": "Rom"}', "call_a", "weather"), finish="tool_calls"), fakes.chat_stream({"content": "Sunny."}))
        with self.stream(tools=[WEATHER]) as stream:
            first = stream.get_final_message()
        result = {"type": "tool_result", "tool_use_id": first.content[0].id, "content": "sunny"}
        with self.stream(tools=[WEATHER], messages=[*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]) as stream:
            self.assertEqual(stream.get_final_text(), "Sunny.")
        self.assertEqual([message["role"] for message in self.fake.requests[1]["messages"]], ["user", "assistant", "tool"])
        self.assertEqual(self.fake.requests[1]["messages"][2]["tool_call_id"], self.fake.requests[1]["messages"][1]["tool_calls"][0]["id"])
        self.assertEqual(len(self.new_records()), 2)

    def test_images_are_passed(self):
        self.fake.plays(fakes.chat("A dot."))
        self.create(messages=[{"role": "user", "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            {"type": "image", "source": {"type": "url", "url": "http://images.invalid/x.png"}},
            fakes.text("What is it?")]}])
        parts = self.sent()["messages"][0]["content"]
        self.assertEqual([part["image_url"]["url"] for part in parts if part["type"] == "image_url"], ["data:image/png;base64,iVBORw0KGgo=", "http://images.invalid/x.png"])
        self.assertEqual(parts[2], fakes.text("What is it?"))

    def test_stop_reasons(self):
        for finish, expected in [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"), ("tool_calls", "tool_use")]:
            calls = [fakes.call("call_a", "clock", "{}")] if finish == "tool_calls" else None
            with self.subTest(finish=finish, stream=False):
                self.fake.plays(fakes.chat("Well", finish, tool_calls=calls))
                self.assertEqual(self.create().stop_reason, expected)
            with self.subTest(finish=finish, stream=True):
                deltas = [fakes.tool_delta(0, "{}", "call_a", "clock")] if calls else [{"content": "Well"}]
                self.fake.plays(fakes.chat_stream(*deltas, finish=finish))
                with self.stream() as stream:
                    self.assertEqual(stream.get_final_message().stop_reason, expected)

    def test_reasoning_becomes_thinking(self):
        for field in ("reasoning_content", "reasoning"):
            with self.subTest(field=field, stream=False):
                self.fake.plays(fakes.chat("Four.", **{field: "Two and two."}))
                self.check_thinking(self.create(thinking={"type": "enabled", "budget_tokens": 2000}, max_tokens=4000))
                self.assertEqual(self.sent().get("reasoning_effort"), "low")
            with self.subTest(field=field, stream=True):
                self.fake.plays(fakes.chat_stream({field: "Two "}, {field: "and two."}, {"content": "Four."}))
                with self.stream(thinking={"type": "enabled", "budget_tokens": 20000}, max_tokens=30000) as stream:
                    self.check_thinking(stream.get_final_message())
                self.assertEqual(self.sent().get("reasoning_effort"), "high")

    def check_thinking(self, reply):
        self.assertEqual([block.type for block in reply.content], ["thinking", "text"])
        self.assertEqual((reply.content[0].thinking, reply.content[1].text), ("Two and two.", "Four."))
        self.assertTrue(reply.content[0].signature, "clients send a thinking block back only with a signature")

    def test_what_the_backend_lacks_is_named(self):
        self.fake.plays(fakes.chat("Hi"))
        reply = self.client.messages.with_raw_response.create(model="claude-alias", max_tokens=10, messages=HELLO, tools=[{"type": "web_search_20250305", "name": "web_search"}, WEATHER])
        self.assertIn("web_search", reply.headers.get("x-tidegate-dropped", ""))
        self.assertEqual([tool["function"]["name"] for tool in self.sent()["tools"]], ["weather"])
        self.assertFields(dict(reply.headers), **{"x-tidegate-backend": "chat", "x-tidegate-model": fakes.MODEL, "x-tidegate-attempts": "1"})
        self.assertEqual(reply.headers["request-id"], reply.headers["x-request-id"])


def flat(content):
    """The text of a message, whether it is a string or parts."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
