# make help lists the targets.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PROFILE ?= quick
OUT    ?= results/$(PROFILE)
# Threads that wait sleep (see imder_lib/startup.py), unless you have said how they wait.
ifeq ($(origin OMP_WAIT_POLICY)$(origin GOMP_SPINCOUNT)$(origin KMP_BLOCKTIME),undefinedundefinedundefined)
export OMP_WAIT_POLICY := passive
endif
# The nets of the course are small: two threads that wait for each other take twice as long as one.
export OMP_NUM_THREADS ?= 1

.PHONY: help test fuzz test-browser reproduce notebooks lab site lint bench audit lock clean
.DELETE_ON_ERROR:

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": run make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	@touch $@

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

test: $(READY)  ## set up and run the tests and every notebook
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

fuzz: $(READY)  ## try two hundred thousand odd files, grids, models, runs and parameters
	$(BIN)/python -m pytest tests/*/test_fuzz*.py --hypothesis-profile fuzz --timeout 0 --numprocesses 2

test-browser: $(READY)  ## run notebooks 00, 03 and 05 in JupyterLab in a headless Chromium
	.ci/chromium
	$(BIN)/python -m pytest tests/browser

reproduce: $(READY)  ## set up, train on synthetic data, make figures and tables: results/quick/index.html
	$(BIN)/imder reproduce --profile $(PROFILE) --dataset synthetic --out "$(OUT)"

notebooks: $(READY)  ## copy the exercises from the solutions, run the course in profile quick, keep the outputs
	$(BIN)/python -m tools.course results/course

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks $(ARGS)

site: $(READY)  ## build the executed notebooks as a static book: build/site/index.html
	$(BIN)/python -m tools.site build/site

lint: $(READY)  ## check code and notebooks with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(READY)  ## measure what the kit costs, as ratios within one run: results/bench; ARGS=--help
	$(BIN)/python -m benchmarks.bench $(ARGS)

audit:  ## look for known weaknesses of the packages in requirements.lock; needs the network
	rm -rf .venv-audit && $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --no-deps --disable-pip --requirement requirements.lock
	rm -rf .venv-audit

# Renew the lock: the newest versions that pyproject.toml admits, without a build's local label.
lock:  ## renew requirements.lock
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet torch==2.13.0
	.venv-lock/bin/python -m pip install --quiet '.[dev]'
	.venv-lock/bin/python -m pip freeze --exclude imder-kit > .venv-lock/freeze
	sed -E 's/\+[a-z0-9]+$$//' .venv-lock/freeze > .venv-lock/lock
	mv .venv-lock/lock requirements.lock
	rm -rf .venv-lock

clean:  ## remove the environment, the results and the book
	rm -rf $(VENV) results build
