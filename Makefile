# make run     set up, then run the whole pipeline on a demo data set
# make check   lint, types, import contracts and fast tests: under a minute
# make test    make check's part without tests, then all tests but the slow ones
# make translations    bring the Portuguese catalogue up to date with the texts of the pages
# make docs    build the documentation site into work/site
# make audit   SBOM, licences and known vulnerabilities of the environment, into work/audit
# make kind-up, make e2e, make kind-down: the end-to-end tests on a Kubernetes cluster of this machine (Docker and kind)
PYTHON ?= python3
BIN := .venv/bin

KIND_CLUSTER ?= spira

.PHONY: setup run check test test-slow lint translations docs audit bench bench-serving images image-train kind-up e2e kind-down clean

setup: .venv/ready

# One pinned environment; uv installs in parallel and needs no compiler. Every file is compared with its hash in a lock.
.venv/ready: requirements.lock requirements-uv.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-uv.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

run: setup
	$(BIN)/spira run --demo --work work/demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two processes, one thread each: small networks gain nothing from more.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: lint
	$(PYTEST) -m "not integration and not slow and not e2e"

test: lint
	$(PYTEST) -m "not slow"

# What the default tests leave out: storms of kills, long simulations, browsers.
test-slow: setup
	$(PYTEST) -m slow

translations: setup
	$(BIN)/python -m tests.support.catalogue

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "documentation: work/site/index.html"

# The tools have an environment of their own, so that they are no part of what they list.
AUDIT = work/audit

audit: setup
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(AUDIT)/tools
	$(BIN)/uv pip install --quiet --python $(AUDIT)/tools --require-hashes --requirement audit/requirements.lock
	$(BIN)/python -m audit --tools $(AUDIT)/tools/bin --environment $(BIN)/python --out $(AUDIT)

bench: setup
	$(BIN)/python -m benchmarks

bench-serving: setup
	$(BIN)/python -m benchmarks.serving_load

# The commit of an image, for the lineage of the models it makes.
COMMIT = $(shell git describe --always --abbrev=40 --dirty 2>/dev/null || echo unknown)

# Image of Python. A digest fixes its content: PYTHON_IMAGE=python:3.11-slim@sha256:...
PYTHON_IMAGE ?= python:3.11-slim
BUILD = docker build --build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)

images:
	$(BUILD) --file Dockerfile.serve --tag spira/serve:dev .
	$(BUILD) --file Dockerfile.base --tag spira/base:dev --build-arg GIT_COMMIT=$(COMMIT) .

# 6 GB, most of it CUDA; TORCH=cpu leaves CUDA out.
image-train:
	$(BUILD) --file Dockerfile.base --target dependencies --tag spira/dependencies:dev .
	docker build --file Dockerfile.train --tag spira/train:dev --build-arg GIT_COMMIT=$(COMMIT) --build-arg TORCH=$(TORCH) .

# Two nodes, one for a simulated GPU. KIND_NODE_IMAGE sets another node image.
kind-up:
	kind get clusters | grep -qx $(KIND_CLUSTER) || kind create cluster --name $(KIND_CLUSTER) --wait 180s \
		--config manifests/kind/cluster.yaml $(if $(KIND_NODE_IMAGE),--image $(KIND_NODE_IMAGE))

# On the cluster of KUBECONFIG, else of kind-up, else on a temporary one. Tests without their prerequisites are skipped.
e2e: setup images image-train
	tests/e2e/run $(KIND_CLUSTER)

kind-down:
	kind delete cluster --name $(KIND_CLUSTER)

clean:
	rm -rf work .pytest_cache .mypy_cache .ruff_cache .hypothesis
