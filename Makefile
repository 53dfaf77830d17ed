# make demo   set up, make a small data set, train, evaluate, predict a scene
# make test   set up with test tools, lint, test
# make setup  only set up

PYTHON ?= python3
VENV ?= .venv
DATASET_PATH ?= datasets/demo
# More flags for train.py, as in: make demo TRAIN="--MODEL_TYPE segformer --EPOCHS 100"
TRAIN ?=
# Exact versions: make test LOCK=requirements.lock
LOCK ?=
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install $(if $(LOCK),-c $(LOCK))

.PHONY: setup demo test lint
setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	touch $@

$(VENV)/.ready-to-test: $(VENV)/.ready requirements-test.txt
	$(PIP) -r requirements-test.txt
	touch $@

demo: $(VENV)/.ready
	$(VENV)/bin/python tools/demo.py "$(DATASET_PATH)" $(TRAIN)

lint: $(VENV)/.ready-to-test
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

test: lint
	$(VENV)/bin/python -m pytest -n auto
