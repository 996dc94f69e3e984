# Needs make and Python 3.11 or later with venv and pip. Everything else goes into .venv.

PYTHON ?= python3
PORT ?= 30000

BIN := .venv/bin
STAMP := .venv/.installed
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
PROJECTS := pyproject.toml $(PLUGINS:%=%/pyproject.toml)

.PHONY: help install run test engines load soak peers lint audit bench quality docs-reference wheels clean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

install: $(STAMP)  ## Make .venv with the router, all policies of this repository and the tools

run: $(STAMP)  ## Start three simulated engines and a router before them (PORT=30000)
	@exec $(BIN)/router-core demo --port $(PORT)

test: $(STAMP)  ## Run all tests, those with real llama.cpp engines too; not those of engines, load and soak
	$(BIN)/python -m pytest -q -m "not load and not big_engines"

engines: $(STAMP)  ## Install vLLM for the CPU and Dynamo's mocker below .cache (3 GB), and run the router before them
	INSTALL_ENGINES=1 $(BIN)/python -m pytest -q -m big_engines -s

load: $(STAMP)  ## Drive sustained load for some minutes and watch memory and load figures
	$(BIN)/python -m pytest -q -m load -s

soak: $(STAMP)  ## Drive high load for SOAK_SECONDS (900) and fail if the router's memory grows
	$(BIN)/python -m tests.load.soak

peers: $(STAMP)  ## Send the same requests through other routers and through this one
	@test -x .cache/peers/sglang/bin/python || $(BIN)/uv venv -q --python $(BIN)/python .cache/peers/sglang
	@$(BIN)/uv pip install -q --python .cache/peers/sglang/bin/python sglang-router==0.3.2
	@test -x .cache/peers/vllm/bin/python || $(BIN)/uv venv -q --python $(BIN)/python .cache/peers/vllm
	@$(BIN)/uv pip install -q --python .cache/peers/vllm/bin/python vllm-router==0.1.17
	$(BIN)/python -m pytest -q -m peers

lint: $(STAMP)  ## Check style, types and the layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

audit: $(STAMP)  ## Look up dependencies in the public lists of known vulnerabilities
	$(BIN)/python tests/audit_dependencies.py

bench: $(STAMP)  ## Measure CPU per request and per chunk, and how soon an abort arrives
	$(BIN)/python tests/bench/cpu_per_request.py
	$(BIN)/python tests/bench/abort_latency.py

quality: $(STAMP)  ## Compare all policies by simulation and write docs/explanation/routing-quality.md
	$(BIN)/python tests/quality/run.py

docs-reference: $(STAMP)  ## Write the generated parts of docs/reference
	$(BIN)/python docs/generate.py

wheels: $(STAMP)  ## Build a wheel of the router and of each policy into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist . $(PLUGINS:%=./%)
	@ls dist/*.whl

clean:  ## Remove .venv and all that was built or cached
	rm -rf .venv .quality dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One pip command names the router and all policies: a policy alone would look for router-core on an index.
$(STAMP): $(PROJECTS) Makefile
	@python=; for candidate in $(PYTHON) python3.14 python3.13 python3.12 python3.11; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'Python 3.11 or later is missing: install it, or name it: make PYTHON=/path/to/python3' >&2; exit 1; fi; \
	if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$python has no venv: install it (Debian, Ubuntu: apt-get install python3-venv) and try again" >&2; exit 1; fi; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $$python -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev --group engines --editable '.[kubernetes,otel,testing]' $(PLUGINS:%=--editable %)
	@touch $(STAMP)
