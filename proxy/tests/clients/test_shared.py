"""Two gateways that share a Redis: what a plugin keeps behind one of them is there behind the other, and for nobody else.

And when Redis is away: nobody waits for it, the log says so once, and it is used again when it is back. One gateway reaches it
over TLS as a user who may do little, the other in the clear and as everybody.
"""

import contextlib
import tempfile
import time
import unittest
from pathlib import Path

import certificates
from debian import Absent
from exchange import Exchanges, on, plugin
from gateway import APP, RESEARCH, WEB, Gateway
from redis_server import Redis

AWAY = "Redis does not answer"


class Shared(Exchanges):
    @classmethod
    def setUpClass(cls):
        try:
            cls.redis = Redis()
        except Absent as absent:
            raise unittest.SkipTest(str(absent)) from None
        cls.addClassCleanup(cls.redis.close)
        cls.cache = cache = {"cache": plugin("cache", order=90, attach=on("small"), grants={"kv": True})}
        cls.open(cache, ["small"], limits={"redis": cls.redis.tls_url, "redis_ca": cls.redis.ca})
        cls.one = cls.gateway
        cls.backends = {"chat": {"kind": "openai", "url": cls.chat.url}}
        cls.models = {"small-chat": {"targets": [{"backend": "chat"}]}}
        cls.other = Gateway(cls.backends, cls.models, plugins=cache, limits={"redis": cls.redis.url})
        cls.addClassCleanup(cls.other.close)

    def setUp(self):
        self.through(self.one)
        super().setUp()
        if self.redis.process.poll() is not None:
            self.redis.start()
        for gateway in (self.other, self.one):
            self.through(gateway)
            self.eventually(self.nudged, 10, "Redis was not found")
        self.redis.ask("FLUSHALL")

    def through(self, gateway):
        self.gateway, self.clients = gateway, {}

    def nudged(self):
        """Whether Redis is there; it is looked for when somebody wants it."""
        self.plays("Nudge.")
        was_there, ended, began = self.metric("tidegate_plugin_redis_up") == 1, self.hooked("cache", "on_end"), time.monotonic()
        self.ask("openai", "small-chat", "Are you there, {}?".format(began))
        # What it keeps, it keeps behind its reply; without a Redis it keeps nothing, and is not called again.
        while was_there and not ended() and time.monotonic() < began + 5:
            time.sleep(0.02)
        return was_there and self.metric("tidegate_plugin_redis_up") == 1

    def answers(self, text, asked, gateway, secret=WEB, prompt="What is shared?"):
        """Asks through a gateway; the backend, if it is asked, would say `text` or something else."""
        self.through(gateway)
        self.plays("From the backend.")
        got = self.ask("openai", "small-chat", prompt, secret=secret)
        self.assertEqual((got.text, self.asked()), (text, asked))

    def keys(self):
        return sorted(key.decode() for key in self.redis.ask("KEYS", "*"))

    def test_a_hit_crosses_gateways_and_never_organizations(self):
        self.plays("Kept by the first.")
        self.assertEqual(self.ask("openai", "small-chat", "What is shared?").text, "Kept by the first.")
        self.eventually(self.keys, 15, "nothing was kept")
        (key,) = self.keys()
        self.assertTrue(key.startswith("tidegate:kv:cache:acme:"), key)
        self.assertGreater(self.redis.ask("TTL", key), 0)
        for gateway in (self.other, self.one):
            self.answers("Kept by the first.", 0, gateway)
        for secret in (APP, RESEARCH):
            self.answers("From the backend.", 1, self.other, secret)
        self.eventually(lambda: len(self.keys()) == 3, 15, "the others' replies were not kept")
        self.assertEqual(len([key for key in self.keys() if key.startswith("tidegate:kv:cache:globex:")]), 1)
        self.answers("Kept by the first.", 0, self.other)

    def test_nobody_waits_for_a_redis_that_is_away(self):
        for away, back in ((self.redis.kill, self.redis.start), (self.redis.freeze, self.redis.thaw)):
            with self.subTest(away=away.__name__):
                self.through(self.one)
                self.assertEqual(self.metric("tidegate_plugin_redis_up"), 1)
                log, failures = self.log_since(), self.counted("tidegate_plugin_errors_total")
                away()
                with self.restored(back):
                    began = time.monotonic()
                    for number in range(12):
                        self.answers("From the backend.", 1, self.one, prompt="Alone, {}?".format(number))
                    self.assertLess(time.monotonic() - began, 5)
                    self.assertEqual((failures(), self.metric("tidegate_plugin_redis_up")), (0, 0))
                self.eventually(self.nudged, 10, "Redis was not found again")
                self.eventually(lambda: "Redis answers" in log(), 15, "the log does not say that it is back")
                self.assertEqual((log().count(AWAY), log().count("Redis answers")), (1, 1))
                self.redis.ask("FLUSHALL")
                self.plays("Kept again.")
                self.ask("openai", "small-chat", "And now?")
                self.eventually(self.keys, 15, "nothing was kept")
                self.answers("Kept again.", 0, self.one, prompt="And now?")

    @contextlib.contextmanager
    def restored(self, back):
        try:
            yield
        finally:
            back()

    def test_a_redis_that_is_not_what_it_should_be_is_told_and_not_used(self):
        """Nobody vouches for it, it is somebody else's, the password is wrong, the user may not."""
        url, other = self.redis.tls_url, tempfile.TemporaryDirectory()
        self.addCleanup(other.cleanup)
        certificates.make(Path(other.name))
        self.redis.ask("ACL", "SETUSER", "reader", "on", ">" + Redis.PASSWORD, "~*", "+ping", "+get")
        for limits, says in (
            ({"redis": url}, "UnknownIssuer"),
            ({"redis": url, "redis_ca": other.name + "/ca.pem"}, "BadSignature"),
            ({"redis": url.replace("127.0.0.1", "localhost"), "redis_ca": self.redis.ca}, "not valid for name"),
            ({"redis": url.replace("127.0.0.1", "localhost").replace("rediss:", "redis:").replace(str(self.redis.tls_port), str(self.redis.port)).replace(Redis.PASSWORD, "wrong")}, "AuthenticationFailed"),
            ({"redis": url.replace(Redis.USER, "reader"), "redis_ca": self.redis.ca}, "NoPerm"),
        ):
            with self.subTest(says=says):
                gateway = Gateway(self.backends, self.models, plugins=self.cache, limits=limits)
                try:
                    self.through(gateway)
                    self.answers("From the backend.", 1, gateway, prompt="Who is there?")
                    self.answers("From the backend.", 1, gateway, prompt="Who is there?")
                    self.eventually(lambda: gateway.logged(AWAY), 15, "the log does not say so")
                    self.assertIn(says, gateway.logged(AWAY)[0])
                    self.assertNotIn(Redis.PASSWORD, gateway.log.read_text())
                    self.assertEqual(self.keys(), [])
                finally:
                    gateway.close()

    def test_a_gateway_starts_without_it_and_tells_no_password(self):
        self.redis.kill()
        self.through(self.one)
        try:
            self.one.stop()
            self.one.start()
            self.eventually(lambda: AWAY in self.one.log.read_text(), 15, "the log does not say so")
            self.answers("From the backend.", 1, self.one, prompt="At the start?")
        finally:
            self.redis.start()
        self.assertNotIn(Redis.PASSWORD, self.one.log.read_text())
        self.eventually(self.nudged, 10, "Redis was not found")
