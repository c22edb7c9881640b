# make test, make demo, make lint: each makes .venv first, so that a fresh machine needs only Python, git and make.

PYTHON ?= python3
BIN = .venv/bin
FRAMEWORKS = .venv-integrations

.PHONY: test test-slow test-integrations test-browser lint demo bench readme choosing playground kernels clean

test: .venv/installed
	$(BIN)/python -m pytest -n auto

test-slow: .venv/installed
	$(BIN)/python -m pytest -n auto -m slow

# The adapters' tests with the frameworks themselves, which pin what others need: hence an environment of their own.
test-integrations: $(FRAMEWORKS)/installed
	$(FRAMEWORKS)/bin/python -m pytest -n auto --dist loadfile tests/test_integrations.py tests/test_ultralytics.py \
		tests/test_transformers.py tests/test_mmdet.py tests/test_recipes.py

# The playground in Chromium, Debian's or the one that $$CHROMIUM names; screenshots in runs/browser.
test-browser: .venv/installed
	-$(BIN)/python -m pip install --quiet 'playwright>=1.40'
	$(BIN)/python -m pytest -m browser -rs -s tests/test_browser.py

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

# Rewrites docs/choosing.md and its figures; a test compares the text.
choosing: .venv/installed
	$(BIN)/python tools/make_choosing.py

# Rewrites docs/playground.html; a test compares it.
playground: .venv/installed
	$(BIN)/boxloss playground -o docs/playground.html

# Rewrites the C of the kernels from the formulas; a test compares it.
kernels: .venv/installed
	$(BIN)/python tools/make_kernels.py

.venv/installed: pyproject.toml setup.py $(wildcard boxloss/kernels/csrc/*.h boxloss/kernels/csrc/*.c)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

# mmcv-lite's setup.py needs pkg_resources; opencv with windows needs libGL, which servers lack.
$(FRAMEWORKS)/installed: pyproject.toml setup.py tests/frameworks.txt
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip install --quiet 'setuptools<81' wheel
	$(FRAMEWORKS)/bin/python -m pip install --quiet --no-build-isolation 'mmcv-lite>=2.0,<2.2'
	$(FRAMEWORKS)/bin/python -m pip install --quiet -r tests/frameworks.txt --editable '.[study]'
	$(FRAMEWORKS)/bin/python -m pip install --quiet --force-reinstall --no-deps opencv-python-headless
	touch $@

clean:
	rm -rf .venv $(FRAMEWORKS) build dist boxloss/kernels/csrc/compiled.* *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
