# What a person types here. Needs Debian (or alike), git, make and Python 3.11 or newer; all else is fetched by these targets.
#   make demo       build this repository's own pipeline, and show what came out
#   make test       the tests             make test-slow   those that take minutes
#   make lint       format, ruff, mypy, import floors
#   make docs       write docs/commands, docs/pipeline.schema.json, check links
#   make bench      measure, and write docs/performance.md (QUICK=1: smaller, a few minutes)

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find engine/pipesmith -name '*.py' 2>/dev/null)
# Tests run side by side, on at most four cores: JOBS=0 for one process.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ "$$n" -gt 4 ] && n=4; echo $$n)
TESTS ?= tests
# What tests run against, besides Python packages.
PARTS := git-lfs docker.io iptables busybox-static openssh-server docker-registry openssl gcc libc6-dev

.PHONY: demo test test-slow lint format bench docs clean

demo: $(VENV)/.compiled
	@scripts/demo

test: $(VENV)/.compiled
	@scripts/need $(PARTS)
	@$(BIN)/python -m pytest -n $(JOBS) $(TESTS)

test-slow: $(VENV)/.compiled
	@scripts/need $(PARTS)
	@$(BIN)/python -m pytest -n $(JOBS) -m slow $(TESTS)

lint: $(VENV)/.ready
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.ready
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(VENV)/.compiled
	@$(BIN)/python scripts/docs.py

bench: $(VENV)/.compiled
	@scripts/need ninja-build
	@$(BIN)/python -m bench $(if $(QUICK),--quick)

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Everything in constraints.txt's versions. Done again when that or pyproject.toml changes.
$(VENV)/.ready: pyproject.toml constraints.txt scripts/setup
	@scripts/setup $(VENV)

# Compiled by hand, since PYTHONDONTWRITEBYTECODE would let every start of `pipe` compile it anew.
$(VENV)/.compiled: $(VENV)/.ready $(SOURCES)
	@$(BIN)/python -m compileall -q engine/pipesmith
	@touch $@
