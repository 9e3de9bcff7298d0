# make sweep    run the default sweep; options in ARGS, as in: make sweep ARGS='--help'
# make test     fast tests; make test DIST=loadgroup ARGS='-m slow' for the others
# make lint     what must be clean before a commit
# make setup    the environment in .venv; all the others do it first, and it costs nothing when nothing changed

SHELL := /bin/bash
# only brings uv; the environment takes any Python >= 3.11 that uv finds
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
# of tests: as many as processors; the tests of Ray stay together with DIST=loadgroup
WORKERS ?= auto
DIST ?= worksteal
# Without stored bytecode every Python, and so every worker of Ray, compiles torch and all the others again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: sweep test lint setup
.DEFAULT_GOAL := sweep

# Never under `uv run`: Ray would build a copy of the environment at every start.
sweep: $(READY)
	$(RUN) sweeps/budget_sweep.py $(ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) --dist $(DIST) $(ARGS)

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff check --preview --select DOC402,DOC501 .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

setup: $(READY)

# uv comes from the PATH or, where there is none, into a small environment of its own.
$(READY): requirements.lock pyproject.toml
	@set -e; uv=$$(command -v uv || true); \
	if [ -z "$$uv" ]; then \
		if [ ! -x .uv/bin/uv ]; then \
			$(PYTHON) -m venv .uv || { rm -rf .uv; echo "setup: $(PYTHON) cannot make a virtual environment." \
				"Install Python 3.11 or newer with its venv and pip packages (Debian, Ubuntu: apt install" \
				"python3-venv), or put uv on the PATH, or name an interpreter that can: make setup PYTHON=..." >&2; exit 1; }; \
			.uv/bin/python -m pip install --quiet --disable-pip-version-check uv || { rm -rf .uv; \
				echo "setup: pip could not install uv; its reason is above" >&2; exit 1; }; \
		fi; \
		uv=.uv/bin/uv; \
	fi; \
	[ -x $(RUN) ] || "$$uv" venv --quiet --python '>=3.11' $(VENV); \
	"$$uv" pip install --quiet --python $(RUN) -r requirements.lock; \
	"$$uv" pip install --quiet --python $(RUN) --no-deps -e .
	@touch $@
