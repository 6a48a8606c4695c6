# The pipeline, stage by stage. `make` runs all of it on two models; `make help` lists the rest.
#
#   make                      train, export, validate, bench, check, report
#   make all-models           the same on all ten reference models: some half an hour on two cores
#   make bench DEVICE=pixel-3a MODELS=simple_cnn
#
# A Makefile of your own can call `edgekit` in the same way: every stage is one command with an exit code.

PYTHON  ?= python3.11
VENV    ?= .venv
# Two small models: a first result within minutes. An empty value means all models.
MODELS  ?= linear simple_cnn
DEVICE  ?= raspberry-pi-4b
REPORT  ?= build/report
# Processes of the tests: the cores, and no more than the memory of a small machine bears.
JOBS    ?= $(shell nproc 2>/dev/null | awk '{print ($$1 > 4) ? 4 : $$1}')

BIN     := $(VENV)/bin
EDGEKIT := $(BIN)/edgekit
STAMP   := $(VENV)/.edgekit-installed

.DEFAULT_GOAL := all
.PHONY: all all-models help env lock train export validate bench check report matrix test test-exhaustive test-fast docs lint format bench-litert bench-devices bench-quantization bench-calibration bench-export bench-report bench-faults bench-seeds bench-memory bench-serve triton-client dist fuzz chaos zoo random-networks onnx-operators clean distclean
# Stages read what the one before wrote.
.NOTPARALLEL:

all: train export validate bench check report  ## The main job: every stage on MODELS (linear and simple_cnn)

all-models:  ## The main job on all ten reference models
	$(MAKE) all MODELS=

help:  ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

env: $(STAMP)  ## The environment in .venv, from requirements.lock

PIP     := $(BIN)/python -m pip --disable-pip-version-check
# Each file must have a hash of the lock, and nothing is installed that is not in it: `pip check` says what is missing.
INSTALL := $(PIP) install --quiet --require-hashes --no-deps --no-build-isolation

# The CPU build of torch is taken where pip is configured to find it, else PyPI's, which needs the packages of
# requirements-cuda.lock on Linux. An installed torch of the locked version is left alone, whichever build it is: see
# "CPU builds" in docs/start.md.
# What a release without wheels is built with comes first, from the lock too.
$(STAMP): requirements.lock requirements-cuda.lock requirements-cpu.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON); set PYTHON=, or: apt-get install python3.11 python3.11-venv" >&2; exit 3; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sed -n -e '/^setuptools==/,/[^\\]$$/p' -e '/^wheel==/,/[^\\]$$/p' requirements.lock > $(VENV)/build-tools.lock
	$(INSTALL) -r $(VENV)/build-tools.lock
	@$(PIP) show --quiet torch 2>/dev/null || $(INSTALL) -qq -r requirements-cpu.lock || echo "pip finds no CPU build of torch: taking PyPI's" >&2
	$(INSTALL) -r requirements.lock
	@if $(PIP) show torch | grep -q '^Requires:.*\(cuda\|nvidia\)'; then $(INSTALL) -r requirements-cuda.lock; fi
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	$(PIP) check
	@touch $@

lock:  ## Resolve the dependencies and write the lock files; UPGRADE=--upgrade takes newer versions
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet uv==0.13.9
	build/lock/bin/python tools/lock.py $(UPGRADE)
	rm -rf build/lock

train: $(STAMP)  ## Train the reference models in both frameworks
	$(EDGEKIT) train $(MODELS) --framework both

export: $(STAMP)  ## Convert them to every variant
	$(EDGEKIT) export $(MODELS)

validate: $(STAMP)  ## Compare every artifact with its source
	$(EDGEKIT) validate $(MODELS)

bench: $(STAMP)  ## Measure size, latency and memory under DEVICE
	$(EDGEKIT) bench $(MODELS) --device $(DEVICE)

check: $(STAMP)  ## Compare the figures with the budgets
	$(EDGEKIT) check $(MODELS)

report: $(STAMP)  ## Write the report and print its table
	@$(EDGEKIT) report $(MODELS) --format json --output $(REPORT).json
	@$(EDGEKIT) report $(MODELS) --format markdown --output $(REPORT).md
	@$(EDGEKIT) report $(MODELS) --format html --output $(REPORT).html
	@$(EDGEKIT) report $(MODELS)
	@echo "wrote $(REPORT).html, $(REPORT).md and $(REPORT).json"

matrix: train  ## Convert MODELS to every variant; validate each, or say why it cannot be made
	$(EDGEKIT) matrix $(MODELS)

test: $(STAMP)  ## The tests, in JOBS processes, without those that repeat a mechanism many times
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not exhaustive"

test-exhaustive: $(STAMP)  ## The other tests: all models, published networks, emulated cores, clusters, mutations
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m exhaustive

test-fast: $(STAMP)  ## The tests that train and convert nothing, for the work at hand
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not slow and not exhaustive"

docs: $(STAMP)  ## Build the documentation site into build/site; fails on broken links and on what is undocumented
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

