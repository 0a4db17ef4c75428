"""The DeepFellow reference's own request, sent as its users send it: with curl, and the fields it documents.

Only `model` and `messages` are in the body; both tenant headers are set. The reply is one that Tidegate writes itself,
because the backend behind it speaks only chat completions.
"""

import json
import shutil
import subprocess

import fakes
from gateway import OPS, ROOT, WEB, Case, Gateway

BODY = {"model": "deepfellow-model", "messages": [{"role": "user", "content": "Hello, how are you?"}]}


class Reference(Case):
    @classmethod
    def setUpClass(cls):
        cls.fake = fakes.OpenAIOnly()
        cls.addClassCleanup(cls.fake.close)
        cls.gateway = Gateway({"chat": {"kind": "openai", "url": cls.fake.url}}, {"deepfellow-model": {"targets": [{"backend": "chat", "model": fakes.MODEL}]}})
        cls.addClassCleanup(cls.gateway.close)

    def setUp(self):
        super().setUp()
        self.fake.plays(fakes.chat("I am well."))

    def post(self, body, secret=WEB):
        """Status and JSON of a POST /v1/messages; through curl where there is one."""
        headers = {"Authorization": "Bearer " + secret, "OpenAI-Organization": "acme", "OpenAI-Project": "web", "Content-Type": "application/json"}
        if not shutil.which("curl"):
            status, _, text = self.gateway.ask("POST", "/v1/messages", body, headers)
            return status, json.loads(text)
        command = ["curl", "--silent", "--show-error", "--write-out", "\n%{http_code}", self.gateway.url + "/v1/messages", "--data", json.dumps(body)]
        for name, value in headers.items():
            command += ["--header", "{}: {}".format(name, value)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        text, status = done.stdout.rsplit("\n", 1)
        return int(status), json.loads(text)

    def test_documented_reply(self):
        for kind, secret in (("project", WEB), ("organization", OPS), ("user", ROOT)):
            with self.subTest(credential=kind):
                status, reply = self.post(BODY, secret)
                self.assertEqual(status, 200, reply)
                self.assertFields(reply, type="message", role="assistant", model="deepfellow-model", content=[fakes.text("I am well.")], stop_reason="end_turn", stop_sequence=None)
                self.assertTrue(reply["id"].startswith("msg_"), reply["id"])
                self.assertFields(reply["usage"], input_tokens=15, output_tokens=7, cache_read_input_tokens=5, cache_creation_input_tokens=0, cache_creation_inpuit_tokens=0,
                                  cache_creation={"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0}, server_tool_use={"web_search_requests": 0})
                self.assertIn("service_tier", reply["usage"])
                self.assertFields(self.only_record(), organization="acme", project="web", key={"project": "web-1", "organization": "ops", "user": "root-1"}[kind], outcome="ok")

    def test_documented_defaults(self):
        self.post(BODY)
        sent = self.fake.requests[0]
        self.assertEqual(sent.get("max_tokens") or sent.get("max_completion_tokens"), 8000)
        self.assertFalse(sent.get("stream", False))
        self.assertEqual([message["role"] for message in sent["messages"]], ["user"])

    def test_documented_validation_error(self):
        status, reply = self.post({})
        self.assertEqual(status, 422)
        self.assertEqual([(item["loc"], item["type"]) for item in reply["detail"]], [(["body", "model"], "missing"), (["body", "messages"], "missing")])
        for item in reply["detail"]:
            self.assertTrue(item["msg"] and "input" in item, item)
        self.assertFields(reply, type="error")
        self.assertEqual(reply["error"]["type"], "invalid_request_error")
        self.assertTrue(reply["request_id"])
        self.assertEqual(self.fake.requests, [])
        self.assertFields(self.only_record(), status=422, outcome="refused")
