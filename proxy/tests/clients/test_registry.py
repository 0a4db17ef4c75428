"""A plugin from a real registry: pulled, kept, refused, and what an operator reads where it cannot be had."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from debian import Absent
from ports import free_port
from exchange import Exchanges, on, plugin
from gateway import BINARY
from registry_server import Registry, digest

# It is this machine, and not one of the names for it with which plain HTTP is spoken.
ELSEWHERE = "0.0.0.0"


def component():
    return Path(plugin("think")["path"]).read_bytes()


def registry(case, **more):
    """A registry that holds a plugin, and the plugin's digest there."""
    try:
        made = Registry(**more)
    except Absent as absent:
        raise unittest.SkipTest(str(absent)) from None
    case.addClassCleanup(made.close)
    return made, made.push("acme/think", component())


class Serving(Exchanges):
    """A gateway that has its plugin from a registry."""

    @classmethod
    def setUpClass(cls):
        cls.registry, pushed = registry(cls)
        think = {"oci": "{}/acme/think:1@{}".format(cls.registry.address, pushed), "sha256": digest(component())}
        cls.open({"think": {**think, "attach": on("small")}}, ["small"])

    def thinks(self):
        self.plays("<think>Hm.</think>Yes.")
        got = self.ask("openai", "small-chat", "Is it?")
        self.assertEqual((got.text, got.reasoning), ("Yes.", "Hm."))

    def test_a_gateway_pulls_once_and_needs_the_registry_no_more(self):
        self.thinks()
        asked = self.registry.asked()
        self.gateway.stop()
        self.gateway.start()
        self.thinks()
        self.assertEqual(self.registry.asked(), asked, "the registry was asked for what is kept")
        self.registry.kill()
        self.addCleanup(self.registry.start)
        self.gateway.stop()
        self.gateway.start()
        self.thinks()


class Said(unittest.TestCase):
    """What `tidegate check --pull` says, which a gateway says when it starts."""

    @classmethod
    def setUpClass(cls):
        cls.open, cls.digest = registry(cls)
        cls.guarded, _ = registry(cls, guarded=True)
        cls.tls, _ = registry(cls, names="IP:127.0.0.1,IP:" + ELSEWHERE)

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tidegate-registry-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def pull(self, reference, more="", **environment):
        """Whether it was pulled into an empty folder, and the words."""
        shutil.rmtree(self.folder / "tidegate.db.pulled", ignore_errors=True)
        (self.folder / "tidegate.toml").write_text('[plugins.p]\noci = "{}"\n{}\n'.format(reference, more))
        # Nobody has logged in.
        environment = {**os.environ, "DOCKER_CONFIG": str(self.folder), **environment}
        done = subprocess.run([BINARY, "check", "--pull"], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60)
        words = done.stdout + done.stderr
        self.assertNotIn(Registry.PASSWORD, words)
        self.assertNotIn("panicked", words)
        return done.returncode == 0, words

    def good(self, *arguments, **environment):
        good, words = self.pull(*arguments, **environment)
        self.assertTrue(good, words)

    def bad(self, says, *arguments, **environment):
        good, words = self.pull(*arguments, **environment)
        self.assertFalse(good, words)
        for says in says:
            self.assertIn(says, words)
        return words

    def of(self, server, name="acme/think", at=None):
        return "{}/{}@{}".format(server.address, name, at or self.digest)

    def test_the_digest_says_what_is_meant(self):
        self.good(self.of(self.open))
        self.good(self.of(self.open, "acme/think:1"))
        # The tag is for people: whether it is there does not matter.
        self.good(self.of(self.open, "acme/think:gone"))
        self.bad(["tidegate.toml:2: plugins.p.oci: ", "names no digest", "`oras resolve"], "{}/acme/think:1".format(self.open.address))
        for name, at in (("acme/think", digest(b"nowhere")), ("acme/gone", None), ("acme/think:1", digest(b"nowhere"))):
            reference = self.of(self.open, name, at)
            self.bad(["tidegate.toml:1: plugins.p: ", "{} has no {}".format(self.open.address, reference), "look at repository and digest"], reference)

    def test_what_is_no_component_is_told(self):
        image = self.open.push("acme/image", b"\x1f\x8b", "application/vnd.oci.image.layer.v1.tar+gzip")
        self.bad(["is no component", "[application/vnd.oci.image.layer.v1.tar+gzip]", "`wkg oci push`"], self.of(self.open, "acme/image", image))
        script = self.open.push("acme/script", b"#!/bin/sh")
        self.bad(["this is no WebAssembly file"], self.of(self.open, "acme/script", script))
        # A layer's digest, where a manifest's is meant.
        self.bad(["Is the digest the manifest's?"], self.of(self.open, at=digest(component())))

    def test_a_tag_that_was_moved_leaves_what_was_meant(self):
        first = self.open.push("acme/moved", component(), tag="latest")
        self.open.push("acme/moved", b"\0asm something else", tag="latest")
        self.good(self.of(self.open, "acme/moved:latest", first), 'sha256 = "{}"'.format(digest(component())))

    def test_bytes_that_rot_in_the_registry_are_not_used(self):
        content = component() + b"\0\1x"
        rotten = self.open.push("acme/rotten", content)
        name = digest(content).removeprefix("sha256:")
        blob = self.open.folder / "storage/docker/registry/v2/blobs/sha256" / name[:2] / name / "data"
        blob.write_bytes(content[:-1] + b"y")
        self.bad(["sent something else", "Nothing of it was used"], self.of(self.open, "acme/rotten", rotten))

    def test_credentials(self):
        def auth(password):
            return 'registry_auth = {{ username = "ada", password = "{}" }}'.format(password)

        reference = self.of(self.guarded)
        self.bad(["wants to know who pulls", "add registry_auth", "docker login " + self.guarded.address], reference)
        self.bad(["does not let `ada` pull"], reference, auth("wrong"))
        self.good(reference, auth("env:PULL"), PULL=Registry.PASSWORD)
        # As `docker login` leaves it.
        (self.folder / "config.json").write_text(json.dumps({"auths": {self.guarded.address: {"auth": self.guarded.token}}}))
        self.good(reference)
        self.bad(["does not let `ada` pull"], reference, auth("wrong"))

    def test_a_private_authority(self):
        reference = self.of(self.tls).replace("127.0.0.1", ELSEWHERE)
        self.bad(["cannot be trusted (invalid peer certificate: UnknownIssuer)", "SSL_CERT_FILE"], reference)
        self.good(reference, SSL_CERT_FILE=str(self.tls.folder / "ca.pem"))
        # On this machine TLS is spoken where it is asked for.
        reference = self.of(self.tls)
        self.bad(["speaks TLS", "say registry_insecure = false"], reference)
        self.good(reference, "registry_insecure = false", SSL_CERT_FILE=str(self.tls.folder / "ca.pem"))
        reference = self.of(self.open)
        self.bad(["cannot be reached", "A registry without TLS needs registry_insecure = true"], reference, "registry_insecure = false")
        reference = reference.replace("127.0.0.1", ELSEWHERE)
        self.bad(["cannot be reached", "A registry without TLS needs registry_insecure = true"], reference)
        self.good(reference, "registry_insecure = true")

    def test_nobody_there(self):
        self.bad(["cannot be reached", "refused", "look at its name"], "127.0.0.1:{}/acme/think@{}".format(free_port(), self.digest))


if __name__ == "__main__":
    unittest.main()
