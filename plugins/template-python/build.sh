#!/bin/sh
# Builds plugin.py into a component: `build.sh [FILE]`, by default {{name}}.wasm. Needs Python 3.10 with pip.
set -eu
cd "$(dirname "$0")"
out=${1:-{{name}}.wasm}

if [ ! -x .venv/bin/componentize-py ]; then
    python3 -m venv .venv
    .venv/bin/pip install -q componentize-py==0.25.1
fi

# The interface: carried along, or Tidegate's own. The world is narrowed to what the plugin imports, or it would ask for
# everything there is, and be called as a plugin that may wait.
wit=wit
[ -d $wit ] || wit=../../wit
rm -rf build
mkdir -p build/wit build/app
cp $wit/*.wit build/wit/
cp ./*.py build/app/
{
    echo 'package tidegate:plugin@0.1.0;'
    echo 'world narrow {'
    { sed -n 's/^from wit_world.imports import //p' ./*.py | tr ',' '\n' | tr -d ' '; echo calls; } \
        | grep -v '^types$' | sort -u | sed 's/.*/    import &;/'
    echo '    export hooks;'
    echo '}'
} >build/wit/narrow.wit

# Without WASI: its random numbers would be those of the build anyway; use the interface's `system`.
.venv/bin/componentize-py -d build/wit -w narrow componentize plugin -p build/app --stub-wasi -o "$out"
ls -l "$out"
