#!/bin/sh
# Stands in for nvcc where nothing is linked or run: it writes empty files where nvcc would write its output.
#   NVCC=$PWD/no-nvcc.sh CUDA_COMPUTE_CAP=90 cargo clippy
for argument; do
    case $previous in
    -o) : >"$argument" ;;
    --output-directory) folder=$argument ;;
    esac
    case $argument in *.cu) source=$(basename "$argument" .cu) ;; esac
    previous=$argument
done
if [ -n "$folder" ] && [ -n "$source" ]; then
    : >"$folder/$source.ptx"
fi
