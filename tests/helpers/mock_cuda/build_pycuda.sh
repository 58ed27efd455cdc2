#!/usr/bin/env bash
# Builds pycuda from its sdist into a folder: build_pycuda.sh FOLDER [PYTHON]
# With CUDA_ROOT (on a Jetson /usr/local/cuda) its headers and stubs are used. Without it the headers come from wheels,
# and the mock beside this file stands in for libcuda.so, which the build links and only a machine with a driver has.
set -euo pipefail
target=$(realpath -m "$1")
python=${2:-python3}
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -z "${CUDA_ROOT:-}" ]; then
    # cuda.h, cudaProfiler.h, and an nvcc folder, which the build looks for and does not run.
    "$python" -m pip install --quiet --no-deps --target "$work/wheels" nvidia-cuda-runtime-cu12 nvidia-cuda-nvcc-cu12 \
        nvidia-cuda-profiler-api-cu12
    CUDA_ROOT=$work/cuda
    mkdir -p "$CUDA_ROOT"
    for part in "$work"/wheels/nvidia/*/; do cp -r "$part". "$CUDA_ROOT"; done
fi
stubs=$CUDA_ROOT/lib64/stubs
if [ ! -e "$stubs/libcuda.so" ]; then
    stubs=$work/stubs
    mkdir -p "$stubs"
    cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$stubs/libcuda.so" "$here/libcuda.c" -ldl
fi

# What builds it (setuptools, wheel, numpy) pip brings into a place of its own: a fresh environment has none of them.
(cd "$work" && "$python" -m pip download --quiet --no-deps --no-binary pycuda pycuda==2026.1 &&
    tar xf pycuda-*.tar.gz && mv pycuda-*/ source)
cat > "$work/source/siteconf.py" <<EOF
USE_SHIPPED_BOOST = True
CUDA_ROOT = "$CUDA_ROOT"
CUDA_ENABLE_GL = False
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = ["$stubs"]
CUDADRV_LIBNAME = ["cuda"]
EOF
"$python" -m pip install --quiet --no-deps --target "$target" "$work/source"
echo "pycuda is in $target"
