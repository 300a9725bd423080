# make help says what there is. Everything happens in $(VENV); nothing is installed elsewhere.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= runs/demo
# Options for every pip install, such as PIP_ARGS="--no-index --find-links wheels".
PIP_ARGS ?=
# A package index to take torch from as well. On Linux the default index has the CUDA build, gigabytes that a
# machine without a GPU does not need; PyTorch's documentation names its index of CPU builds.
TORCH_INDEX ?=
# Workers of the tests.
JOBS ?= 2
# Container images are REGISTRY/gpu:TAG and so on. BUILD_ARGS are more options for `docker build`, such as
# BUILD_ARGS="--build-arg PYTHON_IMAGE=python:3.11-slim@sha256:...".
# ACCELERATOR=none is for clusters without GPUs (`bonsai compile --accelerator ""`): TORCH_INDEX serves the GPU image too.
ACCELERATOR ?= nvidia
DOCKER ?= docker
REGISTRY ?= kfp-bonsai
TAG ?= $(VERSION)
BUILD_ARGS ?=

VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
PIP = $(VENV)/bin/python -m pip install --disable-pip-version-check -q --no-compile -c constraints.txt \
	$(PIP_ARGS) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# What pip would do on one core after it has unpacked everything; on all cores it takes a minute less. A third of it all
# are tests and model families, of which Python compiles those in use by itself.
COMPILE = $(VENV)/bin/python -m compileall -q -j 0 -x '/tests?/|/transformers/models/' $(VENV)/lib >/dev/null || true
# One thread a worker: torch's own would fight over the same cores.
TEST_ENV = OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.DEFAULT_GOAL := help
.PHONY: help demo audit install test test-matrix test-opens test-trust test-memory test-kills test-soak test-containers lint format wheel images image-gpu image-cpu image-edge image-model clean

help:  ## Say what can be made.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

# Less training than a run of your own would take, so that it ends in a quarter of an hour on 2 cores: fewer epochs,
# and where the processor has no bfloat16, which halves the time of training, fewer rows too.
ifeq ($(shell grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null && echo bf16),bf16)
DEMO_TRAINING = --epochs 2 --augmentations 1 --unlabelled-rows 2500 --prune-steps 150 \
	--level "2/3 layers:layers=2/3,epochs=0.15" --level "1/3 layers:layers=1/3,epochs=1.3" \
	--level "1/2 layers + matrix pruning:layers=1/2,flops=0.1,epochs=1.6"
else
DEMO_TRAINING = --max-rows 4500 --epochs 1 --learning-rate 2e-4 --augmentations 0 --unlabelled-rows 1500 \
	--prune-steps 80 \
	--level "2/3 layers:layers=2/3,epochs=0.6" --level "1/3 layers:layers=1/3,epochs=2,rate=5e-4" \
	--level "1/2 layers + matrix pruning:layers=1/2,flops=0.1,epochs=2.7,rate=1e-3"
endif

demo: $(VENV)/.installed  ## Compress a model on movie reviews: runs/demo/report.html, in about a quarter of an hour.
	$(VENV)/bin/bonsai run --model embedded:minilm --data embedded:movie-reviews --test-rows 2000 \
		--validation-rows 500 --unlabelled-data embedded:amazon-reviews,embedded:tweets,embedded:news \
		--freeze-embeddings $(DEMO_TRAINING) \
		--min-accuracy 0.95 --country USA --block-seconds 0.4 --precision 0.03 --time-budget 60 \
		--edge --overwrite --output $(DEMO)

install: $(VENV)/.installed-dev  ## Install the package with all extras and the tools for development.

