# Needs python3 (3.11 or newer) and make; everything else goes into .venv.
#
#   make run             build --order 8 and eval --split val on WikiText-103 from the hub (or the embedded sample, labelled as such)
#   make run DATA=dir    the same on a directory with wiki.train.raw and wiki.valid.raw, or on a text file
#   make test            the test suite, in JOBS=2 processes; ARGS="-k cli" goes to pytest
#   make test-gpu        the tests that need CuPy and a CUDA device; GPU_EXTRA=gpu13 for CUDA 13
#   make fuzz            hostile trials (tests/fuzz.py) for MINUTES=30, with counts by kind; ARGS="--kind directories"
#   make lint            ruff
#   make clean           removes .venv and caches, and leaves models/ alone

PYTHON    ?= python3
DATA      ?=
ARGS      ?=
MINUTES   ?= 30
JOBS      ?= 2
GPU_EXTRA ?= gpu

VENV     := .venv
BIN      := $(VENV)/bin
CHARSTAT := $(BIN)/charstat
PIP      := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help run test test-gpu fuzz lint clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

# One stamp per set of extras; each is made again only when pyproject.toml has changed.
$(VENV)/made:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"charstat needs Python 3.11 or newer, not {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml
	$(PIP) install --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/installed-$(GPU_EXTRA): $(VENV)/installed-dev
	$(PIP) install --editable '.[dev,$(GPU_EXTRA)]'
	@touch $@

# A gate missed on real text is an error (eval's status 4); on the embedded sample it says nothing, so it is none.
run: $(VENV)/installed
	$(CHARSTAT) build --order 8 $(if $(DATA),--data '$(DATA)')
	@echo '$(CHARSTAT) eval --split val'; $(CHARSTAT) eval --split val || { status=$$?; \
	  [ $$status -eq 4 ] && $(CHARSTAT) inspect --json | grep -q '"sample": true' \
	  && echo 'The gate counts for WikiText-103, not for the embedded sample.' || exit $$status; }

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-gpu: $(VENV)/installed-$(GPU_EXTRA)
	$(BIN)/python -m pytest -m gpu $(ARGS)

fuzz: $(VENV)/installed-dev
	$(BIN)/python tests/fuzz.py --minutes $(MINUTES) $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find charstat tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
