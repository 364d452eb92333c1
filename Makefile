# Everything from a fresh checkout: `make run` starts the service, `make test` tests it.

PYTHON ?= python3.11
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# Empty files whose age says when what they name was installed.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

# pip's own progress is a wall of text or nothing: show one line a package.
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off
PROGRESS := sed -u -n -E -e 's/^Collecting ([^ ]+).*/  \1/p' -e 's/^(Installing collected).*/  installing …/p'

.PHONY: help run test faults bench check docs pictures clean

help: ## List what make can do
	@sed -n -E 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: $(INSTALLED) ## Install what is missing and start everything (Ctrl-C stops it)
	@$(BIN)/classifier up

test: $(INSTALLED_DEV) ## Install what is missing and run the tests
	@# Tests mostly wait for processes and clocks. Those of a file share what the first one started.
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

faults: $(INSTALLED_DEV) ## Do everything to the service that it must survive, for an hour
	@$(BIN)/python -m tests.faults --document docs/reliability.md

bench: $(INSTALLED_DEV) ## Measure the service and its peers side by side, for over an hour
	@$(BIN)/python -m benchmarks

check: $(INSTALLED_DEV) ## Formatting, style, types, import rules
	$(BIN)/black --check app benchmarks classifier_client tests
	$(BIN)/flake8 app benchmarks classifier_client tests
	$(BIN)/mypy app benchmarks classifier_client
	$(BIN)/lint-imports

docs: $(INSTALLED_DEV) ## Write the pages that are generated from the code and the tests
	@$(BIN)/python -m app.core.config_reference
	@$(BIN)/python -m app.openapi_document
	@$(BIN)/python -m tests.inputs

pictures: $(INSTALLED_DEV) ## Draw the pictures of the web page (needs Debian's chromium, chromium-driver, fonts-inter)
	@$(BIN)/python -m tests.browser.pictures

clean: ## Remove the virtual environment and caches; the data folder stays
	rm -rf $(VENV) .benchmarks build dist *.egg-info .coverage htmlcov .pytest_cache .mypy_cache \
		.import_linter_cache .hypothesis
	find app classifier_client tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "$(PYTHON) not found: install Python 3.11, or name one: make PYTHON=/path/to/python" >&2; \
		exit 1; }
	@echo "Making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml requirements.txt | $(BIN)/python
	@echo "Installing the service (about a minute the first time)"
	@$(PIP_INSTALL) -r requirements.txt | $(PROGRESS)
	@$(PIP_INSTALL) --quiet --no-deps --editable .
	@touch $@

$(INSTALLED_DEV): $(INSTALLED) requirements-dev.txt
	@echo "Installing what the tests need"
	@$(PIP_INSTALL) -r requirements-dev.txt | $(PROGRESS)
	@touch $@
