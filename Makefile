# Two commands set everything up on a machine that has Python 3.11, git and make:
#   make demo    run the main job          make test    run the tests
#   make fuzz INPUTS=3000000               inputs to the decoders and to recovery
#   make mutants                           break the source in each of the ways of docs/mutants.md: the tests must notice
#   make simulate SEEDS=1000 [FIRST=1]     the whole service on simulated clocks, disks and networks; SEED=n replays one
# Each makes .venv and installs into it when it is missing or when pyproject.toml has changed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: demo test test-long simulate check bench soak clean fuzz mutants

$(VENV)/.installed: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/logsvc demo $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 3 --dist worksteal -m 'not long' $(ARGS)

test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -m long $(ARGS)

INPUTS ?= 3000000

fuzz: $(VENV)/.installed
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS) $(ARGS)

mutants: $(VENV)/.installed
	$(BIN)/python -m tests.mutants $(ARGS)

simulate: $(VENV)/.installed
	@$(BIN)/python -m tests.simulation.simulate $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),200) --first $(or $(FIRST),1))

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Kills, power cuts and checked histories of real processes in turns, for so many minutes; what is found stays in a folder.
MINUTES ?= 10
soak: $(VENV)/.installed
	$(BIN)/python -m tests.crash.soak $(MINUTES) $(ARGS)

bench: $(VENV)/.installed
	$(BIN)/python -m tests.bench.compare $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
