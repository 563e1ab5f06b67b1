# SPDX-License-Identifier: Apache-2.0
# Start with `make demo` and `make test`. The first run sets up $(VENV).

# Python 3.10 to 3.12
PYTHON ?= python3
# kilted or jazzy, as in `make setup ROS_DISTRO=jazzy`. A sourced ROS does not decide.
ROS_DISTRO := kilted
VENV ?= .venv$(if $(filter-out kilted,$(ROS_DISTRO)),-$(ROS_DISTRO))
# Ignored if $(PYTHON) has a torch that reaches a GPU. TORCH_INDEX: one more package index, such as
# PyTorch's own for CPU builds.
TORCH ?= torch==2.13.0
TORCH_INDEX ?=

bin := $(VENV)/bin

# The environment has its own ROS 2. A sourced one would leak in.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH RMW_IMPLEMENTATION
ifdef AMENT_PREFIX_PATH
unexport LD_LIBRARY_PATH
endif
# Demo and tests must not reach other robots. Small models are slower on several threads.
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
export OMP_NUM_THREADS ?= 1

.PHONY: help
help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup:  ## ROS 2 from PyPI, torch and this package into $(VENV)
	@command -v $(PYTHON) >/dev/null || { echo "set-up: Python is missing: sudo apt install python3 python3-venv python3-dev build-essential" >&2; exit 1; }
	@$(PYTHON) tools/ros_from_pypi/setup_venv.py --venv $(VENV) --ros-distro $(ROS_DISTRO) --torch "$(TORCH)" --torch-index "$(TORCH_INDEX)"

.PHONY: demo
demo: setup  ## the sample bag through the nodes; results in out/demo
	$(bin)/vlm3 demo --out out/demo

.PHONY: lint
lint: setup  ## style, types and import contracts
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/lint-imports

# Processes that share the tests; see pytest_collection_modifyitems in test/conftest.py.
TEST_WORKERS ?= 2
pytest := $(bin)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadgroup --no-loadscope-reorder

.PHONY: test
test: setup lint  ## lint and the whole test suite, as CI runs it
	$(pytest)

.PHONY: test-quick
test-quick: setup lint  ## lint and the fast tests, for daily work
	$(pytest) -m "not slow"

.PHONY: soak
soak: setup  ## real nodes under load and every fault; results in out/soak
	PYTHONPATH=tools $(bin)/python -m soak --out out/soak

FUZZ_SECONDS ?= 120
.PHONY: fuzz
fuzz: setup  ## fuzz tests, guided by coverage (CPython 3.11); results in out/fuzz
	$(bin)/python -c 'import atheris' 2>/dev/null || $(bin)/python -m pip install -q atheris
	PYTHONPATH=test/support $(bin)/python test/fuzz/guided.py --seconds $(FUZZ_SECONDS) --out out/fuzz

# vLLM needs its own environment. VLLM: another vLLM's program.
VLLM_VENV ?= .venv-vllm
VLLM ?= $(abspath $(VLLM_VENV))/bin/vllm
.PHONY: setup-vllm
setup-vllm:  ## a vLLM for CPUs into $(VLLM_VENV)
	@$(PYTHON) tools/vllm_from_pypi/setup_vllm.py --venv $(VLLM_VENV) --torch-index "$(TORCH_INDEX)"

.PHONY: test-vllm
test-vllm: setup  ## test the remote engine with a real vLLM (make setup-vllm)
	@command -v $(VLLM) >/dev/null || { echo "$(VLLM) is missing: make setup-vllm" >&2; exit 1; }
	VLLM=$(VLLM) $(bin)/python -m pytest test/engines/test_served_answers.py test/engines/test_remote_uncertainty.py test/nodes/test_served_model.py

# One environment for each version, on top of $(VENV).
VERSIONS ?= .venv-versions
.PHONY: test-versions
test-versions: setup  ## test the oldest and the newest transformers
	$(bin)/python tools/transformers_versions.py --folder $(VERSIONS) --workers $(TEST_WORKERS)

# On a bare machine: any Python that has what this package needs.
GPU_PYTHON ?= $(if $(wildcard $(bin)/python),$(bin)/python,$(PYTHON))
.PHONY: gpu-check
gpu-check:  ## measure on a GPU in 8 minutes, offline; results in out/gpu
	PYTHONPATH=.:tools $(GPU_PYTHON) -m gpu_check --out out/gpu

.PHONY: clean
clean:  ## remove results and build folders, keep $(VENV)
	rm -rf out build install log *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
