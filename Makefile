# Everything a developer or a new user runs. `make help` lists it.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test isolation e2e soak soak-full links check format constraints core oracle bench bench-peers wheel wheel-demo clean

help:            ## this list
	@grep -hE '^[a-z0-9-]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# uv installs the same pins ten times as fast as pip; where it cannot be had, pip does it.
	@awk '/^uv==/{p=1} p{print} p&&!/\\$$/{exit}' constraints.txt > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --no-compile --require-hashes --no-deps -r $(VENV)/uv.txt || true
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r constraints.txt \
	  || $(BIN)/python -m pip install --quiet --no-compile --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

setup: $(STAMP)  ## make .venv with everything pinned

demo: $(STAMP)   ## a federated session from purchase to fetched model, on an embedded Nevermined network
	$(BIN)/nevermined-fl demo

# What pytest runs without a path; tests/conftest.py says what only runs by name.
test: $(STAMP)   ## the test suite (under 5 minutes)
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup

isolation: $(STAMP) ## what needs bubblewrap: that a job sees no key, no network and nobody else; CI runs it always
	@command -v bwrap >/dev/null || { echo "bubblewrap is needed: apt-get install bubblewrap"; exit 1; }
	$(BIN)/python -m pytest -q -m bubblewrap

e2e: $(STAMP)    ## whole sessions over an embedded network: refusals, faults, refunds, Ctrl-C, dying launchers; CI runs it always
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup tests/e2e tests/launcher/test_killed_between.py

soak: $(STAMP)   ## a sample of the kill matrix: coordinator, participant, launcher, gateway, torn files (3 minutes); CI runs it always
	$(BIN)/python -m pytest -q -n 0 tests/soak $(SOAK)

soak-full: $(STAMP) ## SIGKILL at every boundary there is (hours)
	$(BIN)/python -m pytest -q -n 0 tests/soak --full $(SOAK)

links: $(STAMP)  ## lossy, slow, cut and hostile networks, and full disks (root, iproute2, nftables); CI runs it always
	@command -v nft >/dev/null && command -v tc >/dev/null || { echo "needed: apt-get install nftables iproute2"; exit 1; }
	@test "$$(id -u)" = 0 || { echo "networks of one's own need root"; exit 1; }
	$(BIN)/python -m pytest -q -n 0 tests/links

check: $(STAMP)  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP) ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints:     ## pin every dependency again
	uv pip compile --quiet --python-version 3.11 --all-extras --generate-hashes --no-emit-index-url --no-header -o constraints.txt pyproject.toml

core: $(STAMP)   ## the pure core's tests on the Pythons in PYTHONS (default python3.12 python3.13)
	@set -e; for python in $(or $(PYTHONS),python3.12 python3.13); do \
	  echo "== core on $$python"; $$python -m venv --clear $(VENV)/core-$$python; \
	  $(BIN)/uv pip install --quiet --python $(VENV)/core-$$python/bin/python -c constraints.txt \
	    hypothesis pytest pytest-asyncio pytest-timeout safetensors .; \
	  $(VENV)/core-$$python/bin/python -m pytest -q -p no:cacheprovider tests/session tests/aggregation tests/codecs \
	    tests/test_messages.py tests/test_spool.py tests/test_journal.py tests/test_driver.py tests/test_simulation.py; \
	done

oracle: $(STAMP) ## opt-in: our models against Flower's, a session and every aggregator, in an environment of its own
	test -x $(VENV)/flower/bin/flwr || { $(PYTHON) -m venv $(VENV)/flower && $(VENV)/flower/bin/python -m pip install --quiet "flwr>=1.40,<1.43"; }
	$(BIN)/python benchmarks/oracle.py --flower-python $(VENV)/flower/bin/python

bench: $(STAMP)  ## rounds, memory and folding measured on this machine (minutes, 15 GB of disk); docs/benchmarks.md
	$(BIN)/python -m benchmarks

bench-peers: $(STAMP) ## Flower and NVFlare beside us, each in an environment of its own (root; half an hour the first time)
	$(BIN)/python -m benchmarks.peers --environments $(VENV)
	$(BIN)/python -m benchmarks.wan --environments $(VENV)

wheel: $(STAMP)  ## build the wheel into dist/
	rm -rf dist && $(BIN)/python -m build --wheel --no-isolation --outdir dist . >/dev/null && ls dist

# From a folder that is not the checkout, so that nothing of it is on the import path.
wheel-demo: wheel ## install the wheel in a clean environment, import every package, run the demo from there
	$(PYTHON) -m venv --clear $(VENV)/wheel
	$(BIN)/uv pip install --quiet --python $(VENV)/wheel/bin/python --require-hashes -r constraints.txt
	$(BIN)/uv pip install --quiet --python $(VENV)/wheel/bin/python --no-deps dist/*.whl
	cd $(VENV)/wheel && bin/python -c "import nevermined_fl, coordinator_image, participant_image, gateway_plugin, workflows; print(nevermined_fl.__file__)"
	cd $(VENV)/wheel && bin/nevermined-fl demo --json

clean:           ## remove everything that make made
	rm -rf $(VENV) dist build .nevermined-fl
