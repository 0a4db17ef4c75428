"""`tidegate models pull` against a hub on loopback that answers as Hugging Face does: a list with checksums, ranges."""

import hashlib
import http.server
import json
import os
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from gateway import BINARY

CONTENT = bytes(range(256)) * 8192
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves what `files` of its server lists; every file has the same content."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("range")))
        if self.path.startswith("/api/models/owner/name/tree/main"):
            return self.answer(200, json.dumps(self.server.files).encode())
        start = 0
        if self.headers.get("range"):
            start = int(self.headers["range"].removeprefix("bytes=").removesuffix("-"))
        self.answer(206 if start else 200, CONTENT[start:])

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def listed(path, sha256=SHA256):
    return {"type": "file", "path": path, "size": len(CONTENT), "lfs": {"oid": sha256, "size": len(CONTENT)}}


class ModelsPull(unittest.TestCase):
    def setUp(self):
        self.hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        self.hub.files, self.hub.asked = [{"type": "file", "path": "README.md", "size": 3}, listed("m.gguf")], []
        threading.Thread(target=self.hub.serve_forever, daemon=True).start()
        self.addCleanup(self.hub.server_close)
        self.addCleanup(self.hub.shutdown)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def pull(self, *more):
        endpoint = "http://127.0.0.1:{}".format(self.hub.server_address[1])
        command = [BINARY, "models", "pull", "owner/name", "--to", str(self.folder), "--endpoint", endpoint, *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=self.folder, env={**os.environ, "HF_TOKEN": ""})

    def test_the_only_file_is_fetched_and_checked(self):
        done = self.pull()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "m.gguf").read_bytes(), CONTENT)
        self.assertIn("weights = ", done.stdout)
        self.assertIn("is there already", self.pull().stdout)

    def test_it_goes_on_where_it_stopped(self):
        (self.folder / "m.gguf.part").write_bytes(CONTENT[:1000])
        self.assertEqual(self.pull().returncode, 0)
        self.assertEqual((self.folder / "m.gguf").read_bytes(), CONTENT)
        self.assertIn("bytes=1000-", [asked for _, asked in self.hub.asked])

    def test_damage_is_found(self):
        (self.folder / "m.gguf.part").write_bytes(b"x" * 1000)
        done = self.pull()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("is damaged", done.stderr)
        self.assertFalse((self.folder / "m.gguf").exists())

    def test_several_files_must_be_chosen_from(self):
        self.hub.files.append(listed("other.gguf"))
        done = self.pull()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("--file", done.stderr)
        self.assertEqual(self.pull("--file", "other.gguf").returncode, 0)

    def test_what_has_no_checksum_is_not_kept(self):
        del self.hub.files[1]["lfs"]
        done = self.pull()
        self.assertIn("no checksum", done.stderr)
        self.assertFalse((self.folder / "m.gguf").exists())
