# Two commands: `make demo` and `make test`. Both first make the environment .venv, with the pinned packages.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/ready
	$(BIN)/sdfrecon demo --output out/demo
	@echo "Look at out/demo/motorcycle.png, and turn out/demo/motorcycle.glb in any glTF viewer."

test: .venv/ready
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "sdfrecon needs Python 3.11 or newer: where it has another name, make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv || { echo "on Debian or Ubuntu: apt-get install $(notdir $(PYTHON))-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -c 'from sdfrecon.libraries import open3d; open3d()'
	touch $@

clean:
	rm -rf .venv out
