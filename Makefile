# Every target builds .venv first if it has to; a second run finds it ready.
.PHONY: env demo test test-slow lint bench zoo
VENV := .venv/bin

env: .venv/.ready
.venv/.ready: setup.cfg pyproject.toml constraints.txt tools/setup_env.sh
	bash tools/setup_env.sh
	@touch $@

demo: env
	PYTHON=$(CURDIR)/$(VENV)/python bash projects/shapes/demo.sh

# As many tests at a time as there are cores, four at most: every process loads all libraries.
PYTEST := $(VENV)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal
test: env
	$(PYTEST) -m "not slow and not gpu"

test-slow: env
	$(PYTEST) -m "slow and not gpu"

lint: env
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/codespell
	bash -n tools/*.sh projects/*/*.sh .ci/run

# Each of our models beside the published structure; some minutes. More: tools/benchmark.py --help
BENCH := $(VENV)/python tools/benchmark.py
bench: env
	$(BENCH) repmlpnet-t224 repmlpnet-b224 --size 224x224 --batch 8 --dtype float32 bfloat16
	$(BENCH) repmlpnet-t224 repmlpnet-b224 --size 448x672 --batch 1 --dtype float32 bfloat16
	$(BENCH) repmlpnet-t224 --size 448x672 --batch 2 --mode train

zoo: env
	$(VENV)/python tools/update_zoo.py
