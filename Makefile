# One command each. PYTHON builds the environment; TORCH is the torch it gets (any >= 2.10, CPU or CUDA build).
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
CPP := $(shell find cpp cuda tests/device -type f -regex ".*\.\(h\|cpp\|cuh\|cu\)" 2>/dev/null)
SOURCES := pyproject.toml CMakeLists.txt $(CPP)

.PHONY: demo live-columns harmonic test test-slow bench bench-check emulator emulator-check mutants emulator-test cuda-check gpu-check gpu-bench gpu-peers format lint clean

demo: $(VENV)/installed  ## train a small language model with torch's head and with lossk's, side by side
	$(BIN)/lossk demo

live-columns: $(VENV)/installed  ## forty minutes: what a filtered backward costs in gradient and saves in time
	$(BIN)/python -m examples.live_columns

harmonic: $(VENV)/installed  ## thirteen minutes: what a harmonic head's weights look like, learn and cost
	$(BIN)/python -m examples.harmonic

test: $(VENV)/installed  ## the default tests, in two processes
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/installed  ## the long ones
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/benches  ## half an hour: every contender, then the table in the README
	mkdir -p bench/results/cpu
	$(BIN)/python -m pytest bench/bench_cce.py -o addopts= --benchmark-only --benchmark-json=bench/results/cpu/cce.json
	$(BIN)/python -m pytest bench/bench_heads.py -o addopts= --benchmark-only --benchmark-json=bench/results/cpu/heads.json
	$(BIN)/python -m pytest bench/bench_harmonic.py -o addopts= --benchmark-only --benchmark-json=bench/results/cpu/harmonic.json
	$(BIN)/python -m bench.table

bench-check: $(VENV)/installed  ## two minutes: ratios against the committed baseline
	$(BIN)/python -m bench.check

EMULATED := $(BIN)/python -m pytest -n 2 --dist worksteal -q --device=emulator

emulator: $(VENV)/builders  ## the tests of the CUDA kernels, built for a CPU
	$(BIN)/cmake -G Ninja -S tests/device -B build/emulator -DCMAKE_BUILD_TYPE=None -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja
	$(BIN)/cmake --build build/emulator

emulator-check: emulator $(VENV)/installed  ## ten minutes: they pass, in three builds, some seeded bugs are found, and ops on them pass pytest
	$(BIN)/ctest --test-dir build/emulator --verbose --parallel 2
	$(BIN)/python tests/device/mutants.py build/emulator --some
	$(EMULATED) tests/test_stats_values.py tests/test_logp.py tests/test_cce_values.py
	$(EMULATED) tests/test_largest.py -k "topk or rank or leading or repeated"
	$(EMULATED) tests/test_divergence.py -k "masked or infinitely or frozen or (options and none and bfloat16)"
	$(EMULATED) tests/test_live.py -k "(test_options and bfloat16) or lists_with_everything"
	$(EMULATED) tests/test_cce_gradients.py -k "long or dlogits_where or made_in"
	$(EMULATED) tests/test_keep.py -k "any_call or (options and bfloat16) or minus_infinity or shapes or refuses"
	$(EMULATED) tests/test_harmonic.py -k "ragged or on_a_centre or (live_columns and none and bfloat16)"
	$(EMULATED) tests/test_losses.py tests/test_losses_sets.py -k "leading or ignored or positive"
	LOSSK_KERNELS=mma_sync $(EMULATED) tests/test_stats_gradients.py

mutants: emulator  ## ten minutes: every seeded bug is found
	$(BIN)/python tests/device/mutants.py build/emulator

emulator-test: emulator $(VENV)/installed  ## twelve minutes: the tests of the head's ops on the emulated CUDA kernels
	$(EMULATED)
	LOSSK_KERNELS=mma_sync $(EMULATED)

cuda-check: $(VENV)/nvcc/installed  ## two minutes, no GPU: every kernel's registers, spills and instructions
	$(BIN)/python cuda/check.py --nvcc $(VENV)/nvcc/nvidia/cu13/bin/nvcc

# PYTHON as it is where it has torch, for a GPU's machine may have no network; else the environment.
TORCH_PYTHON := $(shell $(PYTHON) -c "import importlib.util as u; print('$(PYTHON)' if u.find_spec('torch') else '')" 2>/dev/null)

gpu-check: $(if $(TORCH_PYTHON),,$(VENV)/installed)  ## on a GPU: everything, or PART=device, package, memory or races
	$(or $(TORCH_PYTHON),$(BIN)/python) -m bench.gpu check $(if $(PART),--part $(PART))

# Families in ONLY, or all; with MINUTES, long ones begin nothing after so many, and go on in the next run.
gpu-bench: $(if $(TORCH_PYTHON),,$(VENV)/installed)  ## on a GPU: the benches of bench/gpu, into bench/results
	$(or $(TORCH_PYTHON),$(BIN)/python) -m bench.gpu bench $(ONLY:%=--only %) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(COMMIT),--commit $(COMMIT))

gpu-peers: $(VENV)/python  ## the peers' wheels into build/peers, for a machine with a GPU and no network
	$(BIN)/python -m bench.gpu peers

lint: $(VENV)/linters
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(VENV)/linters
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

# The environment is made once; the package is built again when a compiled source has changed (Python is live).
$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	touch $@

$(VENV)/builders: $(VENV)/python
	$(BIN)/python -m pip install --quiet "cmake>=3.28" ninja
	touch $@

$(VENV)/installed: $(VENV)/builders $(SOURCES)
	$(BIN)/python -m pip install "$(TORCH)"
	$(BIN)/python -m pip install --quiet "scikit-build-core>=0.11" "pybind11>=3.0"
	$(BIN)/python -m pip install --no-build-isolation --editable ".[test]"
	touch $@

# Without its dependencies: triton is all that cut-cross-entropy needs here, and it would bring another torch.
$(VENV)/benches: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-deps "cut-cross-entropy>=25.1" "triton>=3"
	touch $@

$(VENV)/linters: $(VENV)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --group lint
	touch $@

# In a folder of its own: torch may bring other releases of the same packages.
$(VENV)/nvcc/installed: $(VENV)/python pyproject.toml
	rm -rf $(VENV)/nvcc
	$(BIN)/python -m pip install --quiet --target $(VENV)/nvcc --group nvcc
	touch $@

clean:
	rm -rf $(VENV) build
