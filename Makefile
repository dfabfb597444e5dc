# Two commands set everything up by themselves: `make train` and `make test`.
# Existing environment: `make train VENV=/path/to/venv`. Other wheels: `make train PIP_FLAGS="--extra-index-url …"`.
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
# tested versions; empty keeps what an existing environment has, such as a CUDA build of torch
CONSTRAINTS ?= -c constraints.txt
BIN := $(VENV)/bin
# two CPU processes; Ctrl-C ends them with status 0, without the traceback that accelerate launch and torchrun print
LAUNCH := $(BIN)/python -m latentscale.launching.node --cpu --processes-per-node 2
RUN ?= runs/pvdgan
TESTS ?= tests
# test processes at a time
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install train compare clusters test test-fast fuzz check format wheel bench bench-data bench-scaling bench-gpu \
	prove-broken-code prove-busy-machine prove-fuzz clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet $(PIP_FLAGS) $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/.installed-tests: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet $(PIP_FLAGS) $(CONSTRAINTS) -e '.[test,check]'
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed ## create .venv and install

train: $(VENV)/.installed ## train PVDGAN on the bundled digits, two processes, minutes
	$(LAUNCH) recipes/pvdgan.py distributed.processes=2 run.dir=$(RUN) $(ARGS)

compare: $(VENV)/.installed ## train PVDGAN (three seeds), DLSGAN, InfoGAN and MSEGAN alike, keep their figures
	$(BIN)/python recipes/reproductions/digits/compare.py $(ARGS)

clusters: $(VENV)/.installed ## train CGPGAN and its rivals on Gaussian clusters, an hour and a half, keep what they found
	$(BIN)/python recipes/reproductions/clusters/run.py $(ARGS)

test: $(VENV)/.installed-tests ## run the tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

test-fast: $(VENV)/.installed-tests ## run the tests that take less than a third of a second each, a minute in all
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow" $(TESTS)

check: $(VENV)/.installed-tests ## ruff (lint, format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-tests ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.installed-tests ## build the wheel into dist/
	rm -rf build
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

bench: $(VENV)/.installed-tests ## measure the cost of a step, minutes; wants an idle machine
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench.py $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/methods_cost.py

bench-data: $(VENV)/.installed-tests ## measure decoders and how fast samples are read, minutes; wants an idle machine
	$(BIN)/pip install --quiet $(PIP_FLAGS) $(CONSTRAINTS) -e '.[bench]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/decoders.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_data.py $(ARGS)

bench-scaling: $(VENV)/.installed-tests ## measure what more processes cost, minutes; wants an idle machine, and root to slow links
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_scaling.py $(ARGS)
	$(BIN)/python tests/benchmarks/scaling_page.py

bench-gpu: $(VENV)/.installed-tests ## measure the 256x256 presets on a GPU; without one it says "not measured"
	$(BIN)/python tests/benchmarks/bench_gpu.py $(ARGS)

fuzz: $(VENV)/.installed-tests ## give the product wrong input, seeded: 12,000 cases, a table at the end; 20 minutes
	PYTHONPATH=tests $(BIN)/python tests/fuzz/fuzz.py --jobs $(JOBS) $(ARGS)

prove-broken-code: ## break the code on purpose, one fault at a time: each is found by its tests; 40 minutes
prove-busy-machine: ## repeat the tests of faults and timeouts while all CPUs are busy; ARGS="--minutes 20", 50 without

prove-fuzz: ## give the product 12,000 wrong inputs as make fuzz does, and keep the table; 25 minutes

# proofs that are too long for CI: run by hand, what they print is kept in tests/proofs/NAME.txt
prove-broken-code prove-busy-machine prove-fuzz: $(VENV)/.installed-tests
	$(BIN)/python tests/proofs/prove.py $(@:prove-%=%) $(ARGS)

clean: ## remove caches (never runs or .venv)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
