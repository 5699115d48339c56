# Chores. Each target installs what it needs into .venv first; PYTHON picks the interpreter.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin
CSRC := $(shell find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.DEFAULT_GOAL := help
.PHONY: help demo finetune-demo compare test test-slow lint format wheel check-wheel clean

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.demo  ## generate the demo videos, train, test and predict (10 minutes on two cores, after the installation)
	$(RUN)/python tools/demo.py

finetune-demo: $(VENV)/.demo  ## pre-train and fine-tune on the demo videos, beside training from scratch
	$(RUN)/python tools/finetune_demo.py

compare: $(VENV)/.demo  ## train with max, average and soft pooling, five seeds each, and compare
	$(RUN)/python -m vidpool.analysis.compare_poolings

test: $(VENV)/.dev  ## the usual tests, a process for each of up to four CPUs
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.dev  ## the long tests
	$(RUN)/python -m pytest -m slow

lint: $(VENV)/.dev  ## formatting, lint and types
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/clang-format --dry-run --Werror $(CSRC)

format: $(VENV)/.dev  ## format the code and mend what lint can mend
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .
	$(RUN)/clang-format -i $(CSRC)

wheel: $(VENV)/.dev  ## one wheel with CPU and CUDA kernels, into dist (needs nvcc)
	$(RUN)/python tools/make_wheel.py

check-wheel: $(VENV)/.dev  ## test that wheel in clean environments with old and new PyTorch
	$(RUN)/python tools/check_wheel.py

clean:  ## remove the virtual environment and caches, but neither data nor runs
	rm -rf $(VENV) build vidpool/ops/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

# .demo and .dev are stamps of what the virtual environment holds; a change of what is built renews them
$(VENV)/.%: pyproject.toml setup.py $(CSRC)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "vidpool needs Python 3.10 or newer: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(RUN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	# first, since the kernels are built against it; together, since pip would fetch another torch
	$(RUN)/python -m pip install --quiet 'torch>=2.11' 'torchvision>=0.26'
	$(RUN)/python -m pip install --quiet --editable '.[$*]'
	touch $@
