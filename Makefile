# The book and its package. Each target sets up what it needs, once.
#   make book    the site in _build/html          make test    everything CI runs
.DEFAULT_GOAL := help
SHELL := bash
MAKEFLAGS += --no-print-directory

# the first Python that is new enough; looked for only where there is no .venv yet
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
  $$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
SITE := _build/html
DATA := $(wildcard ../shared/data)
export PCSNN_DATA ?= $(if $(DATA),$(abspath $(DATA)))
ifeq ($(PCSNN_DATA),)
unexport PCSNN_DATA
endif
# Matplotlib and PyTorch on small networks are faster, and reproducible, on one thread.
test execute book: export OMP_NUM_THREADS = 1
# Matplotlib's list of fonts is this environment's: one that another left behind may name fonts
# that are gone, and what it then warns of would stand in the pages.
test execute book portable: export MPLCONFIGDIR = $(CURDIR)/_build/matplotlib

INPUTS := _config.yml _toc.yml package.json \
  $(shell find chapters tools pcsnn -type f -not -path '*/__pycache__/*' -not -path '*/.ipynb_checkpoints/*')

help:  ## this list
	@echo "usage: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

book: _build/.book  ## build the site into _build/html
	@$(BIN)/python tools/execute.py --check || echo "Note: these pages show older outputs; 'make execute' renews them."
	@echo "The book is built: open $(SITE)/index.html"

test: $(BIN)/.installed node_modules/.installed chromium  ## check, execute and verify everything
	@$(BIN)/python tools/run_tests.py

execute: $(BIN)/.installed  ## run the stale chapters and store their outputs
	@$(BIN)/python tools/execute.py

portable: $(BIN)/.installed  ## run the chapters on machines that round differently (an hour)
	@$(BIN)/python tools/portable.py

test-oldest: $(BIN)/.installed  ## test with the oldest versions that pyproject.toml allows
	@$(BIN)/python tools/versions.py oldest

test-newest: $(BIN)/.installed  ## test with the newest
	@$(BIN)/python tools/versions.py newest

check: $(BIN)/.installed  ## lint and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

pdf: _build/.book chromium  ## print the book, and its summary on two pages, into _build/release
	@$(BIN)/python tools/release.py pdf

release: _build/.book chromium  ## package, site, notebooks and PDF, with checksums, in _build/release
	@$(BIN)/python tools/release.py

experiments: $(BIN)/.installed  ## list the recorded experiments, and how to run them
	@$(BIN)/python -m pcsnn.experiments list

bench: _build/.book  ## timings, side by side
	@for bench in benchmarks/*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

serve: _build/.book  ## serve the book on http://localhost:8000
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(SITE) 8000

clean:  ## remove what was built (the environment too: rm -r .venv* node_modules)
	@rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -not -path './.venv*/*' -prune -exec rm -rf {} +

_build/.book: $(INPUTS) $(BIN)/.installed node_modules/.installed
	@echo "Building the book …"
	@rm -rf $(SITE) _build/jupyter_execute
	@$(BIN)/jupyter-book build chapters --config _config.yml --toc $(CURDIR)/_toc.yml \
	  --path-output . --all -W -n --keep-going --quiet > /dev/null
	@touch $@

$(BIN)/.installed: requirements.txt constraints.txt pyproject.toml
	@test -x $(BIN)/python || { p="$(PYTHON)"; $${p:-false} -c '$(NEW_ENOUGH)' 2>/dev/null && $$p -m venv .venv; } || \
	  { echo "make: Python 3.11 or newer is needed, with its venv module; try make PYTHON=/path/to/python3.11"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e . --no-deps --no-build-isolation
	@touch $@

node_modules/.installed: package.json
	@command -v node >/dev/null && command -v npm >/dev/null || \
	  { echo "make: node and npm are needed to render the book's mathematics; install them (Debian: apt-get install nodejs npm)"; exit 1; }
	@npm install --silent --no-package-lock --no-audit --no-fund --ignore-scripts
	@touch $@

chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	  else echo "make: no Chromium found, so the tests in a real browser will be skipped"; fi

.PHONY: help book test execute portable test-oldest test-newest check pdf release experiments bench serve clean chromium
