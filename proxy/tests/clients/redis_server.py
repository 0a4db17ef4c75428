#!/usr/bin/env python3
"""A real Redis for tests: the one that is installed, or Debian's, unpacked into the cache and not installed.

    python3 proxy/tests/clients/redis_server.py cargo nextest run kv::

As a program it runs a command beside a fresh Redis, whose address it gives it in TIDEGATE_TEST_REDIS: the tests in Rust
that compare Redis with memory run in full where that is set, and only there.
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

from ports import free_port

CACHE = Path(os.environ.get("TIDEGATE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate") / "redis"
# The server, what it is a link to, and what it is linked with that a slim system lacks.
PACKAGES = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1")


class Absent(Exception):
    """There is no Redis here, and none to be had."""


def program():
    """The server's path and the folder of its libraries."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found, None
    if not (CACHE / "complete").exists():
        fetch()
    return str(CACHE / "usr/bin/redis-server"), str(next((CACHE / "usr/lib").glob("*-linux-gnu*")))


def fetch():
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Absent("there is neither a redis-server nor Debian's apt-get to fetch one with")
    print("Fetching Redis into {} …".format(CACHE), file=sys.stderr, flush=True)
    shutil.rmtree(CACHE, ignore_errors=True)
    packages = CACHE / "packages"
    packages.mkdir(parents=True)
    done = subprocess.run(["apt-get", "download", "-qq", *PACKAGES], cwd=packages, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError("apt-get download {} failed; does `apt-get update` help?\n{}".format(" ".join(PACKAGES), done.stderr))
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(CACHE)], check=True)
    shutil.rmtree(packages)
    (CACHE / "complete").touch()


class Redis:
    """One server on a port of its own, with nothing on disk: what it knew is gone when it starts again."""

    PASSWORD = "only-for-tests"

    def __init__(self):
        self.program, self.libraries = program()
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="tidegate-redis-")
        self.process = None
        self.start()

    @property
    def url(self):
        return "redis://:{}@127.0.0.1:{}/0".format(self.PASSWORD, self.port)

    def start(self):
        settings = {"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self.folder, "requirepass": self.PASSWORD}
        command = [self.program] + [word for key, value in settings.items() for word in ("--" + key, str(value))]
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
        return subprocess.run(sys.argv[1:], env={**os.environ, "TIDEGATE_TEST_REDIS": redis.url}).returncode
    finally:
        redis.close()


if __name__ == "__main__":
    sys.exit(main())