lint: $(STAMP)  ## Format, rules, layers of imports, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

format: $(STAMP)  ## Format the code and apply the fixes of the linter
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-litert: $(STAMP)  ## edgekit's latency against LiteRT's own benchmark tool, side by side
	$(BIN)/python tests/benchmarks/litert_agreement.py

bench-quantization: $(STAMP)  ## Accuracy of int8 files of edgekit and of other quantizers, on networks that int8 hurts
	$(BIN)/python tests/benchmarks/quantization.py build/bench-quantization $(NETWORKS)

bench-calibration: $(STAMP)  ## Accuracy of int8 files calibrated with data, with synthetic samples and with noise
	test -d build/mobilenet_v2_small/keras/source || $(EDGEKIT) train mobilenet_v2_small --framework keras
	$(BIN)/python tests/benchmarks/calibration.py build/bench-calibration $(or $(NETWORKS),mobilenet_v2_small mobilenet_v2_relu6 mobilenet_v3 mobilenet_v2_wide)

bench-serve: $(STAMP)  ## `edgekit serve` beside MLServer and LitServe, on the same model
	test -d build/simple_cnn/torch/onnx-float32 || { $(EDGEKIT) train simple_cnn --framework torch && $(EDGEKIT) export simple_cnn --framework torch --target onnx:float32; }
	$(BIN)/python tests/benchmarks/serving.py build/bench-serve build/simple_cnn/torch/onnx-float32

# Beside the environment: it asks for other versions of packages than the rest, and its tests need no other.
triton-client: build/tools/tritonclient/.installed  ## Triton's client for the tests of `edgekit serve`, in a folder of its own

build/tools/tritonclient/.installed: tests/stages/serving/triton-client.lock $(STAMP)
	$(PIP) install --quiet --require-hashes --no-deps --upgrade --target $(@D) -r $<
	@touch $@

bench-devices: $(STAMP)  ## Every published timing beside the prediction of the shipped device profiles
	$(BIN)/python tests/benchmarks/devices.py

bench-export: $(STAMP)  ## The overhead of `edgekit export` over the converter calls that it makes
	$(BIN)/python tests/benchmarks/export_overhead.py

bench-report: $(STAMP)  ## How long the HTML report on 320 artifacts takes
	$(BIN)/python tests/benchmarks/report_time.py

bench-memory: $(STAMP)  ## The peak memory of export, validate and report on models of MEGABYTES (20 100 350)
	$(BIN)/python tests/benchmarks/memory_peaks.py $(MEGABYTES)

onnx-operators: $(STAMP)  ## How many of ONNX's own operator tests the bridge to PyTorch passes
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/onnx_operators.py

bench-faults: $(STAMP)  ## How many faults, planted into the ONNX artifacts of MODELS, `edgekit diff` locates
	$(BIN)/python tests/benchmarks/located_faults.py $(MODELS)

fuzz: $(STAMP)  ## Mutate every kind of file that edgekit reads, for SECONDS (600), from SEED (0); inputs of faults go to build/fuzz
	$(BIN)/python tests/benchmarks/fuzz.py $(or $(SECONDS),600) $(or $(SEED),0) $(FORMATS)

chaos: $(STAMP)  ## Disturb runs of a small project in fifteen ways, ROUNDS (4) times each, from SEED (0)
	$(BIN)/python tests/benchmarks/chaos.py $(or $(ROUNDS),4) $(or $(SEED),0) $(FAULTS)

zoo: $(STAMP)  ## Convert networks as other people write and save them to every target, into build/zoo; ALL=1 for all sizes
	$(BIN)/python tests/benchmarks/zoo.py build/zoo $(if $(ALL),--all) $(ZOO)

random-networks: $(STAMP)  ## Convert COUNT (500) random networks, from SEED (0), to every target and compare
	EDGEKIT_RANDOM_NETWORKS=$(or $(COUNT),500) $(BIN)/python -m pytest -q --hypothesis-seed=$(or $(SEED),0) -k random_network tests/conformance/test_random_networks.py

bench-seeds: $(STAMP)  ## Train MODELS (empty: all) in both frameworks from seeds 1, 2 and 3
	$(BIN)/python tests/benchmarks/seeds.py $(MODELS)

# In two folders, since a path or a time in one of the files would make them differ.
dist: $(STAMP)  ## Build the wheel and the sdist of the last commit into dist/, twice, and compare their bytes
	rm -rf build/dist dist
	@for n in 1 2; do mkdir -p build/dist/$$n/source && git archive HEAD | tar -x -C build/dist/$$n/source \
	  && (cd build/dist/$$n/source && env -u SOURCE_DATE_EPOCH $(abspath $(BIN))/python -P -m hatchling build -d ../files) || exit 1; done
	diff -r build/dist/1/files build/dist/2/files
	mv build/dist/1/files dist && rm -rf build/dist && cd dist && sha256sum * | tee SHA256SUMS

clean:  ## Remove what the stages wrote
	rm -rf build

distclean: clean  ## Remove the environment too
	rm -rf $(VENV)
