# Two commands do everything: `make run` trains LeNet on real digits, `make test` runs the tests.
# Both first make .venv with all that is needed; what is up to date is not done again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# A process a core: the tests are many and small, and one process leaves all cores but one idle.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

DEPS := $(VENV)/.deps
BUILT := $(VENV)/.built
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
CPP_FILES := $(SOURCES) $(shell find tests -name '*.cpp' -o -name '*.h')

# Of tests/ops, what asks the binding, not the kernels: the same on every instruction set.
OF_THE_BINDING := $(addprefix --ignore=tests/ops/test_,$(addsuffix .py,operators errors transforms autocast heap memory tuning))

.PHONY: help run install test test-isa test-large models conformance sanitize lint format bench pictures clean

help:  ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  make %-11s %s\n", $$1, $$2}'

run: install  ## train LeNet on the bundled digits
	@$(BIN)/cisdl train lenet

install: $(BUILT)  ## .venv with the compiled kernels and the cisdl command

$(DEPS): requirements.txt
	@echo "Installing Python packages into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(BUILT): $(DEPS) $(SOURCES) setup.py pyproject.toml
	@echo "Compiling the kernels (some minutes on 2 cores; CISDL_CUDA=0 leaves the CUDA ones out) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

test: install  ## the tests
	$(PYTEST)

test-isa: install  ## the kernels' tests on the instruction sets of this CPU that `make test` does not use
	for isa in $$($(BIN)/python -c 'import cisdl_ops; f = cisdl_ops.build_info(); print(*{*f["isas_supported"]} - {f["isa"]})'); do \
	  echo "CISDL_ISA=$$isa"; CISDL_ISA=$$isa $(PYTEST) tests/ops $(OF_THE_BINDING) || exit 1; done

models: install  ## every model's complete default training, with the figure it has to reach
	$(BIN)/python -m pytest -m models --numprocesses auto --maxprocesses 2 tests/models

conformance: install  ## the suites of torch and ONNX and the fuzzer, as a table
	@$(BIN)/python -m tests.conformance

test-large: install  ## more than 2^31 elements in a tensor, as far as memory allows
	$(BIN)/python -m pytest -m large -rs tests/ops/test_large.py

sanitize: $(DEPS)  ## the case table under the address, undefined-behaviour and thread sanitizers
	@$(BIN)/python -m tests.sanitize

lint: install  ## ruff, mypy --strict, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)

format: install  ## rewrite Python and C++ in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(CPP_FILES)

bench: install  ## our kernels against torch, as a table and JSON under benchmarks/
	$(BIN)/cisdl bench --save

pictures: install  ## the README's pictures of the terminal and of a report (needs Chromium)
	$(BIN)/python docs/pictures.py

clean:  ## remove what was built, keep .venv's packages and your runs
	rm -rf build cisdl_ops/_C*.so cisdl_ops/_build.json $(BUILT)
