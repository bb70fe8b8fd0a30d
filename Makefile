# Locum from a fresh clone, on Debian 12 as root:
#   make demo     set-up, then the story live in this terminal
#   make test     set-up, then every test
# Other commands: setup check docs bench mutants test-all test-kernel requirements wheel clean distclean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := sh packaging/debian/setup.sh
STAMPS := $(VENV)/stamps
TESTS ?= tests/sessions
MUTANTS ?=
# Tests in three processes, since those of the lab mostly wait; tests/conftest.py says which tests share one.
WORKERS := -n 3 --durations=10
PYTEST := $(BIN)/python -m pytest $(WORKERS)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CHECKED := $(wildcard src tests bench hatch_build.py)
TYPED := src/locum $(wildcard tests bench)

# Daemons and commands start hundreds of times in a test run; each reads bytecode instead of compiling its sources again.
export PYTHONDONTWRITEBYTECODE :=

.DELETE_ON_ERROR:
.PHONY: setup demo test check docs bench mutants test-all test-kernel requirements wheel clean distclean packages test-packages root-%

setup: $(STAMPS)/bpf

# Looked at every time (some milliseconds), hence order-only for what follows.
packages:
ifndef SKIP_PACKAGES
	@$(SETUP) packages
endif

test-packages:
ifndef SKIP_PACKAGES
	@$(SETUP) packages packages-test
endif

root-%:
	@$(SETUP) root $*

$(STAMPS)/dependencies: requirements/dev.txt | packages
	@$(SETUP) python $(PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)
	@echo "locum: installing Python packages into $(VENV)"
	@$(PIP) install --require-hashes --requirement requirements/dev.txt
	@mkdir -p $(STAMPS) && touch $@

# Editable, with the hatchling that is pinned above: nothing is fetched.
$(STAMPS)/editable: pyproject.toml $(wildcard hatch_build.py) $(STAMPS)/dependencies
	@$(PIP) install --no-build-isolation --no-deps --no-index --editable .
	@touch $@

$(STAMPS)/bpf: $(wildcard bpf/*.[ch]) src/locum/dataplane/build.py $(STAMPS)/editable
	@$(BIN)/python -m locum.dataplane.build
	@touch $@

demo: root-demo setup
	@$(BIN)/locum demo

test: root-test setup test-packages
	@$(BIN)/python -m tests.run $(WORKERS)

check: setup
	@$(BIN)/ruff format --check $(CHECKED)
	@$(BIN)/ruff check $(CHECKED)
	@$(BIN)/mypy --strict $(TYPED)

# Pages of docs/ that follow from the code.
docs: setup
	@$(BIN)/python -m tests.roles.state_diagrams

bench: root-bench setup
	@$(BIN)/python -m bench

# Each decision of bpf/ changed in turn, to see that a test notices: an hour or more. MUTANTS is a pattern of names, as "access.h".
mutants: root-test setup test-packages
	@$(BIN)/python -m tests.dataplane.mutants --match "$(MUTANTS)"

# As `test`, with other examples of every property than those that `test` always draws; then the measurements.
test-all: root-test-all check test-packages
	@HYPOTHESIS_PROFILE=explore $(PYTEST) --whole-captures -m "exhaustive or not exhaustive"
	@$(BIN)/python -m bench

# Tests on Debian 12's own kernel, Linux 6.1, in a virtual machine: make test-kernel TESTS=tests/sessions/tcp/test_states.py
test-kernel: root-test-kernel setup test-packages
	@$(BIN)/python -m tests.kernels $(TESTS)

# New pins. The outputs name packages and hashes only: no index, no address.
requirements: setup
	@cd requirements && for set in runtime dev; do \
	    ../$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	        --no-emit-index-url --no-header --upgrade $$set.in --output-file $$set.txt || exit 1; done
	@! grep -nE '://|^-' requirements/*.txt

wheel: setup
	@$(BIN)/python -m hatchling build --target wheel

clean:
	rm -rf build dist demo-output lab-output bench/report.json .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f src/locum/dataplane/objects/*.o $(STAMPS)/bpf
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV)
