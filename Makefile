# `make help` lists the targets. Everything that a target needs, it installs: the first call on a machine takes some minutes.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test fuzz model test-torch test-compose check bench clean

VENV := .venv
BIN := $(VENV)/bin
TORCH_VENV := .venv-torch
# Docker, or what stands in for it here.
COMPOSE ?= $(shell docker info >/dev/null 2>&1 && echo docker compose || echo ../shared/compose/compose)
# One more than processors, and four at most: tests wait for servers and browsers half of their time.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN || echo 2); echo $$((n < 2 ? 3 : n > 3 ? 4 : n + 1)))
# Of the tests: file, or random; the seed of a random order repeats it. Also of make fuzz and make model.
ORDER ?= file
SEED ?= $(shell date +%s)
ORDERED = $(if $(filter random,$(ORDER)),--shuffle $(SEED) --no-loadscope-reorder,$(if $(filter-out file,$(ORDER)),$(error \
	ORDER expects file or random, got $(ORDER))))
# Of make fuzz.
BACKEND ?= wasm
PROGRAMS ?= 1000
MINUTES ?= 60
# Of make model: REDIS=1 plays on a redis-server.
HISTORIES ?= 5000
REDIS ?=
BUNDLE := web_worker/dist/worker.js
BUNDLE_SOURCES := $(shell find web_worker/src web_worker/page web_worker/node web_worker/patches -type f 2>/dev/null) $(wildcard web_worker/*.mjs)

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/ready $(BUNDLE) ## create .venv, install dependencies and system packages, build the browser bundle
	@scripts/system-packages --tests

demo: $(VENV)/ready $(BUNDLE) ## train digits here with two real browser replicas, on fakeredis
	@scripts/system-packages
	$(BIN)/crowdlearn up examples/digits.py --browsers 2 --out digits.safetensors

test: setup ## run every test, with servers of their own: see docs/tests.md for WORKERS, ORDER, SEED and another Redis
	cd web_worker && npm test --silent
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ORDERED)

fuzz: setup ## compare random losses in a browser with JAX; BACKEND=wasm|webgpu|webgl PROGRAMS=1000 SEED=NUMBER MINUTES=60
	cd web_worker && node build.mjs --check
	$(BIN)/python -m tests.fuzz --backend $(BACKEND) --programs $(PROGRAMS) --seed $(SEED) --minutes $(MINUTES)

model: setup ## play random histories against a model of the store; HISTORIES=5000 REDIS=1 SEED=NUMBER MINUTES=60
	$(BIN)/python -m tests.model $(if $(REDIS),--redis) --histories $(HISTORIES) --seed $(SEED) --minutes $(MINUTES)

test-torch: setup $(TORCH_VENV)/ready ## test PyTorch, Flax and Equinox models, in an environment of their own
	$(TORCH_VENV)/bin/python -m pytest tests/torch

test-compose: setup ## run docker-compose.yml from a clean state, with browsers, while containers are killed and scaled
	CROWDLEARN_COMPOSE="$(COMPOSE)" $(BIN)/python -m pytest tests/compose

check: setup ## lint and type-check Python and TypeScript
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	scripts/settings-table --check
	$(BIN)/python scripts/primitives-table --check
	cd web_worker && npm run --silent check

bench: setup ## measure, and print tables of ratios to a baseline of the same run
	$(BIN)/python -m benchmarks

clean: ## remove what the other targets made
	rm -rf $(VENV) $(TORCH_VENV) web_worker/node_modules web_worker/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/ready: pyproject.toml constraints.txt
	python=$$(scripts/find-python) && "$$python" -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# PyTorch is too heavy for everybody's environment. PIP_EXTRA_INDEX_URL may name the index of its CPU builds.
$(TORCH_VENV)/ready: pyproject.toml constraints.txt constraints-torch.txt
	python=$$(scripts/find-python) && "$$python" -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--constraint constraints-torch.txt --editable '.[dev,torch]' flax equinox datasets
	@touch $@

web_worker/node_modules/.package-lock.json: web_worker/package.json web_worker/package-lock.json
	@command -v npm >/dev/null || { echo "CrowdLearn needs Node 20 or newer with npm (https://nodejs.org)." >&2; exit 1; }
	cd web_worker && npm ci --silent --no-audit --no-fund
	@touch $@

$(BUNDLE): web_worker/node_modules/.package-lock.json $(BUNDLE_SOURCES)
	cd web_worker && npm run --silent build
