# Every target creates what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# On Linux the public torch wheel brings several GB of CUDA; for the CPU build:
#   make demo PIP_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_OPTIONS ?=
# Two workers on two cores, one torch thread each: more threads than cores are slower.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(READY) ## create .venv with everything that the tests and the demo need

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or newer, or name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$$($(PYTHON) --version) is too old: zeta-bench needs Python 3.11 or newer; name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing: install it (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	@echo "Creating $(VENV); the first time this downloads torch and takes a few minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(PIP_OPTIONS) -c constraints.txt -e '.[dev]' 2>&1 \
	  | awk '/^ERROR|^error/ { print; bad = 1 } /^Collecting|^Installing|^Building/ { print "  " $$1 " " $$2; fflush() } END { exit bad }'
	@test -x $(BIN)/zeta-bench || { echo "The installation failed; see the lines above, then run make again."; exit 1; }
	@touch $@

demo: $(READY) ## train three variants for a few minutes, then show a table and a plot
	@$(BIN)/zeta-bench run mqar --protocol quick --attn vanilla --attn zeta-token --attn performer

test: lint ## what CI runs: style, types and every quick test
	$(TEST) -m "not slow and not gpu"

test-all: lint ## the same with the slow tests
	$(TEST)

lint: $(READY) ## style and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## put the code into the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and everything built; records and runs stay
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
