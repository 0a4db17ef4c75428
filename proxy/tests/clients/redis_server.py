#!/usr/bin/env python3
"""A real Redis for tests: the one that is installed, or Debian's, unpacked into the cache and not installed.

    python3 proxy/tests/clients/redis_server.py cargo nextest run kv::

As a program it runs a command beside a fresh Redis and says where it is: TIDEGATE_TEST_REDIS is its address,
TIDEGATE_TEST_REDIS_TLS the one over TLS, for a user who may do no more than a gateway does, TIDEGATE_TEST_REDIS_CA the
authority's file. The tests in Rust that compare Redis with memory run in full where these are set, and only there.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import certificates
from debian import Absent, unpacked
from ports import free_port

# The server, what it is a link to, and what it is linked with that a slim system lacks.
PACKAGES = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1")


def program():
    """The server's path and the folder of its libraries."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found, None
    folder = unpacked("redis", PACKAGES)
    return str(folder / "usr/bin/redis-server"), str(next((folder / "usr/lib").glob("*-linux-gnu*")))


class Redis:
    """One server on two ports of its own, plain and TLS, with nothing on disk: what it knew is gone when it starts again."""

    PASSWORD = "only-for-tests"
    # A user who may do what docs/configuration.md says that a gateway does, and nothing else.
    USER, MAY = "gateway", "~tidegate:kv:* +ping +get +set +del +exists +incrby +pexpire +eval +evalsha +script|load"

    def __init__(self):
        self.program, self.libraries = program()
        self.port, self.tls_port = free_port(), free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="tidegate-redis-"))
        certificates.make(self.folder)
        self.ca = str(self.folder / "ca.pem")
        self.process = None
        self.start()

    @property
    def url(self):
        return "redis://:{}@127.0.0.1:{}/0".format(self.PASSWORD, self.port)

    @property
    def tls_url(self):
        return "rediss://{}:{}@127.0.0.1:{}/0".format(self.USER, self.PASSWORD, self.tls_port)

    def start(self):
        settings = {"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self.folder, "requirepass": self.PASSWORD}
        settings.update({"tls-port": self.tls_port, "tls-cert-file": self.folder / "server.pem", "tls-key-file": self.folder / "server.key", "tls-auth-clients": "no"})
        command = [self.program] + [word for key, value in settings.items() for word in ("--" + key, str(value))]
        command += ["--user", self.USER, "on", ">" + self.PASSWORD, *self.MAY.split()]
        libraries = {"LD_LIBRARY_PATH": self.libraries} if self.libraries else {}
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ, **libraries})
        deadline = time.monotonic() + 20
        while True:
            try:
                return self.ask("PING")
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("Redis did not start") from None
                time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def freeze(self):
        """It keeps its connections and says nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, *words):
        """The answer to one command: a text, a number, or a list of them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection, connection.makefile("rwb") as file:
            for command in (("AUTH", self.PASSWORD), words):
                parts = [str(word).encode() for word in command]
                file.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
            file.flush()
            read(file)
            return read(file)


def read(file):
    line = file.readline()
    if not line:
        raise ConnectionError("Redis closed the connection")
    kind, rest = line[:1], line[1:].strip().decode()
    if kind == b"$":
        return None if rest == "-1" else file.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return [read(file) for _ in range(int(rest))]
    if kind == b"-":
        raise RuntimeError(rest)
    return int(rest) if kind == b":" else rest


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        redis = Redis()
    except Absent as absent:
        sys.exit("redis_server.py: {}".format(absent))
    try:
        return subprocess.run(sys.argv[1:], env={**os.environ, "TIDEGATE_TEST_REDIS": redis.url, "TIDEGATE_TEST_REDIS_TLS": redis.tls_url, "TIDEGATE_TEST_REDIS_CA": redis.ca}).returncode
    finally:
        redis.close()


if __name__ == "__main__":
    sys.exit(main())
