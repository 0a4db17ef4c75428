"""The official Ollama client in front of backends that speak anything else, and other clients in front of Ollama.

Ollama's programs know one server and one way of streaming; what they get here must be what they would get there.
"""

import json

import fakes
import ollama
from gateway import Case, Gateway

HELLO = [{"role": "user", "content": "Hello"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "The weather of a city", "parameters": PARAMETERS}}
PIXEL = "iVBORw0KGgo="


class OllamaClient(Case):
    @classmethod
    def setUpClass(cls):
        cls.chat, cls.messages = fakes.OpenAIOnly(), fakes.AnthropicOnly()
        cls.addClassCleanup(cls.chat.close)
        cls.addClassCleanup(cls.messages.close)
        cls.gateway = Gateway(
            {"open": {"kind": "openai", "url": cls.chat.url}, "claude": {"kind": "anthropic", "url": cls.messages.url}},
            {"small:1b": {"targets": [{"backend": "open", "model": fakes.MODEL}]}, "large": {"targets": [{"backend": "claude", "model": fakes.MODEL}]}},
        )
        cls.addClassCleanup(cls.gateway.close)
        cls.client = cls.gateway.ollama()

    def test_whole_chat(self):
        self.chat.plays(fakes.chat("It is sunny."))
        reply = self.client.chat("small:1b", HELLO, options={"num_predict": 50, "temperature": 0.5, "num_ctx": 2048}, format="json", keep_alive="5m")
        self.assertEqual((reply.message.content, reply.message.role, reply.model, reply.done, reply.done_reason), ("It is sunny.", "assistant", "small:1b", True, "stop"))
        self.assertEqual((reply.prompt_eval_count, reply.eval_count, reply.total_duration), (20, 7, None))
        self.assertFields(self.chat.requests[0], model=fakes.MODEL, max_completion_tokens=50, temperature=0.5, response_format={"type": "json_object"}, stream=False)
        self.assertFields(self.only_record(), endpoint="api/chat", dialect="ollama", model_requested="small:1b", backend="open", stream=False, outcome="ok", status=200, input_tokens=20, output_tokens=7)

    def test_streamed_chat_with_thinking_and_tools(self):
        for model, script in (
            ("small:1b", fakes.chat_stream({"reasoning_content": "Which city?"}, {"content": "Look"}, {"content": "ing. ☀"}, fakes.tool_delta(0, '{"city":', "call_1", "weather"), fakes.tool_delta(0, ' "Rom"}'), fakes.tool_delta(1, "", "call_2", "clock"), finish="tool_calls")),
            ("large", fakes.message_stream(fakes.thinking("Which city?"), fakes.text("Looking. ☀"), fakes.tool_use("toolu_1", "weather", {"city": "Rom"}), fakes.tool_use("toolu_2", "clock", {}), stop="tool_use")),
        ):
            with self.subTest(model):
                (self.chat if model == "small:1b" else self.messages).plays(script)
                words, thought, calls, last = "", "", [], None
                for part in self.client.chat(model, HELLO, tools=[WEATHER], stream=True, think=True):
                    words += part.message.content or ""
                    thought += part.message.thinking or ""
                    calls += [(call.function.name, call.function.arguments) for call in part.message.tool_calls or []]
                    self.assertEqual(part.model, model)
                    last = part
                self.assertEqual((words, thought), ("Looking. ☀", "Which city?"))
                self.assertEqual(calls, [("weather", {"city": "Rom"}), ("clock", {})])
                self.assertEqual((last.done, last.done_reason), (True, "stop"))
                self.assertFields(self.only_record(), outcome="ok", stream=True, stop_reason="tool_use", usage_source="reported")

    def test_a_tool_loop_without_ids(self):
        """The client's own messages carry no ids: both sides of a call must still meet at a backend that demands them."""
        self.chat.plays(fakes.chat(None, "tool_calls", tool_calls=[fakes.call("call_x", "weather", '{"city": "Rom"}')]))
        first = self.client.chat("small:1b", HELLO, tools=[WEATHER])
        self.assertEqual(first.message.tool_calls[0].function.arguments, {"city": "Rom"})
        self.chat.plays(fakes.chat("Sunny."))
        history = [*HELLO, first.message, {"role": "tool", "tool_name": "weather", "content": "sunny"}]
        self.assertEqual(self.client.chat("small:1b", history, tools=[WEATHER]).message.content, "Sunny.")
        asked, answered = self.chat.requests[0]["messages"][1:]
        self.assertEqual(asked["tool_calls"][0]["id"], answered["tool_call_id"])
        self.assertEqual(json.loads(asked["tool_calls"][0]["function"]["arguments"]), {"city": "Rom"})

    def test_images_become_parts(self):
        self.chat.plays(fakes.chat("A pixel."))
        self.client.chat("small:1b", [{"role": "user", "content": "What is this?", "images": [PIXEL]}])
        parts = self.chat.requests[0]["messages"][0]["content"]
        self.assertEqual(parts[1]["image_url"]["url"], "data:image/png;base64," + PIXEL)

    def test_generate(self):
        self.chat.plays(fakes.chat("Blue."))
        reply = self.client.generate("small:1b", "Which colour?", system="Be brief.")
        self.assertEqual((reply.response, reply.done, reply.eval_count), ("Blue.", True, 7))
        self.assertEqual([item["role"] for item in self.chat.requests[0]["messages"]], ["system", "user"])
        self.chat.plays(fakes.chat_stream({"content": "Bl"}, {"content": "ue."}))
        parts = list(self.client.generate("small:1b", "Which colour?", stream=True))
        self.assertEqual("".join(part.response for part in parts), "Blue.")
        self.assertEqual([part.done for part in parts], [False, False, True])
        with self.assertRaises(ollama.ResponseError) as caught:
            self.client.generate("small:1b", "x", raw=True)
        self.assertEqual(caught.exception.status_code, 400)
        self.assertIn("raw", caught.exception.error)

    def test_loading_and_unloading(self):
        self.chat.plays(fakes.chat("never"))
        self.assertEqual(self.client.generate("small:1b", keep_alive=0).done_reason, "unload")
        self.assertEqual(self.client.chat("small:1b", []).done_reason, "load")
        self.assertEqual(self.chat.requests, [])

    def test_list_show_and_running(self):
        self.assertEqual([model.model for model in self.client.list().models], ["large:latest", "small:1b"])
        self.assertIn("completion", self.client.show("small:1b").capabilities)
        self.assertEqual(list(self.client.ps().models), [])
        for call in (lambda: self.client.show("none"), lambda: self.client.chat("none", HELLO)):
            with self.assertRaises(ollama.ResponseError) as caught:
                call()
            self.assertEqual(caught.exception.status_code, 404)

    def test_models_are_the_operators(self):
        for call in (lambda: self.client.pull("x"), lambda: self.client.push("x"), lambda: self.client.delete("x"), lambda: self.client.copy("x", "y"), lambda: self.client.create("x", from_="y")):
            with self.assertRaises(ollama.ResponseError) as caught:
                call()
            self.assertEqual(caught.exception.status_code, 403)
            self.assertIn("operator", caught.exception.error)

    def test_a_wrong_key(self):
        with self.assertRaises(ollama.ResponseError) as caught:
            self.gateway.ollama("dfproj_wrong").list()
        self.assertEqual(caught.exception.status_code, 401)

    def test_a_cut_stream_is_an_error(self):
        for model, fake, script in (("small:1b", self.chat, fakes.chat_stream({"content": "Hel"}, then="cut")), ("large", self.messages, fakes.message_stream(fakes.text("Hel"), then="cut"))):
            with self.subTest(model), self.assertRaises(ollama.ResponseError) as caught:
                fake.plays(script)
                list(self.client.chat(model, HELLO, stream=True))
            self.assertIn("broke off", caught.exception.error)

    def test_what_stands_at_the_root(self):
        self.assertEqual(self.gateway.ask("GET", "/")[2], "Ollama is running")
        self.assertEqual(self.gateway.ask("HEAD", "/")[0], 200)
        self.assertEqual(json.loads(self.gateway.ask("GET", "/", headers={"accept": "application/json"})[2])["name"], "tidegate")


