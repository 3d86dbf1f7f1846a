#!/bin/bash
# install_models.sh CACHE: the models of the demo and the tests, and the Python environment that makes them and talks to them.
#
#   CACHE/python          openai client, numpy, tokenizers, safetensors, gguf
#   CACHE/models          tiny, slow and brief, each as NAME.gguf and NAME-hf/ (make_models.py says what they are)
#   CACHE/ollama-models   an Ollama store with tiny and slow, where Ollama is installed
set -euo pipefail
REVISION=1
here=$(cd "$(dirname "$0")" && pwd)
cache=$1

(
    . "$here/install.sh"
    begin python "$cache/python" "python-$(sha256sum <"$here/python-lock.txt" | cut -c1-12)"
    if installed && "$target/bin/python" -c '' 2>/dev/null; then exit 0; fi
    say "installing $key into $target"
    rm -rf "$target"
    python=$(python311)
    "$python" -m venv "$target"
    "$target/bin/pip" install -q --no-cache-dir --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
        -r "$here/python-lock.txt"
    echo "$key" >"$target/$mark"
    say "$key is installed"
)

models_key=models-r$REVISION-$(sha256sum <"$here/make_models.py" | cut -c1-12)
(
    . "$here/install.sh"
    begin models "$cache/models" "$models_key"
    if installed; then exit 0; fi
    stage
    make() { "$cache/python/bin/python" "$here/make_models.py" "$out" "$@"; }
    make --name tiny
    make --name brief --eos-bias 0
    make --name slow --layers 16 --hidden 1024 --ff 2816 --heads 16 --kv-heads 4 --ctx 8192
    finish
)

[ -x "$cache/ollama/bin/ollama" ] || exit 0
(
    . "$here/install.sh"
    begin ollama-models "$cache/ollama-models" "ollama-$models_key"
    if installed; then exit 0; fi
    stage
    port=$("$cache/python/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    export HOME=$work OLLAMA_MODELS=$out OLLAMA_HOST=127.0.0.1:$port OLLAMA_NO_CLOUD=1 GIN_MODE=release
    "$cache/ollama/bin/ollama" serve >"$work/log" 2>&1 9>&- & serve=$!
    trap 'kill $serve 2>/dev/null || true; wait $serve 2>/dev/null || true; rm -rf "$work"' EXIT
    deadline=$((SECONDS + 60))
    until "$cache/ollama/bin/ollama" list >/dev/null 2>&1; do
        if ! kill -0 $serve 2>/dev/null || [ $SECONDS -ge $deadline ]; then
            tail -5 "$work/log" >&2; fail "ollama does not answer at $OLLAMA_HOST"
        fi
        sleep 0.1
    done
    for model in tiny slow; do
        # One thread: two llama.cpp processes with all cores each spin against each other.
        printf 'FROM %s/models/%s.gguf\nPARAMETER num_thread 1\n' "$cache" "$model" >"$work/Modelfile"
        "$cache/ollama/bin/ollama" create "$model" -f "$work/Modelfile" >>"$work/log" 2>&1 9>&- ||
            { tail -5 "$work/log" >&2; fail "could not create $model"; }
    done
    kill $serve; wait $serve || true
    # `create` keeps what was uploaded beside what it made of it: drop the blobs that no manifest names.
    for blob in "$out"/blobs/*; do
        grep -rqF "${blob##*-}" "$out/manifests" || rm "$blob"
    done
    finish
)
