"""Vectors: the official OpenAI and Ollama clients in front of a real llama.cpp, of an Ollama and of the model in this process.

The OpenAI client asks for base64 unless told otherwise and decodes it by itself, so that every server's numbers must come
through as that.
"""

import math
import os
import unittest

import fakes
import gateway as setup
import ollama
import openai
from gateway import Case, Gateway, Llama

TEXTS = ["Say hello.", "Grüße ☀"]
EMBEDDER = os.environ.get("TIDEGATE_TEST_EMBEDDER", "")


class EmbeddingLlama(Llama):
    """A llama.cpp that makes vectors."""

    SETTINGS = "p.embedding = True\np.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN\n"
    SOURCE = Llama.SOURCE.replace("server = ", SETTINGS + "server = ")


class OllamaEmbed(fakes.Fake):
    """Ollama's `/api/embed`, as its documentation has it."""

    path = "/api/embed"

    def error(self, status, message):
        return {"error": message}


def embedded(*vectors):
    return fakes.Whole({"model": fakes.MODEL, "embeddings": vectors, "total_duration": 14143917, "load_duration": 1019500, "prompt_eval_count": 8})


def cosine(one, two):
    return sum(a * b for a, b in zip(one, two)) / math.sqrt(sum(a * a for a in one) * sum(b * b for b in two))


class Embeddings(Case):
    @classmethod
    def setUpClass(cls):
        cls.llama, cls.other = EmbeddingLlama(), OllamaEmbed()
        cls.addClassCleanup(cls.llama.close)
        cls.addClassCleanup(cls.other.close)
        backends = {"llama": {"kind": "llamacpp", "url": cls.llama.url}, "ollama": {"kind": "ollama", "url": cls.other.url, "dialects": ["ollama"]}}
        models = {"real": {"targets": [{"backend": "llama"}]}, "other": {"targets": [{"backend": "ollama", "model": fakes.MODEL}]}}
        cls.gateway = Gateway(backends, models)
        cls.addClassCleanup(cls.gateway.close)
        cls.openai, cls.ollama = cls.gateway.openai(), cls.gateway.ollama()

    def test_openai_before_a_real_server(self):
        with self.llama.openai() as client:
            expected = [item.embedding for item in client.embeddings.create(model="any", input=TEXTS, encoding_format="float").data]
        for more in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            with self.subTest(more):
                reply = self.openai.embeddings.create(model="real", input=TEXTS, **more)
                self.assertEqual((reply.model, reply.object, [item.index for item in reply.data]), ("real", "list", [0, 1]))
                if more.get("encoding_format") != "base64":
                    for item, vector in zip(reply.data, expected):
                        self.assertGreater(cosine(item.embedding, vector), 0.9999)
                        self.assertEqual(len(item.embedding), 576)
                self.assertFields(self.only_record(), endpoint="embeddings", dialect="openai", outcome="ok", input_tokens=reply.usage.prompt_tokens, output_tokens=0, usage_source="reported")

    def test_ollama_before_a_real_server(self):
        expected = [item.embedding for item in self.openai.embeddings.create(model="real", input=TEXTS).data]
        self.only_record()
        reply = self.ollama.embed("real", TEXTS, options={"num_ctx": 64})
        self.assertEqual((reply.model, len(reply.embeddings)), ("real", 2))
        for one, two in zip(reply.embeddings, expected):
            self.assertGreater(cosine(one, two), 0.9999)
        self.assertFields(self.only_record(), endpoint="api/embed", dialect="ollama", input_tokens=reply.prompt_eval_count, output_tokens=0, usage_source="reported")
        older = self.ollama.embeddings("real", TEXTS[0])
        self.assertGreater(cosine(older.embedding, expected[0]), 0.9999)
        self.assertFields(self.only_record(), endpoint="api/embeddings", usage_source="reported")

    def test_tokens_reach_a_server_that_takes_them(self):
        reply = self.openai.embeddings.create(model="real", input=[[1, 2, 3], [4]])
        self.assertEqual((len(reply.data), reply.usage.prompt_tokens), (2, 4))

    def test_openai_before_ollama(self):
        self.other.plays(embedded([0.5, -2.0], [0.25, 1.0]))
        reply = self.openai.embeddings.create(model="other", input=TEXTS, dimensions=2, user="ann")
        self.assertEqual([item.embedding for item in reply.data], [[0.5, -2.0], [0.25, 1.0]])
        self.assertEqual((reply.model, reply.usage.prompt_tokens, reply.usage.total_tokens), ("other", 8, 8))
        self.assertEqual(self.other.requests, [{"model": fakes.MODEL, "input": TEXTS, "dimensions": 2}])
        self.assertFields(self.only_record(), user="ann", input_tokens=8, output_tokens=0)

    def test_ollama_before_ollama(self):
        self.other.plays(embedded([0.5, -2.0]))
        reply = self.ollama.embed("other", TEXTS[0], truncate=False, keep_alive="5m")
        self.assertEqual((reply.embeddings, reply.model, reply.load_duration), ([[0.5, -2.0]], "other", 1019500))
        self.assertFields(self.other.requests[0], model=fakes.MODEL, input=TEXTS[0], truncate=False, keep_alive="5m")

    def test_errors_are_the_clients_own(self):
        for broken, error in (
            (lambda: self.openai.embeddings.create(model="real", input=""), openai.BadRequestError),
            (lambda: self.openai.embeddings.create(model="real", input=["x"] * 2049), openai.BadRequestError),
            (lambda: self.openai.embeddings.create(model="none", input="x"), openai.NotFoundError),
            (lambda: self.openai.embeddings.create(model="other", input=[1, 2]), openai.BadRequestError),
            (lambda: self.openai.embeddings.create(model="real", input="word " * 6000), openai.APIStatusError),
            (lambda: self.ollama.embed("none", "x"), ollama.ResponseError),
        ):
            with self.assertRaises(error) as caught:
                broken()
            self.assertTrue(str(caught.exception))
            self.assertNotEqual(self.only_record()["outcome"], "ok")


