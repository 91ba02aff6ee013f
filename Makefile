# Kinoloom's commands. `make demo` and `make test` need only Python 3.11 to 3.13, git and make:
# both build their own virtual environment in .venv and install nothing a second time.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
# Environment creation and installation share one .venv, so never two at once.
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
TEST_EXTRAS := all,dev
# Two at a time, each file in one process, since its tests share what they start.
PYTEST_FLAGS ?= -n 2 --dist loadfile --no-loadscope-reorder
PROMPT ?= a red ball rolling to the right on green grass

# The first of these that runs; 3.11 is what constraints.txt is tested with. Or: make demo PYTHON=...
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
		2> /dev/null && echo "$$name" && break; done)

# A stamp is named after what was installed and where, so that a changed requirement, a new
# constraint or a moved checkout installs again, and nothing else does. It is written last: an
# interrupted installation leaves none.
KEY := $(shell { cat pyproject.toml constraints.txt; pwd; echo $(TEST_EXTRAS); } | cksum | tr ' ' '-')

# Pip reads these; relative, since an environment variable of pip's is split at spaces. Newer pips
# want the constraints of build environments named apart.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# $(call install,extras): what pip downloads is shown, the rest goes to a log that a failure prints.
# The environment is about to change, so the stamps of what it held before no longer hold.
define install
	rm -f $(STAMPS)/demo-* $(STAMPS)/test-*
	echo "Installing kinoloom[$(1)] into $(VENV): the first time takes some minutes."
	$(BIN)/python -m pip install -e '.[$(1)]' 2>&1 | tee $(VENV)/install.log \
		| { grep --line-buffered -E '^ *(Downloading|Using cached|Installing collected)' || true; } \
		|| { tail -n 40 $(VENV)/install.log >&2; \
			echo "The installation failed; all of it is in $(VENV)/install.log." >&2; exit 1; }
endef

.PHONY: help
help:  ## Show these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: $(STAMPS)/demo-$(KEY)  ## Make a real video from a prompt and print where it is (PROMPT=...)
	@$(BIN)/kinoloom generate $(call quoted,$(PROMPT))

.PHONY: test
test: $(STAMPS)/test-$(KEY)  ## Run every check and every test (PYTEST_FLAGS=...)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

.PHONY: bench
bench: $(STAMPS)/test-$(KEY)  ## Measure how fast it is, and write docs/benchmarks.md
	$(BIN)/python -m benchmarks

.PHONY: chaos
chaos: $(STAMPS)/test-$(KEY)  ## Kill servers, workers and children at random, and count (KILLS=200)
	$(BIN)/python scripts/chaos.py --kills $(or $(KILLS),200)

.PHONY: install
install: $(STAMPS)/test-$(KEY)  ## Install for development: .venv with the local and dev extras

.PHONY: constraints
constraints: $(STAMPS)/venv  ## Resolve every version again and rewrite constraints.txt
	env -u PIP_CONSTRAINT -u PIP_BUILD_CONSTRAINT $(BIN)/python scripts/constraints.py

.PHONY: clean
clean:  ## Remove .venv, caches and build results; never a video or a training run
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests scripts -type d -name __pycache__ -prune -exec rm -rf {} +

$(STAMPS)/demo-$(KEY): $(STAMPS)/venv
	@$(call install,local)
	@touch $@

# What the tests need holds all that the demo needs.
$(STAMPS)/test-$(KEY): $(STAMPS)/venv
	@$(call install,$(TEST_EXTRAS))
	@touch $@ $(STAMPS)/demo-$(KEY)

# Debian ships Python without ensurepip, which python3-venv brings.
$(STAMPS)/venv:
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11, 3.12 or 3.13 was found. On Debian: apt-get install python3 python3-venv." >&2; \
		echo "If it is elsewhere: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; \
	fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2> /dev/null; then \
		package="$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
			echo "Installing $$package, which Debian keeps apart from Python."; \
			apt-get update -qq; \
			DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$$package"; \
		else \
			echo "This Python cannot create virtual environments. Please run:" >&2; \
			echo "  sudo apt-get update && sudo apt-get install $$package" >&2; exit 1; \
		fi; \
	fi
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS)
	@touch $@

# A text as one word of the shell, whatever quotes it holds.
quoted = '$(subst ','\'',$(1))'
