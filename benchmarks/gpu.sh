#!/usr/bin/env bash
# All that is measured on a GPU, in less than ten minutes on an H100:
#     bash benchmarks/gpu.sh DATA_DIR
# DATA_DIR holds MNIST and CIFAR-10 in torchvision's layout. Writes results/gpu.* and gpu_speed.*.
set -euo pipefail
cd "$(dirname "$0")/.."
data_dir=${1:?usage: bash benchmarks/gpu.sh DATA_DIR}

python3 -m pytest -n 0 -q tests/hamming/test_gpu.py
python3 -m benchmarks.speed.gpu
python3 -m benchmarks.quality.grid --data-dir "$data_dir" --seeds 0 --bits 12 24 48 \
    --rows "CIFAR-10, best, on a GPU"
python3 -m benchmarks.quality.grid --data-dir "$data_dir" --seeds 0 --bits 12 \
    --rows "MNIST, best, on a GPU"
