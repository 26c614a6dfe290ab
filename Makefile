# Everything a fresh Debian or Ubuntu machine with python3 and make needs: `make demo` and `make test` set up all the rest.
#   make demo PYTHON=python3.12            another Python
#   make install PIP_FLAGS="..."           options for pip, for example another index (see CONTRIBUTING.md)
#   make test PYTEST_FLAGS="-k cache"      options for pytest

PYTHON ?= python3
PIP_FLAGS ?=
PYTEST_FLAGS ?=
DEMO_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install debian demo lint types test clean

help:
	@echo "make demo     set up, then run the whole job on bundled images; results in demo-out/"
	@echo "make test     set up, then lint, types and all tests"
	@echo "make install  set up the environment in .venv only"
	@echo "make debian   system packages of the GUI tests (Debian and Ubuntu)"
	@echo "make lint     ruff and the import contracts      make types  mypy      make clean  remove what make made"

install: $(STAMP)

# the stamp is touched last, so an interrupted installation is taken up again; the lists of packages renew it
$(STAMP): pyproject.toml constraints.txt scripts/venv.sh
	sh scripts/venv.sh "$(PYTHON)" "$(VENV)"
	$(PIP) install --quiet $(PIP_FLAGS) "pip==26.3"
	$(PIP) install $(PIP_FLAGS) --constraint constraints.txt --build-constraint constraints.txt \
		--group dev --group gui --editable .
	@touch $(STAMP)

debian:
	@sh scripts/debian_packages.sh

demo: install
	$(BIN)/python -m mdm_studio demo $(DEMO_FLAGS)

lint: install
	$(BIN)/python -m ruff check .
	$(BIN)/lint-imports --no-cache

types: install
	$(BIN)/python -m mypy

test: install debian lint types
	@sh scripts/run_tests.sh $(BIN)/python $(PYTEST_FLAGS)

clean:
	rm -rf $(VENV) build dist demo-out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find mdm_studio plugins tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
