# Needs Python >= 3.11 with venv, and make (3.81 or newer). Everything made here lives in .venv.
#   make test ARGS="-k recovery"        make demo PYTHON=python3.13

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PEERS := $(VENV)/peers
# A stamp is a file that is newer than pyproject.toml while what it names is installed.
STAMP := $(VENV)/.stamp
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test prove lint types bench clean

help:
	@echo "make demo    install, then watch loops being killed and resumed (about 10 seconds)"
	@echo "make test    install what the tests need and run them"
	@echo "make prove   the same at length, ten minutes or ARGS='--minutes N', and a scorecard"
	@echo "make lint    ruff: rules and formatting"
	@echo "make types   mypy and pyright, both strict"
	@echo "make bench   everything beside its floor, into benchmarks/RESULTS.md; ARGS=--quick"
	@echo "make clean   remove .venv and everything else that make, build and tests left"

demo: $(STAMP)-cli
	@echo "demo: five loops, two kills, one log"
	@$(BIN)/python -m projections.cli.demo $(ARGS)

# One process a core, up to four; what is timed or races in the tests bears it.
test: $(STAMP)-test
	@echo "test: pytest"
	@$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal $(ARGS)

lint: $(STAMP)-lint
	@echo "lint: ruff check"
	@$(BIN)/ruff check
	@echo "lint: ruff format --check"
	@$(BIN)/ruff format --check

types: $(STAMP)-typing
	@echo "types: mypy"
	@$(BIN)/python -m mypy
	@echo "types: pyright"
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/python -m pyright --project pyproject.toml

prove: $(STAMP)-test $(STAMP)-prove
	@echo "prove: the proof at length, and its scorecard"
	@$(BIN)/python -m tests.prove $(ARGS)

bench: $(STAMP)-test $(STAMP)-peers
	@$(BIN)/python -m benchmarks._results --peers $(PEERS)/bin/python $(ARGS)

clean:
	@echo "clean: .venv, caches, builds"
	@rm -rf $(VENV) .bench .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP)-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "loopledger needs Python >= 3.11; name one: make PYTHON=python3.13" >&2; exit 1; }
	@echo "setup: $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Dependency groups (PEP 735) need a newer pip than most Pythons bring along.
$(STAMP)-pip: | $(STAMP)-venv
	@echo "setup: pip"
	@$(PIP) "pip>=25.1"
	@touch $@

$(STAMP)-cli: pyproject.toml | $(STAMP)-venv
	@echo "setup: loopledger[cli]"
	@$(PIP) --editable ".[cli]"
	@touch $@

$(STAMP)-test: pyproject.toml | $(STAMP)-pip
	@echo "setup: loopledger[cli,fast], test group"
	@$(PIP) --editable ".[cli,fast]" --group test
	@touch $@

# There is a fuzzer for some Pythons only. Without it its row is skipped, and the scorecard says so.
$(STAMP)-prove: pyproject.toml | $(STAMP)-pip
	@echo "setup: prove group"
	@$(PIP) --group prove || echo "setup: no coverage-guided fuzzer for this Python"
	@touch $@

$(STAMP)-lint: pyproject.toml | $(STAMP)-pip
	@echo "setup: lint group"
	@$(PIP) --group lint
	@touch $@

$(STAMP)-typing: pyproject.toml | $(STAMP)-pip
	@echo "setup: loopledger[cli,fast], typing group"
	@$(PIP) --editable ".[cli,fast]" --group typing
	@touch $@

# An environment of their own: what peers depend on has no business beside our tests.
$(STAMP)-peers: pyproject.toml | $(STAMP)-pip
	@echo "setup: $(PEERS), compare group"
	@$(BIN)/python -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[fast]"
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --group compare || \
	    echo "bench: not all peers can be installed; the table names those that are missing"
	@touch $@
