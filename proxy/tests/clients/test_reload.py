"""A running gateway takes up another configuration: on SIGHUP and when a file changes, with official clients at work.

The tests in Rust hold the rules; here are the real signal, the real files, a real model and what an operator reads.
"""

import contextlib
import json
import os
import shutil
import signal
import tempfile
import threading
import time
import unittest
from pathlib import Path

import openai

from fakes import OpenAIOnly, Whole
from gateway import MODEL, PLUGINS, Case, Gateway, toml

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}


class Reload(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.gateway = Gateway(
            {"here": {"kind": "local", "weights": MODEL, "threads": 2}},
            {"small": {"targets": [{"backend": "here"}]}},
        )
        cls.addClassCleanup(cls.gateway.close)
        cls.first = cls.gateway.config.read_text()

    def tearDown(self):
        if self.gateway.config.read_text() != self.first:
            self.take_up(self.first, "configuration reloaded")
        self.gateway.openai().models.list()

    def put(self, text):
        """As an editor does: a new file over the old."""
        new = self.gateway.folder / "new.toml"
        new.write_text(text)
        os.rename(new, self.gateway.config)

    def take_up(self, text, says):
        """Puts another text and sends SIGHUP, until a new line of the log says so. The change is found by the signal or by who watches
        the file, whichever comes first; the other finds nothing changed."""
        before = len(self.gateway.logged("reloaded"))
        self.put(text)
        self.gateway.process.send_signal(signal.SIGHUP)
        new = lambda: [line for line in self.gateway.logged("reloaded")[before:] if 'changed="nothing"' not in line]
        self.eventually(lambda: any(says in line for line in new()), 30, "nothing says {}".format(says))

    def metric(self, name):
        return next(value for other, _, value in self.gateway.metrics() if other == name)

    def names(self):
        return sorted(model.id for model in self.gateway.openai().models.list())

    def test_sighup_takes_up_what_changed_and_a_stream_goes_on(self):
        client, loaded = self.gateway.openai(), len(self.gateway.logged("local model loaded"))
        stream = client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "Count to fifty."}], max_tokens=200, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        chunks = iter(stream)
        next(chunks)
        self.take_up(self.first.replace('"small"', '"tiny"'), 'changed="models.tiny added, models.small removed"')
        self.assertEqual(self.names(), ["tiny"])
        with self.assertRaises(openai.NotFoundError):
            client.chat.completions.create(model="small", messages=[{"role": "user", "content": "x"}])
        rest = list(chunks)
        self.assertGreater(rest[-1].usage.completion_tokens, 1)
        reply = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Say hello."}], max_tokens=5)
        self.assertTrue(reply.choices[0].message.content)
        self.assertEqual(len(self.gateway.logged("local model loaded")), loaded, "the model was loaded again")

    def test_a_changed_file_is_taken_up_and_a_bad_one_is_not(self):
        self.put(self.first + 'api = { deepfellow_compat = "yes" }\nlimit = {}\n')
        self.eventually(lambda: self.metric("tidegate_config_reload_success") == 0, 10, "the bad file was not read")
        self.eventually(lambda: self.gateway.logged("not reloaded"), 10, "it was not said")
        line = self.gateway.logged("not reloaded")[-1]
        lines = len(self.first.splitlines())
        for part in ("{}:{}: api.deepfellow_compat: ".format(self.gateway.config, lines + 1), "{}:{}: limit: ".format(self.gateway.config, lines + 2)):
            self.assertIn(part, line)
        self.assertEqual(self.names(), ["small"])
        read = self.metric("tidegate_config_reload_timestamp_seconds")
        time.sleep(1.1)
        self.put(self.first)
        self.eventually(lambda: self.metric("tidegate_config_reload_success") == 1, 10, "the good file was not read")
        self.assertGreater(self.metric("tidegate_config_reload_timestamp_seconds"), read)

    def engines(self):
        """Threads that own a model: its memory is theirs, and goes with them."""
        tasks = Path("/proc/{}/task".format(self.gateway.process.pid))
        count = 0
        for task in tasks.iterdir():
            # One that was listed may have ended by now.
            with contextlib.suppress(OSError):
                count += (task / "comm").read_text().startswith("local-engine")
        return count

    def test_a_model_is_loaded_before_it_is_there_and_gone_when_it_is_not(self):
        backend = "backends = {{ two = {},".format(toml({"kind": "local", "weights": MODEL, "threads": 1}))
        model = "models = {{ second = {},".format(toml({"targets": [{"backend": "two"}]}))
        more = self.first.replace("backends = {", backend).replace("models = {", model)
        ready, stop = set(), threading.Event()
        watcher = threading.Thread(target=lambda: [ready.add(self.gateway.readiness()) for _ in iter(stop.is_set, True)])
        watcher.start()
        for _ in range(2):
            self.take_up(more, "backends.two added")
            # It answers at once: nobody meets a model that is being loaded.
            reply = self.gateway.openai().chat.completions.create(model="second", messages=[{"role": "user", "content": "Hi"}], max_tokens=3)
            self.assertTrue(reply.choices)
            self.assertEqual(self.engines(), 2)
            self.take_up(self.first, "backends.two removed")
            self.eventually(lambda: self.engines() == 1, 10, "the model's threads are still there")
        stop.set()
        watcher.join()
        self.assertEqual(ready, {200})

    def test_keys_that_wait_for_a_restart_are_named(self):
        text = self.first.replace("server = {", 'server = { "workers" = 7,').replace("ledger = {", 'ledger = { "retention" = "9d",')
        self.take_up(text, 'changed="server changed, ledger changed"')
        waits = lambda: any('keys="server.workers"' in line for line in self.gateway.logged("wait for a restart"))
        self.eventually(waits, 10, "it was not said")
        self.assertEqual(self.metric("tidegate_config_reload_success"), 1)


