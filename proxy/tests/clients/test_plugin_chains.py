"""Plugins together, against the world outside, when they fail, before the model in Tidegate's own process, and in other languages.

Order is what an operator relies on: who sees personal data, what is copied to whom, what is remembered. And whatever a
plugin does or fails to do, the books say what a backend was paid for.
"""

import http.server
import json
import sys
import threading
import time

import anthropic
import openai

import fakes
import gateway as setup
from exchange import BACKENDS, CLIENTS, REPORTED, SIZES, Exchanges, needs, on, plugin, seen, ways
from gateway import APP, WEB, Gateway

MAIL = "ada@lovelace.example"
ERRORS = {"openai": openai, "anthropic": anthropic}


class Sink:
    """Takes what is posted to it, and answers, redirects or keeps silent."""

    def __init__(self, status=204, location=None):
        self.got, self.connected, self.silent = [], 0, threading.Event()
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def setup(self):
                sink.connected += 1
                super().setup()

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                sink.got.append((dict(self.headers.items()), json.loads(body)))
                if sink.silent.is_set():
                    return time.sleep(30)
                self.send_response(status)
                if location:
                    self.send_header("location", location)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads, block_on_close = True, False

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.origin = "http://127.0.0.1:{}".format(self.server.server_port)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Chains(Exchanges):
    """redact 10, guard 20, tap 80, cache 90; and a guard at 5 that is in front of all."""

    @classmethod
    def setUpClass(cls):
        cls.sink = Sink()
        cls.addClassCleanup(cls.sink.close)
        addresses = {"name": "addresses", "pattern": "[a-z]+@[a-z.]+", "code": "address"}
        cls.open({
            "first": plugin("guard", order=5, attach=on("watched"), config={"injection": False, "rules": [{**addresses, "on": ["reply"]}]}),
            "redact": plugin("redact", order=10, attach=on("model", "watched", "hidden", "pair", organizations=["acme"])),
            "guard": plugin("guard", order=20, attach=on("model", "bare"), config={"deny": ["nightingale"], "rules": [addresses]}),
            "tap": plugin("tap", order=80, attach=on("model", "pair"), on_failure="open", grants={"http": [cls.sink.origin]},
                          config={"url": cls.sink.origin + "/copies?of=all", "headers": {"x-sink-key": "s3cret"}, "fields": ["request", "reply", "tool_calls", "usage", "identity", "route", "tools"]}),
            "cache": plugin("cache", order=90, attach=on("hidden"), grants={"kv": True}),
        }, ["model", "watched", "hidden", "bare", "pair"])

    def setUp(self):
        super().setUp()
        self.sink.got.clear()

    def copies(self, number):
        """So many documents, and no more."""
        self.eventually(lambda: len(self.sink.got) >= number, 15, "a copy did not come")
        time.sleep(0.02)
        self.assertEqual(len(self.sink.got), number)
        return self.sink.got

    def test_redact_guard_and_tap(self):
        """The guard, which refuses addresses, and the sink see placeholders both ways; the client sees none."""
        for client, backend, size in ways():
            with self.subTest(client=client, backend=backend, size=size):
                self.sink.got.clear()
                model = "model-" + backend
                self.plays("Wrote to <EMAIL_1>.", [("send", '{"to": "<EMAIL_1>"}')], size)
                got = self.ask(client, model, "Write to {}.".format(MAIL), bool(size), tools=["send"])
                self.assertEqual((got.text, got.calls), ("Wrote to {}.".format(MAIL), [("send", {"to": MAIL})]))
                self.assertEqual(got.model, model)
                [(headers, copy)] = self.copies(1)
                record = self.only_record()
                self.assertFields(record, outcome="ok", status=200, **REPORTED[backend])
                self.assertEqual(record["tags"][0], "plugin:redact")
                self.assertNotIn("lovelace", json.dumps(copy))
                self.assertEqual(copy["request"], [{"role": "user", "kind": "text", "text": "Write to <EMAIL_1>."}])
                self.assertEqual((copy["reply"], [(call["name"], json.loads(call["arguments"])) for call in copy["tool_calls"]]), ("Wrote to <EMAIL_1>.", [("send", {"to": "<EMAIL_1>"})]))
                self.assertFields(copy, id=record["request_id"], model=model, streamed=bool(size), outcome="ok", status=200, stop="tool_use", tools=["send"], endpoint=record["endpoint"])
                self.assertFields(copy["usage"], input=record["input_tokens"], output=record["output_tokens"], cache_read=record["cache_read_tokens"], source="reported")
                self.assertEqual(copy["identity"], {"organization": "acme", "project": "web", "key": "web-1", "user": None})
                self.assertEqual(copy["route"], {"name": model, "backend": backend, "model": fakes.MODEL, "attempt": 1})
                self.assertEqual({name.lower(): value for name, value in headers.items()}.get("x-sink-key"), "s3cret")

    def test_the_guard_sees_addresses_where_nobody_redacts(self):
        """The control of the test above: the same rule, the same words, no redact in front."""
        for client in CLIENTS:
            for model, secret in (("bare-chat", WEB), ("model-chat", APP)):
                with self.subTest(client=client, model=model):
                    self.plays("Fine.")
                    with self.assertRaises(ERRORS[client].PermissionDeniedError) as caught:
                        self.ask(client, model, "Write to " + MAIL, secret=secret)
                    self.assertIn("address", str(caught.exception.body))
                    self.assertEqual(self.asked(), 0)
                    self.assertFields(self.only_record(), outcome="plugin", tags=["plugin:guard"])

    def test_nobody_behind_a_refusal_is_told(self):
        """Nor of its end: the sink gets the one exchange that reached the tap."""
        self.plays("Fine.")
        for client in CLIENTS:
            with self.assertRaises(ERRORS[client].PermissionDeniedError):
                self.ask(client, "model-chat", "Nightingale")
        self.ask("openai", "model-chat", "Hello")
        self.eventually(lambda: any("model" in copy for _, copy in self.sink.got), 15, "the copy of the allowed exchange did not come")
        time.sleep(0.2)
        self.assertEqual([copy["outcome"] for _, copy in self.sink.got], ["ok"])

    def test_replies_go_through_backwards(self):
        """What stands before redact sees the restored reply: the same rule, at the other end."""
        for client in CLIENTS:
            for size in (None, *SIZES):
                with self.subTest(client=client, size=size):
                    self.plays("I will write to <EMAIL_1> now.", size=size)
                    with self.assertRaises(ERRORS[client].APIError):
                        self.ask(client, "watched-chat", "Write to " + MAIL, bool(size))
                    self.assertNotIn("lovelace", self.sent("watched-chat"))
                    record = self.only_record()
                    self.assertEqual((record["outcome"], set(record["tags"])), ("plugin", {"plugin:redact", "plugin:first"}))
        self.plays("I will write to <EMAIL_1> now.", size=3)
        status, _, text = self.raw("openai", "watched-chat", "Write to " + MAIL)
        self.assertEqual(seen("openai", text)[1], "error")
        self.assertNotIn("ada", text)

    def test_a_refused_stream_is_copied_as_far_as_it_came(self):
        for client in CLIENTS:
            with self.subTest(client=client):
                self.sink.got.clear()
                self.plays("All of Nightingale is told.", size=3)
                with self.assertRaises(ERRORS[client].APIError):
                    self.ask(client, "model-chat", "I am " + MAIL, True)
                [(_, copy)] = self.copies(1)
                self.assertFields(copy, outcome="plugin", status=200, streamed=True)
                self.assertEqual(self.only_record()["outcome"], "plugin")

    def test_a_broken_stream_tells_everybody(self):
        """Also when it breaks in the middle of a placeholder."""
        for client in CLIENTS:
            for backend in BACKENDS:
                with self.subTest(client=client, backend=backend):
                    self.sink.got.clear()
                    self.plays("Dear <EMAIL_1>, you are <EMAI", size=3, then="cut")
                    status, _, text = self.raw(client, "pair-" + backend, "I am " + MAIL)
                    words, end = seen(client, text)
                    self.assertEqual((status, end), (200, "error"))
                    self.assertIn(words, ("Dear {}, you are ".format(MAIL), "Dear {}, you are <EMAI".format(MAIL)))
                    [(_, copy)] = self.copies(1)
                    self.assertFields(copy, outcome="cut", status=200)
                    self.assertEqual(self.only_record()["outcome"], "cut")

    def test_the_client_leaves(self):
        """Its plugins are told, and their instances are free again."""
        for client in CLIENTS:
            with self.subTest(client=client):
                self.sink.got.clear()
                self.plays("Dear <EMAIL_1>, and so on.", size=3, then="silence")
                asked = {"model": "pair-chat", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": "I am " + MAIL}]}
                end = self.client(client, WEB)
                stream = end.chat.completions.create(**asked) if client == "openai" else end.messages.create(**asked)
                for _, _ in zip(range(5), stream):
                    pass
                self.assertGreater(self.metric("tidegate_plugin_instances"), 0)
                (stream if client == "openai" else stream.response).close()
                self.assertFields(self.only_record_within(3), outcome="client_gone", stream=True, status=200)
                [(_, copy)] = self.copies(1)
                self.assertFields(copy, outcome="client_gone")
                self.assertTrue(self.chat.left.wait(2), "the backend must be told at once")
                self.eventually(lambda: self.metric("tidegate_plugin_instances") == 0, 2, "an instance was not given back")

    def test_what_is_remembered_holds_placeholders(self):
        """Behind redact two people with the same question share an answer, and each reads it with their own data."""
        kept = self.counted("tidegate_plugin_cache_stores_total", outcome="kept")
        for client in CLIENTS:
            with self.subTest(client=client):
                self.plays("Dear <EMAIL_1>, hello.", size=3)
                before = kept()
                for name, stream in (("ada", False), ("bob", True), ("eve", False)):
                    address = name + "@mail.example"
                    got = self.ask(client, "hidden-chat", "Greet " + address, stream)
                    self.assertEqual(got.text, "Dear {}, hello.".format(address))
                    if name == "ada":
                        self.eventually(lambda: kept() == before + 1, 15, "the reply was not kept")
                    else:
                        self.assertIn("cache", got.headers["x-tidegate-plugins"])
                self.assertEqual(self.asked(), 1)
                tags = [record["tags"] for record in self.new_records()]
                self.assertEqual([("cache_hit" in own, "plugin:redact" in own) for own in tags], [(False, True), (True, True), (True, True)])
                self.before |= {record["id"] for record in self.new_records()}


class Books(Exchanges):
    """What a plugin does to a request, the record of it does not show: counts, cost and their source are those without."""

    @classmethod
    def setUpClass(cls):
        cls.sink = Sink()
        cls.addClassCleanup(cls.sink.close)
        acme = {"organizations": ["acme"]}
        cls.open({
            "redact": plugin("redact", order=10, attach=on("redact", **acme)), "guard": plugin("guard", order=20, attach=on("guard", **acme), config={"rules": [{"pattern": "Oslo", "action": "mask"}]}),
            "tap": plugin("tap", order=80, attach=on("tap", **acme), grants={"http": [cls.sink.origin]}, config={"url": cls.sink.origin}),
            "fixjson": plugin("fixjson", order=95, attach=on("fixjson", **acme)), "think": plugin("think", order=96, attach=on("think", **acme), config={"mode": "hide"}),
        }, ["redact", "guard", "tap", "fixjson", "think"])

    def test_records_with_and_without(self):
        fields = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "usage_source", "cost", "currency", "stop_reason", "outcome", "status", "attempts", "backend", "model", "model_requested")
        for name in ("redact", "guard", "tap", "fixjson", "think"):
            for client in CLIENTS:
                for backend in BACKENDS:
                    for size in (None, 3):
                        # Messages has arguments as JSON: a whole reply shows no broken ones to repair, or is a fault without who repairs them.
                        broken = bool(size) or (client, backend) == ("openai", "chat")
                        with self.subTest(plugin=name, client=client, backend=backend, size=size):
                            self.plays("<think>Hm.</think>To <EMAIL_1> in Oslo.", [("go", '{"to": "Oslo",}' if broken else '{"to": "Oslo"}')], size)
                            for secret in (WEB, APP):
                                status, _, text = self.raw(client, "{}-{}".format(name, backend), "I am " + MAIL, bool(size), secret)
                                self.assertEqual(status, 200, text)
                            with_it, without = self.new_records()
                            self.before |= {with_it["id"], without["id"]}
                            self.assertEqual((with_it["organization"], without["organization"]), ("acme", "globex"))
                            self.assertEqual({field: with_it[field] for field in fields}, {field: without[field] for field in fields})
                            self.assertGreater(with_it["cost"], 0)
                            if name != "tap" and (name != "fixjson" or broken):
                                self.assertEqual((with_it["tags"], without["tags"]), (["plugin:" + name], []))

    def test_what_is_repaired_is_no_fault(self):
        self.plays("", [("go", '{"to": "Oslo",}')])
        replies = [self.raw("anthropic", "fixjson-chat", "Hello", False, secret) for secret in (WEB, APP)]
        self.assertEqual([status for status, _, _ in replies], [200, 502], replies)
        self.assertEqual(json.loads(replies[0][2])["content"][-1]["input"], {"to": "Oslo"})

    def test_a_cut_stream_is_charged_as_without(self):
        """Text that a plugin was holding back when the stream broke was made all the same."""
        for client in CLIENTS:
            for backend in BACKENDS:
                with self.subTest(client=client, backend=backend):
                    self.plays("The quick brown fox <think> jumps over the lazy", size=3, then="cut")
                    replies = [seen(client, self.raw(client, "guard-" + backend, "Hello", True, secret)[2]) for secret in (WEB, APP)]
                    self.assertEqual([end for _, end in replies], ["error", "error"])
                    if backend == "chat":
                        # The fake's message closes its text before it breaks, and what was held leaves then.
                        self.assertNotEqual(replies[0], replies[1], "the plugin must have held something back")
                    with_it, without = self.new_records()
                    self.before |= {with_it["id"], without["id"]}
                    for field in ("outcome", "input_tokens", "output_tokens", "usage_source", "cost"):
                        self.assertEqual(with_it[field], without[field], field)
                    self.assertGreater(with_it["output_tokens"], 0)


