# Every target sets up what it needs in .venv: only Python >= 3.11, pip and make are taken for granted.
# Another interpreter:  make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.PHONY: help demo test check format bench bench-pytensor wheel clean

help:
	@echo "make demo    learn handwritten digits; pictures in out/"
	@echo "make test    all tests"
	@echo "make check   lint, format, types"
	@echo "make format  let ruff mend lint and format"
	@echo "make bench   benchmarks (installs JAX and PyTorch)"
	@echo "make bench-pytensor   their column of PyTensor, measured in an environment of its own"
	@echo "make wheel   build the wheel, install it into an empty environment, take a gradient there"
	@echo "make clean   remove what these made"

demo: $(VENV)/.examples
	$(BIN)/python examples/digits.py

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist worksteal ./tests

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.run $(ROWS)

# PyTensor asks for an older numba: it has an environment of its own, with wichi in it too, so that both run side by side.
# No C compiler: its numba mode is what is compared.
bench-pytensor: $(VENV)-pytensor/.bench
	PYTENSOR_FLAGS=cxx= $(VENV)-pytensor/bin/python -m benchmarks.pytensor_column

wheel: $(VENV)/.python
	rm -rf out/wheel && mkdir -p out/wheel
	$(BIN)/python -m pip --disable-pip-version-check --quiet wheel --no-deps --wheel-dir out/wheel .
	$(BIN)/python -m venv out/wheel/venv
	cd out/wheel && venv/bin/python -m pip --disable-pip-version-check --quiet install ./*.whl
	cd out/wheel && venv/bin/python -W error -c "import numpy as np, wichi; g = wichi.grad(lambda x: np.sum(np.sin(x)))(np.arange(3.0)); assert np.allclose(g, np.cos(np.arange(3.0))); assert len(wichi.DataModule().labels) == 10; print('the wheel works:', wichi.__file__)"

# The stamps: a second run installs nothing unless pyproject.toml has changed.
$(VENV)/.examples $(VENV)/.test $(VENV)/.dev $(VENV)/.bench: $(VENV)/.%: $(VENV)/.python pyproject.toml
	$(PIP) -e '.[$*]'
	@touch $@

$(VENV)-pytensor/.bench: pyproject.toml
	$(MAKE) VENV=$(VENV)-pytensor $(VENV)-pytensor/.python
	$(VENV)-pytensor/bin/python -m pip --disable-pip-version-check --quiet install -e '.[bench-pytensor]'
	@touch $@

# Where the system's Python comes without venv's pip (Debian's does), virtualenv stands in.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "wichi needs Python 3.11 or newer; name one:  make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  $(PYTHON) -m pip install --quiet --target $(VENV)-bootstrap virtualenv && \
	  PYTHONPATH=$(VENV)-bootstrap $(PYTHON) -m virtualenv --quiet $(VENV) && rm -rf $(VENV)-bootstrap; }
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-bootstrap $(VENV)-pytensor $(VENV)-pytensor-bootstrap out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f *.svg *.dot *.gv
	find wichi tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
