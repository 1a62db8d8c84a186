# viseme. `make demo` and `make test` do all the set-up themselves; `make help` lists the rest.
PYTHON ?= $(firstword $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p; done))
BIN := .venv/bin
OUTPUT ?= reply.mp4
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-embedded test-slow test-training test-gpu test-cluster lint bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

# The environments are rebuilt only when pyproject.toml changes.
.venv/.ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "viseme needs Python 3.11 or newer. Install it, for example: apt-get install python3.11 python3.11-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "The venv module is missing. Install it, for example: apt-get install python3-venv"; exit 1; }
	@echo "Installing viseme (about a minute the first time) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/.ready-test: .venv/.ready
	@echo "Installing the test tools …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

setup: .venv/.ready ## Install the server and the command line into .venv

demo: .venv/.ready ## Answer a spoken question with an avatar video: reply.mp4
	@$(BIN)/viseme demo --output $(OUTPUT)

lint: .venv/.ready-test ## Style, types and protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if command -v npm >/dev/null; then tools/protos/lint; else echo "protos: not linted, npm is missing"; fi

test: lint ## Lint and the default tests (minutes)
	$(BIN)/pytest -m "not embedded and not slow and not torch and not gpu" $(PYTEST_ARGS)

test-embedded: .venv/.ready-test ## Tests with the real embedded models (after `make demo`)
	$(BIN)/pytest -m "embedded" $(PYTEST_ARGS)

test-slow: .venv/.ready-test ## Tests that take longer than half a minute
	$(BIN)/pytest -m "slow and not embedded and not torch and not gpu" $(PYTEST_ARGS)

test-training: .venv/.ready-test ## Tests of the trainer, in its own environment with torch
	@tools/training_environment .build/environments/training
	.build/environments/training/bin/python -m pytest -m "torch" $$(grep -rl --include="test_*.py" "mark.torch" tests) $(PYTEST_ARGS)

test-gpu: .venv/.ready-test ## Tests that need an NVIDIA GPU and CUDA's compiler
	@tools/training_environment .build/environments/training
	.build/environments/training/bin/python -m pytest -m "gpu" tests/unit/test_gsplat.py tests/unit/test_training_cuda.py tests/unit/test_cuda_painter.py $(PYTEST_ARGS)

test-cluster: .venv/.ready-test ## Tests of many machines: Ray nodes and an S3 server, all on this one
	@tools/cluster_environment .build/environments/cluster
	.build/environments/cluster/bin/python -m pytest -m "" tests/integration/test_cluster.py tests/integration/test_blobs.py tests/unit/test_cluster.py $(PYTEST_ARGS)

bench: .venv/.ready-test ## Every benchmark this machine can run
	@for name in cpu_render long_render speech reply operations faults exposure scheduler failover; do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || failed=1; done; exit $${failed:-0}

clean: ## Remove what the commands above built here (not VISEME_HOME)
	rm -rf .venv .build reply.mp4
