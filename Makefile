# make demo  – install, start everything, show a plan and a run, keep serving
# make test  – lint, types, import contracts and all tests (what CI runs)
# make bench – benchmarks against their peers
# make chaos – kill -9 at random under mixed runs, then check the books (8 minutes)
# make mirror – 2,000 runs driven in Prefect, its events cut, our database away, then compare (10 minutes)
# make lint  – ruff, mypy, import contracts

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test bench chaos mirror lint install up clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; name one with PYTHON=..."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/taskcenter demo

up: $(STAMP)
	@$(BIN)/taskcenter up

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Three lanes side by side: two with servers, which mostly wait (the shorter one ends with two minutes of chaos), and
# one that gives way to them. Then, with nothing beside them, the tests that have a bar in seconds.
SIDE := $(wildcard $(addprefix tests/integration/test_,admission_gate.py byte_grep.py cancel.py hold_and_limit.py \
	priority.py run_output.py backup.py data*.py schema_snapshot.py sql_script.py))
PYTEST = $(BIN)/python -m pytest
test: lint
	@nice -n 10 $(PYTEST) -m 'not alone' tests/fundamentals tests/unit tests/properties tests/contracts > .others.log 2>&1 & \
	others=$$!; \
	nice -n 5 $(PYTEST) -m 'not alone' $(SIDE) > .side.log 2>&1 & \
	side=$$!; \
	$(PYTEST) -m 'not alone' tests/integration tests/acceptance $(SIDE:%=--ignore=%); all=$$?; \
	$(BIN)/python -m tests.chaos.chaos --seconds 80 --runs 60 || all=1; \
	wait $$side || all=1; wait $$others || all=1; cat .side.log .others.log; \
	sync; $(PYTEST) -m alone tests/unit tests/integration || all=1; \
	exit $$all

bench: $(STAMP)
	$(BIN)/python -m benchmarks.composite
	$(BIN)/python -m benchmarks.large
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.slots
	$(BIN)/python -m benchmarks.data
	$(BIN)/python -m benchmarks.redaction
	$(BIN)/python -m benchmarks.scheduling
	$(BIN)/python -m benchmarks.audit
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.throughput

chaos: $(STAMP)
	$(BIN)/python -m tests.chaos.chaos

mirror: $(STAMP)
	$(BIN)/python -m tests.chaos.mirror

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
