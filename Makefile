# All that development and CI need; `make help` lists it. Needs GNU make and Python 3.11 or newer.

BIN := .venv/bin
INSTALLED := .venv/.installed
NODE_MODULES := clients/js/node_modules/.package-lock.json
CHECKED := syncapp tests wsgi.py gunicorn.conf.py
# The store, the clock and the audit pipeline: no less than 90 % of each module is covered (make test).
CORE := syncapp/store/*,syncapp/audit/*,syncapp/domain/*,syncapp/tasks.py

# A virtualenv holds absolute paths: one that was moved, or whose Python is gone, is made anew.
$(shell test "$$(cat $(INSTALLED) 2>/dev/null)" = "$$(pwd -P)" && $(BIN)/python -c '' 2>/dev/null || rm -f $(INSTALLED))

.DEFAULT_GOAL := help
.PHONY: help run run-cluster test test-browser screenshots mutants check stress lint types lint-api test-clients build-clients test-js fmt bench validate chaos chaos-cluster clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

run: $(INSTALLED) ## Start web and worker with private servers (PORT=8000, DATA_DIR=.data, AUTH=off; REDIS_URL, DATABASE_URL)
	@exec $(BIN)/python -m syncapp.dev

run-cluster: $(INSTALLED) ## Start two web processes and two workers on a Valkey Cluster (PORT=8000 and the next, DATA_DIR=.data)
	@exec $(BIN)/python -m syncapp.dev.cluster_runner

test: $(INSTALLED) ## Run the whole suite with coverage (ARGS="-k name" runs a part, without coverage)
ifeq ($(ARGS),)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --cov
	@$(BIN)/python -m coverage report --include "$(CORE)" --fail-under 0 | awk '$$1 == "TOTAL" { whole = 1 } \
	  /^syncapp/ && $$6 + 0 < 90 { print $$1 ": less than 90 % is covered"; low = 1 } END { exit low || !whole }' >&2
else
	$(BIN)/python -m pytest $(ARGS)
endif

test-browser: $(INSTALLED) ## Run the tests that need a browser; Debian's `chromium` is enough (ARGS="-k name")
	$(BIN)/python -m pytest tests/browser -n auto --dist loadfile $(ARGS)

screenshots: $(INSTALLED) ## Draw docs/images/pages/*.png in a browser, 2 minutes (ONLY="stage quiz" draws these scenes)
	@$(BIN)/python -m tests.browser.screenshots $(ONLY)

mutants: $(INSTALLED) ## Show that the tests notice small faults in the scripts (some minutes; ONLY="7 12" tries only these)
	$(BIN)/python -m tests.lua.mutants $(ONLY)

check: lint types test ## Run lint, types and test; CI also runs test-browser, lint-api and test-js

stress: $(INSTALLED) ## Run hundreds of clients under faults for a minute (STRESS_SECONDS, STRESS_CLIENTS, STRESS_SEED)
	@STRESS_SECONDS=$${STRESS_SECONDS:-60} STRESS_CLIENTS=$${STRESS_CLIENTS:-300} \
	  $(BIN)/python -m pytest tests/system/test_stress.py -q -s

lint: $(INSTALLED) ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## Check types
	$(BIN)/mypy

lint-api: $(INSTALLED) ## Lint the API documents, and generate clients from them (needs npm)
	@AUTH=off PYTHONPATH=. $(BIN)/python tests/api-lint/lint.py

test-clients: $(INSTALLED) ## Play a game with generated clients, and fuzz every operation (needs npm; FUZZ_EXAMPLES, FUZZ_SEED)
	@cmp -s tests/clients/requirements.txt .venv/clients/installed.txt \
	|| { $(BIN)/python -m venv --clear .venv/clients \
	  && .venv/clients/bin/python -m pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt \
	  && cp tests/clients/requirements.txt .venv/clients/installed.txt; }
	$(BIN)/python -m pytest tests/clients/generated.py -rP -q $(ARGS)

build-clients: $(NODE_MODULES) ## Build the JavaScript client into syncapp/api/pages, and into clients/js/dist (needs npm)
	@node clients/js/build.mjs

test-js: $(INSTALLED) $(NODE_MODULES) ## Check and test the JavaScript client, and that the built files are current (needs npm)
	@cd clients/js && node_modules/.bin/tsc -p . && { node build.mjs --check; built=$$?; \
	  node --test --test-reporter=dot test/*.test.mjs && exit $$built; }

fmt: $(INSTALLED) ## Format the code, and fix what can be fixed automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## Measure everything in 8 minutes; results go to bench/results/ (ONLY="store rest" runs parts, ONLY="evening --help" tells more)
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null \
	|| $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@$(BIN)/python -m bench $(ONLY)

validate: $(INSTALLED) ## Write docs/evidence/validation.md from the newest results, a run of two processes, coverage and tests
	@$(BIN)/python -m bench.validation

chaos: $(INSTALLED) ## Kill everything at random during 20,000 commits, about 10 minutes, and compare the results (ARGS="--seed 7")
	@$(BIN)/python -m tests.system.chaos $(ARGS)

chaos-cluster: $(INSTALLED) ## Kill the masters of a cluster in turn during 20,000 commits, and compare the results (ARGS="--reshard 60")
	@$(BIN)/python -m tests.system.cluster_chaos $(ARGS)

clean: ## Remove the virtualenv and all caches, but not the data
	rm -rf tests/api-lint/node_modules tests/api-lint/generated clients/js/node_modules clients/js/dist
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(NODE_MODULES): clients/js/package-lock.json
	@command -v npm >/dev/null || { echo "This needs Node.js 20.19 or newer with npm (Debian: apt-get install nodejs npm)." >&2; exit 1; }
	@cd clients/js && npm ci --silent --ignore-scripts --prefer-offline --no-audit --no-fund && touch node_modules/.package-lock.json

# Two makes may need the virtualenv at once: the second waits on the lock, and finds the work done.
$(INSTALLED): requirements.txt requirements-dev.txt
	@set -e; python="$(PYTHON)"; \
	for each in python3 python3.14 python3.13 python3.12 python3.11 python /usr/bin/python3; do \
	  test -z "$$python" || break; \
	  if $$each -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then python=$$each; fi; \
	done; \
	test -n "$$python" || { echo "No Python 3.11 or newer with venv found; name one: make PYTHON=..." >&2; exit 1; }; \
	exec 9<Makefile; "$$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'; \
	test -z "$$(find $@ -newer requirements.txt -newer requirements-dev.txt 2>/dev/null)" || exit 0; \
	echo "Installing the requirements into .venv; the first time this takes a minute."; \
	test -e $@ || "$$python" -m venv --clear .venv; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt; \
	pwd -P >$@
