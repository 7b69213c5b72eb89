# Every target sets up .venv from pinned requirements by itself.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python

# Compiler processes at a time: each takes up to 1 GB.
export MAX_JOBS ?= $(shell nproc)
# One architecture, and that of a GPU which is there: a third of the time of what `make wheel` ships.
export TORCH_CUDA_ARCH_LIST ?= 9.0

NATIVE := setup.py pyproject.toml $(shell find csrc -type f)

.PHONY: help bench peers bench-full bench-cpu bench-micro page test test-full gpu lint format wheel readme report build clean

help:
	@echo "make bench       classify photographs and compare with stock PyTorch across phi (6 minutes); ends with the page"
	@echo "make bench-full  B0 to B7 with every peer (an hour)"
	@echo "make bench-cpu   the networks and peers of the CPU targets, and which are met: what the README quotes (30 minutes)"
	@echo "make peers       installs the peers that make bench leaves out: ONNX Runtime and OpenVINO"
	@echo "make bench-micro host overhead per call, single CPU kernels and imports, with pytest-benchmark"
	@echo "                python -m benchmarks also has latency, memory, ops, blocks, profile, compare"
	@echo "make page        one HTML page, and its plots, of the committed results (nothing is measured)"
	@echo "make test        the tests; make test-full adds the slow ones"
	@echo "make lint        ruff and clang-format; make format applies them"
	@echo "make wheel       builds a wheel, installs it in a bare environment and classifies a photograph"
	@echo "make readme      regenerates the README's tables and pictures from the committed results"
	@echo "make gpu         on a machine with a GPU: builds, tests, sanitizes and measures with the Python on PATH"
	@echo "make report      compiles every GPU kernel for every architecture and writes docs/resources"

bench: build
	$(RUN) -m benchmarks

bench-full: build peers
	$(RUN) -m benchmarks models --full

# A machine's own folder, as bench-full's; resumes.
bench-cpu: build peers
	$(RUN) -m benchmarks models --suite cpu

# ONNX Runtime and OpenVINO: peers that nothing else needs.
peers: $(VENV)/peers

bench-micro: build
	$(RUN) -m pytest benchmarks/micro --benchmark-only --benchmark-autosave

# Into benchmarks/results/report; nothing is measured.
page: build
	$(RUN) -m benchmarks report

# One thread each, and as many at a time as there are cores: most of it is Python, which interprets GPU kernels.
TESTS := OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(MAX_JOBS)

test: build
	$(TESTS) -m "not slow and not gpu"

test-full: build lint
	$(TESTS) -m "not gpu"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(find csrc tests benchmarks -name '*.h' -o -name '*.inl' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(find csrc tests benchmarks -name '*.h' -o -name '*.inl' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')

readme: build
	$(RUN) -m benchmarks readme

# No .venv and no network: the machine's own PyTorch. GPU="--step test --step ops" chooses steps.
gpu:
	$(PYTHON) -m benchmarks.gpu $(GPU)

report: build
	$(RUN) -m benchmarks resources

wheel: build
	rm -rf build/wheel && TORCH_CUDA_ARCH_LIST="8.0;9.0+PTX" $(RUN) -m pip wheel -q --no-build-isolation --no-deps -w build/wheel .
	$(RUN) -m tests.build.bare_wheel build/wheel/*.whl

build: $(VENV)/built

$(VENV)/installed: requirements/build.txt requirements/dev.txt requirements/no-isolation.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -r requirements/no-isolation.txt
	touch $@

$(VENV)/peers: $(VENV)/installed requirements/peers.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/peers.txt
	touch $@

# An editable install: Python changes need no rebuild, a change under csrc/ rebuilds what depends on it.
$(VENV)/built: $(VENV)/installed $(NATIVE)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

clean:
	rm -rf build dist *.egg-info effnet_fast/*.so $(VENV)/built
