"""The official OpenAI client's other two APIs, responses and completions, in front of backends that speak neither.

Coding agents speak only responses; old programs speak only completions. Both get whatever model the operator has.
"""

import json

import fakes
import openai
from gateway import Case, Gateway

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
WEATHER = {"type": "function", "name": "weather", "description": "The weather of a city", "parameters": PARAMETERS, "strict": False}
PATCH = {"type": "custom", "name": "patch", "description": "Edits a file"}


class Across(Case):
    """One gateway before a backend of chat and one of messages."""

    @classmethod
    def setUpClass(cls):
        cls.chat, cls.messages = fakes.OpenAIOnly(), fakes.AnthropicOnly()
        cls.addClassCleanup(cls.chat.close)
        cls.addClassCleanup(cls.messages.close)
        backends = {
            "plain": {"kind": "openai", "url": cls.chat.url, "dialects": ["openai"]},
            "claude": {"kind": "anthropic", "url": cls.messages.url, "key": "backend-secret"},
        }
        models = {"plain-alias": {"targets": [{"backend": "plain", "model": fakes.MODEL}]}, "claude-alias": {"targets": [{"backend": "claude", "model": fakes.MODEL}]}}
        cls.gateway = Gateway(backends, models)
        cls.addClassCleanup(cls.gateway.close)
        cls.client = cls.gateway.openai()


class ResponsesClient(Across):
    def create(self, model="claude-alias", **fields):
        return self.client.responses.create(**{"model": model, "input": "Hello", **fields})

    def test_whole_response(self):
        self.messages.plays(fakes.message(fakes.thinking("Which city?"), fakes.text("It is sunny.")))
        reply = self.create(instructions="Be brief.", max_output_tokens=2000, temperature=0.5, metadata={"a": "b"}, store=True)
        self.assertEqual((reply.output_text, reply.model, reply.status, reply.object, reply.error), ("It is sunny.", "claude-alias", "completed", "response", None))
        self.assertEqual((reply.store, reply.instructions, reply.metadata, reply.temperature), (False, "Be brief.", {"a": "b"}, 0.5))
        self.assertTrue(reply.id.startswith("resp_"), reply.id)
        self.assertEqual([item.type for item in reply.output], ["reasoning", "message"])
        self.assertEqual(reply.output[0].summary[0].text, "Which city?")
        usage = reply.usage
        self.assertEqual((usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens, usage.total_tokens), (25, 4, 9, 34))
        self.assertFields(self.messages.requests[0], model=fakes.MODEL, max_tokens=2000, temperature=0.5, system="Be brief.")
        self.assertFields(self.only_record(), endpoint="responses", dialect="openai", model_requested="claude-alias", outcome="ok", input_tokens=25, output_tokens=9, usage_source="reported")

    def test_stream_events(self):
        self.chat.plays(fakes.chat_stream({"content": "It is "}, {"content": "sunny. ☀\u2028"}))
        events = list(self.create("plain-alias", stream=True))
        self.assertEqual("".join(event.delta for event in events if event.type == "response.output_text.delta"), "It is sunny. ☀\u2028")
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        self.assertEqual([events[0].type, events[1].type, events[-1].type], ["response.created", "response.in_progress", "response.completed"])
        done = events[-1].response
        self.assertEqual((done.output_text, done.model, done.usage.input_tokens, done.usage.output_tokens), ("It is sunny. ☀\u2028", "plain-alias", 20, 7))
        self.assertFields(self.only_record(), stream=True, outcome="ok", input_tokens=20, output_tokens=7, cache_read_tokens=5)

    def test_the_clients_own_stream_helper_accumulates(self):
        content = [fakes.thinking("Which city?"), fakes.text("Looking."), fakes.tool_use("toolu_1", "weather", {"city": "Rom"}), fakes.tool_use("toolu_2", "weather", {})]
        self.messages.plays(fakes.message_stream(*content, stop="tool_use"))
        with self.client.responses.stream(model="claude-alias", input="Hello", tools=[WEATHER]) as stream:
            kinds = {event.type for event in stream}
            final = stream.get_final_response()
        self.assertIn("response.function_call_arguments.delta", kinds)
        self.assertIn("response.reasoning_summary_text.delta", kinds)
        self.assertEqual(final.output_text, "Looking.")
        calls = [(item.call_id, item.name, json.loads(item.arguments)) for item in final.output if item.type == "function_call"]
        self.assertEqual(calls, [("toolu_1", "weather", {"city": "Rom"}), ("toolu_2", "weather", {})])

    def test_a_tool_loop_of_items(self):
        self.chat.plays(fakes.chat("Sunny."))
        self.create("plain-alias", tools=[WEATHER, {"type": "web_search"}], tool_choice={"type": "function", "name": "weather"}, parallel_tool_calls=False, input=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}, {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}]},
            {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{\"city\": \"Rom\"}"},
            {"type": "function_call", "call_id": "b", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "sunny"},
            {"type": "function_call_output", "call_id": "b", "output": "rain"},
        ])
        sent = self.chat.requests[0]
        self.assertEqual([message["role"] for message in sent["messages"]], ["developer", "user", "assistant", "tool", "tool"])
        self.assertEqual([call["id"] for call in sent["messages"][2]["tool_calls"]], ["a", "b"])
        self.assertEqual(sent["messages"][1]["content"][1]["image_url"]["url"], "data:image/png;base64,iVBORw0KGgo=")
        self.assertEqual([tool["function"]["name"] for tool in sent["tools"]], ["weather"])
        self.assertEqual((sent["tool_choice"]["function"]["name"], sent["parallel_tool_calls"]), ("weather", False))

    def test_a_custom_tool_there_and_back(self):
        wanted = "*** Begin Patch\n+\"é\"\n"
        for model, fake, script in [
            ("claude-alias", self.messages, fakes.message_stream(fakes.tool_use("call_1", "patch", {"input": wanted}), stop="tool_use", size=3)),
            ("plain-alias", self.chat, fakes.chat_stream(fakes.tool_delta(0, "", "call_1", "patch"), fakes.tool_delta(0, json.dumps({"input": wanted})), finish="tool_calls")),
        ]:
            with self.subTest(model=model):
                fake.plays(script)
                events = list(self.create(model, tools=[PATCH], stream=True))
                self.assertEqual("".join(event.delta for event in events if event.type == "response.custom_tool_call_input.delta"), wanted)
                [item] = events[-1].response.output
                self.assertEqual((item.type, item.call_id, item.name, item.input), ("custom_tool_call", "call_1", "patch", wanted))
        self.chat.plays(fakes.chat("Done."))
        self.create("plain-alias", tools=[PATCH], input=[
            {"role": "user", "content": "x"},
            {"type": "custom_tool_call", "call_id": "call_1", "name": "patch", "input": wanted},
            {"type": "custom_tool_call_output", "call_id": "call_1", "output": "ok"}])
        sent = self.chat.requests[0]["messages"]
        self.assertEqual(json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]), {"input": wanted})
        self.assertEqual(sent[2], {"role": "tool", "tool_call_id": "call_1", "content": "ok"})

    def test_structured_output_and_effort(self):
        self.chat.plays(fakes.chat("{\"city\":\"Rom\"}"))
        self.create("plain-alias", reasoning={"effort": "low"}, text={"format": {"type": "json_schema", "name": "place", "schema": PARAMETERS, "strict": True}})
        sent = self.chat.requests[0]
        self.assertEqual(sent["response_format"], {"type": "json_schema", "json_schema": {"name": "place", "schema": PARAMETERS, "strict": True}})
        self.assertEqual(sent["reasoning_effort"], "low")

    def test_a_full_answer_is_incomplete(self):
        self.messages.plays(fakes.message(fakes.text("Once upon"), stop="max_tokens"))
        reply = self.create()
        self.assertEqual((reply.status, reply.incomplete_details.reason), ("incomplete", "max_output_tokens"))

    def test_a_stream_that_breaks_fails(self):
        self.messages.plays(fakes.message_stream(fakes.text("It is sunny."), then="cut"))
        events = list(self.create(stream=True))
        self.assertEqual((events[-1].type, events[-1].response.status), ("response.failed", "failed"))
        self.assertIn("broke off", events[-1].response.error.message)
        self.assertFields(self.only_record(), outcome="cut", status=200)

    def test_what_is_kept_elsewhere_is_refused(self):
        for field, value in [("previous_response_id", "resp_1"), ("background", True), ("conversation", "conv_1"), ("input", [{"type": "item_reference", "id": "x"}])]:
            with self.subTest(field=field), self.assertRaises(openai.BadRequestError) as caught:
                self.create(**{field: value})
            self.assertEqual(caught.exception.param, field)
        with self.assertRaises(openai.NotFoundError):
            self.client.responses.retrieve("resp_1")