class Faults(Exchanges):
    @classmethod
    def setUpClass(cls):
        cls.hung, cls.other = Sink(), Sink()
        cls.moved = Sink(302, cls.other.origin + "/elsewhere")
        cls.hung.silent.set()
        for sink in (cls.hung, cls.other, cls.moved):
            cls.addClassCleanup(sink.close)
        tap = lambda url, grant, **more: {"order": 80, "grants": {"http": [grant]}, "config": {"url": url}, **more}
        small = {"limits": {"output": "16KiB"}}
        cls.open({
            "hung": plugin("tap", attach=on("hung"), limits={"wait": "5s"}, **tap(cls.hung.origin, cls.hung.origin)),
            "denied": plugin("tap", attach=on("denied"), **tap(cls.other.origin, cls.hung.origin)),
            "moved": plugin("tap", attach=on("moved"), **tap(cls.moved.origin, cls.moved.origin)),
            "closed": plugin("redact", attach=on("closed"), **small),
            "open": plugin("redact", attach=on("open"), on_failure="open", **small),
        }, ["hung", "denied", "moved", "closed", "open"])

    def test_a_hanging_sink_delays_nobody(self):
        """The copy is sent when the client has its reply; limits.wait ends the waiting."""
        lost = lambda: self.metric("tidegate_plugin_hung_copies_total", outcome="failed") + self.metric("tidegate_plugin_errors_total", plugin="hung")
        before = lost()
        for client in CLIENTS:
            for stream in (False, True):
                with self.subTest(client=client, stream=stream):
                    self.plays("Here.", size=3)
                    began = time.monotonic()
                    self.assertEqual(self.ask(client, "hung-chat", stream=stream).text, "Here.")
                    self.assertLess(time.monotonic() - began, 3)
                    self.assertFields(self.only_record(), outcome="ok", **REPORTED["chat"])
        self.assertEqual(lost(), before, "the copies must be waiting by now")
        self.eventually(lambda: lost() == before + 4, 20, "the copies were not given up")
        self.eventually(lambda: self.metric("tidegate_plugin_instances", plugin="hung") == 0, 10, "something is left of them")
        self.assertEqual(self.ask("openai", "hung-chat").text, "Here.")

    def test_an_address_outside_the_grant_is_not_reached(self):
        failed, log = self.counted("tidegate_plugin_denied_copies_total", outcome="failed"), self.log_since()
        for client in CLIENTS:
            for stream in (False, True):
                self.plays("Here.", size=3)
                self.assertEqual(self.ask(client, "denied-chat", stream=stream).text, "Here.")
        self.eventually(lambda: failed() == 4, 3, "the copies were not denied")
        self.assertEqual((self.other.connected, self.other.got), (0, []))
        self.assertIn("is not among grants.http of [plugins.denied]", log())

    def test_a_granted_address_cannot_hand_on(self):
        refused = self.counted("tidegate_plugin_moved_copies_total", outcome="refused")
        self.plays("Here.")
        self.ask("openai", "moved-chat")
        self.eventually(lambda: refused() == 1, 3, "the copy was not refused")
        self.assertEqual((len(self.moved.got), self.other.connected), (1, 0))

    def test_one_that_breaks_its_bounds(self):
        """Closed: the request fails, and no data has left. Open: it goes on as if nobody had been there."""
        prompt = "I am {}. ".format(MAIL) + "word " * 8000
        for client in CLIENTS:
            for stream in (False, True):
                with self.subTest(client=client, stream=stream):
                    self.plays("Here.", size=3)
                    with self.assertRaises(ERRORS[client].InternalServerError) as caught:
                        self.ask(client, "closed-chat", prompt, stream)
                    self.assertEqual(caught.exception.status_code, 500)
                    self.assertIn("plugin_failed", str(caught.exception.body))
                    self.assertEqual(self.asked(), 0)
                    self.assertEqual(caught.exception.response.headers["x-tidegate-plugins"], "closed")
                    self.assertFields(self.only_record(), outcome="plugin", status=500, cost=None, tags=["plugin:closed"])
                    self.assertEqual(self.ask(client, "open-chat", prompt, stream).text, "Here.")
                    self.assertIn(MAIL, self.sent("open-chat"))
                    self.assertFields(self.only_record(), outcome="ok", tags=[], **REPORTED["chat"])
        # It is the request that was too large: the next one finds the plugin well.
        self.plays("Hi <EMAIL_1>.")
        self.assertEqual(self.ask("openai", "closed-chat", "I am " + MAIL).text, "Hi {}.".format(MAIL))


