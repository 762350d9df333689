# Every target sets up .venv first. `make` alone lists them.

PYTHON ?= python3
CUDA_HOME ?= /usr/local/cuda
# mmengine still uses it.
export PYTHONWARNINGS ?= ignore:pkg_resources is deprecated:UserWarning

BIN := .venv/bin
CXX_FILES = $(wildcard $(foreach e,h inc cuh cpp cu,csrc/*.$e csrc/*/*.$e tests/*/*.$e))
# Such as CUDA_ARCHS='75 86 89 120'.
CUDA_ARCHS ?= 80 90
CUDA_FILES := $(wildcard csrc/cuda/*.cu csrc/cuda/*.cpp)
CUDA_BUILD := build/cuda-check/$(shell echo $(CUDA_ARCHS) | tr ' ' -)
CUDA_OBJECTS := $(CUDA_FILES:csrc/%=$(CUDA_BUILD)/%.o)
NVCC := $(shell command -v nvcc || command -v $(CUDA_HOME)/bin/nvcc)

.PHONY: help env demo demo-det demo-depth demo-matting test test-matrix \
  interrupt fuzz lint format docs cuda-check benchmark tables compare pictures \
  gpu gpu-test gpu-sanitize gpu-memcheck gpu-racecheck gpu-synccheck \
  gpu-benchmark gpu-train gpu-train-seg gpu-train-det gpu-data clean

help:
	@echo 'make demo          train and test SegFormer-B1 with SAPA on drawn scenes'
	@echo 'make demo-det      the same for Faster R-CNN'
	@echo 'make demo-depth    the same for BTS, which predicts depth'
	@echo 'make demo-matting  the same for A2U matting'
	@echo 'make test          style, CUDA compile check, documentation, all tests'
	@echo 'make test-matrix ROW=...  the tests with another PyTorch or Python'
	@echo 'make interrupt     stop make demo in every step, and check that it resumes'
	@echo 'make fuzz          ten thousand random calls of the operators'
	@echo 'make env           only set up .venv, which the others do themselves'
	@echo 'make lint          check style;  make format: fix it'
	@echo 'make docs          build the documentation, build/docs/index.html'
	@echo 'make cuda-check    compile csrc/cuda for sm_80 and sm_90, if nvcc is found;'
	@echo '                   CUDA_ARCHS="75 86 89 120" for others'
	@echo 'make benchmark     time operators, layers, models; data, plots and pages'
	@echo 'make tables        count parameters and FLOPs beside the published ones'
	@echo 'make compare       train a small model with each upsampler, and compare'
	@echo 'make pictures      train what the documentation shows, and draw it'
	@echo 'make gpu           on a GPU: tests, compute-sanitizer, benchmark, training'
	@echo 'make clean         remove .venv and everything built'
	@echo 'PYTHON=python3.11 make ... chooses the Python (3.10 to 3.14);'
	@echo 'STACK=onedl make ... the maintained forks of the libraries, the default'
	@echo 'from 3.13 on.'

env:
	@command -v '$(PYTHON)' >/dev/null || { echo "There is no" \
	  "$(PYTHON) here; Debian: apt install python3 python3-venv" \
	  "python3-dev, or name another: PYTHON=python3.11 make ..." >&2; exit 1; }
	@'$(PYTHON)' tools/setup_env.py

demo: env
	$(BIN)/python tools/demo.py seg

demo-det: env
	$(BIN)/python tools/demo.py det

demo-depth: env
	$(BIN)/python tools/demo.py depth

demo-matting: env
	$(BIN)/python tools/demo.py matting

# A worker takes up to 2 GB.
test: env lint cuda-check docs
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

interrupt:
	'$(PYTHON)' tests/interrupt_demo.py

# Such as ROW=torch-2.4; without a row it lists them.
test-matrix:
	'$(PYTHON)' tools/test_matrix.py $(ROW)

fuzz: env
	$(BIN)/python -m tests.ops.fuzz --cases 10000 --seed $(or $(SEED),0)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

# The variable silences an advertisement.
docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

ifeq ($(NVCC),)
cuda-check:
	@echo 'cuda-check: skipped, there is no nvcc on PATH or in $(CUDA_HOME)'
else
cuda-check: $(CUDA_OBJECTS)
	@$(BIN)/python tools/ptxas_report.py $(^:.o=.ptxas)
	@echo 'cuda-check: $(words $^) files compile for $(CUDA_ARCHS:%=sm_%)'
endif

# The macro stands for a header that a CPU build of PyTorch does not have.
$(CUDA_BUILD)/%.o: csrc/% Makefile | env
	@mkdir -p $(@D)
	@echo 'nvcc -c $<'
	@torch=$$(echo .venv/lib/python3*/site-packages/torch/include) && \
	  $(NVCC) -c $< -o $@.part -MD -MP -MT $@ -MF $(@:.o=.d) -O3 -t 2 -Xcompiler -fPIC \
	  $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$a,code=sm_$a) \
	  -DC10_USING_CUSTOM_GENERATED_MACROS -Icsrc \
	  -isystem $$torch -isystem $$torch/torch/csrc/api/include \
	  -Xptxas -v 2>$(@:.o=.ptxas) || { cat $(@:.o=.ptxas) >&2; exit 1; }
	@mv $@.part $@

