# make run                              the whole pipeline on real prices that ship in a package
# make run SOURCE=csv DATA=my_prices/   the same on your own prices, in runs/csv/ (NAME=x: runs/x/)
# make run SOURCE=yfinance DATA=tickers.txt   on fresh bars from Yahoo; SOURCE=synthetic on a made market
# make test                             set-up, then the tests

PYTHON ?= python3
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

SOURCE ?= sample
DATA ?=
NAME ?= $(SOURCE)

.PHONY: run test setup lint lock clean

run: setup
ifeq ($(SOURCE),sample)
	@dvc repro
	@python -m monitoring.summary
else
	@python scripts/workspace.py "$(NAME)" "$(SOURCE)" "$(DATA)"
	@cd "runs/$(NAME)" && $(if $(filter yfinance,$(SOURCE)),dvc repro --force --single-item ingest &&) dvc repro && python -m monitoring.summary
endif

test: setup
	@python -m pytest

lint: setup
	ruff check . && ruff format --check . && lint-imports && mypy

setup: $(INSTALLED)

# Plain pip, so that nothing but Python is needed; a CPU build of torch that pip can find is taken as it is.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, $(PYTHON) is %d.%d. Try: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing what requirements.lock names into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(INSTALLED)

# Needs uv. CUDA packages come with the torch that a person's pip chooses, never from this file.
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --no-header --no-annotate --quiet \
	  | sed -E -e '/^(cuda|nvidia|triton)-?/d' -e 's/^torch==([0-9.]+).*/torch==\1/' | uniq > requirements.lock

clean:
	rm -rf .venv data models metrics reports runs mlflow.db mlruns
