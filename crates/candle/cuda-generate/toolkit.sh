#!/usr/bin/env bash
# Makes a folder that is a CUDA toolkit to whoever builds and links, out of packages of PyPI: toolkit.sh DIR
# The driver's library is no package: a stub of it is compiled, with the symbols that cudarc names.
set -euo pipefail
out=${1:?usage: toolkit.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)

mkdir -p "$out"
python3 -m venv "$out/venv"
"$out/venv/bin/pip" install --quiet nvidia-cuda-nvcc==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 \
    nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-nvrtc==13.0.88 nvidia-curand nvidia-cublas
packages=$(echo "$out"/venv/lib/python3*/site-packages/nvidia/cu13)
for part in bin include nvvm lib; do
    ln -sfn "$(realpath "$packages/$part")" "$out/$part"
done
ln -sfn lib "$out/lib64"

# The names that linkers look for.
for library in "$packages"/lib/lib{cudart,curand,cublas,cublasLt,nvrtc}.so.*; do
    ln -sf "$(basename "$library")" "${library%%.so.*}.so"
done
mkdir -p "$packages/lib/stubs"
cudarc=$(cargo metadata --manifest-path "$here/Cargo.toml" --format-version 1 --locked |
    python3 -c 'import json, sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "cudarc"))')
grep -ohE 'fn cu[A-Z][A-Za-z0-9_]*' "$(dirname "$cudarc")/src/driver/sys/mod.rs" | sort -u |
    sed 's/fn \(.*\)/void \1(void) {}/' |
    cc -shared -w -x c - -Wl,-soname,libcuda.so.1 -o "$packages/lib/stubs/libcuda.so"
echo "CUDA_HOME=$(realpath "$out")"
