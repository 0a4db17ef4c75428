"""Certificates for tests, by OpenSSL's own program."""

import os
import subprocess


def make(folder, names="IP:127.0.0.1"):
    """In the folder: an authority (ca.pem), unless it is there, and pairs that it signed for this machine under these names
    (server.pem, server.key) and for its clients (client.pem, client.key)."""

    def run(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")
    if not (folder / "ca.pem").exists():
        run(*new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign")
    for whose in ("server", "client"):
        run(*new, "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "new.key", "-out", "new.pem", "-subj", "/CN=" + whose, "-addext", "subjectAltName=" + names, "-addext", "basicConstraints=critical,CA:FALSE")
        for name in ("pem", "key"):
            os.replace(folder / "new.{}".format(name), folder / "{}.{}".format(whose, name))
