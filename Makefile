# make test, make demo, make lint: each makes .venv first, so that a fresh machine needs only Python, git and make.

PYTHON ?= python3
BIN = .venv/bin

.PHONY: test test-slow lint demo bench readme kernels clean

test: .venv/installed
	$(BIN)/python -m pytest -n auto

test-slow: .venv/installed
	$(BIN)/python -m pytest -n auto -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: .venv/installed
	$(BIN)/boxloss compare configs/compare/demo.yaml

bench: .venv/installed
	$(BIN)/python tools/bench.py --out docs

# Rewrites the generated part of README.md; a test compares it.
readme: .venv/installed
	$(BIN)/python tools/readme_table.py

# Rewrites the C of the kernels from the formulas; a test compares it.
kernels: .venv/installed
	$(BIN)/python tools/make_kernels.py

.venv/installed: pyproject.toml setup.py $(wildcard boxloss/kernels/csrc/*.h boxloss/kernels/csrc/*.c)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

clean:
	rm -rf .venv build dist boxloss/kernels/csrc/compiled.* *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
