"""A real registry for tests: the reference one (`distribution`, Docker's), from Debian, on loopback."""

import base64
import hashlib
import http.client
import json
import shutil
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import certificates
from debian import unpacked
from ports import free_port

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Registry:
    """One server on a port of its own. What was pushed outlives its process, until it is closed."""

    USER, PASSWORD = "ada", "only-for-tests"
    # `htpasswd -nbB`: bcrypt is the only kind that this registry knows.
    HTPASSWD = "ada:$2b$05$tidegateTidegateTideguZsS8Pclw3o8/AoBalOiTxa7RcCPMLZK\n"

    def __init__(self, guarded=False, names=None):
        """`guarded`: only for USER. `names`: over TLS, with a certificate of a private authority for these."""
        self.program = unpacked("docker-registry", ("docker-registry",)) / "usr/bin/docker-registry"
        self.folder, self.port = Path(tempfile.mkdtemp(prefix="tidegate-registry-")), free_port()
        http = {"addr": "127.0.0.1:{}".format(self.port)}
        settings = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(self.folder / "storage")}}, "http": http}
        self.headers, self.context = {}, None
        if guarded:
            (self.folder / "htpasswd").write_text(self.HTPASSWD)
            settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(self.folder / "htpasswd")}}
            self.headers = {"authorization": "Basic " + self.token}
        if names:
            certificates.make(self.folder, names)
            http["tls"] = {"certificate": str(self.folder / "server.pem"), "key": str(self.folder / "server.key")}
            self.context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        # What is JSON is YAML.
        (self.folder / "config.yml").write_text(json.dumps(settings))
        self.process = None
        self.start()

    @property
    def address(self):
        return "127.0.0.1:{}".format(self.port)

    @property
    def token(self):
        """Name and password as HTTP and docker's configuration write them."""
        return base64.b64encode("{}:{}".format(self.USER, self.PASSWORD).encode()).decode()

    def start(self):
        with open(self.folder / "log.txt", "ab") as log:
            self.process = subprocess.Popen([self.program, "serve", self.folder / "config.yml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            try:
                return self.ask("GET", "/v2/", status=200)
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the registry did not start:\n" + self.log()[-2000:]) from None
                time.sleep(0.02)

    def log(self):
        return (self.folder / "log.txt").read_text(errors="replace")

    def asked(self):
        """How many requests it has answered."""
        return self.log().count('msg="response completed"')

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, method, path, body=None, status=200, **headers):
        """The headers of one answer, which must have this status."""
        if self.context:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}})
            answer = connection.getresponse()
            words = answer.read()
            if answer.status != status:
                raise RuntimeError("the registry answers {} {} with {}: {}".format(method, path, answer.status, words))
            return answer.headers
        finally:
            connection.close()

    def push(self, repository, content, kind="application/wasm", tag="1"):
        """Pushes these bytes as a manifest's one layer, of this media type. Returns the manifest's digest."""
        config = json.dumps({"architecture": "wasm", "os": "wasip2", "layerDigests": [digest(content)]}).encode()
        parts = [{"mediaType": media, "digest": digest(part), "size": len(part)} for media, part in (("application/vnd.wasm.config.v0+json", config), (kind, content))]
        for part in (config, content):
            place = urlsplit(self.ask("POST", "/v2/{}/blobs/uploads/".format(repository), status=202)["location"])
            self.ask("PUT", "{}?{}&digest={}".format(place.path, place.query, digest(part)), part, status=201, content_type="application/octet-stream")
        manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}).encode()
        return self.ask("PUT", "/v2/{}/manifests/{}".format(repository, tag), manifest, status=201, content_type=MANIFEST)["docker-content-digest"]
