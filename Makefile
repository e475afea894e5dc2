# `make demo` and `make test` set up everything they need in .venv, from a bare system with git, make and python3.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRAIN := .venv-train
ROV_DATA ?= ../shared/data
export ROV_DATA
# Tests start many processes: each would compile all of rov again.
unexport PYTHONDONTWRITEBYTECODE
OUT ?= out
WORLD ?= pool
SEED ?= 0

.PHONY: demo test test-in-order test-daemon test-clock test-others test-patient test-train check clean policy

# The daemon's stages drive a simulated rover through a course: the servo to a buoy, the learned policy through a gate.
# LIVE=1: the real daemon against the live simulator. TASK=transit: the policy alone. VIDEO=your.mp4: every stage on your
# own video instead. Results go to $(OUT).
demo: $(VENV)/ready
ifneq ($(LIVE),)
	$(BIN)/python -m sim run $(WORLD) --seed $(SEED) --course --out "$(OUT)" --set perception.rate_hz=8 $(if $(TASK),--task $(TASK))
	@echo "the dive is in $(OUT); open it in Foxglove, or: $(BIN)/rov replay $(OUT)/*.mcap --out $(OUT)"
else
ifneq ($(VIDEO),)
	$(BIN)/rov replay "$(VIDEO)" --out "$(OUT)"
else
	$(BIN)/python -m sim dive $(WORLD) --seed $(SEED) --out "$(OUT)" --set perception.rate_hz=10 $(if $(TASK),--task $(TASK))
endif
	@echo "open $(OUT)/report.html, $(OUT)/overlay.mp4, or $(OUT)/dive.mcap in Foxglove"
endif

# Trains encoder, teacher and policy by models/policy/recipe.toml and installs what they become. Goes on after an
# interruption; POLICY="--smoke" or "--from-stage dagger" are passed on.
policy: $(VENV)/ready
	$(BIN)/python -m models.train_policy --out runs/policy --install $(POLICY)

# First what keeps no deadlines, on two processors. Then what does, and mostly waits: tests of the whole daemon one by one,
# the smaller ones beside them. Three groups at once make deadlines fail, and so do two of whole daemons. What only
# computes takes what these leave idle, from the first to the last. All groups run, even if one fails.
test: $(VENV)/ready
	@$(MAKE) --no-print-directory --keep-going --jobs 3 test-in-order test-patient

test-in-order: $(VENV)/ready
	@$(MAKE) --no-print-directory test-others; first=$$?; \
	$(MAKE) --no-print-directory --keep-going test-daemon test-clock && exit $$first

# Those with the live simulator come last, when the smaller ones are done: it keeps real time.
test-daemon: $(VENV)/ready
	$(BIN)/python -m pytest -q $(AGAIN) -m daemon $$(grep -rl --include="test_*.py" mark.daemon tests | sort)

test-clock: $(VENV)/ready
	$(BIN)/python -m pytest -q $(AGAIN) -m "clock and not daemon" $$(grep -rl --include="test_*.py" mark.clock tests | sort)

# From the first file to the last: else those with few tests, which are long ones, come when the other processor is done.
test-others: $(VENV)/ready
	$(BIN)/python -m pytest -q -m "not clock and not patient" -n 2 --dist loadfile --no-loadscope-reorder

# At a priority below all others', which never wait for it. In the same order.
test-patient: $(VENV)/ready
	chrt --idle 0 $(BIN)/python -m pytest -q -m patient -n 2 --dist loadfile --no-loadscope-reorder \
	  $$(grep -rl --include="test_*.py" mark.patient tests | sort)

# What needs torchvision and scikit-learn, in an environment of its own (6 GB): they want another torch than the vehicle's.
test-train: $(TRAIN)/ready
	$(TRAIN)/bin/python -m pytest -q tests/train

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

clean:
	rm -rf $(VENV) $(TRAIN) out runs dist *.egg-info

# A python3 that rov runs on, or a sentence that says what is missing.
define CHECK_PYTHON
@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; install python3 (3.10 to 3.13) with venv" >&2; exit 2; }
@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
  || { echo "rov needs Python 3.10 to 3.13; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
endef

$(VENV)/ready: pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip uninstall -qq -y rov  # the name of versions before 0.2
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	@touch $@

$(TRAIN)/ready: pyproject.toml constraints.txt constraints-train.txt
	$(CHECK_PYTHON)
	$(PYTHON) -m venv $(TRAIN)
	grep -v '^torch==' constraints.txt > $(TRAIN)/constraints.txt
	$(TRAIN)/bin/pip install --disable-pip-version-check -q -c $(TRAIN)/constraints.txt -c constraints-train.txt -e '.[dev,train]'
	@touch $@
