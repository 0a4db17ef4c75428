#!/bin/sh
# The release binary with what a request runs put together (BOLT), by a profile of itself under load. The program has 20 MB of
# code of which a request needs a few hundred pieces; wherever the linker left them, each is waited for. Together they take
# up to a fifth less time, by how large the caches are (docs/performance.md). Takes some five minutes beside the release build.
#
#   deploy/bolt.sh [ARGUMENTS FOR CARGO BUILD]      # prints where the binary is
#
# It needs llvm-bolt: `bolt-19` (or a later one) of Debian and Ubuntu. Linux only; tried on x86-64.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
work=$target/bolt

bolt=
for tool in llvm-bolt llvm-bolt-22 llvm-bolt-21 llvm-bolt-20 llvm-bolt-19; do
    if command -v "$tool" >/dev/null 2>&1; then
        # Where it is and not where it is linked to: it looks for its runtime library beside itself.
        bolt=$(readlink -f "$(command -v "$tool")")
        break
    fi
done
if [ -z "$bolt" ]; then
    echo "There is no llvm-bolt here: apt-get install bolt-19" >&2
    exit 1
fi

rm -rf "$work"
mkdir -p "$work"
work=$(cd "$work" && pwd)
# Where functions are referred to, so that they can be moved (proxy/build.rs).
export TIDEGATE_RELOCS=1
cargo build --release --locked "$@"
strip --strip-debug -o "$work/plain" "$target/release/tidegate"
"$bolt" "$work/plain" -o "$work/counting" -instrument --instrumentation-file="$work/counted" \
    --instrumentation-file-append-pid >"$work/log"
# What it counts is how often, not how long: noise does not matter, nor do the figures of the load.
TIDEGATE_BIN=$work/counting cargo run --release --locked --package side-by-side -- --quick >>"$work/log"
set -- "$work"/counted.*.fdata
if [ ! -e "$1" ]; then
    echo "The load has run, and the program under it wrote down nothing: it does so when it is asked to end" >&2
    exit 1
fi
"$(dirname "$bolt")/merge-fdata" "$@" -o "$work/profile" 2>>"$work/log"
"$bolt" "$work/plain" -o "$work/tidegate" -data="$work/profile" \
    -reorder-blocks=ext-tsp -reorder-functions=cdsort -split-functions -split-all-cold -split-eh -icf=1 >>"$work/log"
"$work/tidegate" --version >/dev/null
echo "$work/tidegate"
