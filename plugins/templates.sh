#!/bin/sh
# Builds the templates in JavaScript and Python, as an author would first build them: `templates.sh [FOLDER]`.
#
# The components go to FOLDER, by default $HOME/.cache/tidegate/plugins, as template-js.wasm and template-python.wasm. Their tools come
# from npm and PyPI; where these cannot be had, that is said and is no error. What is newer than its sources is left alone.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${TIDEGATE_CACHE:-$HOME/.cache/tidegate}
out=${1:-$cache/plugins}
mkdir -p "$out"
out=$(CDPATH='' cd -- "$out" && pwd)

say() { printf 'templates.sh: %s\n' "$*" >&2; }

# prepare NAME: a copy of the template that is filled in, with the interface in it. False if there is nothing to do.
prepare() {
    target=$out/$1.wasm
    if [ -e "$target" ] && [ -z "$(find "$here/$1" "$here/../wit" -type f -newer "$target" \
        -not -path '*/node_modules/*' -not -path '*/.venv/*' -not -path '*/build/*')" ]; then return 1; fi
    work=$cache/templates/$1
    mkdir -p "$work/wit"
    cp "$here"/../wit/*.wit "$work/wit/"
    for file in "$here/$1"/*; do
        [ ! -f "$file" ] || sed "s/{{name}}/$1/g" "$file" >"$work/$(basename "$file")"
    done
    cd "$work"
}

# npm_tools, python_tools: put what build.sh would install in place; the log says why it could not be.
npm_tools() {
    command -v node >/dev/null && command -v npm >/dev/null && npm install --silent >install.log 2>&1
}
python_tools() {
    command -v python3 >/dev/null || return 1
    tool=$(sed -n 's/.*pip install -q \([^ ]*\)$/\1/p' build.sh)
    { [ -x .venv/bin/pip ] || python3 -m venv .venv; } >install.log 2>&1 && .venv/bin/pip install -q "$tool" >>install.log 2>&1
}

if prepare template-js; then
    if npm_tools; then sh build.sh "$target"
    else say "template-js is not built: npm cannot install its tools here ($work/install.log)"; fi
fi
if prepare template-python; then
    if python_tools; then sh build.sh "$target"
    else say "template-python is not built: pip cannot install its tools here ($work/install.log)"; fi
fi
