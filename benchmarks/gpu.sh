#!/usr/bin/env bash
# What has to be seen on an NVIDIA GPU, in one go; NOT RUN YET, no GPU has been at hand.
#
#     bash benchmarks/gpu.sh [OUT]    # from a fresh clone; needs Python 3.11 and a driver, about 80 GB for "full"
#
# Weights are random, of the true shape: nothing is downloaded but packages. A step that fails is named at the
# end and the others go on; each leaves its log in OUT, and the training steps their memory, seconds and share
# of peak as JSON.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/gpu}
python=.venv/bin/python
mkdir -p "$out"
failed=()

step() { # NAME COMMAND...
    local name=$1
    shift
    echo "== $name: $*"
    "$@" >"$out/$name.log" 2>&1 || failed+=("$name")
    tail -n 3 "$out/$name.log"
}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv | tee "$out/gpu.csv"
step install make .venv/.dev
step test-vllm make test-vllm VLLM_KIND=gpu
step tiny "$python" benchmarks/large_step.py --shape tiny --steps 2 --out "$out/tiny.json"
step 3b-lora "$python" benchmarks/large_step.py --shape 3b --out "$out/3b-lora.json"
step 3b-full "$python" benchmarks/large_step.py --shape 3b --full --beta 0 --out "$out/3b-full.json"
step 7b-lora "$python" benchmarks/large_step.py --shape 7b --out "$out/7b-lora.json"

if ((${#failed[@]})); then
    echo "failed: ${failed[*]} (logs in $out)"
    exit 1
fi
echo "all steps passed, numbers in $out"
