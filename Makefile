# The index of the lab: bare `make` prints it. Any LLM_ variable on the make line or in the shell reaches the stage.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# Pipenv would load .env and let it override the shell; the lab reads .env itself, below shell and flags.
export PIPENV_DONT_LOAD_ENV := 1
export PIPENV_VENV_IN_PROJECT := 1
export PIPENV_VERBOSITY := -1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_DEFAULT_TIMEOUT ?= 120
# Where pip finds the CPU build of torch besides its index.
PIP_FIND_LINKS ?= https://download.pytorch.org/whl/cpu/torch/
export PIP_FIND_LINKS

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13; do $$python -c '' 2>/dev/null && { echo $$python; break; }; done)
# The CUDA build of torch only where there is an NVIDIA GPU.
TRAINER := trainer-$(shell command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU && echo cuda || echo cpu)
CATEGORIES := packages synthesizer $(TRAINER) quantizer ollama dev-packages
PIPENV = $(shell command -v pipenv || echo .pipenv/bin/pipenv)
# Pipenv makes .venv anew whenever it is told which Python to take.
NEW_VENV = $(if $(wildcard .venv),,--python $(PYTHON))
READY := .venv/.ready-$(TRAINER)
LAB := .venv/bin/python -m lab

##@ Start here
.PHONY: demo
demo: setup ## the whole way on the sample data: session logs in, a served small model out
	@$(LAB) demo

.PHONY: test
test: setup ## lint, types and all tests, as continuous integration runs them
	@$(LAB) build-llama >/dev/null 2>&1 & trap 'kill $$! 2>/dev/null || true' EXIT; # beside lint: tests wait for it
	  $(MAKE) --no-print-directory lint
	  .venv/bin/python -m pytest --cov --cov-report=term --cov-report=html

.PHONY: doctor
doctor: setup ## what this machine has, and what each missing thing switches off
	@$(LAB) doctor

##@ Data
.PHONY: extract
extract: setup ## session logs -> data/raw
	@$(LAB) extract

.PHONY: format
format: setup ## data/raw -> data/interim: calls folded into conversations
	@$(LAB) format

.PHONY: check-data
check-data: setup ## data/interim -> data/dataset: checked with the model's tokenizer, split by session
	@$(LAB) check-data

##@ Model
.PHONY: pretrain
pretrain: setup ## the lab's own tiny base model -> data/models/tiny
	@$(LAB) pretrain

.PHONY: train
train: setup ## data/dataset -> data/runs/NAME/adapter
	@$(LAB) train

.PHONY: evaluate
evaluate: setup ## base against tuned (and quantized) on held-out sessions
	@$(LAB) evaluate

.PHONY: merge
merge: setup ## adapter + base -> data/runs/NAME/merged
	@$(LAB) merge

.PHONY: llama-cpp
llama-cpp: setup ## find llama.cpp's tools, or build them from the pinned source
	@$(LAB) build-llama

.PHONY: quantize
quantize: setup ## merged -> data/runs/NAME/gguf
	@$(LAB) quantize

##@ Use
.PHONY: ollama-serve
ollama-serve: setup ## serve the quantized model on 127.0.0.1: Ollama where it answers, else embedded llama.cpp
	@exec $(LAB) ollama-serve

.PHONY: chat
chat: setup ## talk to the served model
	@exec $(LAB) chat

.PHONY: report
report: setup ## figures and examples of a run -> data/reports/NAME/index.html
	@$(LAB) report

##@ Work on the lab itself
.PHONY: setup
setup: $(READY) ## the project's own .venv from Pipfile.lock

.PHONY: lint
lint: setup ## ruff and mypy
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

.PHONY: test-fast
test-fast: setup ## the tests that need neither PyTorch nor llama.cpp
	@.venv/bin/python -m pytest -m "not torch and not llama_cpp and not slow"

.PHONY: samples
samples: setup ## write the sample data anew
	@.venv/bin/python data/samples/make_samples.py

.PHONY: docs
docs: setup ## write .env.example and docs/configuration.md from the settings
	@.venv/bin/python -m lab.reference

.PHONY: lock
lock: $(PIPENV) ## resolve Pipfile into Pipfile.lock
	@$(PIPENV) lock $(NEW_VENV)
	@PIP_FIND_LINKS= PIP_CONFIG_FILE=/dev/null $(PIPENV) lock --categories trainer-cuda
	@$(PYTHON) -c 'import json, pathlib; path = pathlib.Path("Pipfile.lock"); lock = json.loads(path.read_text()); lock["_meta"]["sources"] = []; path.write_text(json.dumps(lock, indent=4) + "\n")'

.PHONY: clean
clean: ## remove what can be made again; your own files, extracted data/raw, the samples and .venv stay
	@rm -rf data/interim data/dataset data/models data/runs data/reports data/logs
	@rm -rf htmlcov .coverage* .mypy_cache .ruff_cache .pytest_cache
	@echo "clean: the data volume holds sources alone"

.PHONY: help
help: ## this index
	@awk 'BEGIN {FS = ":.*## "; print "LLM Tuning Lab. Usage: make TARGET [LLM_GROUP__SETTING=value ...]"} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# --- set-up: nothing is changed before everything it needs is known to be there ---

.PHONY: preflight
preflight:
	@[ -n "$(PYTHON)" ] || { echo "error: Python 3.11 is not there; install it: apt install python3.11 python3.11-venv (or: pyenv install 3.11)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot make virtual environments; install them: apt install $(notdir $(PYTHON))-venv" >&2; exit 1; }
	@command -v c++ >/dev/null || { echo "error: there is no C++ compiler; install one: apt install build-essential" >&2; exit 1; }

.pipenv/bin/pipenv: | preflight
	@echo "setup: Pipenv is not on the PATH, installing it into .pipenv"
	@$(PYTHON) -m venv .pipenv && .pipenv/bin/pip install --quiet pipenv

$(READY): Pipfile.lock Makefile pyproject.toml | preflight $(filter .pipenv%,$(PIPENV))
	@echo "setup: installing $(CATEGORIES) into .venv"
	@rm -f .venv/.ready-*
	@$(PIPENV) sync --python $(PYTHON) --categories "$(CATEGORIES)" || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  echo "error: torch's CPU wheel is locked for Python 3.11; install that: apt install python3.11 python3.11-venv (or: pyenv install 3.11)" >&2; exit 1; }
	@PYTHONWARNINGS=ignore .venv/bin/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@
