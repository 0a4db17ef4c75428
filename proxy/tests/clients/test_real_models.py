"""Real models behind the gateway: a llama.cpp server, and the model in Tidegate's own process.

Fakes say what we believe of servers; these say what is so. The same small model runs in both, so that the two can be
held against each other: the same prompt must have the same number of tokens wherever it is counted.
"""

import json
import os
import signal
import subprocess
import sys

import gateway as setup
import openai
from pydantic import BaseModel, Field
from gateway import WEB, Case, Gateway, Llama

PROMPTS = [
    [{"role": "user", "content": "Say hello."}],
    [{"role": "system", "content": "You answer in one word."}, {"role": "user", "content": "What is the capital of France? It had 2,102,650 people in 2020."}],
    [{"role": "user", "content": "Grüße aus Köln ☀"}, {"role": "assistant", "content": "Hallo!"}, {"role": "user", "content": "def f(x):\n    return  x+1\n"}],
]
LONG = [{"role": "user", "content": "Write a very long story about a ship and the sea. Never stop writing."}]
WORDS = 12
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
        "required": ["city", "days"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": name, "description": f"Tells the {name} of a city.", "parameters": CITY}} for name in ("weather", "tides")]


class Person(BaseModel):
    """What the official client makes a strict schema of, and reads back."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)
    happy: bool



def setUpModule():
    """One llama.cpp server and one gateway for both classes: loading a model twice is enough."""
    global llama, gateway
    llama = Llama()
    backends = {
        "llama": {"kind": "llamacpp", "url": llama.url},
        "llama-chat": {"kind": "llamacpp", "url": llama.url, "dialects": ["openai"]},
        "llama-messages": {"kind": "llamacpp", "url": llama.url, "dialects": ["anthropic"]},
        "here": {"kind": "local", "weights": setup.MODEL},
    }
    gateway = Gateway(backends, {name: {"targets": [{"backend": name}]} for name in backends})


def tearDownModule():
    gateway.close()
    llama.close()


class RealModels(Case):
    @classmethod
    def setUpClass(cls):
        cls.gateway = gateway
        cls.openai, cls.anthropic = gateway.openai(), gateway.anthropic()

    def reported(self, prompt):
        """What llama.cpp itself says of the same request, asked without a gateway."""
        with llama.openai() as client:
            reply = client.chat.completions.create(model="any", messages=prompt, max_tokens=WORDS, temperature=0)
        return reply.usage.prompt_tokens, reply.usage.completion_tokens

    def check_counts(self, model, source="reported"):
        """Both counters, against what llama.cpp reports of the same prompt."""
        for prompt in PROMPTS:
            with self.subTest(model=model, prompt=prompt):
                system = "".join(item["content"] for item in prompt if item["role"] == "system")
                fields = {"messages": [item for item in prompt if item["role"] != "system"], **({"system": system} if system else {})}
                for endpoint, count in (
                    ("messages/count_tokens", lambda: self.anthropic.messages.with_raw_response.count_tokens(model=model, **fields)),
                    ("responses/input_tokens", lambda: self.openai.responses.input_tokens.with_raw_response.count(model=model, input=prompt)),
                ):
                    raw = count()
                    self.assertEqual(raw.headers["x-tidegate-usage-source"], source)
                    if source == "reported":
                        self.assertEqual(raw.parse().input_tokens, self.reported(prompt)[0], endpoint)
                    else:
                        self.assertGreater(raw.parse().input_tokens, 0)
                    self.assertFields(self.only_record(), endpoint=endpoint, backend=model, outcome="ok", input_tokens=None, usage_source="missing", cost=None)

    def via_openai(self, model, prompt, stream):
        """Text, input tokens and output tokens of a chat completion."""
        fields = {"model": model, "messages": prompt, "max_tokens": WORDS, "temperature": 0}
        if not stream:
            reply = self.openai.chat.completions.create(**fields)
            self.assertEqual(reply.model, model)
            return reply.choices[0].message.content, reply.usage.prompt_tokens, reply.usage.completion_tokens
        chunks = list(self.openai.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
        self.assertEqual({chunk.model for chunk in chunks}, {model})
        self.assertEqual(len([chunk for chunk in chunks if chunk.usage]), 1)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        return text, chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens

    def via_anthropic(self, model, prompt, stream):
        """Text, input tokens (cached ones too) and output tokens of a message."""
        system = "".join(item["content"] for item in prompt if item["role"] == "system")
        fields = {"model": model, "messages": [item for item in prompt if item["role"] != "system"], "max_tokens": WORDS, "extra_body": {"temperature": 0}}
        fields.update({"system": system} if system else {})
        if stream:
            with self.anthropic.messages.stream(**fields) as events:
                reply = events.get_final_message()
        else:
            reply = self.anthropic.messages.create(**fields)
        self.assertEqual(reply.model, model)
        usage = reply.usage
        return reply.content[0].text, usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0), usage.output_tokens

    def check_all_ways(self, model, output_too):
        """Both clients, whole and streamed, every prompt: text comes, and reply, ledger and llama.cpp agree on the tokens."""
        for number, prompt in enumerate(PROMPTS):
            expected_input, expected_output = self.reported(prompt)
            for client, ask in (("openai", self.via_openai), ("anthropic", self.via_anthropic)):
                for stream in (False, True):
                    with self.subTest(model=model, prompt=number, client=client, stream=stream):
                        text, given, made = ask(model, prompt, stream)
                        record = self.only_record()
                        self.assertTrue(text.strip(), "no text")
                        self.assertFields(record, input_tokens=given, output_tokens=made, usage_source="reported", outcome="ok", backend=model, stream=stream, dialect=client)
                        self.assertEqual(given, expected_input, "input tokens as llama.cpp counts them")
                        if output_too:
                            self.assertEqual(made, expected_output, "output tokens as llama.cpp counts them")
                        self.assertLessEqual(made, WORDS)


class LlamaCpp(RealModels):
    def test_as_it_is(self):
        self.check_all_ways("llama", True)

    def test_translated_to_chat_completions(self):
        self.check_all_ways("llama-chat", True)

    def test_counts(self):
        self.check_counts("llama")
        self.check_counts("llama-messages")
        self.check_counts("llama-chat", "estimated")

    def test_translated_to_messages(self):
        self.check_all_ways("llama-messages", True)

    def test_client_leaves(self):
        for model in ("llama", "llama-chat"):
            with self.subTest(model=model):
                stream = self.openai.chat.completions.create(model=model, messages=LONG, max_tokens=1500, stream=True)
                for _, _ in zip(range(5), stream):
                    pass
                stream.close()
                record = self.only_record_within(3)
                self.assertFields(record, outcome="client_gone", stream=True)
                self.assertGreater(record["output_tokens"], 0)
                self.assertLess(record["output_tokens"], 500)


class Local(RealModels):
    def test_counts(self):
        self.check_counts("here")

    def test_message_start_has_the_exact_count(self):
        for prompt in PROMPTS[::2]:
            with self.anthropic.messages.stream(model="here", messages=prompt, max_tokens=2) as events:
                start = next(event for event in events if event.type == "message_start")
            self.assertEqual(start.message.usage.input_tokens, self.reported(prompt)[0])

    def test_tokens_as_llama_counts_them(self):
        self.check_all_ways("here", False)

    def test_openai_client_leaves(self):
        stream = self.openai.chat.completions.create(model="here", messages=LONG, max_tokens=3000, stream=True, temperature=0)
        for _, _ in zip(range(8), stream):
            pass
        self.addCleanup(stream.close)
        self.check_stop(stream.close)

    def test_anthropic_client_leaves(self):
        with self.anthropic.messages.stream(model="here", messages=LONG, max_tokens=3000, extra_body={"temperature": 0}) as stream:
            for _, _ in zip(range(8), stream.text_stream):
                pass
            self.check_stop(stream.close)

    def test_client_process_is_killed(self):
        client = subprocess.Popen([sys.executable, "-c", CLIENT, gateway.url + "/v1", WEB], stdout=subprocess.PIPE, text=True)
        self.addCleanup(client.stdout.close)
        self.addCleanup(client.wait)
        self.addCleanup(client.kill)
        self.assertEqual(client.stdout.readline(), "reading\n")
        self.check_stop(lambda: (os.kill(client.pid, signal.SIGKILL), client.wait()))

    def check_stop(self, leave):
        """Engine busy, client leaves: the engine stops, and one record has what was made so far."""
        # The gauge is sampled once a second.
        self.eventually(lambda: gateway.backend_in_flight("here") == 1, 10, "the engine was not seen at work")
        leave()
        self.eventually(lambda: gateway.backend_in_flight("here") == 0, 10, "the engine did not stop")
        record = self.only_record_within(10)
        self.assertFields(record, outcome="client_gone", backend="here", stream=True, status=200)
        self.assertIn(record["usage_source"], ("estimated", "reported"))
        self.assertGreater(record["input_tokens"], 0)
        self.assertGreater(record["output_tokens"], 0)
        self.assertLess(record["output_tokens"], 2900, "it was asked for 3000")

    def test_stop_sequence_and_length(self):
        reply = self.openai.chat.completions.create(model="here", messages=PROMPTS[0], max_tokens=3, temperature=0)
        self.assertEqual((reply.choices[0].finish_reason, reply.usage.completion_tokens), ("length", 3))
        whole = self.anthropic.messages.create(model="here", messages=PROMPTS[0], max_tokens=40, extra_body={"temperature": 0}).content[0].text
        stop = whole.split()[2]
        reply = self.anthropic.messages.create(model="here", messages=PROMPTS[0], max_tokens=40, stop_sequences=[stop], extra_body={"temperature": 0})
        self.assertEqual((reply.stop_reason, reply.stop_sequence, reply.content[0].text), ("stop_sequence", stop, whole[:whole.index(stop)]))

    def test_seed_repeats(self):
        ask = lambda seed: self.openai.chat.completions.create(model="here", messages=PROMPTS[0], max_tokens=16, temperature=1, seed=seed).choices[0].message.content
        self.assertEqual(ask(7), ask(7))
        self.assertGreater(len({ask(seed) for seed in range(4)}), 1, "sampling must not ignore the seed")

    def test_json_of_a_schema(self):
        ask = [{"role": "user", "content": "Invent a person."}]
        for seed in range(3):
            with self.subTest(seed=seed):
                reply = self.openai.chat.completions.parse(model="here", messages=ask, response_format=Person, max_tokens=120, temperature=1, seed=seed)
                self.assertEqual(reply.choices[0].finish_reason, "stop")
                self.assertIsInstance(reply.choices[0].message.parsed, Person)
        with self.openai.chat.completions.stream(model="here", messages=ask, response_format=Person, max_tokens=120) as stream:
            self.assertIsInstance(stream.get_final_completion().choices[0].message.parsed, Person)
        reply = self.openai.chat.completions.create(model="here", messages=ask, response_format={"type": "json_object"}, max_tokens=8, temperature=0)
        self.assertEqual(reply.choices[0].finish_reason, "length")
        self.assertTrue(reply.choices[0].message.content.startswith("{"), reply.choices[0].message.content)

    def test_a_schema_that_cannot_be_kept(self):
        for schema, expect in (({"type": "strin"}, "/type"), ({"type": "object", "properties": {"a": {"not": {}}}}, "/properties/a")):
            with self.subTest(schema=schema), self.assertRaises(openai.BadRequestError) as refused:
                self.openai.chat.completions.create(model="here", messages=PROMPTS[0], response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}})
            self.assertEqual(refused.exception.body["param"], "response_format")
            self.assertIn(expect, refused.exception.body["message"])

    def check_call(self, name, arguments):
        self.assertIn(name, ("weather", "tides"))
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        self.assertEqual(set(arguments), {"city", "days"})
        self.assertTrue(isinstance(arguments["city"], str) and 1 <= arguments["days"] <= 7, arguments)

    def test_a_required_call_arrives(self):
        ask = [{"role": "user", "content": "What will the weather be in Bonn tomorrow?"}]
        fields = {"model": "here", "messages": ask, "tools": TOOLS, "max_tokens": 400, "temperature": 0, "parallel_tool_calls": False}
        for choice in ("required", {"type": "function", "function": {"name": "tides"}}):
            with self.subTest(choice=choice):
                reply = self.openai.chat.completions.create(**fields, tool_choice=choice).choices[0]
                self.assertEqual((reply.finish_reason, reply.message.content), ("tool_calls", None))
                call, = reply.message.tool_calls
                self.check_call(call.function.name, call.function.arguments)
                if choice != "required":
                    self.assertEqual(call.function.name, "tides")
        with self.openai.chat.completions.stream(**fields, tool_choice="required") as stream:
            streamed, = stream.get_final_completion().choices[0].message.tool_calls
        self.check_call(streamed.function.name, streamed.function.arguments)
        self.assertNotEqual(streamed.id, call.id)
        # And back: the call and its result are part of the next turn.
        turn = [*ask, {"role": "assistant", "tool_calls": [call.to_dict()]}, {"role": "tool", "tool_call_id": call.id, "content": "Rain, 12 degrees."}]
        reply = self.openai.chat.completions.create(model="here", messages=turn, tools=TOOLS, tool_choice="none", max_tokens=30, temperature=0).choices[0]
        self.assertTrue(reply.message.content and not reply.message.tool_calls, reply)
        reply = self.anthropic.messages.create(model="here", messages=ask, max_tokens=400, tools=[{"name": "weather", "input_schema": CITY}], tool_choice={"type": "any", "disable_parallel_tool_use": True})
        self.assertEqual(reply.stop_reason, "tool_use")
        self.check_call(reply.content[-1].name, reply.content[-1].input)

    def test_the_next_turn_is_read_from_memory(self):
        ask = [{"role": "user", "content": "Tell me about lighthouses, and about the people who keep them through the winter."}]
        first = self.openai.chat.completions.create(model="here", messages=ask, max_tokens=24, temperature=0)
        self.only_record()
        turn = [*ask, {"role": "assistant", "content": first.choices[0].message.content}, {"role": "user", "content": "Go on."}]
        second = self.openai.chat.completions.create(model="here", messages=turn, max_tokens=8, temperature=0)
        cached = second.usage.prompt_tokens_details.cached_tokens
        self.assertGreaterEqual(cached, first.usage.prompt_tokens - 1)
        self.assertLess(cached, second.usage.prompt_tokens)
        self.assertFields(self.only_record(), input_tokens=second.usage.prompt_tokens, cache_read_tokens=cached)


CLIENT = """
import sys, openai
stream = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0).chat.completions.create(
    model="here", max_tokens=3000, stream=True, temperature=0, messages=[{"role": "user", "content": "Write a very long story about a ship and the sea. Never stop writing."}])
for index, _ in enumerate(stream):
    if index == 8:
        print("reading", flush=True)
"""