class Files(Case):
    """What is not in the file itself: a link that is set anew, a secret in a file, a plugin."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.fake = OpenAIOnly()
        cls.addClassCleanup(cls.fake.close)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.key, cls.plugin = Path(folder.name) / "key", Path(folder.name) / "plugin.wasm"
        cls.key.write_text("first\n")
        shutil.copy(PLUGINS / "think.wasm", cls.plugin)
        cls.gateway = Gateway(
            {"b": {"kind": "openai", "url": cls.fake.url, "key": "file:{}".format(cls.key)}},
            {"m": {"targets": [{"backend": "b"}]}},
            plugins={"p": {"path": str(cls.plugin)}},
        )
        cls.addClassCleanup(cls.gateway.close)

    def sent_key(self):
        self.fake.plays(Whole(CHAT))
        self.gateway.openai().chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        return self.fake.headers[-1]["authorization"]

    def reloaded(self):
        return [line for line in self.gateway.log.read_text().splitlines() if "configuration reloaded" in line]

    def test_a_secret_and_a_plugin_are_taken_up_from_their_files(self):
        self.assertEqual(self.sent_key(), "Bearer first")
        self.key.write_text("second\n")
        self.eventually(lambda: self.sent_key() == "Bearer second", 10, "the new secret was not used")
        self.eventually(lambda: any('changed="backends.b changed"' in line for line in self.reloaded()), 10, "it was not said")
        self.assertNotIn("second", self.gateway.log.read_text().replace("seconds=", ""))
        shutil.copy(PLUGINS / "fixjson.wasm", self.plugin)
        loaded = lambda: any('changed="plugins.p changed in its file"' in line for line in self.reloaded())
        self.eventually(loaded, 30, "the new plugin was not loaded")
        # Half of a file is no plugin: what was there stays, and what comes next is taken up.
        self.plugin.write_bytes(self.plugin.read_bytes()[:1000])
        self.eventually(lambda: "not reloaded" in self.gateway.last_words(), 10, "the bad plugin was not noticed")
        self.assertRegex(self.gateway.last_words(), r"tidegate\.toml:\d+: plugins\.p: ")
        self.assertEqual(self.sent_key(), "Bearer second")

    def test_a_config_map_s_link(self):
        folder, config = self.gateway.folder, self.gateway.config
        text = config.read_text()
        for name, model in (("one", "m"), ("two", "renamed")):
            (folder / name).mkdir()
            (folder / name / "tidegate.toml").write_text(text.replace('"m"', json.dumps(model)))
        (folder / "..data").symlink_to("one")
        (folder / "link").symlink_to("..data/tidegate.toml")
        os.rename(folder / "link", config)
        names = lambda: [model.id for model in self.gateway.openai().models.list()]
        (folder / "..tmp").symlink_to("two")
        os.rename(folder / "..tmp", folder / "..data")
        self.eventually(lambda: names() == ["renamed"], 10, "the link was not followed")
        (folder / "..tmp").symlink_to("one")
        os.rename(folder / "..tmp", folder / "..data")
        self.eventually(lambda: names() == ["m"], 10, "the link was not followed back")


if __name__ == "__main__":
    unittest.main()
