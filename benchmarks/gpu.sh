#!/usr/bin/env bash
# What has to be seen on an NVIDIA GPU, in one go; NOT RUN ON ONE YET, none has been at hand.
#
#     bash benchmarks/gpu.sh [OUT]    # from a fresh clone; needs Python 3.11 and a driver, about 80 GB for "full"
#     DRY=1 bash benchmarks/gpu.sh    # the same steps of a tiny shape on a CPU, in the environments there are
#
# Weights are random, of the true shape: nothing is downloaded but packages. A step that fails is named at the
# end and the others go on; each leaves its log in OUT, and the training steps their memory, seconds, share of
# peak and gap of log-probabilities as JSON, those with vLLM also its rate beside that of bare vLLM.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/gpu}
python=${PYTHON:-.venv/bin/python}
vllm=${VLLM_PYTHON:-.venv-vllm/bin/python}
mkdir -p "$out"
failed=()

step() { # NAME COMMAND...
    local name=$1
    shift
    echo "== $name: $*"
    "$@" >"$out/$name.log" 2>&1 || failed+=("$name")
    tail -n 3 "$out/$name.log"
}

large() { # NAME PYTHON OPTIONS...
    local name=$1 with=$2
    shift 2
    [[ -n ${DRY:-} ]] && set -- "$@" --shape tiny --steps 2 --seeds 2 --group 2 --max-new-tokens 8
    step "$name" "$with" benchmarks/large_step.py "$@" --out "$out/$name.json"
}

if [[ -z ${DRY:-} ]]; then
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv | tee "$out/gpu.csv"
    step install make .venv/.dev
    step test-vllm make test-vllm VLLM_KIND=gpu
fi
large tiny "$python" --shape tiny --steps 2
large 3b-lora "$python" --shape 3b
large 3b-full "$python" --shape 3b --full --beta 0
large 7b-lora "$python" --shape 7b
if [[ -x $vllm ]]; then
    large 3b-lora-vllm "$vllm" --shape 3b --vllm
    large 7b-lora-vllm "$vllm" --shape 7b --vllm
else
    failed+=("vllm: no $vllm")
fi

if ((${#failed[@]})); then
    echo "failed: ${failed[*]} (logs in $out)"
    exit 1
fi
echo "all steps passed, numbers in $out"
