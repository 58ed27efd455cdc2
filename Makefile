# `make demo` and `make test` each do all the set-up they need, alone, in a fresh clone.
# Another Python: make PYTHON=python3.12 test. Pip's own variables (PIP_EXTRA_INDEX_URL, …) are passed on.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
EXAMPLES ?= 2000

BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable
INPUTS := pyproject.toml constraints.txt Makefile

# Recordings for tests lie beside the checkout where there are any; tests that need them skip elsewhere.
ifneq ($(wildcard ../shared/data/.),)
export EDGECO_TEST_DATA ?= $(abspath ../shared/data)
endif

.PHONY: help demo test test-full fuzz runtime-check check format bench wheel clean

help:
	@echo "make demo       install, build the shipped network, run it on a scene whose camera motion is known"
	@echo "make test       install, run the tests (under 10 minutes on 2 cores)"
	@echo "make test-full  the slow tests too, and $(EXAMPLES) random networks"
	@echo "make fuzz       100,000 damaged bundles, each opened or refused in one sentence"
	@echo "make runtime-check  edgeco alone in a bare environment: packages and megabytes counted, the run side's tests"
	@echo "make check      style and types"
	@echo "make format     lay the code out as 'make check' wants it"
	@echo "make bench      time the shipped network, and X3D-S against its clip network"
	@echo "make wheel      build the wheel into dist/"
	@echo "make clean      remove the environment and everything built"

# A stamp says what is installed; it is older than pyproject.toml or constraints.txt when that must be done again.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "edgeco needs Python 3.10 or newer; choose one with: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# A checkout opens no windows, and OpenCV's headless build needs no graphics libraries of the system.
$(VENV)/.installed-build: $(INPUTS) | $(BIN)/python
	$(INSTALL) '.[build]' opencv-python-headless
	@touch $@

$(VENV)/.installed-bench: $(INPUTS) | $(BIN)/python
	$(INSTALL) '.[build,bench]' opencv-python-headless
	@touch $(VENV)/.installed-build $@

$(VENV)/.installed-dev: $(INPUTS) | $(BIN)/python
	$(INSTALL) '.[dev]'
	@touch $(VENV)/.installed-build $@

demo: $(VENV)/.installed-build
	@mkdir -p build
	$(BIN)/edgeco build camera-motion -o build/camera-motion.edgeco
	$(BIN)/edgeco verify build/camera-motion.edgeco
	$(BIN)/edgeco demo

# One thread a worker: the networks are small, and workers that each start a thread for every core hinder each other.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-full: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 EDGECO_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -n $(JOBS)

fuzz: $(VENV)/.installed-dev
	$(BIN)/python tests/attacks/fuzz.py

# It makes an environment of its own; for Python 3.10: make PYTHON=python3.10 PINS='numpy==1.26.4' runtime-check
runtime-check:
	$(PYTHON) benchmarks/install_size.py --python $(PYTHON) --jobs $(JOBS) $(PINS:%=--with %)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-bench
	$(BIN)/edgeco bench edgeco/models/bundles/camera-motion.edgeco
	$(BIN)/python benchmarks/step_vs_clip.py

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
