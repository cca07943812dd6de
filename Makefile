# Commands for users and CI. `make` lists the targets.

PYTHON ?= python3
SHELL := bash -o pipefail
VENV := .venv
BIN := $(VENV)/bin

# The demo's model: v0, published as version 1, or v1.5, published as version 2.
MODEL := v0
VERSION := $(if $(filter v1.5,$(MODEL)),2,1)

# Folder for the rehearsal's screenshots. PICTURES=docs renews those of the documentation.
PICTURES ?= build/pictures

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench rehearsal cluster clean audit

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	@touch $@

# `dg dev` shows afterwards what the demo has materialized. Existing settings stay.
.dagster/dagster.yaml:
	@mkdir -p .dagster
	@cp deploy/dagster.yaml $@

# The demo uses the default locations and ignores CLAY_ variables. A `.env` in the working directory would override
# the environment, so Dagster is started in a folder without one. Its output goes to a log; only progress is shown.
NO_ENV := build/demo
HERE := CLAY_CHIPS_URI='$(CURDIR)/data/chips' CLAY_OUTPUT_URI='$(CURDIR)/data/embeddings' \
	CLAY_WORK_URI='$(CURDIR)/data/work' CLAY_TILES='$(CURDIR)/tiles.txt' CLAY_ALLOW_UNTRAINED=1 \
	CLAY_CHECKPOINT='$(CURDIR)/checkpoints/clay-$(MODEL)-small-untrained.ckpt' CLAY_VERSION=$(VERSION) \
	CLAY_STAC_URI='$(CURDIR)/data/stac'

demo: export DAGSTER_HOME := $(CURDIR)/.dagster
demo: $(VENV)/installed .dagster/dagster.yaml  ## embed chips of two real places, and show the result
	@mkdir -p $(NO_ENV)
	@$(BIN)/python -m clay_assets.demo make --model $(MODEL)
	@for tile in 18HYB 22JGS; do \
		log=$(CURDIR)/data/$$tile.log; \
		(cd $(NO_ENV) && env $$(env | sed -n 's/^\(CLAY_[A-Z_]*\)=.*/-u \1/p') $(HERE) \
			$(abspath $(BIN))/dagster asset materialize -m clay_assets.definitions --select '*' --partition $$tile) \
			2>&1 | tee $$log | grep --line-buffered -oE "(tile )?$$tile: ([0-9]+ (of|embedded)|already current).*" \
			|| { cat $$log; exit 1; }; \
	done
	@$(BIN)/python -m clay_assets.demo show
	@echo
	@echo 'The two chips most similar to one of them, and their picture:'
	@$(BIN)/clay similar --where data/embeddings --version $(VERSION) -k 2 \
		--to claytile_22JGS_20210723_v02_0005.tif --picture data/similar.png

test: $(VENV)/installed  ## run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/installed  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-bench  ## measure decoding, the encoder, whole tiles, growth and search on this machine
	$(BIN)/python -m benchmarks

$(VENV)/installed-cluster: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[cluster]'
	@touch $@

rehearsal: $(VENV)/installed  ## run a backfill with PostgreSQL, S3, webserver and daemon on loopback
	$(BIN)/python -m rehearsal --pictures $(PICTURES)

cluster: $(VENV)/installed-cluster  ## run backfills on a Ray cluster of hosts in network namespaces, one of which disappears
	$(BIN)/python -m cluster

# pip-audit runs in its own environment. It prints "No known vulnerabilities found" even if it could look up no
# package, so the last line counts the packages that were looked up. Fails only on a known vulnerability.
audit:  ## look for known vulnerabilities in the pinned versions
	@$(PYTHON) -m venv build/audit
	@build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit || echo 'pip-audit cannot be installed'
	@build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off \
		>build/audit.txt 2>&1 || ! grep -q '^Found' build/audit.txt || { cat build/audit.txt; exit 1; }
	@pinned=$$(grep -c == constraints.txt); skipped=$$(grep -c 'could not be audited' build/audit.txt); \
	grep -q '^No known' build/audit.txt || skipped=$$pinned; \
	echo "$$((pinned - skipped)) of $$pinned packages were looked up; none of these has a known vulnerability (build/audit.txt)"

# Keeps data, checkpoints and .dagster: the pipeline's default locations, with the user's results.
clean:  ## remove the virtual environment, caches and build; data, checkpoints and .dagster stay
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
