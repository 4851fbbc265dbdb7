# `make serve` and `make test` are the two that matter. Both set up .venv on first use and start at once from then on.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PINS   := requirements/constraints.txt
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# Constrains what runs and what builds alike.
INSTALL := $(PIP) install --constraint $(PINS) --build-constraint $(PINS) --editable .
# Dependency groups need pip 25.1, build constraints 25.3; a fresh venv often brings an older one.
PIP_PIN := pip==26.3

# What was installed is noted in stamp files, so that nothing is done twice.
HAS_PIP  := $(VENV)/.pip
HAS_RUN  := $(VENV)/.installed
HAS_TEST := $(VENV)/.installed-test

PEERS     := .peers
HAS_PEERS := $(patsubst requirements/peers/%.txt,$(PEERS)/%/.installed,$(wildcard requirements/peers/*.txt))

.DELETE_ON_ERROR:
.PHONY: help serve web lighthouse wheel test test-quick test-native lint format lock peers clean

help:
	@echo "make serve       install, fetch the default model, serve it on http://127.0.0.1:8000"
	@echo "make web         build the app in the browser from web/ (needs Node), and test its parts"
	@echo "make lighthouse  install what the tests measure the first page with (needs Node)"
	@echo "make wheel       build a wheel in dist/, with the native kernels for several kinds of processor"
	@echo "make test        install what the tests need and run them all"
	@echo "make test-quick  in under a minute: without the slow ones, what failed last first, up to the first failure"
	@echo "make test-native the native kernels' tests under GCC's address and undefined behaviour sanitizers"
	@echo "make lint        ruff, mypy --strict, the layers of the architecture"
	@echo "make format      let ruff format and fix"
	@echo "make lock        resolve every dependency anew into $(PINS)"
	@echo "make peers       install what the benchmarks compare with (compiles for minutes)"
	@echo "make clean       remove .venv and caches"

serve: $(HAS_RUN)
	@$(BIN)/fireside serve

web:
	cd web && npm ci --no-audit --no-fund && npm run build && npm run check && npm test

lighthouse:
	cd tests/e2e/lighthouse && npm ci --no-audit --no-fund

wheel: $(HAS_PIP)
	$(PIP) wheel --build-constraint $(PINS) --no-deps --wheel-dir dist .

test: $(HAS_TEST)
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-quick: $(HAS_TEST)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'not slow' --numprocesses 2 --exitfirst --failed-first

# Python itself is not built for them, so their libraries come first by LD_PRELOAD, but never before the compiler. The
# test left out limits the address space, which they need whole.
SANITIZED := CXX=$(CURDIR)/tests/kernels/sanitized-c++ XDG_CACHE_HOME=$(CURDIR)/build/sanitized
test-native: $(HAS_TEST)
	$(SANITIZED) $(BIN)/python -c 'from fireside.kernels.cpu.build import build_library; print(build_library())'
	$(SANITIZED) ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	  $(BIN)/pytest -k 'not without_memory' tests/kernels/test_matmul.py tests/engine/test_native_runner.py

lint: $(HAS_TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(HAS_TEST)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(HAS_PIP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Fireside needs Python 3.11 or newer, and $(PYTHON) is older or missing: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "$(PYTHON) lacks its venv module: install it (on Debian and Ubuntu: apt install python3-venv)" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(PIP_PIN)
	@touch $@

$(HAS_RUN): $(HAS_PIP) pyproject.toml $(PINS)
	$(INSTALL)
	@touch $@

$(HAS_TEST): $(HAS_PIP) pyproject.toml $(PINS)
	$(INSTALL)[train] --group test --group lint
	@touch $(HAS_RUN) $@

# torch keeps its pin: a newer one is a decision (it decides gigabytes of CUDA packages), made by editing that line.
lock: $(HAS_PIP)
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet $(PIP_PIN)
	grep '^torch==' $(PINS) > build/lock/torch.txt
	build/lock/bin/python -m pip install --constraint build/lock/torch.txt --group test --group lint hatchling --editable .[train]
	grep '^#' $(PINS) > build/lock/constraints.txt
	build/lock/bin/python -m pip freeze --all --exclude-editable --exclude pip | sed 's/+.*//' >> build/lock/constraints.txt
	mv build/lock/constraints.txt $(PINS)
	rm -rf build/lock

# Each lot in an environment of its own. Left alone by `clean`: compiling llama.cpp again takes minutes.
peers: $(HAS_PEERS)
	@echo "The peers are in $(PEERS). Compare with them: $(BIN)/python -m benchmarks.serving, .training or .cleaning"

$(PEERS)/%/.installed: requirements/peers/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet $(PIP_PIN)
	$(@D)/bin/python -m pip install --disable-pip-version-check --requirement $<
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
