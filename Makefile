# One command each. PYTHON builds the environment; TORCH is the torch it gets (any >= 2.10, CPU or CUDA build).
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
CPP := $(shell find cpp cuda -type f -regex ".*\.\(h\|cpp\|cuh\|cu\)" 2>/dev/null)
SOURCES := pyproject.toml CMakeLists.txt $(CPP)

.PHONY: demo live-columns test test-slow bench bench-check format lint clean

demo: $(VENV)/installed  ## train a small language model with torch's head and with lossk's, side by side
	$(BIN)/lossk demo

live-columns: $(VENV)/installed  ## forty minutes: what a filtered backward costs in gradient and saves in time
	$(BIN)/python -m examples.live_columns

test: $(VENV)/installed  ## the default tests
	$(BIN)/python -m pytest

test-slow: $(VENV)/installed  ## the long ones
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/benches  ## ten minutes: every contender, then the table in the README
	mkdir -p bench/results/cpu
	$(BIN)/python -m pytest bench/bench_cce.py -o addopts= --benchmark-only --benchmark-json=bench/results/cpu/cce.json
	$(BIN)/python -m bench.table

bench-check: $(VENV)/installed  ## two minutes: ratios against the committed baseline
	$(BIN)/python -m bench.check

lint: $(VENV)/linters
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(VENV)/linters
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

# The environment is made once; the package is built again when a compiled source has changed (Python is live).
$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	touch $@

$(VENV)/installed: $(VENV)/python $(SOURCES)
	$(BIN)/python -m pip install "$(TORCH)"
	$(BIN)/python -m pip install --quiet "scikit-build-core>=0.11" "pybind11>=3.0" "cmake>=3.28" ninja
	$(BIN)/python -m pip install --no-build-isolation --editable ".[test]"
	touch $@

# Without its dependencies: triton is all that cut-cross-entropy needs here, and it would bring another torch.
$(VENV)/benches: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-deps "cut-cross-entropy>=25.1" "triton>=3"
	touch $@

$(VENV)/linters: $(VENV)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --group lint
	touch $@

clean:
	rm -rf $(VENV) build
