# make train: install into .venv, then train the embedded default.   make test: the same for the tests.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: train test bench
train: $(VENV)/.installed
	$(BIN)/staa train

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/pytest

# Beside SpikingJelly, snnTorch and Norse: half an hour.
bench: $(VENV)/.installed-dev
	$(BIN)/pip install --disable-pip-version-check snntorch norse nir nirtorch matplotlib
	$(BIN)/python -m benchmarks.run

$(VENV)/.installed: pyproject.toml staa/ops/_kernels.c | $(VENV)/bin/pip
	$(BIN)/pip install --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml staa/ops/_kernels.c | $(VENV)/bin/pip
	$(BIN)/pip install --disable-pip-version-check -e ".[dev]"
	touch $@

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "staa needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
