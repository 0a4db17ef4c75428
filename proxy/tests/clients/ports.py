"""Ports for servers that are started from a configuration."""

import random
import socket
from pathlib import Path


def free_port():
    """A port where nobody listens, of those that this system gives to nobody by itself: whoever connects somewhere, or listens on
    whatever port is free, would sooner or later get one of the others before the server has it."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(first // 2, first)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
