# Every target creates what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOG := $(VENV)/install.log
# On Linux the public torch wheel brings several GB of CUDA; for the CPU build:
#   make demo PIP_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_OPTIONS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check
# torch's threads wait by spinning: on cores that are busy with something else two of them take ten times as long as one.
ONE_THREAD := OMP_NUM_THREADS=1
# make reproduce-runs: which protocol, how many runs at a time, how many seeds (left out: as the files say), where to.
BUDGET ?= small
JOBS ?= 1
SEEDS ?=
RUNS ?= runs/reproduce-$(BUDGET)
# SWEEPS="c1-width c2-dk" for some of them. Under matched each runs at the protocol of its own file.
SWEEPS := c1-width c2-dk c3-score c9-k attribution ablations c5-lra c6-wikitext attribution-wikitext
# Pages with numbers that are filled in from records.
PAGES := $(shell grep -l -e '<!--/n-->' -e '<!--/table-->' README.md results/README.md docs/*.md)
TEST := $(ONE_THREAD) $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo reproduce reproduce-runs test test-all lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(READY) ## create .venv with everything that the tests and the demo need

# Of pip's output it shows the names of the packages as they come, with the size of what is large, and any error.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or newer, or name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$$($(PYTHON) --version 2>&1) is too old: zeta-bench needs Python 3.11 or newer; name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing: install it (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	@if test -d $(VENV); then echo "Bringing $(VENV) up to date."; else echo "Creating $(VENV): this downloads torch and takes minutes, once."; fi
	@$(PYTHON) -m venv $(VENV) || { echo "$(VENV) could not be created; see the lines above."; exit 1; }
	@{ $(PIP) install --progress-bar off $(PIP_OPTIONS) -c constraints.txt -e '.[dev]' 2>&1; echo "pip ended with $$?"; } | tee $(LOG) | awk ' \
	  BEGIN                            { printf "collecting"; fflush() } \
	  /^Collecting /                   { sub(/[^A-Za-z0-9_.-].*/, "", $$2); printf " %s", $$2; fflush() } \
	  /^ *Downloading .*[0-9] [MG]B\)/ { printf " %s %s", $$(NF - 1), $$NF; fflush() } \
	  /^WARNING: Retrying/ && !told++  { printf "\nno answer from the package index, trying again"; fflush() } \
	  /^Installing collected/          { printf "\ninstalling all of them, in a minute or two"; fflush() } \
	  /^ *ERROR: |^no such option/ && !bad++ { sub(/^ */, ""); printf "\n%s", $$0; fflush() } \
	  /^pip ended with /               { ended = $$4 == 0 } \
	  END                              { print ""; exit !ended }' \
	  || { echo "The packages could not be installed: check the network, see $(LOG), then run make again."; exit 1; }
	@touch $@

demo: $(READY) ## train three variants for a few minutes, then show a table and a plot
	@$(ONE_THREAD) $(BIN)/zeta-bench run mqar --protocol quick --attn vanilla --attn zeta-token:k=8 --attn performer
	@echo "For zeta-bench as a command of its own, first type: source $(BIN)/activate"

reproduce: $(READY) ## the published records → every table, figure and number of results/ and the pages; a minute on a CPU
	@$(BIN)/zeta-bench report --records results/records --to results
	@$(if $(PAGES),$(BIN)/zeta-bench report --records results/records $(PAGES:%=--fill %))

reproduce-runs: $(READY) ## train what the claims need: BUDGET=quick|small|matched [JOBS=4] [SEEDS=1]; hours, see README
	@trap 'exit 1' INT; failed=0; \
	for sweep in $(SWEEPS); do \
	  $(BIN)/zeta-bench sweep results/sweeps/$$sweep.toml $(if $(filter matched,$(BUDGET)),,--protocol $(BUDGET)) --jobs $(JOBS) $(if $(SEEDS),--seeds $(SEEDS)) \
	    --records $(RUNS) || failed=1; \
	done; \
	$(BIN)/zeta-bench report --records $(RUNS) --to $(RUNS)/report || failed=1; exit $$failed

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