class Local(Exchanges):
    """The model in Tidegate's own process: its events never were bytes. What it saw is told by its own count of tokens."""

    @classmethod
    def setUpClass(cls):
        cls.open({
            "decorate": plugin("decorate", order=30, attach={"models": ["decorated"]}, config={"rules": [{"prepend": "You are a pirate."}]}),
            "redact": plugin("redact", order=10, attach={"models": ["redacted"]}, config={"rules": [{"label": "CITY", "pattern": "Paris"}]}),
            "guard": plugin("guard", order=20, attach={"models": ["masked"]}, config={"injection": False, "rules": [{"on": ["reply"], "pattern": "[aeiou]", "action": "mask", "mask": "*"}]}),
            # Whatever it answers lets the call pass: what a model this small thinks is not what is tried.
            "judge": plugin("guard", order=20, attach={"models": ["judged"]}, grants={"model": ["plain"]}, limits={"wait": "30s"},
                            config={"injection": False, "judge": {"model": "plain", "refuse": ["xyzzy"], "unsure": "pass"}}),
        }, [], backends={"here": {"kind": "local", "weights": setup.MODEL}}, models={name: {"targets": [{"backend": "here", "model": "here"}]} for name in ("plain", "decorated", "redacted", "masked", "judged")})

    def test_a_question(self):
        """A plugin asks it, and the reply that is let pass is the one it always gives."""
        for client in CLIENTS:
            with self.subTest(client=client):
                plain, _, _ = self.said(client, "plain", "What is the capital of France?", False)
                got = self.ask(client, "judged", "What is the capital of France?", temperature=0, max_tokens=24)
                records = {record["endpoint"]: record for record in self.new_records()}
                self.before.update(record["id"] for record in records.values())
                self.assertEqual((len(records), got.text), (2, plain.text))
                self.assertFields(records["plugin/ask"], backend="here", outcome="ok", usage_source="reported", tags=["plugin:judge"], model_requested="plain")
                self.assertGreater(records["plugin/ask"]["input_tokens"], 30)
                self.assertGreater(records["plugin/ask"]["output_tokens"], 0)

    def said(self, client, model, prompt, stream, **fields):
        """What the model answered, and how many tokens it read and made."""
        got = self.ask(client, model, prompt, stream, temperature=0, max_tokens=24, **fields)
        record = self.only_record()
        self.assertFields(record, backend="here", outcome="ok", usage_source="reported", stream=stream)
        return got, record["input_tokens"], record["output_tokens"]

    def pairs(self):
        return [(client, stream) for client in CLIENTS for stream in (False, True)]

    def test_decorated(self):
        """As if the client had said it itself."""
        plain, read, made = self.said("openai", "plain", "Say hello.", False, system="You are a pirate.")
        undecorated = self.said("openai", "plain", "Say hello.", False)[1]
        self.assertNotEqual(read, undecorated)
        for client, stream in self.pairs():
            with self.subTest(client=client, stream=stream):
                got = self.said(client, "decorated", "Say hello.", stream)
                self.assertEqual((got[0].text, got[1], got[2]), (plain.text, read, made))
                self.assertEqual(got[0].model, "decorated")

    def test_redacted(self):
        prompt = "Write an HTML element {}."
        plain, read, made = self.said("openai", "plain", prompt.format("<CITY_1>"), False)
        for client, stream in self.pairs():
            with self.subTest(client=client, stream=stream):
                got = self.said(client, "redacted", prompt.format("Paris"), stream)
                self.assertEqual((got[0].text, got[1], got[2]), (plain.text.replace("<CITY_1>", "Paris"), read, made))
        self.assertIn("<CITY_1>", plain.text, "the model must say the placeholder, or nothing was restored")

    def test_masked(self):
        plain, read, made = self.said("openai", "plain", "Say hello.", False)
        masked = plain.text.translate({ord(letter): "*" for letter in "aeiou"})
        self.assertNotEqual(masked, plain.text)
        for client, stream in self.pairs():
            with self.subTest(client=client, stream=stream):
                got = self.said(client, "masked", "Say hello.", stream)
                self.assertEqual((got[0].text, got[1], got[2]), (masked, read, made))


