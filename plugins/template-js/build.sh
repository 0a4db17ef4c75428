#!/bin/sh
# Builds plugin.js into a component: `build.sh [FILE]`, by default {{name}}.wasm.
#
# Two engines can carry it. QuickJS: 2 MB, compiled in a second; but it gives the lent call back too late, so a plugin that wants
# `onCall` traps in it. StarlingMonkey: 14 MB, compiled in ten seconds or more (once: the gateway keeps the result), can do everything.
# ENGINE=quickjs or ENGINE=starlingmonkey picks one; else the plugin's subscriptions do.
set -eu
cd "$(dirname "$0")"
out=${1:-{{name}}.wasm}

command -v npm >/dev/null || { echo "build.sh: npm is missing (Node 20 or newer)" >&2; exit 1; }
[ -d node_modules/@bytecodealliance/jco ] || npm install --silent

# The interface: carried along, or Tidegate's own. The world is narrowed to what the plugin imports, or it would ask for
# everything there is, and be called as a plugin that may wait.
wit=wit
[ -d $wit ] || wit=../../wit
rm -rf build
mkdir -p build/wit
cp $wit/*.wit build/wit/
{
    echo 'package tidegate:plugin@0.1.0;'
    echo 'world narrow {'
    { sed -n 's/.*tidegate:plugin\/\([a-z]*\)@.*/\1/p' plugin.js; echo calls; } | sort -u | sed 's/.*/    import &;/'
    echo '    export hooks;'
    echo '}'
} >build/wit/narrow.wit

engine=${ENGINE:-}
if [ -z "$engine" ]; then
    if grep -q 'onCall: *true' plugin.js; then engine=starlingmonkey; else engine=quickjs; fi
fi
case $engine in
    quickjs)
        npx --no-install jco componentize plugin.js --wit build/wit --world-name narrow \
            --backend quickjs --backend-qjs-stub-wasi --backend-qjs-disable-async --out "$out"
        ;;
    starlingmonkey)
        # Through its API: the command line's way to it fails on Node 20.
        cat >build/componentize.mjs <<'END'
import { componentize } from "@bytecodealliance/componentize-js";
import { readFileSync, writeFileSync } from "node:fs";
const { component } = await componentize(readFileSync("plugin.js", "utf8"), {
  witPath: "build/wit",
  worldName: "narrow",
  disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
});
writeFileSync(process.argv[2], component);
END
        node build/componentize.mjs "$out"
        ;;
    *) echo "build.sh: unknown engine $engine" >&2; exit 1 ;;
esac
ls -l "$out"