# A worker that dies ends the tests: pytest-xdist would hand its files out again, and could wait for ever.
test: $(VENV)/.installed-dev  ## Run the tests.
	$(TEST_ENV) $(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

# On Linux, torch's CPU build, which TORCH_INDEX has; ARGS="--python 3.12 --libraries lowest --json FILE" chooses.
test-matrix: $(VENV)/.installed-dev  ## Try each Python that is here, with the oldest and the newest libraries; installs all.
	$(TEST_ENV) $(VENV)/bin/python tests/trust/matrix.py $(if $(TORCH_INDEX),--option=--extra-index-url=$(TORCH_INDEX)) $(ARGS)

test-opens: $(VENV)/.installed-dev  ## Open what is handed over where kfp-bonsai is not installed; installs some packages.
	$(TEST_ENV) $(VENV)/bin/python -m pytest -v tests/opens/check_opens.py $(ARGS)

test-trust: $(VENV)/.installed-dev  ## Damage every kind of input, over 5,000 times, and let processes meet: within an hour.
	$(TEST_ENV) $(VENV)/bin/python tests/trust/together.py
	$(TEST_ENV) $(VENV)/bin/python -m pytest -n $(JOBS) tests/trust/check_*.py $(ARGS)

test-memory: $(VENV)/.installed-dev  ## Give stages ten times the rows, and hold their memory to what their READMEs say.
	$(TEST_ENV) $(VENV)/bin/python -m pytest -s tests/trust/memory.py $(ARGS)

# pip-audit asks the package index for what is known to be wrong with what is installed; it has an environment of its own,
# and fails where the index does not answer for a package.
audit: $(VENV)/.installed-dev  ## List the licences of what is installed, and what advisories say of it.
	$(VENV)/bin/python tests/trust/licences.py
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) pip-audit
	$(VENV)/bin/python -m pip freeze --exclude-editable | sed 's/+[a-z0-9]*$$//' >build/audit/installed.txt
	build/audit/bin/pip-audit --strict --progress-spinner off --no-deps --disable-pip -r build/audit/installed.txt

test-kills: $(VENV)/.installed-dev  ## Kill stages and whole runs at 100 random moments, and stages at each of their own: an hour or two.
	$(TEST_ENV) $(VENV)/bin/python tests/trust/kill.py --kills 100 $(ARGS)
	$(TEST_ENV) $(VENV)/bin/python tests/trust/strike.py

test-soak: $(VENV)/.installed-dev  ## Work for three hours under faults, and see that nothing grows: ARGS="--minutes 20" for less.
	$(TEST_ENV) $(VENV)/bin/python tests/trust/soak.py $(ARGS)

test-containers: $(VENV)/.installed-dev  ## Build the images and run the pipeline in them; installs Docker if need be.
	$(TEST_ENV) $(VENV)/bin/python -m pytest -v --durations 0 tests/containers/check_*.py $(ARGS)

lint: $(VENV)/.installed-dev  ## Check style and types.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy components pipelines

format: $(VENV)/.installed-dev  ## Put the code into the house's style, and stages' options into their component.py.
	$(VENV)/bin/python tests/signatures.py
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

wheel: $(VENV)/.installed-dev  ## Build dist/*.whl.
	rm -rf build dist
	$(VENV)/bin/python -m build --wheel --no-isolation

images: image-gpu image-cpu image-edge  ## Build the container images (images/README.md says more).

# torch's CPU build is for the CPU image alone, unless no image is to have another.
image-cpu $(if $(filter none,$(ACCELERATOR)),image-gpu): override BUILD_ARGS += \
	$(if $(TORCH_INDEX),--build-arg PIP_EXTRA_INDEX_URL=$(TORCH_INDEX))
image-gpu: override BUILD_ARGS += $(if $(filter nvidia none,$(ACCELERATOR)),--build-arg ACCELERATOR=$(ACCELERATOR),\
	$(error ACCELERATOR=$(ACCELERATOR) is unknown: give nvidia, or none for torch's CPU build in every image))
image-gpu image-cpu image-edge: image-%:
	$(DOCKER) build -f images/$*/Dockerfile -t $(REGISTRY)/$*:$(TAG) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null) \
		--build-arg SOURCE=$(shell git config --get remote.origin.url | sed 's|//[^/@]*@|//|') $(BUILD_ARGS) .

# MODEL's SHA256SUMS is checked first: an image of half a folder would be served.
image-model:  ## Put a packaged model into an image for KServe (oci://): make image-model MODEL=runs/demo/model.
	@test -n "$(MODEL)" || { echo "say which folder: make image-model MODEL=runs/demo/model" >&2; exit 1; }
	@cd "$(MODEL)" && sha256sum --quiet --check SHA256SUMS
	$(DOCKER) build -f images/modelcar.Dockerfile -t $(if $(IMAGE),$(IMAGE),$(REGISTRY)/model:$(TAG)) $(BUILD_ARGS) "$(MODEL)"

clean:  ## Remove what was made, but neither runs/ nor downloads.
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find components pipelines tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is missing or older than Python 3.11: make ... PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) (some minutes the first time)"
	$(PIP) -e '.[kfp,cpu]'
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) (some minutes the first time)"
	$(PIP) -e '.[kfp,cpu,mlflow,registry,dev]'
	@$(COMPILE)
	@touch $@ $(VENV)/.installed
