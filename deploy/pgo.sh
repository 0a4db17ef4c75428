#!/bin/sh
# The release binary, laid out by a profile of itself (PGO): a small request takes about a sixth fewer instructions
# (docs/performance.md). Takes three times as long as a release build, and a load of two minutes on loopback.
#
#   deploy/pgo.sh            # prints where the binary is
#
# It needs llvm-profdata of an LLVM that understands rustc's profiles: `rustup component add llvm-tools`, or Debian's llvm-19
# (tried with rustc 1.95). Only this crate and the generic code it makes of others are profiled: for the rest all would have
# to be built twice.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
work=$target/pgo
host=$(rustc -vV | sed -n 's/^host: //p')

profdata=
for tool in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" llvm-profdata llvm-profdata-22 llvm-profdata-21 llvm-profdata-20 llvm-profdata-19; do
    if command -v "$tool" >/dev/null 2>&1; then
        profdata=$tool
        break
    fi
done
if [ -z "$profdata" ]; then
    echo "There is no llvm-profdata here: rustup component add llvm-tools, or apt-get install llvm-19" >&2
    exit 1
fi

rm -rf "$work"
mkdir -p "$work/raw"
work=$(cd "$work" && pwd)
# Two wrappers with names of their own, so that cargo keeps what they build apart.
wrapper() {
    printf '#!/bin/sh\nexec "$@" %s\n' "$2" >"$work/$1"
    chmod +x "$work/$1"
}
wrapper generate "-Cprofile-generate=$work/raw"
wrapper use "-Cprofile-use=$work/profile"

RUSTC_WORKSPACE_WRAPPER=$work/generate cargo build --release --locked "$@"
cp "$target/release/tidegate" "$work/instrumented"
# What it counts is how often, not how long: neither noise nor the benchmark's own profile matters.
TIDEGATE_BIN=$work/instrumented cargo bench --locked --profile dev --bench side_by_side -- --quick
"$profdata" merge -o "$work/profile" "$work/raw"/*.profraw
RUSTC_WORKSPACE_WRAPPER=$work/use cargo build --release --locked "$@"
cp "$target/release/tidegate" "$work/tidegate"
echo "$work/tidegate"
