# `make demo` and `make test` are all that a fresh machine needs; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/adk-gke-sandbox
UV_VERSION := 0.13.9
UV := $(CACHE)/uv-$(UV_VERSION)/bin/uv
PYTHON := .venv/bin/python
LOCKS := requirements/runtime.txt requirements/infra.txt requirements/dev.txt
# uv reads indexes from its own configuration; a folder of wheels that pip knows of is not part of the locks.
unexport PIP_FIND_LINKS

.PHONY: help demo test test-variants test-incumbent test-kill test-load check bench up down status clean lock format docs

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

demo: .venv/ready ## local cluster, `pulumi up`, an ADK agent that runs code on it
	@$(PYTHON) examples/demo.py

test: .venv/ready .venv-oldest/ready ## everything, on the real local cluster
	@$(PYTHON) tests/everything.py

test-variants: .venv/ready up ## every variant of a GKE stack: up, preview with no changes, destroy
	@.venv/bin/pytest -m cluster tests/infra/test_gke_engine.py -k test_preview_after_up

test-incumbent: .venv/ready up ## what docs/defects.md says of ADK's own executor, for releases
	@.venv/bin/pytest -m long tests/cluster/test_incumbent.py

test-kill: .venv/ready up ## a hundred clients killed at any moment
	@.venv/bin/pytest -m long tests/cluster/test_kill.py

test-load: .venv/ready up ## fifty executions at once
	@.venv/bin/pytest -m long tests/cluster/test_load.py

check: .venv/ready ## formatting, lint, types
	@.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy --cache-dir $(CACHE)/mypy

bench: .venv/ready up ## ours and ADK's own executor side by side
	@$(PYTHON) tests/bench/compare.py

up: .venv/ready ## start the local cluster and bring the stack up
	@$(PYTHON) infra/local up && $(PYTHON) infra/local stack up

down: .venv/ready ## stop the local cluster and remove its state
	@$(PYTHON) infra/local down

status: .venv/ready ## what runs
	@$(PYTHON) infra/local status

clean: ## stop the cluster, remove the virtual environment and the cache
	@if [ -x $(PYTHON) ]; then $(PYTHON) infra/local down; fi
	@chmod -R u+w "$(CACHE)" 2>/dev/null || true
	@rm -rf "$(CACHE)" .venv .venv-oldest build

format: .venv/ready ## format and fix
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

docs: .venv/ready ## docs/reference from the code
	@PYTHONPATH=. $(PYTHON) docs/generate.py

lock: $(UV) ## resolve requirements/*.in anew
	@cd requirements && for name in runtime infra dev adk-oldest; do \
	  $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $$name.in -o $$name.txt; done
	@cd requirements && $(UV) pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" image-data.in -o image-data.txt

$(UV):
	@echo "uv $(UV_VERSION) -> $(dir $(UV))"
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; this is $$(python3 --version). Install one and put it first on PATH." >&2; exit 1; }
	@python3 -m venv $(CACHE)/uv-$(UV_VERSION) || { echo "python3 -m venv failed: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@$(CACHE)/uv-$(UV_VERSION)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/ready: $(UV) pyproject.toml $(LOCKS)
	@echo "locked packages -> .venv"
	@[ -x $(PYTHON) ] || $(UV) venv --quiet --python python3 .venv
	@$(UV) pip sync --quiet --python $(PYTHON) --require-hashes $(LOCKS)
	@$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .
	@touch $@

.venv-oldest/ready: $(UV) pyproject.toml requirements/adk-oldest.txt
	@echo "the oldest ADK supported -> .venv-oldest"
	@[ -x .venv-oldest/bin/python ] || $(UV) venv --quiet --python python3 .venv-oldest
	@$(UV) pip sync --quiet --python .venv-oldest/bin/python --require-hashes requirements/adk-oldest.txt
	@$(UV) pip install --quiet --python .venv-oldest/bin/python --no-deps --no-build-isolation --editable .
	@touch $@
