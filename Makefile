# Two commands set everything up on a fresh machine: `make demo` and `make test`. Python 3.11 or newer is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow chaos reliability lint types parity results release matrix bench bench-feed bench-predict clean

help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

# The lock is what was tested; requirements.txt holds the ranges.
$(VENV)/runtime: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

$(VENV)/test: requirements-test.txt $(VENV)/runtime
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -r requirements-test.txt
	touch $@

demo: $(VENV)/runtime       ## run every stage on the synthetic corpus and write report.html
	$(BIN)/python launch.py demo --workdir=$(WORKDIR)

test: $(VENV)/test       ## the test suite
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/test  ## the checks that take minutes
	$(BIN)/python -m pytest -q -m slow

chaos: $(VENV)/test      ## kill training at random moments, 20 times per task; every run must end as if nothing had happened
	$(BIN)/python -m benchmarks.chaos

reliability: $(VENV)/test  ## damaged and hostile files, full disks, signals: what docs/reliability.md promises
	$(BIN)/python -m benchmarks.reliability

lint: $(VENV)/test       ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/test    ## mypy on the whole package
	$(BIN)/mypy avemo media data_prep configs launch.py

# PyTorch and the other references, in an environment of their own.
.venv-parity/ready: requirements-parity.txt requirements-parity-nodeps.txt
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/pip install --quiet --disable-pip-version-check -r requirements-parity.txt
	.venv-parity/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements-parity-nodeps.txt
	touch $@

parity: .venv-parity/ready     ## our networks, losses and features against the reference implementations
	.venv-parity/bin/python -m benchmarks.parity

.venv-peers/ready: requirements-peers.txt requirements-peers-nodeps.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r requirements-peers.txt
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements-peers-nodeps.txt
	touch $@

RESULTS ?= runs/results
SOURCE ?= ../shared/data
TRAIN ?=
# Without TRAIN=1 the release that avemo carries is scored, in minutes. With it that release is trained anew, and then
# every experiment of docs/results.md, which takes hours and resumes where it stopped.
results: $(VENV)/runtime $(if $(TRAIN),.venv-peers/ready)     ## docs/models.md from the corpora in SOURCE=folder; TRAIN=1 trains all, and writes docs/results.md
	$(BIN)/python -m benchmarks.released --source=$(SOURCE) --workdir=$(RESULTS)/released $(if $(TRAIN),--train)
	$(if $(TRAIN),$(BIN)/python -m benchmarks.results --source=$(SOURCE) --workdir=$(RESULTS))

RUNS = $(firstword $(wildcard $(RESULTS)/runs) $(RESULTS))
RELEASE ?= $(RESULTS)/avemo-results.zip
RELEASED ?= student_s0,speech_f0,fusion
comma := ,
release: $(VENV)/runtime     ## the runs of RESULTS=folder named in RELEASED as one archive with a model card
	$(BIN)/python launch.py release --workdir=$(RUNS)/$(subst $(comma),$(comma)$(RUNS)/,$(RELEASED)) --output=$(RELEASE)

matrix: $(VENV)/test     ## the portable tests on every Python found, with the oldest and newest releases allowed
	$(BIN)/python -m benchmarks.matrix --output=docs/tables/matrix.md

bench: .venv-parity/ready    ## our speed over PyTorch's on this CPU; exit status 1 if a row misses its requirement
	.venv-parity/bin/python -m benchmarks.speed

CLIPS ?= ../shared/data/grid
YUNET ?= $(firstword $(wildcard ../shared/data/weights/*yunet*.onnx))
bench-predict: $(VENV)/test .venv-peers/ready  ## speed of `predict` beside PyPI fer, clip by clip; CLIPS=folder YUNET=face_detection_yunet.onnx
	$(BIN)/python -m benchmarks.predict speed --source=$(CLIPS) --fer=.venv-peers/bin/python $(if $(YUNET),--detector_model=$(YUNET))

FEED ?=
bench-feed: .venv-parity/ready      ## whether the input keeps the device busy, beside PyTorch; FEED="teacher --device" on an accelerator
	.venv-parity/bin/python -m benchmarks.feed $(FEED)

clean:           ## remove the environments and the demo's runs
	rm -rf $(VENV) .venv-parity .venv-peers runs
