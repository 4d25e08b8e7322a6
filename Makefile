# Needs Python 3.11 (3.12 and 3.13 work too), git and make. No root, no GPU, no environment variable.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed-from.toml

# The first Python that runs and is new enough; `make PYTHON=/path/to/python run` overrides it.
VERSION_CHECK := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	if $$p -c "$(VERSION_CHECK)" >/dev/null 2>&1; then echo $$p; break; fi; done)

# The unseen task that `make run` retrieves and fine-tunes for, and the number of epochs.
TASK ?= animals
EPOCHS ?= 3

# `make PROFILE=full run` first merges profiles/full.yaml into params.yaml: the large zoo.
PROFILE ?=

.DEFAULT_GOAL := help
.PHONY: help install run test test-service check format serve clean
.PHONY: bench-api bench-cluster bench-export bench-index bench-kills bench-resume bench-scan
.PHONY: bench-service-kills bench-space bench-switching bench-transfer

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: install ## Build everything (data, zoo, space, index, evaluation), then retrieve and fine-tune for one unseen task
	$(BIN)/tans build $(if $(PROFILE),--profile $(PROFILE))
	$(BIN)/tans publish
	$(BIN)/tans retrieve $(TASK)
	$(BIN)/tans finetune $(TASK) --epochs $(EPOCHS)
	@echo
	@echo "The report of the evaluation on unseen tasks: $(CURDIR)/reports/evaluate.html"

test: install ## Run all tests but those of `test-service`
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --ignore=tests/e2e

test-service: install ## Run the tests with the whole pipeline, a real Prefect server, killed servers and S3 (minutes)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder tests/e2e

check: install ## Lint, format check, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-cluster: install ## Build the zoo with two workers in clones of their own; writes metrics/bench-cluster.json
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cluster]'
	$(BIN)/python -m benchmarks.cluster --out metrics/bench-cluster.json

bench-scan: install ## Scan 100,000 images, compared with Pillow alone (minutes); writes metrics/bench-scan.json
	$(BIN)/python benchmarks/scan.py

bench-api: install ## Time the HTTP service against the command (a minute); writes metrics/bench-api.json
	$(BIN)/python benchmarks/service.py

bench-space: install ## Fit the published space, compared with a plain loop (minutes); writes metrics/bench-space.json
	$(BIN)/python benchmarks/space.py

bench-export: install ## Compare exports of every family with the networks (minutes); writes metrics/bench-export.json
	$(BIN)/python -m benchmarks.export_parity --out metrics/bench-export.json

bench-index: install ## Time the search of up to a million models (minutes); writes metrics/bench-index.json
	$(BIN)/python -m benchmarks.index

bench-resume: install ## Kill fine-tunings at ten random steps (a minute); writes metrics/bench-finetune-kills.json
	$(BIN)/python -m benchmarks.finetune_kills --out metrics/bench-finetune-kills.json

bench-kills: install ## Kill 200 refreshes that admit newcomers (half an hour); writes metrics/bench-kills.json
	$(BIN)/python -m benchmarks.admission_kills --out metrics/bench-kills.json

bench-service-kills: install ## Kill a served project 30 times (an hour); writes metrics/bench-service-kills.json
	$(BIN)/python -m benchmarks.service_kills --out metrics/bench-service-kills.json

bench-switching: install ## Search while releases change (an hour); writes metrics/bench-switching.json
	$(BIN)/python -m benchmarks.switching

bench-transfer: install ## Judge rankings on sources left out (an hour); writes metrics/bench-transfer.json
	$(BIN)/python benchmarks/transfer.py

format: install ## Format the code, and apply the safe fixes of ruff
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

serve: install ## Serve the flows (a Prefect server on loopback); Ctrl-C ends it
	$(BIN)/tans serve

clean: ## Delete the tools' caches (data, weights, releases, runs and .venv stay)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

install: $(INSTALLED) ## Make .venv and install TANS into it (other targets do this for you)

# A copy of pyproject.toml records what .venv was installed from: a new date alone installs nothing.
$(INSTALLED): pyproject.toml
	@if cmp -s pyproject.toml $@; then touch $@; exit 0; fi; \
	if [ ! -x $(BIN)/python ]; then \
		if [ -z "$(PYTHON)" ]; then \
			echo "TANS needs Python 3.11, 3.12 or 3.13 with its venv module, and found none." >&2; \
			echo "  Install one, or name it: make PYTHON=/path/to/python3.11 run" >&2; exit 1; \
		fi; \
		if ! $(PYTHON) -c "$(VERSION_CHECK)"; then \
			echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); TANS needs Python 3.11, 3.12 or 3.13." >&2; exit 1; \
		fi; \
		echo "Making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; \
	fi; \
	echo "Installing TANS and what it needs into $(VENV) (a few minutes, once)"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps animal-mnist==0.4 && cp pyproject.toml $@
