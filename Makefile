# Every task of the repository. `make` alone lists them.
#
#   fresh checkout ─► make setup ─► .venv/.ready ─► run, test, lint, bench

PYTHON ?= python3
PORT ?= 8000
WORKERS ?= 3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run test lint bench lock clean

help: ## List these tasks.
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup: $(READY) ## Set up the environment in .venv, and Debian packages where they are missing.

$(READY): requirements.lock pyproject.toml scripts/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" scripts/setup.sh
	@touch $@

run: $(READY) ## Serve the example application at http://127.0.0.1:8000 (PORT=... for another). Ctrl-C stops it.
	@$(BIN)/outgrow up examples/conduit --stage single-server --port $(PORT)

test: lint ## Run every check and every test (WORKERS=... at a time; 3 unless given).
	@# A PostgreSQL with TLS, which the packaged one has not, Redis, PgBouncer, etcd, and a browser. At a desk what needs them is skipped.
	@$(if $(CI),test -d /usr/lib/postgresql || scripts/debian.sh no-such-command=postgresql)
	@$(if $(CI),PATH=$$PATH:/usr/sbin scripts/debian.sh redis-server=redis-server pgbouncer=pgbouncer etcd=etcd-server chromium=chromium chromedriver=chromium-driver)
	@# Most tests wait for servers, so there are more at a time than cores; one that fails fails the run.
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

lint: $(READY) ## Run the checks that need no server: style, types, architecture, generated documents.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/docs.py --check

bench: $(READY) ## Measure, and write docs/benchmarks.md. It takes an hour or more, and wants the machine for itself.
	@# Caches of others, to compare with; nothing else needs them.
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r benchmarks/peers.txt
	$(BIN)/python -m benchmarks --write

lock: ## Pin every package again, at its newest version, in requirements.lock.
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet uv; }
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url \
		--python-version 3.11 --all-extras --group dev --custom-compile-command "make lock" \
		--output-file requirements.lock pyproject.toml

clean: ## Remove what setup, tests and builds left behind. A fleet's data (.outgrow) stays.
	rm -rf $(VENV) dist build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
