# Every target builds .venv first if it has to; a second run finds it ready.
.PHONY: env demo test test-slow lint bench zoo
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
	$(PYTEST) -m "not slow and not gpu"

test-slow: env
	$(PYTEST) -m "slow and not gpu"

lint: env
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/codespell
	bash -n tools/*.sh projects/*/*.sh .ci/run .ci/with_torch

# Each family beside its peer, an hour on two idle cores; the files that the README's plot and tables
# are rendered from. It stops where a form computes something else. More: --help
BENCH := $(VENV)/python tools/benchmark.py
WHOLE := $(VENV)/python tools/benchmark_models.py
SPEED := docs/speed
WAVE := wavemlp-t wavemlp-s wavemlp-m
TWO := --dtype float32 bfloat16
bench: env
	mkdir -p $(SPEED)
	$(VENV)/python tools/build_kernels.py
	$(BENCH) $(WAVE) --size 224x224@8 $(TWO) --csv $(SPEED)/wavemlp_224.csv
	$(BENCH) repmlpnet-t224 repmlpnet-b224 posmlp-t vip-s7 eamlp-7 gmlp-s16 resmlp-s12 mlp_mixer-s16 \
		--size 224x224@8 $(TWO) --csv $(SPEED)/inference_224.csv
	$(BENCH) $(WAVE) repmlpnet-t256 --size 512x512@1 $(TWO) --csv $(SPEED)/inference_512.csv
	$(BENCH) wavemlp-t --size 800x1344@1 $(TWO) --csv $(SPEED)/inference_800.csv
	$(BENCH) wavemlp-t --size 224x224@8 512x512@1 $(TWO) --contenders --csv $(SPEED)/contenders.csv
	$(BENCH) wavemlp-t wavemlp-s repmlpnet-t224 posmlp-t vip-s7 gmlp-s16 --size 224x224@4 --mode train --repeats 5 \
		--csv $(SPEED)/train_224.csv
	$(WHOLE) configs/wavemlp/wavemlp-s_retinanet_1x_coco.py --size 800x1333 --repeats 5 --csv $(SPEED)/retinanet.csv
	$(WHOLE) configs/wavemlp/wavemlp-s_upernet_160k_ade20k-512x512.py --size 512x1024 --repeats 5 \
		--csv $(SPEED)/upernet.csv
	$(BENCH) gmlp-s16 vip-s7 wavemlp-t posmlp-t --size 224x224@8 --compile --repeats 5 --csv $(SPEED)/compiled.csv
	$(VENV)/python tools/plot_speed.py $(SPEED)/*.csv $(SPEED)/speed.png --readme $(SPEED)/README.md

zoo: env
	$(VENV)/python tools/update_zoo.py
