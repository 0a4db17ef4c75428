# The build is kept outside the clone, so that a second clone does not start from nothing. Set CARGO_TARGET_DIR to choose.
CARGO_TARGET_DIR ?= $(HOME)/.cache/tidegate/target
export CARGO_TARGET_DIR
CACHE := $(HOME)/.cache/tidegate
PLUGINS := $(CACHE)/plugins
MODEL := $(CACHE)/models/SmolLM2-135M-Instruct.Q4_1.gguf
EMBEDDER := $(CACHE)/models/all-MiniLM-L6-v2
# What is tested has all features; what is released has the default ones. Their profiles differ anyway: nothing is built twice.
ALL := --features kubernetes
RELEASE := $(CARGO_TARGET_DIR)/release/tidegate
PYTHON ?= python3
export TIDEGATE_COMMIT := $(shell git rev-parse --short HEAD 2>/dev/null)

.PHONY: run demo release model test fmt lint unit redis plugins clients docs soak bench translate pools bolt fuzz clean

## run: build, fetch a small model, start a gateway with two organizations, ask it, keep serving until Ctrl-C
run: release
	$(PYTHON) deploy/demo.py --binary $(RELEASE)

## demo: the same, checked, and then it stops; exits non-zero if anything was wrong
demo: release
	$(PYTHON) deploy/demo.py --binary $(RELEASE) --once

## release: the binary
release:
	cargo build --release --locked

## test: everything that CI runs
test: fmt lint docs unit redis demo plugins clients

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --locked $(ALL) -- -D warnings
	@# A workspace of its own, compiled from the same sources: what changes there must not leave it behind.
	cargo check --locked --manifest-path proxy/fuzz/Cargo.toml --no-default-features

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked $(ALL)

## model: the small models that the tests and the demo answer with
model: $(MODEL) $(EMBEDDER)
$(MODEL):
	$(PYTHON) deploy/demo.py --fetch-model
$(EMBEDDER):
	$(PYTHON) deploy/demo.py --fetch-embedder

unit: model
	@# A build fetches what this platform needs; the licences of what the others need are checked, too.
	cargo fetch --locked --quiet
	@command -v cargo-nextest >/dev/null || cargo install cargo-nextest --locked --root $(CACHE)/tools --target-dir $(CACHE)/tools/target
	PATH="$(CACHE)/tools/bin:$$PATH" TIDEGATE_TEST_MODEL=$(MODEL) TIDEGATE_TEST_EMBEDDER=$(EMBEDDER) cargo nextest run --locked $(ALL)

## redis: what plugins keep, kept in a real Redis (fetched from Debian where there is none), plain and over TLS: the same table as in memory
redis:
	$(PYTHON) proxy/tests/clients/redis_server.py cargo test --locked $(ALL) --lib plugin::kv

## plugins: the plugins that come with Tidegate, checked and built; the templates in other languages, where their tools can be had
plugins: export CARGO_TARGET_DIR := $(CACHE)/plugins-target
plugins:
	cd plugins && cargo fmt --all --check
	cd plugins && cargo clippy --all-targets --locked -- -D warnings
	cd plugins && cargo test --locked --quiet
	plugins/build.sh --out $(PLUGINS)
	plugins/templates.sh $(PLUGINS)

## clients: the official clients, three coding agents, a real llama.cpp server, a real Redis, a real registry and the plugins against the release binary
clients: release model plugins
	$(PYTHON) proxy/tests/clients/run.py --binary $(RELEASE) --model $(MODEL) --plugins $(PLUGINS)

## soak: many tenants before backends that fail in every way, then kill -9 over and over; ten minutes each, figures printed
SOAK_SECONDS ?= 600
soak:
	TIDEGATE_SOAK_SECONDS=$(SOAK_SECONDS) cargo test --locked $(ALL) --test it chaos -- --nocapture --test-threads=1

## bench: what a request and a chunk cost (docs/performance.md)
bench: release
	cargo run --release --locked --package side-by-side

## translate, pools: what translating costs without sockets, and what each policy of a pool is worth (docs/performance.md)
translate pools:
	cargo run --release --locked --package rooms --bin $@

## bolt: the release binary with what a request runs put together, by a profile of itself: up to a fifth less time for a small request
bolt:
	deploy/bolt.sh

## fuzz: every reader of strangers' bytes against inputs made up, FUZZ_SECONDS each (CONTRIBUTING.md)
FUZZ_SECONDS ?= 20
fuzz:
	$(PYTHON) proxy/fuzz/run.py $(FUZZ_SECONDS)

clean:
	cargo clean
