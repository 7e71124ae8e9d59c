# make run: set up, then the whole pipeline on a demo data set. make test: set up, then every check.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup run test lint bench clean

setup: .venv/ready

# One pinned environment; uv installs in parallel and needs no compiler.
.venv/ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.lock
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
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf work .pytest_cache .mypy_cache .ruff_cache .hypothesis
