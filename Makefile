# make train: install into .venv, then train the embedded default.   make quick, test, test-all: the same for more and more tests.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Tests that run at a time.
JOBS ?= 2

.PHONY: train quick test test-all docs bench figures
train: $(VENV)/.installed
	$(BIN)/staa train

# The equations, the kernels and the networks, under a minute.
quick: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest -n $(JOBS) --dist worksteal -m "not slow" $(patsubst %,tests/test_%.py,attention bits energy events files fused golden house models neurons ops)

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/pytest -n $(JOBS) --dist worksteal -m "not slow"

# First with the oldest releases that pyproject.toml allows, which `test` wants recorded: minutes, the network and several GB.
test-all: $(VENV)/.installed-dev
	$(BIN)/pytest -m oldest
	$(MAKE) test
	$(MAKE) docs
	$(BIN)/pytest -m slow

# The documentation's site, into site/; a warning is an error.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Beside SpikingJelly, snnTorch and Norse: half an hour.
bench: $(VENV)/.installed-dev
	$(BIN)/pip install --disable-pip-version-check snntorch norse nir nirtorch matplotlib
	$(BIN)/python -m benchmarks.run

# What was measured, from results/ into the pages and recipes.
figures: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.figures

$(VENV)/.installed: pyproject.toml staa/ops/_kernels.c | $(VENV)/bin/pip
	$(BIN)/pip install --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml staa/ops/_kernels.c | $(VENV)/bin/pip
	$(BIN)/pip install --disable-pip-version-check -e ".[dev]"
	touch $@

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/.installed-dev
	$(BIN)/pip install --disable-pip-version-check -e ".[docs]"
	touch $@

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "staa needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