class CompletionsClient(Across):
    def create(self, model="plain-alias", **fields):
        return self.client.completions.create(**{"model": model, "prompt": "Once", **fields})

    def test_whole_completion(self):
        self.chat.plays(fakes.chat(" upon a time"))
        reply = self.create(max_tokens=9, stop=["\n"], temperature=0)
        self.assertEqual((reply.choices[0].text, reply.choices[0].finish_reason, reply.model, reply.object), (" upon a time", "stop", "plain-alias", "text_completion"))
        self.assertEqual((reply.usage.prompt_tokens, reply.usage.completion_tokens), (20, 7))
        self.assertTrue(reply.id.startswith("cmpl-"), reply.id)
        self.assertFields(self.chat.requests[0], messages=[{"role": "user", "content": "Once"}], stop=["\n"], temperature=0)
        self.assertFields(self.only_record(), endpoint="completions", dialect="openai", outcome="ok", input_tokens=20, output_tokens=7)

    def test_streams(self):
        for model, fake, script in [("plain-alias", self.chat, fakes.chat_stream({"content": " upon"}, {"content": " a time"})), ("claude-alias", self.messages, fakes.message_stream(fakes.text(" upon a time")))]:
            for usage in (False, True):
                with self.subTest(model=model, usage=usage):
                    fake.plays(script)
                    chunks = list(self.create(model, stream=True, **({"stream_options": {"include_usage": True}} if usage else {})))
                    self.assertEqual("".join(chunk.choices[0].text for chunk in chunks if chunk.choices), " upon a time")
                    self.assertEqual([bool(chunk.usage) for chunk in chunks].count(True), int(usage))
                    self.assertEqual({chunk.model for chunk in chunks}, {model})

    def test_a_stream_that_breaks_fails(self):
        self.chat.plays(fakes.chat_stream({"content": " upon"}, then="cut"))
        with self.assertRaises(openai.APIError) as caught:
            list(self.create(stream=True))
        self.assertIn("broke off", str(caught.exception))

    def test_what_chat_cannot_do_is_refused(self):
        for field, value in [("prompt", ["a", "b"]), ("prompt", [1, 2]), ("suffix", "x"), ("echo", True), ("best_of", 2), ("n", 2)]:
            with self.subTest(field=field, value=value), self.assertRaises(openai.BadRequestError) as caught:
                self.create(**{field: value})
            self.assertEqual(caught.exception.param, field)
