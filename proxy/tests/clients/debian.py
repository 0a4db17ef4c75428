"""Servers for tests out of Debian's packages: unpacked into the cache and not installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("TIDEGATE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate")


class Absent(Exception):
    """The server is not here, and not to be had."""


def unpacked(name, packages):
    """The folder CACHE/name, which holds the files of these packages as they would lie below `/`."""
    folder = CACHE / name
    if (folder / "complete").exists():
        return folder
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Absent("there is neither a {} nor Debian's apt-get to fetch one with".format(packages[0]))
    print("Fetching {} into {} …".format(packages[0], folder), file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    downloads = folder / "packages"
    downloads.mkdir(parents=True)
    done = subprocess.run(["apt-get", "download", "-qq", *packages], cwd=downloads, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError("apt-get download {} failed; does `apt-get update` help?\n{}".format(" ".join(packages), done.stderr))
    for package in downloads.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    shutil.rmtree(downloads)
    (folder / "complete").touch()
    return folder
