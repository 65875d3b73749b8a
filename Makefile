# Every verb does its own set-up (scripts/setup.sh): quick, and silent, when there is nothing to do.
.DEFAULT_GOAL := help
.PHONY: help setup sweep test check bench docs lab lab-down clean

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

setup: ## .venv with coldstart and the developers' tools in it; missing system packages
	@scripts/setup.sh dev

sweep: ## measure this machine; more arguments: make sweep ARGS='--boots 30'
	@scripts/setup.sh run
	@.venv/bin/coldstart sweep inventories/local.yaml $(ARGS)

test: ## everything: what check does, then the live tests
	@scripts/setup.sh dev
	@.venv/bin/python scripts/test.py

check: ## format, lint, types, layers, generated docs, unit tests: below 30 s
	@scripts/setup.sh dev
	@.venv/bin/python scripts/test.py --fast

# The peers are installed once, and anew when what setup installed has changed; without them their rows say so.
bench: ## side by side with peers; more arguments: ARGS=...
	@scripts/setup.sh dev
	@cmp -s .venv/.installed-dev .venv/.installed-bench || { echo 'set-up: installing the peers of the benchmarks' >&2; \
	  .venv/bin/python -m pip install -q --disable-pip-version-check --no-input -e '.[bench]' >>.venv/setup.log 2>&1 && \
	  cp .venv/.installed-dev .venv/.installed-bench; } || echo 'set-up: not installed, see .venv/setup.log' >&2
	@.venv/bin/python -m benchmarks $(ARGS)

docs: ## write the generated parts of docs/ anew
	@scripts/setup.sh dev
	@.venv/bin/python scripts/docs.py

lab: ## start a fleet of nodes on this machine (root); prints its inventory; more: ARGS=--aarch64; docs/lab.md
	@scripts/setup.sh dev
	@PYTHONPATH=tests .venv/bin/python -m lab up $(ARGS)

lab-down: ## remove that fleet, without a trace
	@PYTHONPATH=tests .venv/bin/python -m lab down

clean: ## remove what the other verbs made in this folder, .venv too
	rm -rf .venv build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -rf coldstart/workloads/hello/built benchmarks/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