-include $(CUDA_OBJECTS:.o=.d)

BENCHMARK := $(BIN)/python tools/analysis_tools/benchmark_upsamplers.py

# Nothing else should run meanwhile.
benchmark: env
	$(BENCHMARK) operator --threads 1 2 --out docs/benchmark
	$(BENCHMARK) layer --threads 1 2 --rounds 15 --out docs/benchmark
	$(BENCHMARK) scaling --rounds 3 --out docs/benchmark
	$(BENCHMARK) model --rounds 3 --size 512x512 --threads 2 --out docs/benchmark

tables: env
	$(BIN)/python tools/analysis_tools/published_tables.py \
	  --out docs/tables/published.md docs/tables/published.json

COMPARE := $(BIN)/python tools/analysis_tools/compare_upsamplers.py \
  --seeds 0 1 2 --baseline bilinear $(COMPARE_FLAGS)
COMPARED := sapa-i sapa-b sapa-g sapa-b-bilinear sapa-g-bilinear

# Nothing else should run in the end, when times are measured.
compare: env
	$(BIN)/python tools/make_demo_data.py --layout ade
	$(COMPARE) --out work_dirs/comparison \
	  --upsamplers nearest bilinear carafe $(COMPARED)
	$(COMPARE) --out work_dirs/comparison-fine-tuned \
	  --upsamplers nearest bilinear carafe dysample $(COMPARED) \
	  --config configs/demo/segformer_mit-mini_sapa-g_demo-fine-tuned.py

pictures: demo demo-det demo-depth demo-matting compare
	tools/make_pictures.sh

# One that fails does not keep the others from running.
gpu: env
	@$(BIN)/python -c 'import torch; torch.cuda.is_available() or exit( \
	  "make gpu: expected a GPU that PyTorch can use, got none.")'
	$(MAKE) --keep-going gpu-test gpu-sanitize gpu-benchmark gpu-train

gpu-test:
	$(BIN)/python -m pytest -m cuda

# PyTorch's memory pool would hide what is read or written beyond a map.
gpu-sanitize: $(addprefix gpu-,memcheck racecheck synccheck)
gpu-memcheck gpu-racecheck gpu-synccheck: gpu-%:
	PYTORCH_NO_CUDA_MEMORY_CACHING=1 $(CUDA_HOME)/bin/compute-sanitizer \
	  --tool $* --report-api-errors no --error-exitcode 1 \
	  $(BIN)/python -m pytest -m cuda tests/ops -k 'odd or even or gradcheck'

# The shapes are those of SegFormer-B1's head at batch 16, of FPN, and of
# SAPA-I.
gpu-benchmark:
	$(BENCHMARK) operator --device cuda --dtypes float32 bfloat16 \
	  --shapes 16x256x32x16x16 16x256x32x32x32 16x256x32x64x64 fpn \
	  16x256x256x64x64 --out docs/benchmark
	$(BENCHMARK) layer --device cuda --shapes segformer --batch 16 \
	  --dtypes float32 bfloat16 --out docs/benchmark
	$(BENCHMARK) scaling --device cuda --out docs/benchmark
	$(BENCHMARK) model --device cuda --out docs/benchmark

gpu-train: gpu-train-seg gpu-train-det
gpu-train-seg gpu-train-det: gpu-train-%: gpu-data
	$(BIN)/python tools/train.py --amp --work-dir work_dirs/gpu/$* \
	  configs/demo/$(GPU_CONFIG_$*).py
gpu-data:
	$(BIN)/python tools/make_demo_data.py
GPU_CONFIG_seg := segformer_mit-b1_sapa-g_demo
GPU_CONFIG_det := faster-rcnn_r50_fpn-sapa-g_demo

clean:
	rm -rf .venv/made.json .venv .venv.lock build dist *.egg-info mmsapa/_C*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
