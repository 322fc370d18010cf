# Everything a newcomer or a scheduler needs; `make help` lists it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt

# Bytecode is kept from first use on: without it every process of the tests would compile torch and Ray anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo check test test-slow lowest schedulers drills bench counted gpu bench-guards start-up first-chip masks house model-card leave-one-out sampler-curve audit lint typecheck format clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable '.[run]'
	@touch $@

.venv/.installed-test: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable '.[test]'
	@touch .venv/.installed
	@mkdir -p .venv/names/difffusr && ln -sfn ../../../pipeline .venv/names/difffusr/pipeline && ln -sfn ../../../kernels .venv/names/difffusr/kernels
	@touch $@

install: .venv/.installed ## create .venv and install difffusr[run] into it

demo: .venv/.installed ## generate a small world, super-resolve it, compare with its truth (./demo-output)
	$(BIN)/difffusr demo

check: lint typecheck ## ruff, import rules and mypy: what fails within a minute

test: .venv/.installed-test ## the test suite: everything without Ray on all cores, then end to end
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --ignore tests/e2e
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal tests/e2e

test-slow: .venv/.installed-test ## what takes longer: the real archive, large networks
	$(BIN)/python -m pytest -m slow

lowest: pyproject.toml ## install the lowest version allowed of every dependency (.venv-lowest) and run the tests without Ray
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/lowest.py > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-lowest/lowest.txt --editable '.[test]'
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest --numprocesses auto --dist loadfile -p no:cacheprovider tests/kernels tests/pipeline

schedulers: ## the examples for Airflow and SkyPilot on the real ones, each in an environment of its own (.venv-airflow, .venv-skypilot)
	for tool in airflow skypilot; do test -x .venv-$$tool/bin/python || $(PYTHON) -m venv .venv-$$tool || exit; done
	.venv-airflow/bin/python -m pip install --quiet --disable-pip-version-check 'apache-airflow~=3.3' \
		'apache-airflow-providers-cncf-kubernetes~=10.25' jsonschema pytest pytest-timeout
	.venv-skypilot/bin/python -m pip install --quiet --disable-pip-version-check 'skypilot~=0.14' jsonschema pytest pytest-timeout
	AIRFLOW_HOME=$(CURDIR)/.venv-airflow/home .venv-airflow/bin/python -m pytest --noconftest -p no:cacheprovider tests/infra/test_schedulers.py
	.venv-skypilot/bin/python -m pytest --noconftest -p no:cacheprovider tests/infra/test_schedulers.py

drills: .venv/.installed-test ## kill, freeze and disturb runs and compare what comes out: tests/drills/report.md (KILLS=5: fewer rounds by time)
	$(BIN)/python -m pytest -m drill tests/drills

bench: .venv/.installed-test ## how fast everything is here: a table, and tests/bench/speed.json
	$(BIN)/python tests/bench

counted: .venv/.installed-test ## what a chip costs a GPU, counted without one: launches, bytes, operations (tests/bench/counted.json)
	$(BIN)/python tests/bench counted --json tests/bench/counted.json

GPU_PYTHON ?= $(or $(wildcard $(BIN)/python),$(shell command -v python3 || command -v python))
gpu: ## all that this version does on a GPU, in 8 minutes (GPU_PYTHON=… has torch; installs and fetches nothing): tests/bench/gpu.json
	$(GPU_PYTHON) tests/bench/gpu

bench-guards: .venv/.installed-test ## what must hold of speed and memory on any machine: ratios within one run
	$(BIN)/python -m pytest -m bench tests/bench

start-up: .venv/.installed-test ## seconds and megabytes until commands answer and workers are ready (OLD=folder compares a checkout)
	$(BIN)/python tests/bench/start_up.py $(if $(OLD),--old $(OLD))

first-chip: .venv/.installed-test ## seconds until a run stages its first chip, process by process, with a GPU that Ray is only told of
	$(BIN)/python tests/bench/first_chip.py --gpu $(if $(OLD),--old $(OLD))

masks: .venv/.installed-test ## how good masks of cloud and shadow are, and what they cost: tests/bench/masks-f1.json
	$(BIN)/python tests/bench/masks_f1.py

house: .venv/.installed-test ## draw the rooms and their imports: tests/house.svg
	$(BIN)/python tests/house.py

DATA ?= ../shared/data
model-card: .venv/.installed-test ## measure all that kernels/weights/README.md states, on the data below DATA
	$(BIN)/python -m difffusr.pipeline.weights.evaluation.card --data $(DATA)

leave-one-out: .venv/.installed-test ## the fusion network on places it has not seen, all in turn: tests/bench/leave-one-out.json (hours of a core)
	OMP_NUM_THREADS=1 $(BIN)/python -m difffusr.pipeline.weights.evaluation.leave_out --data $(DATA)

sampler-curve: .venv/.installed-test ## measure what fewer sampler steps cost: notebooks/sampler-curve.png and .json
	$(BIN)/python -m difffusr.pipeline.weights.evaluation.curve --data $(DATA)

audit: .venv/.installed-test ## known vulnerabilities of what is installed, by PyPI's advisories
	@$(BIN)/pip-audit --skip-editable --vulnerability-service pypi --progress-spinner off > .venv/audit.txt 2> .venv/audit.err; \
	code=$$?; cat .venv/audit.txt; \
	unknown=$$(grep -c 'could not be audited' .venv/audit.txt); \
	all=$$($(BIN)/python -m pip --disable-pip-version-check list --exclude-editable --format freeze | wc -l); \
	if [ $$code -ne 0 ] && [ ! -s .venv/audit.txt ]; then \
		tail -n 1 .venv/audit.err; \
		echo "audit: NOT DONE: PyPI's advisories cannot be reached from here; nothing is known about what is installed"; exit 1; \
	elif [ $$unknown -gt $$((all / 2)) ]; then \
		echo "audit: NOT DONE: the package index answers for only $$((all - unknown)) of $$all packages; run it where PyPI itself is reached"; exit 1; \
	elif [ $$code -ne 0 ]; then \
		echo "audit: FAILED: raise the versions listed above, here and in constraints.txt"; exit 1; \
	else \
		echo "audit: $$((all - unknown)) of $$all packages have no known vulnerability; of the other $$unknown nothing is known"; \
	fi

lint: .venv/.installed-test ## ruff, and the import rules of the architecture
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

typecheck: .venv/.installed-test ## mypy
	$(BIN)/mypy

format: .venv/.installed-test ## format the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean: ## remove the environment and everything the demo wrote
	rm -rf .venv .venv-lowest demo-output build dist *.egg-info
