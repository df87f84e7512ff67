# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Both build .venv once, through `make env`.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
LOWEST := .venv-lowest
PACKAGED := .venv-package
# What the tests of archives, curation and probes import besides.
TESTED_WITH := 'pytest>=8.3' 'pytest-xdist>=3.6' 'hypothesis>=6.112' 'faiss-cpu>=1.9'

# Where there is no NVIDIA GPU, the pinned pair keeps pip from fetching gigabytes of CUDA libraries.
ifeq ($(shell command -v nvidia-smi 2>/dev/null),)
export PIP_CONSTRAINT := $(CURDIR)/constraints-cpu.txt
endif

# Real Sentinel samples, where they lie beside the checkout; else the demo simulates an archive.
ifneq ($(wildcard $(CURDIR)/../shared/data/la_texas_pairs),)
export TERRASIEVE_DATA ?= $(abspath $(CURDIR)/../shared/data)
endif

NOTEBOOKS := $(wildcard docs/notebooks/*.ipynb)
EXECUTED := build/notebooks/.executed

.PHONY: help env demo test test-fast test-lowest lint docs package clean

help:
	@echo "make demo        install, then pack, pre-train, embed and probe end to end (about 5 minutes)"
	@echo "make test        install, then run the tests"
	@echo "make test-fast   the tests that are not marked slow, for daily work (under 90 seconds)"
	@echo "make test-lowest the tests of archives, curation and probes, with the lowest versions that pyproject.toml allows"
	@echo "make lint        formatting, lint, types and the import contract"
	@echo "make docs        the documentation as a site in build/site, its notebooks run (about two minutes the first time)"
	@echo "make package     wheel and sdist in dist, and the wheel tried in an environment with nothing else (two or three minutes)"
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
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=5

test-fast: env
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

# Torch aside: its oldest release has no wheels for the newest Python, and its newest is what everybody has.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/archive tests/curation tests/probes

$(LOWEST)/.installed: pyproject.toml constraints-cpu.txt
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --upgrade 'uv>=0.5'
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --resolution lowest-direct \
		--constraint constraints-cpu.txt -e '.[hdf5,netcdf]' $(TESTED_WITH)
	@touch $@

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Broken links, and pages that the navigation lacks, are errors.
docs: $(VENV)/.docs $(EXECUTED)
	NO_MKDOCS_2_WARNING=1 PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/mkdocs build
	@echo "open build/site/index.html"

$(VENV)/.docs: $(STAMP)
	$(VENV)/bin/python -m pip install -e '.[docs]'
	@touch $@

# Run where they may write, and without real scenes, so that every machine shows the same.
$(EXECUTED): $(NOTEBOOKS) $(shell find src -name '*.py' -o -name '*.yaml') | $(VENV)/.docs
	rm -rf $(@D)
	mkdir -p $(@D)
	cp $(NOTEBOOKS) $(@D)
	cd $(@D) && env -u TERRASIEVE_DATA $(CURDIR)/$(VENV)/bin/jupyter-execute --inplace $(notdir $(NOTEBOOKS))
	@touch $@

# The wheel is made from the sdist, so that both hold what they need; a short demo runs outside the checkout.
package: env
	rm -rf dist build/packaged
	$(VENV)/bin/python -m build --outdir dist
	$(PYTHON) -m venv --clear $(PACKAGED)
	$(PACKAGED)/bin/python -m pip install dist/*.whl
	mkdir -p build/packaged
	cd build/packaged && unset PYTHONPATH TERRASIEVE_DATA && terrasieve=$(CURDIR)/$(PACKAGED)/bin/terrasieve && \
		$$terrasieve --version && $$terrasieve recipes && $$terrasieve demo --out demo --set train.steps=20 && \
		test -s demo/report.html
	@echo "dist holds what can be published"

clean:
	rm -rf $(VENV) $(LOWEST) $(PACKAGED) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
