# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Both build .venv once, through `make env`.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

# Where there is no NVIDIA GPU, the pinned pair keeps pip from fetching gigabytes of CUDA libraries.
ifeq ($(shell command -v nvidia-smi 2>/dev/null),)
export PIP_CONSTRAINT := $(CURDIR)/constraints-cpu.txt
endif

# Real Sentinel samples, where they lie beside the checkout; else the demo simulates an archive.
ifneq ($(wildcard $(CURDIR)/../shared/data/la_texas_pairs),)
export TERRASIEVE_DATA ?= $(abspath $(CURDIR)/../shared/data)
endif

.PHONY: help env demo test test-fast lint clean

help:
	@echo "make demo        install, then pack, pre-train, embed and probe end to end (about 5 minutes)"
	@echo "make test        install, then run the tests"
	@echo "make test-fast   the tests that are not marked slow, for daily work (under 90 seconds)"
	@echo "make lint        formatting, lint, types and the import contract"
	@echo "make env         only build $(VENV)"
	@echo "make clean       remove what the others built"

env: $(STAMP)

$(STAMP): pyproject.toml constraints-cpu.txt
	@echo "== building $(VENV) (once; a minute or two) =="
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --upgrade 'pip>=24'
	$(VENV)/bin/python -m pip install -e '.[dev]'
	@touch $@

demo: env
	$(VENV)/bin/terrasieve demo --out runs/demo --overwrite

test: env
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --durations=5

test-fast: env
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not slow"

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
