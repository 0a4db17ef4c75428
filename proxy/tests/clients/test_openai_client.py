"""The official OpenAI client in front of a backend that speaks only Anthropic's messages.

The other half of the promise: any OpenAI program gets Anthropic models, with tools and thinking, streamed or not.
"""

import json

import fakes
from gateway import Case, Gateway

HELLO = [{"role": "user", "content": "Hello"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "The weather of a city", "parameters": PARAMETERS}}


class OpenAIClient(Case):
    @classmethod
    def setUpClass(cls):
        cls.fake = fakes.AnthropicOnly()
        cls.addClassCleanup(cls.fake.close)
        cls.gateway = Gateway({"claude": {"kind": "anthropic", "url": cls.fake.url, "key": "backend-secret"}}, {"gpt-alias": {"targets": [{"backend": "claude", "model": fakes.MODEL}]}})
        cls.addClassCleanup(cls.gateway.close)
        cls.client = cls.gateway.openai()

    def create(self, **fields):
        return self.client.chat.completions.create(**{"model": "gpt-alias", "messages": HELLO, **fields})

    def sent(self):
        self.assertEqual(len(self.fake.requests), 1, "the backend must be asked once")
        return self.fake.requests[0]

    def test_whole_completion(self):
        self.fake.plays(fakes.message(fakes.text("It is sunny.")))
        reply = self.create(messages=[{"role": "system", "content": "Be brief."}, *HELLO], max_completion_tokens=50, temperature=0.5, stop=["END"])
        choice = reply.choices[0]
        self.assertEqual((choice.message.content, choice.message.role, choice.finish_reason, reply.model, reply.object), ("It is sunny.", "assistant", "stop", "gpt-alias", "chat.completion"))
        self.assertTrue(reply.id.startswith("chatcmpl-"), reply.id)
        usage = reply.usage
        self.assertEqual((usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens, usage.completion_tokens, usage.total_tokens), (25, 4, 9, 34))
        self.assertFields(self.sent(), model=fakes.MODEL, max_tokens=50, temperature=0.5, stop_sequences=["END"])
        self.assertEqual(flat(self.sent()["system"]), "Be brief.")
        self.assertEqual([(item["role"], flat(item["content"])) for item in self.sent()["messages"]], [("user", "Hello")])
        self.assertFields(self.only_record(), endpoint="chat/completions", dialect="openai", model_requested="gpt-alias", model=fakes.MODEL, backend="claude", stream=False,
                          outcome="ok", status=200, input_tokens=25, cache_read_tokens=4, output_tokens=9, usage_source="reported")

    def test_the_backend_gets_our_key_and_never_the_callers(self):
        self.fake.plays(fakes.message(fakes.text("Hi")))
        self.create()
        headers = {name.lower(): value for name, value in self.fake.headers[0].items()}
        self.assertEqual(headers.get("x-api-key"), "backend-secret")
        self.assertEqual(headers.get("anthropic-version"), "2023-06-01")
        self.assertNotIn(self.client.api_key, json.dumps(headers))

    def test_max_tokens_defaults_to_8000(self):
        self.fake.plays(fakes.message(fakes.text("Hi")))
        self.create()
        self.assertEqual(self.sent()["max_tokens"], 8000)

    def test_stream_without_usage(self):
        self.fake.plays(fakes.message_stream(fakes.text("It is sunny. ☀")))
        chunks = list(self.create(stream=True))
        self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in chunks), "It is sunny. ☀")
        self.assertEqual([chunk.usage for chunk in chunks if chunk.usage], [], "nobody asked for usage")
        self.assertEqual({chunk.model for chunk in chunks}, {"gpt-alias"})
        self.assertEqual({chunk.object for chunk in chunks}, {"chat.completion.chunk"})
        self.assertEqual(len({chunk.id for chunk in chunks}), 1)
        self.assertEqual([chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason], ["stop"])
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertFields(self.only_record(), stream=True, outcome="ok", input_tokens=25, cache_read_tokens=4, output_tokens=9, usage_source="reported")

    def test_stream_with_usage(self):
        self.fake.plays(fakes.message_stream(fakes.text("It is sunny.")))
        chunks = list(self.create(stream=True, stream_options={"include_usage": True}))
        self.assertEqual([index for index, chunk in enumerate(chunks) if chunk.usage], [len(chunks) - 1])
        self.assertEqual([index for index, chunk in enumerate(chunks) if not chunk.choices], [len(chunks) - 1])
        usage = chunks[-1].usage
        self.assertEqual((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.prompt_tokens_details.cached_tokens), (25, 9, 34, 4))
        self.assertEqual({chunk.model for chunk in chunks}, {"gpt-alias"})

    def test_stream_with_thinking_and_tools(self):
        content = [fakes.thinking("Which city?"), fakes.text("Looking."), fakes.tool_use("toolu_1", "weather", {"city": "Rom"}), fakes.tool_use("toolu_2", "clock", {})]
        self.fake.plays(fakes.message_stream(*content, stop="tool_use"))
        reasoning, words, calls, finish = "", "", {}, None
        for chunk in self.create(stream=True, tools=[WEATHER]):
            choice = chunk.choices[0]
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            words += choice.delta.content or ""
            finish = choice.finish_reason or finish
            for piece in choice.delta.tool_calls or []:
                known = calls.setdefault(piece.index, {"id": piece.id, "name": piece.function.name, "arguments": ""})
                known["arguments"] += piece.function.arguments or ""
        self.assertEqual((reasoning, words, finish), ("Which city?", "Looking.", "tool_calls"))
        self.assertEqual([(call["id"], call["name"], json.loads(call["arguments"])) for _, call in sorted(calls.items())], [("toolu_1", "weather", {"city": "Rom"}), ("toolu_2", "clock", {})])
        self.assertEqual(sorted(calls), [0, 1])

    def test_the_clients_own_stream_helper_accumulates(self):
        self.fake.plays(fakes.message_stream(fakes.text("Looking."), fakes.tool_use("toolu_1", "weather", {"city": "Rom"}), stop="tool_use"))
        with self.client.chat.completions.stream(model="gpt-alias", messages=HELLO, tools=[WEATHER]) as stream:
            for _ in stream:
                pass
            choice = stream.get_final_completion().choices[0]
        self.assertEqual((choice.message.content, choice.finish_reason), ("Looking.", "tool_calls"))
        self.assertEqual(json.loads(choice.message.tool_calls[0].function.arguments), {"city": "Rom"})

    def test_whole_thinking_and_tools(self):
        self.fake.plays(fakes.message(fakes.thinking("Which city?"), fakes.text("Looking."), fakes.tool_use("toolu_1", "weather", {"city": "Rom"}), fakes.tool_use("toolu_2", "clock", {}), stop="tool_use"))
        choice = self.create(tools=[WEATHER]).choices[0]
        self.assertEqual((choice.message.reasoning_content, choice.message.content, choice.finish_reason), ("Which city?", "Looking.", "tool_calls"))
        self.assertEqual([(call.id, call.type, call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls],
                         [("toolu_1", "function", "weather", {"city": "Rom"}), ("toolu_2", "function", "clock", {})])

    def test_tools_are_translated(self):
        choices = [("auto", {"type": "auto"}), ("required", {"type": "any"}), ("none", {"type": "none"}), ({"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"})]
        for given, expected in choices:
            with self.subTest(choice=given):
                self.fake.plays(fakes.message(fakes.text("Hi")))
                self.create(tools=[WEATHER], tool_choice=given)
                [tool] = self.sent()["tools"]
                self.assertFields(tool, name="weather", description="The weather of a city", input_schema=PARAMETERS)
                self.assertFields(self.sent()["tool_choice"], **expected)

    def test_tool_results_go_back_in_one_user_message(self):
        self.fake.plays(fakes.message(fakes.text("Sunny and noon.")))
        self.create(tools=[WEATHER], messages=[
            {"role": "user", "content": "Weather and time?"},
            {"role": "assistant", "content": None, "tool_calls": [fakes.call("call_a", "weather", '{"city": "Rom"}'), fakes.call("call_b", "clock", "")]},
            {"role": "tool", "tool_call_id": "call_a", "content": "sunny"},
            {"role": "tool", "tool_call_id": "call_b", "content": "noon"},
            {"role": "user", "content": "And now?"},
        ])
        asked, called, results = self.sent()["messages"]
        self.assertEqual([message["role"] for message in self.sent()["messages"]], ["user", "assistant", "user"])
        self.assertEqual([(block["type"], block["id"], block["name"], block["input"]) for block in called["content"]], [("tool_use", "call_a", "weather", {"city": "Rom"}), ("tool_use", "call_b", "clock", {})])
        self.assertEqual([(block["type"], block["tool_use_id"], flat(block["content"])) for block in results["content"][:2]], [("tool_result", "call_a", "sunny"), ("tool_result", "call_b", "noon")])
        self.assertEqual(flat(results["content"][2:]), "And now?")

    def test_finish_reasons(self):
        cases = [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"), ("pause_turn", "stop"), ("model_context_window_exceeded", "length")]
        for stop, expected in cases:
            with self.subTest(stop=stop, stream=False):
                self.fake.plays(fakes.message(fakes.text("Well"), stop=stop))
                self.assertEqual(self.create().choices[0].finish_reason, expected)
            with self.subTest(stop=stop, stream=True):
                self.fake.plays(fakes.message_stream(fakes.text("Well"), stop=stop))
                self.assertEqual([chunk.choices[0].finish_reason for chunk in self.create(stream=True)][-1], expected)

    def test_images_are_passed(self):
        self.fake.plays(fakes.message(fakes.text("A dot.")))
        self.create(messages=[{"role": "user", "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            {"type": "image_url", "image_url": {"url": "http://images.invalid/x.png"}}]}])
        sources = [block["source"] for block in self.sent()["messages"][0]["content"] if block["type"] == "image"]
        self.assertEqual(sources, [{"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}, {"type": "url", "url": "http://images.invalid/x.png"}])


def flat(content):
    """The text of a message, whether it is a string or blocks."""
    return content if isinstance(content, str) else "".join(block["text"] for block in content)
