# Every target builds .venv first if it has to; a second run finds it ready.
.PHONY: env demo test test-slow test-faults lint bench zoo
VENV := .venv/bin

# `make env MMCV_OPS=1` also compiles mmcv's own ops, which nothing here needs.
READY := .venv/.ready$(if $(filter-out 0,$(MMCV_OPS)),-mmcv-ops)
ifneq ($(READY),.venv/.ready)
.PHONY: $(READY) # torch may be another one by now; what was compiled for this one is found in uv's cache
endif
env: $(READY)
$(READY): setup.cfg pyproject.toml constraints.txt tools/setup_env.sh
	MMCV_OPS=$(or $(MMCV_OPS),0) bash tools/setup_env.sh
	@touch $@ .venv/.ready

demo: env
	PYTHON=$(CURDIR)/$(VENV)/python bash projects/shapes/demo.sh

# As many tests at a time as there are cores, four at most: every process loads all libraries.
PYTEST := $(VENV)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal
test: env
	$(PYTEST) -m "not slow and not fault and not gpu"

test-slow: env
	$(PYTEST) -m "slow and not gpu"

# Everything that can happen to a long run, with the real tools and two processes: docs/reliability.md
test-faults: env
	$(PYTEST) tests/faults -m "not gpu"

lint: env
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/codespell
	bash -n tools/*.sh projects/*/*.sh .ci/run .ci/with_torch

# Each family beside its peer, an hour on two idle cores; the files that docs/speed is rendered from.
# It stops where a form computes something else. Some suites only: projects/speed/run_suites.py --help
bench: env
	$(VENV)/python tools/build_kernels.py
	$(VENV)/python projects/speed/run_suites.py

zoo: env
	$(VENV)/python tools/update_zoo.py
