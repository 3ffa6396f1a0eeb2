# Two commands do everything on a fresh machine: `make report` and `make test`. Both make their own .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: report test test-floor coverage lint docs format mutants bench clean help

report: $(READY)  ## write the report on AlexNet and VGG into reports/
	$(BIN)/costmodel report

test: lint  ## lint, type check and test
	$(BIN)/pytest --numprocesses 2 --dist loadgroup $(PYTEST)

coverage:  ## the same, and how much of the code the tests run: 95 % and more
	$(MAKE) test PYTEST='--cov=costmodel --cov-report=term:skip-covered'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)  ## build the documentation into site/
	$(BIN)/pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

test-floor:  ## test with the oldest torch that is supported, in an environment of its own (5 GB)
	test -d .venv-floor || $(PYTHON) -m venv .venv-floor
	.venv-floor/bin/pip install --quiet --editable '.[dev]' 'torch==2.11.*' 'torchvision==0.26.*'
	.venv-floor/bin/pytest --numprocesses 2 --dist loadgroup

format: $(READY)  ## put the code into the house's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

mutants: $(READY)  ## change numbers in the code, a sample of 200, and list the changes that no test notices
	$(BIN)/python tests/mutants/named.py
	$(BIN)/python tests/mutants $(or $(MUTANTS),--sample 200)

bench: $(READY)  ## measure us and the peers side by side
	$(BIN)/pip install --quiet --editable '.[peers]'
	$(BIN)/costmodel bench

clean:  ## remove the environment and the caches
	rm -rf $(VENV) .venv-floor .mypy_cache .pytest_cache .ruff_cache .hypothesis .mutants .coverage site build *.egg-info

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "costmodel needs Python 3.11 or later: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
