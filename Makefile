# Everything a newcomer or CI runs. `make` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Where the rehearsal saves its screenshots.
PICTURES ?= docs

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench rehearsal clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	@touch $@

# Its own chips and checkpoint, whatever CLAY_ variables are set. What it materializes is kept, so that `dagster dev` shows it afterwards.
.dagster/dagster.yaml: deploy/dagster.yaml
	@mkdir -p .dagster
	@cp $< $@

demo: export DAGSTER_HOME := $(CURDIR)/.dagster
demo: $(VENV)/installed .dagster/dagster.yaml  ## embed chips of two tiles that it makes itself, and show the result
	@$(BIN)/python -m clay_assets.demo make
	@for tile in 18HYB 27WXN; do \
		env $$(env | sed -n 's/^\(CLAY_[A-Z_]*\)=.*/-u \1/p') \
			$(BIN)/dagster asset materialize -m clay_assets.definitions --select '*' --partition $$tile \
			> data/$$tile.log 2>&1 || { cat data/$$tile.log; exit 1; }; \
		grep -oE "tile $$tile: .*" data/$$tile.log; \
	done
	@$(BIN)/python -m clay_assets.demo show

test: $(VENV)/installed  ## run the tests
	$(BIN)/python -m pytest

lint: $(VENV)/installed  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-bench  ## measure the encoder, whole tiles, growth and decoding on this machine
	$(BIN)/python -m benchmarks

rehearsal: $(VENV)/installed  ## run a backfill with PostgreSQL, S3, webserver and daemon on loopback
	$(BIN)/python -m rehearsal --pictures $(PICTURES)

clean:  ## remove the virtual environment and what the demo made
	rm -rf $(VENV) .dagster data checkpoints build *.egg-info .mypy_cache .ruff_cache .pytest_cache
