# Needs Python 3.11 or 3.12, git and make; everything else is installed into .venv.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PORT ?= 8080

.PHONY: help playground test test-browser screenshot lint types unit chaos soak bench format lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-12s %s\n", $$1, $$2 }'

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: install it, or name it with make PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/run.stamp: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv/dev.stamp: requirements-dev.lock .venv/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

playground: .venv/run.stamp ## the whole bridge against a simulated Slack and Kapa, with a page to type in
	$(BIN)/bridge playground --port $(PORT)

test: lint types unit ## lint, types and every test that needs no browser

test-browser: .venv/dev.stamp ## the playground in a real browser (needs Chromium)
	$(BIN)/pytest tests/browser

screenshot: .venv/dev.stamp ## the pictures in docs/images (needs Chromium)
	$(BIN)/python -m tests.browser.screenshots

lint: .venv/dev.stamp ## find mistakes and what is not in the house's style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev.stamp ## check the types
	$(BIN)/mypy

# Most tests wait more than they work; the fault matrix has lanes of its own, and needs the machine for itself.
unit: .venv/dev.stamp ## the tests alone
	$(BIN)/pytest -n 2 --dist loadfile --ignore tests/test_fault_matrix.py
	$(BIN)/pytest tests/test_fault_matrix.py

chaos: .venv/dev.stamp ## kill everything at random for SECONDS=600, and judge what came of it; SEED=… repeats one
	$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

soak: .venv/dev.stamp ## 100,000 questions to one bridge, watching its memory (some ten minutes)
	$(BIN)/python -m tests.benchmarks.soak

bench: .venv/dev.stamp ## how fast the bridge is beside a floor (some ten minutes); writes docs/performance.md
	$(BIN)/python -m tests.benchmarks --write

format: .venv/dev.stamp ## put every file into the house's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## resolve the dependencies anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --quiet pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --quiet pyproject.toml --group dev -o requirements-dev.lock

clean: ## remove the virtual environment and every cache
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
