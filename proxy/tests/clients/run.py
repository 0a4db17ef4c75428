#!/usr/bin/env python3
"""Entry point of the tests with real clients: makes the venv they need, lets npm install the rest, then runs them in it.

    plugins/build.sh
    python3 proxy/tests/clients/run.py --binary target/release/tidegate --model models/SmolLM2-135M-Instruct.Q4_1.gguf

They exist because a gateway is only as good as what the official clients make of its answers: a frame that our own
reader accepts may still break theirs. The venv is kept between runs and renewed when requirements.txt changes; so are
the clients in JavaScript and the coding agents, each by their package-lock.json. Node is in the venv.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate"
VENV = CACHE / "venv-clients"
# Folders beside this file with a package-lock.json.
NPM = ("js", "agents")
# Where plugins/build.sh puts what it builds.
PLUGINS = Path(os.environ.get("TIDEGATE_CACHE") or Path.home() / ".cache" / "tidegate") / "plugins"
# Where deploy/demo.py --fetch-embedder puts it.
EMBEDDER = CACHE / "models" / "all-MiniLM-L6-v2"
# What would lead the clients elsewhere than to the gateway under test, or configure the gateway behind the test's back.
FOREIGN = ("ANTHROPIC_", "OLLAMA_", "OPENAI_", "TIDEGATE_")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def arguments():
    parser = argparse.ArgumentParser(description="Run the tests with the official clients and a real llama.cpp server.")
    parser.add_argument("--binary", required=True, help="the tidegate program")
    parser.add_argument("--model", required=True, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--embedder", default=str(EMBEDDER), help="the folder of an embedding model; without one its tests are skipped (%(default)s)")
    parser.add_argument("--plugins", default=str(PLUGINS), help="the folder of built plugins (%(default)s)")
    parser.add_argument("-k", action="append", default=[], metavar="PATTERN", help="only tests whose name holds this")
    parser.add_argument("-q", "--quiet", action="store_true", help="no line for each test")
    return parser.parse_args()


def existing(path, what):
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        sys.exit("run.py: there is no {} at {}".format(what, path))
    return path


def prepare_venv():
    """The venv's Python, with exactly the pinned clients in it."""
    python = VENV / "bin" / "python"
    stamp = VENV / "pins.txt"
    pins = "{}.{}\n".format(*sys.version_info[:2]) + (HERE / "requirements.txt").read_text()
    if python.exists() and stamp.exists() and stamp.read_text() == pins:
        return python
    print("Installing the clients into {} …".format(VENV), flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(VENV)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", str(HERE / "requirements.txt")],
    ):
        if subprocess.run(command).returncode != 0:
            sys.exit("run.py: this failed: {}\nIt needs Python's venv module and a package index that pip can reach.".format(" ".join(command)))
    stamp.write_text(pins)
    return python


def prepare_npm(name):
    """The folder with what package-lock.json of `name` pins. Where npm cannot have it, that is said, and its tests say so, too."""
    folder, source = CACHE / ("npm-" + name), HERE / name
    stamp = folder / "pins.txt"
    pins = "".join((source / file).read_text() for file in ("package.json", "package-lock.json"))
    if stamp.exists() and stamp.read_text() == pins:
        return folder
    print("Installing {}/package-lock.json into {} …".format(name, folder), flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(source / file, folder)
    path = "{}:{}".format(VENV / "bin", os.environ.get("PATH", ""))
    try:
        done = subprocess.run([str(VENV / "bin" / "npm"), "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
        failed, why = done.returncode != 0, done.stderr[-1500:]
    except OSError as error:
        failed, why = True, str(error)
    if failed:
        print("run.py: npm cannot install {}/package-lock.json, so its tests are SKIPPED:\n{}".format(name, why), file=sys.stderr, flush=True)
        shutil.rmtree(folder / "node_modules", ignore_errors=True)
    else:
        stamp.write_text(pins)
    return folder


def environment(binary, model, plugins, embedder=""):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN) and name.lower() not in PROXIES}
    ours = {"TIDEGATE_TEST_BINARY": binary, "TIDEGATE_TEST_MODEL": model, "TIDEGATE_TEST_PLUGINS": plugins, "TIDEGATE_TEST_EMBEDDER": embedder}
    return dict(kept, NO_PROXY="127.0.0.1", PYTHONDONTWRITEBYTECODE="1", **{name: str(path) for name, path in ours.items()})


def main():
    options = arguments()
    binary, model = existing(options.binary, "binary"), existing(options.model, "model")
    command = [str(prepare_venv()), "-m", "unittest", "discover", "--start-directory", str(HERE), "--pattern", "test_*.py"]
    command += [] if options.quiet else ["--verbose"]
    for pattern in options.k:
        command += ["-k", pattern]
    embedder = Path(options.embedder).expanduser().resolve()
    plugins = Path(options.plugins).expanduser().resolve()
    packages = {"TIDEGATE_TEST_NPM_" + name.upper(): str(prepare_npm(name)) for name in NPM}
    return subprocess.run(command, env={**environment(binary, model, plugins, embedder if embedder.is_dir() else ""), **packages}).returncode


if __name__ == "__main__":
    sys.exit(main())
