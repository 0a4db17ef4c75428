"""The official OpenAI client in front of what is only carried: sound, pictures, moderation, rankings.

The bodies are the client's own, forms with files included; a fake keeps them byte for byte, so that it can be said what of
them the gateway changed.
"""

import json
import re

import fakes
import openai
from gateway import WEB, Case, Gateway

SOUND = b"RIFF\x00\x01\r\n--not-a-boundary\r\n\xff" * 2000
USAGE = {"input_tokens": 50, "output_tokens": 100, "total_tokens": 150}
REPLIES = {
    "/v1/audio/transcriptions": {"text": "Hello.", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17}},
    "/v1/audio/translations": {"text": "Hello."},
    "/v1/images/generations": {"created": 1, "data": [{"b64_json": "QUJD" * 50000}], "usage": USAGE},
    "/v1/images/edits": {"created": 1, "data": [{"b64_json": "QUJD"}], "usage": USAGE},
    "/v1/images/variations": {"created": 1, "data": [{"url": "http://images.invalid/1.png"}]},
    "/v1/moderations": {"id": "modr-1", "model": fakes.MODEL, "results": [{"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}]},
    "/v1/rerank": {"id": "rerank-1", "results": [{"index": 0, "relevance_score": 0.5}], "usage": {"total_tokens": 12}},
}


class Carrier(fakes.Fake):
    """Answers each of these paths, and keeps the bytes it got."""

    def post(self, handler):
        raw = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        self.bodies.append(raw)
        self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        if handler.path != "/v1/audio/speech":
            return fakes.send(handler, fakes.Whole(REPLIES[handler.path]))
        handler.send_response(200)
        handler.send_header("content-type", "audio/mpeg")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for piece in (SOUND[:100], SOUND[100:]):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.flush()
        if b"break off" not in raw:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.close_connection = True


class Opaque(Case):
    @classmethod
    def setUpClass(cls):
        cls.fake = Carrier()
        cls.addClassCleanup(cls.fake.close)
        backends = {"media": {"kind": "openai", "url": cls.fake.url, "key": "backend-secret"}, "claude": {"kind": "anthropic", "url": cls.fake.url}}
        models = {"media": {"targets": [{"backend": "media", "model": fakes.MODEL}]}, "claude": {"targets": [{"backend": "claude"}]}}
        cls.gateway = Gateway(backends, models)
        cls.addClassCleanup(cls.gateway.close)
        cls.client = cls.gateway.openai()

    def setUp(self):
        super().setUp()
        self.fake.bodies, self.fake.headers = [], []

    def field(self, name):
        """Content and head of a part of the one form that was sent."""
        [body], [headers] = self.fake.bodies, self.fake.headers
        boundary = re.search("boundary=(.*)", headers["content-type"])[1].encode()
        parts = body.split(b"--" + boundary)
        [found] = [part for part in parts if b'name="' + name + b'"' in part]
        head, content = found.split(b"\r\n\r\n", 1)
        return content[:-2]

    def booked(self, endpoint, **fields):
        self.assertEqual(self.fake.headers[0]["authorization"], "Bearer backend-secret")
        self.assertFields(self.only_record(), endpoint=endpoint, dialect="openai", model_requested="media", model=fakes.MODEL, backend="media", outcome="ok", status=200, **fields)

    def test_transcription(self):
        reply = self.client.audio.transcriptions.create(model="media", file=("a.wav", SOUND, "audio/wav"), language="en")
        self.assertEqual(reply.text, "Hello.")
        self.assertEqual((self.field(b"file"), self.field(b"model"), self.field(b"language")), (SOUND, fakes.MODEL.encode(), b"en"))
        self.booked("audio/transcriptions", input_tokens=14, output_tokens=3, usage_source="reported")

    def test_translation(self):
        self.assertEqual(self.client.audio.translations.create(model="media", file=("ä \"b\".wav", SOUND)).text, "Hello.")
        self.assertEqual((self.field(b"file"), self.field(b"model")), (SOUND, fakes.MODEL.encode()))
        self.booked("audio/translations", usage_source="missing", input_tokens=None)

    def test_speech_is_streamed(self):
        with self.client.audio.speech.with_streaming_response.create(model="media", voice="alloy", input="Hello") as reply:
            self.assertEqual((b"".join(reply.iter_bytes()), reply.headers["content-type"]), (SOUND, "audio/mpeg"))
        self.assertFields(json.loads(self.fake.bodies[0]), model=fakes.MODEL, voice="alloy", input="Hello")
        self.booked("audio/speech", usage_source="missing")

    def test_speech_that_breaks_off_is_no_speech(self):
        with self.assertRaises(Exception) as caught:
            self.client.audio.speech.create(model="media", voice="alloy", input="break off").read()
        self.assertRegex(repr(caught.exception), "RemoteProtocolError|APIConnectionError")
        self.assertFields(self.only_record(), outcome="cut", status=200)

    def test_images(self):
        reply = self.client.images.generate(model="media", prompt="A sea")
        self.assertEqual((len(reply.data[0].b64_json), reply.usage.total_tokens), (200000, 150))
        self.booked("images/generations", input_tokens=50, output_tokens=100, usage_source="reported")

    def test_image_edits_and_variations(self):
        self.client.images.edit(model="media", prompt="More sea", image=[("a.png", SOUND, "image/png")])
        self.assertEqual((self.field(b"model"), self.field(b"prompt")), (fakes.MODEL.encode(), b"More sea"))
        self.booked("images/edits", output_tokens=100)
        self.fake.bodies, self.fake.headers = [], []
        self.client.images.create_variation(model="media", image=("a.png", SOUND, "image/png"))
        self.assertEqual((self.field(b"model"), self.field(b"image")), (fakes.MODEL.encode(), SOUND))
        self.booked("images/variations", usage_source="missing")

    def test_moderation(self):
        self.assertFalse(self.client.moderations.create(model="media", input="Hello").results[0].flagged)
        self.booked("moderations", usage_source="missing")

    def test_rerank(self):
        body = '{"query": "sea", "model": "media", "documents": ["a", "b"]}'
        status, _, text = self.gateway.ask("POST", "/v1/rerank", body, {"authorization": "Bearer " + WEB})
        self.assertEqual((status, json.loads(text)), (200, REPLIES["/v1/rerank"]))
        self.assertEqual(self.fake.bodies[0].decode(), body.replace('"media"', '"' + fakes.MODEL + '"'))
        self.booked("rerank", input_tokens=12, output_tokens=0, usage_source="reported")

    def test_refusals(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.moderations.create(input="Hello")
        self.assertIn("Name a model", caught.exception.message)
        with self.assertRaises(openai.BadRequestError):
            self.client.audio.transcriptions.create(model="claude", file=("a.wav", SOUND))
        with self.assertRaises(openai.NotFoundError):
            self.client.images.generate(model="nobody", prompt="x")
        self.assertEqual(self.fake.bodies, [])