class Slow(Gateway):
    """A component with an interpreter in it takes its time to be compiled."""

    PATIENCE = 400


class OtherLanguages(Exchanges):
    """The templates of JavaScript and Python, as an author would first run them."""

    KIND = Slow

    @classmethod
    def open(cls, *asked, **more):
        began = time.monotonic()
        super().open(*asked, **more)
        cls.first_load = time.monotonic() - began

    def check_kept(self):
        """What was compiled is kept beside the ledger: the next start is quick."""
        self.gateway.stop()
        began = time.monotonic()
        self.gateway.start()
        again = time.monotonic() - began
        print("first load {:.1f} s, from what was kept {:.1f} s ... ".format(self.first_load, again), end="", file=sys.stderr, flush=True)
        self.assertLess(again, max(10, self.first_load / 2))


class JavaScript(OtherLanguages):
    @classmethod
    @needs("template-js.wasm")
    def setUpClass(cls):
        cls.open({"js": plugin("template-js", attach=on("model"), config={"word": "damn", "mask": "[...]"})}, ["model"])

    def test_a_word_is_masked_wherever_it_is_cut(self):
        masked = self.counted("tidegate_plugin_js_masked_total")
        for client, backend, size in ways():
            with self.subTest(client=client, backend=backend, size=size):
                self.plays("Well damn, that dam, damn it. dam", size=size)
                got = self.ask(client, "model-" + backend, stream=bool(size))
                self.assertEqual(got.text, "Well [...], that dam, [...] it. dam")
                self.assertFields(self.only_record(), outcome="ok", tags=["plugin:js"], **REPORTED[backend])
        self.assertEqual(masked(), 2 * 2 * 2 * (1 + len(SIZES)))

    def test_compiled_once(self):
        self.check_kept()


