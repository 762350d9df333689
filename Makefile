# Every target prepares .venv first. `make` alone lists them.

PYTHON ?= python3
CUDA_HOME ?= /usr/local/cuda
# mmengine needs it still, and nobody at this keyboard can mend that.
export PYTHONWARNINGS ?= ignore:pkg_resources is deprecated:UserWarning

BIN := .venv/bin
CXX_FILES = $(wildcard $(foreach e,h cuh cpp cu,csrc/*.$e csrc/*/*.$e tests/*/*.$e))
CUDA_FILES := $(wildcard csrc/cuda/*.cu csrc/cuda/*.cpp)
CUDA_OBJECTS := $(CUDA_FILES:csrc/%=build/cuda-check/%.o)
NVCC := $(shell command -v nvcc || command -v $(CUDA_HOME)/bin/nvcc)

.PHONY: help env demo demo-det test lint format cuda-check clean

help:
	@echo 'make demo        train and test SegFormer-B1 with SAPA on made-up scenes'
	@echo 'make demo-det    the same for Faster R-CNN'
	@echo 'make test        lint, CUDA compile check and all tests'
	@echo 'make env         only prepare .venv, which the others do by themselves'
	@echo 'make lint        check style;  make format: mend it'
	@echo 'make cuda-check  compile csrc/cuda for sm_80 and sm_90, if nvcc is there'
	@echo 'make clean       remove .venv and everything built'
	@echo 'PYTHON=python3.11 make ... chooses the Python (3.10 to 3.12).'

env:
	@command -v '$(PYTHON)' >/dev/null || { echo "There is no" \
	  "$(PYTHON) here; Debian: apt install python3 python3-venv" \
	  "python3-dev, or name another: PYTHON=python3.11 make ..." >&2; exit 1; }
	@'$(PYTHON)' tools/setup_env.py

demo: env
	$(BIN)/python tools/demo.py seg

demo-det: env
	$(BIN)/python tools/demo.py det

test: env lint cuda-check
	$(BIN)/python -m pytest

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

ifeq ($(NVCC),)
cuda-check:
	@echo 'cuda-check: skipped, there is no nvcc on PATH or in $(CUDA_HOME)'
else
cuda-check: $(CUDA_OBJECTS)
	@$(BIN)/python tools/ptxas_report.py $(^:.o=.ptxas)
	@echo 'cuda-check: $(words $^) files compile for sm_80 and sm_90'
endif

# The macro stands for a header that a CPU build of PyTorch does not have.
build/cuda-check/%.o: csrc/% Makefile | env
	@mkdir -p $(@D)
	@echo 'nvcc -c $<'
	@torch=$$(echo .venv/lib/python3*/site-packages/torch/include) && \
	  $(NVCC) -c $< -o $@ -MD -MP -MF $(@:.o=.d) -O3 -t 2 -Xcompiler -fPIC \
	  -gencode arch=compute_80,code=sm_80 \
	  -gencode arch=compute_90,code=sm_90 \
	  -DC10_USING_CUSTOM_GENERATED_MACROS -Icsrc \
	  -isystem $$torch -isystem $$torch/torch/csrc/api/include \
	  -Xptxas -v 2>$(@:.o=.ptxas) || { cat $(@:.o=.ptxas) >&2; exit 1; }

-include $(CUDA_OBJECTS:.o=.d)

clean:
	rm -rf .venv/stamps .venv .venv.lock build dist *.egg-info mmsapa/_C*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
