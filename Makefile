# `make help` lists the targets. Nothing is installed outside .venv, but for FUSE's system packages.

PYTHON ?= python3
BENCH ?= --delays 0 --runs 3 --peers rclone-full,vsicurl-tuned,curl
VENV ?= .venv
MNT ?= mlhub-demo
BIN = $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help demo demo-stop test check bench format clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(VENV)/.demo ## Mount the bundled sample on ./mlhub-demo (MNT= to choose) and show it
	@sh scripts/install_fuse.sh
	@$(BIN)/mlhubfs demo "$(MNT)"
	@echo "  (or: make demo-stop$(if $(filter-out mlhub-demo,$(MNT)), MNT='$(MNT)'))"

demo-stop: ## End the demo: nothing stays mounted, running or listening
	@if [ -d "$(MNT)" ]; then $(BIN)/mlhubfs umount "$(MNT)" && rmdir "$(MNT)" && echo "the demo on $(MNT) has ended"; \
	else echo "no demo on $(MNT)"; fi

test: $(VENV)/.test ## Run the whole test suite
	@sh scripts/install_fuse.sh --both
	@# The tests start the command by the hundred: it is not compiled anew each time.
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 4 --dist loadscope $(PYTEST)

check: $(VENV)/.check ## Run the linter, the type checker and the tests: what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) test

bench: $(VENV)/.test ## Measure reading beside its peers, as root, in minutes (BENCH= for other options)
	@sh scripts/install_fuse.sh
	@$(BIN)/python scripts/bench_read.py $(BENCH)

format: $(VENV)/.check ## Format the code, and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what the other targets made here; ends the demo first
	@if [ -x $(BIN)/mlhubfs ] && [ -d "$(MNT)" ]; then $(MAKE) demo-stop; fi
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "mlhubfs needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "install the package python3-venv (Debian, Ubuntu), then try again"; exit 1; }

# A stamp is older than pyproject.toml when the requirements may have changed; else nothing is
# installed, so that a second run needs no network.
$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "installing mlhubfs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[server]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.demo

$(VENV)/.check: pyproject.toml | $(VENV)/.test
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,check]'
	@touch $@