class BeforeOllama(Case):
    @classmethod
    def setUpClass(cls):
        cls.fake = fakes.OllamaOnly()
        cls.addClassCleanup(cls.fake.close)
        cls.gateway = Gateway({"box": {"kind": "ollama", "url": cls.fake.url}}, {"m": {"targets": [{"backend": "box", "model": fakes.MODEL}]}})
        cls.addClassCleanup(cls.gateway.close)

    SAID = [{"thinking": "Which city?"}, {"content": "Look"}, {"content": "ing."}, {"tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Rom"}}}]}]

    def test_anthropics_client(self):
        self.fake.plays(fakes.ollama_reply(*self.SAID))
        client = self.gateway.anthropic()
        fields = {"model": "m", "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}, "messages": HELLO, "tools": [{"name": "weather", "input_schema": PARAMETERS}]}
        with client.messages.stream(**fields) as stream:
            streamed = stream.get_final_message()
        for reply in (streamed, client.messages.create(**fields)):
            self.assertEqual([block.type for block in reply.content], ["thinking", "text", "tool_use"])
            self.assertEqual((reply.content[1].text, reply.content[2].input, reply.stop_reason), ("Looking.", {"city": "Rom"}, "tool_use"))
            self.assertEqual((reply.usage.input_tokens, reply.usage.output_tokens), (26, 9))
        self.assertFields(self.fake.requests[0], think=True, stream=True, options={"num_predict": 2000})

    def test_ollamas_client(self):
        self.fake.plays(fakes.ollama_reply(*self.SAID))
        parts = list(self.gateway.ollama().chat("m", HELLO, stream=True))
        self.assertEqual({part.model for part in parts}, {"m"})
        self.assertEqual((parts[-1].total_duration, parts[-1].eval_count), (4883583458, 9))
        self.assertFields(self.only_record(), input_tokens=26, output_tokens=9, usage_source="reported", stop_reason="tool_use")
        self.fake.plays(fakes.ollama_reply({"content": "Hel"}, then="cut"))
        with self.assertRaises(ollama.ResponseError):
            list(self.gateway.ollama().chat("m", HELLO, stream=True))
