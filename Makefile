# The whole developer interface; `make` alone lists it.
# `make demo` and `make test` are each enough as the only command on a fresh machine:
# every target that needs the environment in .venv builds it first, and again when the pins change.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint types bench all fix clean requirements

# An interpreter of your choice, 3.11 or newer; else the first usable one is taken.
PYTHON ?=
# Passed on to pytest and to the benchmarks.
TEST_ARGS ?=
BENCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INTERPRETERS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14)
USABLE := import sys, sqlite3, ssl, venv; sys.exit(sys.version_info < (3, 11))
TYPED := $(wildcard squidmesh tests examples benchmarks)

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

demo: $(READY) ## chase a few hundred failed payments, with a worker killed half-way
	@$(BIN)/squidmesh demo

test: $(READY) ## run the tests and hold the coverage floors
	@$(BIN)/coverage run -m pytest $(TEST_ARGS)
	@echo "Branch coverage of the domain (floor: 100 %)"
	@$(BIN)/coverage report --include='squidmesh/domain/*' --fail-under=100
	@echo "Branch coverage of the package (floor: 90 %)"
	@$(BIN)/coverage report --fail-under=90

lint: $(READY) ## check style, format and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache --no-logo

types: $(READY) ## check types
	@$(BIN)/mypy --strict $(TYPED)

bench: $(READY) ## measure speed beside a bare loop; BENCH_ARGS=--quick is the short form
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

all: lint types test ## lint, types, test and a short bench
	@$(BIN)/python -m benchmarks --quick

fix: $(READY) ## repair what ruff can repair, and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

requirements: $(READY) ## compile requirements-dev.txt anew from pyproject.toml
	@$(BIN)/python -m pip install --quiet uv
	@UV_CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/uv pip compile --quiet --no-config --upgrade \
	    --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --extra dev --extra cli --output-file requirements-dev.txt pyproject.toml

clean: ## remove the environment and everything that was made
	@rm -rf $(VENV) build dist .coverage .coverage.* .hypothesis .import_linter_cache \
	    .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian and Ubuntu take ensurepip out of Python: there the pip of the system fills the environment.
$(READY): pyproject.toml requirements-dev.txt
	@python=; \
	for candidate in $(INTERPRETERS); do \
	    if $$candidate -c '$(USABLE)' >/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "squidmesh needs Python 3.11 or newer; none of these is one: $(INTERPRETERS)." >&2; \
	    echo "Install one, or name yours: make PYTHON=/path/to/python3 ..." >&2; \
	    exit 1; \
	fi; \
	echo "Building $(VENV) with $$($$python --version) ..."; \
	if $$python -c 'import ensurepip' >/dev/null 2>&1; then \
	    $$python -m venv $(VENV) && pip="$(BIN)/python -m pip"; \
	elif $$python -c 'import pip' >/dev/null 2>&1; then \
	    $$python -m venv --without-pip $(VENV) && pip="$$python -m pip --python $(BIN)/python"; \
	else \
	    echo "$$python has neither ensurepip nor pip; on Debian and Ubuntu: apt install python3-venv." >&2; \
	    exit 1; \
	fi && \
	$$pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.txt && \
	$$pip install -qq --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@
