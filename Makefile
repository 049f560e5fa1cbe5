# Each target sets up what it needs: a virtual environment in this clone, with the versions of
# constraints.txt. `make` alone lists the targets; PYTHON=... names another interpreter.

PYTHON ?= python3
PY     := .venv/bin/python
READY  := .venv/.ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo lab test env lint types unit integration fuzz examples notebooks browser bench figures clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## train one small rack several ways on the King James text and compare
	@.venv/bin/stackwise demo

lab: $(READY) ## open JupyterLab
	@.venv/bin/stackwise lab

test: lint types ## everything: style, types, tests, notebooks; COVERAGE=1 holds it against the gate
	$(PY) tests/run_tests.py$(if $(COVERAGE), --coverage)

env: $(READY) ## only make the virtual environment, .venv
	@:

$(READY): pyproject.toml constraints.txt
	@rm -f $@
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "StackWise needs Python 3.11 or newer, and '$(PYTHON)' is not. Name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "Setting up .venv: a few minutes, once"
	@"$(PYTHON)" -m venv .venv
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	  $(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $@

lint: $(READY) ## ruff: format and rules
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: $(READY) ## mypy on the core
	$(PY) -m mypy

unit: $(READY) ## tests/unit alone
	$(PY) tests/run_tests.py --unit

integration: $(READY) ## tests/integration alone
	$(PY) tests/run_tests.py --integration

fuzz: $(READY) ## tests/fuzz alone: ten thousand malformed inputs, a minute
	$(PY) tests/run_tests.py --fuzz

examples: $(READY) ## tests/examples alone
	$(PY) tests/run_tests.py --examples

notebooks: $(READY) ## execute every notebook
	$(PY) tests/run_tests.py --notebooks

browser: $(READY) ## JupyterLab and Voila in Chromium, which has to be there already
	$(PY) tests/run_tests.py --browser

bench: $(READY) ## speed and memory: the toy's step and a 70B-wide block beside a peer's, reading
	$(PY) benchmarks/step.py
	$(PY) benchmarks/full_width.py
	$(PY) benchmarks/reading.py

figures: $(READY) ## the studies' figures, from their runs or results; RUN=1 trains, CHECK=1 compares
	$(PY) studies/figures.py $(if $(RUN),--run) $(if $(CHECK),--check)
	$(if $(CHECK),,$(PY) docs/results.py)

clean: ## remove what make made (.venv, caches, coverage, screenshots); runs stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* build *.egg-info \
	  tests/browser/screenshots
