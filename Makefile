# `make up` and `make test` are all a newcomer needs; python3 (3.11 or newer), make and git are assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV ?= uv
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --no-deps --require-hashes

.PHONY: help up test lint types browser integration bench lock fmt clean
.DEFAULT_GOAL := help

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{printf "%-20s %s\n", $$1, $$2}'

up: $(VENV)/.run ## start everything on this machine; PORT=8000 DATA_DIR=var DEMO=1
	@exec $(BIN)/python manage.py up

test: $(VENV)/.dev ## everything that can run here, and why the rest was skipped
	@$(BIN)/python -m pytest -n auto -rs $(ARGS)

lint: $(VENV)/.dev ## ruff, djlint, import-linter, missing migrations
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/djlint --quiet --lint controlplane/templates
	@$(BIN)/lint-imports && DATA_DIR=$$(mktemp -d) $(BIN)/python manage.py makemigrations --check --dry-run

types: $(VENV)/.dev ## mypy
	@$(BIN)/mypy controlplane builds billing fleet

browser: $(VENV)/.dev ## the tests that drive a real Chromium
	@$(BIN)/python -m pytest -m browser -rs $(ARGS)

integration: $(VENV)/.dev ## the tests that start and kill real processes
	@$(BIN)/python -m pytest -m integration -rs $(ARGS)

bench: $(VENV)/.dev ## speed, as ratios measured in one run (PostgreSQL)
	@for one in queue_cycle post_job dispatch_latency conversion dependencies lock model_store builds forecast floor simulator; do $(BIN)/python bench/$$one.py || exit 1; done

fmt: $(VENV)/.dev ## format the code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lock: ## compile the lock files again (needs uv)
	@for set in requirements requirements-dev; do $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-annotate --custom-compile-command 'make lock' $$set.in -o $$set.lock || exit 1; done

clean: ## remove the virtual environment and caches; data stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.run: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Comfyplane needs Python 3.11 or newer; this is %d.%d. Say which to use: make up PYTHON=python3.12" % sys.version_info[:2])'
	@[ -x $(BIN)/python ] || { echo "making a virtual environment in $(VENV)"; $(PYTHON) -m venv $(VENV) || { echo "Could not make it. On Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }; }
	@echo "installing what Comfyplane needs; this takes about a minute"
	@$(PIP) -r requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "installing what its tests need"
	@$(PIP) -r requirements-dev.lock
	@touch $@