class Python(OtherLanguages):
    @classmethod
    @needs("template-python.wasm")
    def setUpClass(cls):
        cls.open({"python": plugin("template-python", attach=on("model"), config={"max_words": 12}, limits={"memory": "256MiB", "time": "2s", "wait": "5s"})}, ["model"])

    def test_calls_that_say_too_much(self):
        refused = self.counted("tidegate_plugin_python_refused_total")
        for client in CLIENTS:
            for stream in (False, True):
                with self.subTest(client=client, stream=stream):
                    self.plays("Fine.", size=3)
                    self.assertEqual(self.ask(client, "model-chat", "one two three", stream).text, "Fine.")
                    self.assertFields(self.only_record(), outcome="ok", tags=["words:3"], **REPORTED["chat"])
                    with self.assertRaises(ERRORS[client].BadRequestError) as caught:
                        self.ask(client, "model-chat", "word " * 13, stream)
                    self.assertIn("13 words are too many", str(caught.exception.body))
                    self.assertIn("too_many_words", str(caught.exception.body))
                    self.assertEqual(self.asked(), 1)
                    self.assertFields(self.only_record(), outcome="plugin", status=400, tags=["plugin:python", "words:13"])
        self.assertEqual(refused(), 4)

    def test_compiled_once(self):
        self.check_kept()
