PYTHON ?= python3
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

SOURCE ?= sample
DATA ?=
NAME ?= $(SOURCE)
TESTS ?=
# In memory where that has room: hundreds of databases are made, and a disk takes longer than the work.
RAM := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4000000 {print "PYTEST_DEBUG_TEMPROOT=/dev/shm"}')
# Compiled modules are kept whatever the environment says: compiling the tests takes each worker seconds.
PYTEST := $(RAM) PYTHONDONTWRITEBYTECODE= python -m pytest -n auto --maxprocesses 8 --dist worksteal -o tmp_path_retention_policy=failed --durations 30 --durations-min 5
EXTRAS := sources store registry evaluation models serving monitoring client ray s3 dev

.PHONY: run walk-forward evening test test-fast lint docs wheel setup lock clean help

run: setup ## the whole pipeline on real prices that ship in a package; SOURCE=csv DATA=my_prices/ on your own, in runs/csv (NAME=x: runs/x)
ifeq ($(SOURCE),sample)
	@pitwise run
else
	@pitwise run --source "$(SOURCE)" --name "$(NAME)" $(if $(DATA),--data "$(DATA)")
endif

walk-forward: setup ## every model and baseline, refitted on an expanding window; an hour on two cores
	dvc repro walk_forward/dvc.yaml

evening: setup ## what is due after the close: fetch, update, forecast, reports/tonight.html
	@pitwise evening

test: setup ## set-up, then all tests; TESTS="tests/cleaning -k split" for some of them
	@$(PYTEST) $(TESTS)

test-fast: setup ## the inner loop, under a minute: tests without a pipeline, a store or a server
	@$(PYTEST) -m "unit or property" $(TESTS)

lint: setup ## style, format, import contracts, types
	ruff check .
	ruff format --check .
	lint-imports
	mypy

docs: setup ## the documentation site, in site/
	mkdocs build --strict --quiet

wheel: setup ## the package, in dist/
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

setup: $(INSTALLED) ## what every target needs, in .venv

# On all cores, where pip takes one, and without packages' own tests. A file that does not compile is a
# package's template or for another Python, and nobody imports it.
COMPILE_ALL := $(BIN)/python -m compileall -qq -j 0 -x 'site-packages/.*/tests?/' $(VENV)/lib

# Plain pip, so that nothing but Python is needed; a CPU build of torch that pip can find is taken as it is.
$(INSTALLED): locks/dev.lock pyproject.toml hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, $(PYTHON) is %d.%d. Try: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing what locks/dev.lock names into .venv (a few minutes the first time)"
	@$(PIP) --no-compile -r locks/dev.lock
	@$(PIP) --no-compile --no-deps --no-build-isolation --editable .
	@$(COMPILE_ALL) || true
	@touch $(INSTALLED)

# Needs uv. Versions stay as locks/dev.lock has them; UPGRADE="name another" lets some rise, and every other
# lock takes its versions from the new dev.lock. CUDA packages come with the torch that a person's pip
# chooses, never from these files.
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --no-header --no-annotate --quiet
WITHOUT_CUDA := sed -E -e '/^(cuda|nvidia|triton)-?/d' -e 's/^torch==([0-9.]+).*/torch==\1/'
lock: ## the locks anew from pyproject.toml; UPGRADE="fastapi" raises a version
	$(COMPILE) --extra dev $(UPGRADE:%=--upgrade-package %) --output-file locks/dev.lock
	$(COMPILE) --constraints locks/dev.lock --output-file locks/core.lock
	@for extra in $(filter-out dev,$(EXTRAS)); do \
	  echo "$$extra" && $(COMPILE) --extra $$extra --constraints locks/dev.lock --output-file locks/$$extra.lock || exit 1; \
	done
	@for lock in locks/*.lock; do $(WITHOUT_CUDA) $$lock | uniq > $$lock.new && mv $$lock.new $$lock || exit 1; done

clean: ## remove .venv and everything that was made
	rm -rf .venv data models metrics reports runs mlflow.db mlruns site dist

help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1|\2/p' Makefile | while IFS='|' read -r target text; do printf 'make %-10s %s\n' "$$target" "$$text"; done