@unittest.skipUnless(EMBEDDER, "no embedding model is at hand (deploy/demo.py --fetch-embedder)")
class InThisProcess(Case):
    SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    # https://sbert.net/docs/sentence_transformer/usage/usage.html
    PUBLISHED = {(0, 1): 0.6660, (0, 2): 0.1046, (1, 2): 0.1411}

    @classmethod
    def setUpClass(cls):
        backends = {"vectors": {"kind": "local", "weights": EMBEDDER}, "words": {"kind": "local", "weights": setup.MODEL}}
        cls.gateway = Gateway(backends, {name: {"targets": [{"backend": name}]} for name in backends})
        cls.addClassCleanup(cls.gateway.close)
        cls.openai, cls.ollama = cls.gateway.openai(), cls.gateway.ollama()

    def test_similarities_are_those_that_are_published(self):
        by_openai = self.openai.embeddings.create(model="vectors", input=self.SENTENCES)
        by_ollama = self.ollama.embed("vectors", self.SENTENCES)
        self.assertEqual((by_openai.usage.prompt_tokens, by_ollama.prompt_eval_count), (25, 25))
        for vectors in ([item.embedding for item in by_openai.data], by_ollama.embeddings):
            for (one, two), expected in self.PUBLISHED.items():
                self.assertAlmostEqual(cosine(vectors[one], vectors[two]), expected, delta=1e-4)
        for record in self.new_records():
            self.assertFields(record, backend="vectors", target="vectors", attempts=1, input_tokens=25, output_tokens=0, usage_source="reported", outcome="ok")

    def test_each_model_does_what_it_can(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.openai.chat.completions.create(model="vectors", messages=[{"role": "user", "content": "x"}])
        self.assertIn("only makes embeddings", str(caught.exception))
        with self.assertRaises(openai.BadRequestError) as caught:
            self.openai.embeddings.create(model="words", input="x")
        self.assertIn("makes no embeddings", str(caught.exception))
        with self.assertRaises(openai.BadRequestError):
            self.openai.embeddings.create(model="vectors", input=[1, 2])
        with self.assertRaises(openai.BadRequestError):
            self.openai.embeddings.create(model="vectors", input="x", dimensions=385)

    def test_long_texts(self):
        long = "word " * 400
        self.assertEqual(self.ollama.embed("vectors", long).prompt_eval_count, 256)
        with self.assertRaises(ollama.ResponseError) as caught:
            self.ollama.embed("vectors", long, truncate=False)
        self.assertEqual(caught.exception.status_code, 400)
