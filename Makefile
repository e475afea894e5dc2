# `make demo` and `make test` set up everything they need in .venv, from a bare system with git, make and python3.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROV_DATA ?= ../shared/data
export ROV_DATA
VIDEO ?= $(ROV_DATA)/video/transdec_B_5fps.mp4
OUT ?= out

.PHONY: demo test check clean

demo: $(VENV)/ready
	@if [ ! -f "$(VIDEO)" ]; then \
	  echo "no video at $(VIDEO): run 'make demo VIDEO=path/to/your.mp4', or set ROV_DATA to the folder that holds video/" >&2; \
	  exit 2; fi
	$(BIN)/rov replay "$(VIDEO)" --out "$(OUT)"
	@echo "open $(OUT)/report.html, $(OUT)/overlay.mp4, or $(OUT)/dive.mcap in Foxglove"

test: $(VENV)/ready
	$(BIN)/python -m pytest

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

clean:
	rm -rf $(VENV) out runs dist *.egg-info

$(VENV)/ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there; install python3 (3.10 to 3.13) with venv" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
	  || { echo "rov wants Python 3.10 to 3.13; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	@touch $@
