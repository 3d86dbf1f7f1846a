#!/usr/bin/env python3
"""vllm_cuda_stubs.py TORCH_LIB: stand-ins for the CUDA libraries that torch links against, so that it loads without them.

Every function in them returns 100, cudaErrorNoDevice, so torch.cuda.is_available() is False. Needs gcc and readelf.
"""
import collections
import glob
import os
import re
import subprocess
import sys
import tempfile

CUDA_LIBRARY = re.compile(r"lib(cu|nv|nccl)[A-Za-z_]*\.so(\.\d+)*$")
# Where a symbol without a version comes from, by its first letters; longer beginnings first.
OWNERS = [
    ("nccl", "libnccl"), ("cusparseLt", "libcusparseLt"), ("cusparse", "libcusparse"), ("curand", "libcurand"),
    ("cupti", "libcupti"), ("cuFile", "libcufile"), ("nvshmem", "libnvshmem"), ("cusolver", "libcusolver"),
    ("cufft", "libcufft"), ("nvrtc", "libnvrtc"), ("cublasLt", "libcublasLt"), ("cublas", "libcublas"),
    ("cudnn", "libcudnn"), ("cuda", "libcudart"), ("__cuda", "libcudart"),
]


def readelf(*arguments):
    return subprocess.run(["readelf", *arguments], capture_output=True, text=True, check=True).stdout.splitlines()


def needed_by(objects):
    """The names of the CUDA libraries that these shared objects ask the loader for."""
    lines = (line for path in objects for line in readelf("-d", path) if "NEEDED" in line)
    return {name for line in lines for name in re.findall(r"\[(.+?)\]", line) if CUDA_LIBRARY.match(name)}


def owner_of(symbol, needed):
    stem = next((library for first, library in OWNERS if symbol.startswith(first)), None)
    return next((n for n in sorted(needed) if stem and n.startswith((stem + ".so", stem + "_host.so"))), None)


def open_symbols(objects, needed):
    """library name → the symbols that must be in it, and library name → its symbol version, where it has one."""
    symbols, versions = collections.defaultdict(set), {}
    for path in objects:
        for line in readelf("-W", "--dyn-syms", path):
            fields = line.split()
            if len(fields) < 8 or fields[6] != "UND":
                continue
            symbol, _, version = fields[7].partition("@")
            library = version if version in needed else None
            if library is None and "GLIBC" not in version:
                library = owner_of(symbol, needed)
            if library:
                symbols[library].add(symbol)
                if version:
                    versions[library] = version
    return symbols, versions


def build(directory, library, symbols, version):
    with tempfile.TemporaryDirectory() as scratch:
        source, script = os.path.join(scratch, "stub.c"), os.path.join(scratch, "version.map")
        with open(source, "w") as file:
            file.write("".join(f"int {symbol}(void){{return 100;}}\n" for symbol in sorted(symbols)) or "int stub;\n")
        command = ["gcc", "-w", "-O1", "-fno-builtin", "-shared", "-fPIC", f"-Wl,-soname,{library}",
                   "-o", os.path.join(directory, library), source]
        if version:
            with open(script, "w") as file:
                file.write(f"{version} {{ global: *; }};\n")
            command.append(f"-Wl,--version-script={script}")
        subprocess.run(command, check=True)


def main():
    directory = sys.argv[1]
    objects = sorted(path for pattern in ("libtorch*.so", "libc10*.so", "libshm.so")
                     for path in glob.glob(os.path.join(directory, pattern)))
    needed = needed_by(objects)
    symbols, versions = open_symbols(objects, needed)
    for library in sorted(needed):
        build(directory, library, symbols[library], versions.get(library))


if __name__ == "__main__":
    main()
