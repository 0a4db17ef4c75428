#!/usr/bin/env python3
"""Builds the fuzz targets and runs each for a bounded time: `run.py SECONDS [NAME…]`, NAME as it is printed (`call-chat`).

libFuzzer on a stable compiler: the coverage it steers by comes from LLVM flags that need no nightly; only the address
sanitizer would, and with `unsafe` denied there is little for it to find. What each run learns is kept in the cache folder and
is where the next one begins.
"""
import concurrent.futures, os, pathlib, re, subprocess, sys, time

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "tests/it/golden"
CACHE = pathlib.Path(os.environ.get("FUZZ_CACHE") or pathlib.Path.home() / ".cache/tidegate/fuzz")
DIALECTS = ["chat", "messages", "responses", "completions", "ollama_chat", "ollama_generate"]
RUNS = [(target, dialect) for target in ("call", "answer", "stream") for dialect in DIALECTS]
RUNS += [("fault", None), ("frames", None), ("json", None), ("keys", None)]
COVERAGE = [
    "-Cpasses=sancov-module", "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters", "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares", "--cfg=fuzzing",
]
HEADERS = ["authorization: Bearer dfproj_1", "x-api-key: dforg_1\nopenai-project: web",
           "authorization: bearer dfuser_ann\nopenai-project: web\nopenai-organization: acme",
           "authorization: Bearer dfuser_root\nopenai-project: lab\nopenai-organization: beta"]


def build() -> pathlib.Path:
    # A target is named, so that the flags do not reach build scripts.
    host = re.search(r"host: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True))[1]
    folder = CACHE / "target"
    environment = os.environ | {"CARGO_TARGET_DIR": str(folder), "RUSTFLAGS": " ".join(COVERAGE)}
    command = ["cargo", "build", "--release", "--locked", "--target", host, "--manifest-path", str(HERE / "Cargo.toml")]
    subprocess.run(command, env=environment, check=True)
    return folder / host / "release"


def seeds(target: str, dialect: str | None) -> list[bytes]:
    if target == "keys":
        return [text.encode() for text in HEADERS]
    kinds = {"stream": ("sse", "ndjson"), "frames": ("sse", "ndjson")}.get(target, ("json",))
    folder = GOLDEN / (dialect or "") / ("calls" if target == "call" else "")
    pattern = "**/*" if dialect is None else "*"
    found = [path.read_bytes() for path in sorted(folder.glob(pattern)) if path.suffix[1:] in kinds]
    if target == "fault":
        found += [b'{"error":{"message":"x","type":"t","code":"c"}}', b'{"error":"x"}', b'{"detail":[{"msg":"x"}]}',
                  b'{"type":"error","error":{"type":"api_error","message":"x"}}']
    return found


def words() -> list[str]:
    """The names the dialects know: every short literal of their sources."""
    text = "".join(path.read_text() for path in sorted((HERE.parent / "src/wire").rglob("*.rs")))
    return sorted(set(re.findall(r'"([A-Za-z][A-Za-z0-9_.-]{1,40})"', text)))


def run(binaries: pathlib.Path, target: str, dialect: str | None, seconds: int) -> tuple[str, str, bool]:
    name = target + (f"-{dialect}" if dialect else "")
    corpus, found = CACHE / "corpus" / name, CACHE / "found" / name
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target, dialect)):
        (corpus / f"seed-{number}").write_bytes(seed)
    command = [str(binaries / target), f"-max_total_time={seconds}", f"-artifact_prefix={found}/", "-timeout=10",
               "-rss_limit_mb=2048", "-max_len=16384", "-len_control=0", f"-dict={CACHE / 'words.dict'}", "-print_final_stats=1", str(corpus)]
    environment = os.environ | {"FUZZ_WORDS": str(CACHE / "words.txt")} | ({"FUZZ_DIALECT": dialect} if dialect else {})
    began = time.monotonic()
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
    executions = int((re.findall(r"number_of_executed_units: (\d+)", ran.stdout) or re.findall(r"^#(\d+)", ran.stdout, re.M) or ["0"])[-1])
    coverage = (re.findall(r"cov: (\d+)", ran.stdout) or ["?"])[-1]
    line = f"{name:24} {time.monotonic() - began:5.0f} s {executions:>10} executions  coverage {coverage}"
    if ran.returncode == 0:
        return line, "", True
    panic = re.search(r"panicked at .*(?:\n.*){0,12}", ran.stdout)
    replay = f"FUZZ_DIALECT={dialect} " if dialect else ""
    wrote = re.search(r"Test unit written to (\S+)", ran.stdout)
    return line + "  FOUND", f"{(panic[0] if panic else ran.stdout[-1500:])[:3000]}\nagain: {replay}{binaries / target} {wrote[1] if wrote else ''}\n", False


def main() -> int:
    seconds, wanted = int(sys.argv[1]), sys.argv[2:]
    binaries = build()
    known = words()
    (CACHE / "words.txt").write_text("\n".join(known))
    (CACHE / "words.dict").write_text("".join(f'"\\"{word}\\""\n' for word in known) + '"data: "\n"\\x0a\\x0a"\n"event: "\n')
    runs = [(target, dialect) for target, dialect in RUNS if not wanted or (target + (f"-{dialect}" if dialect else "")) in wanted or target in wanted]
    good = True
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("FUZZ_JOBS") or os.cpu_count() or 1)) as pool:
        for done in concurrent.futures.as_completed([pool.submit(run, binaries, *one, seconds) for one in runs]):
            line, found, fine = done.result()
            print(line, found, sep="\n" if found else "", flush=True)
            good &= fine
    print(f"{len(runs)} targets of {seconds} s each: " + ("nothing found" if good else "see above"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
