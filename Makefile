# CI calls the same targets. VENV and PYTHON can be set: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

CLAIM_SUITES := theory universality difficulty stopping scaling-law

.PHONY: demo test slow nightly calibration claims claims-small evaluation lint types bench bench-gpu error-rates check-rates mutants schema metrics-page example-reports site clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("fls-bench needs Python >= 3.11") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --dist worksteal

# What takes longer than the default run allows: all hostile files, whole environments (minutes).
slow: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'slow and not gpu'

# The property tests with 2000 examples each (hours).
nightly: $(VENV)/.installed
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -n auto --dist worksteal

# The matrix of known regimes, three seeds each (about ten minutes on 2 cores).
calibration: $(VENV)/.installed
	$(BIN)/python -m pytest -m calibration

# The paper's claims at full scale, and their outcomes kept in baselines/claims (two hours on 2 cores).
# The theory's seeds are others than those on which its suite was made.
claims: $(VENV)/.installed
	mkdir -p reports
	set -e; for suite in $(CLAIM_SUITES); do \
		$(BIN)/fls-bench run $$suite --seed $$(test $$suite = theory && echo 1 || echo 0) --force \
			--json reports/$$suite.json --html reports/$$suite.html; \
		$(BIN)/fls-bench claims --record reports/$$suite.json --force >/dev/null; \
	done
	$(BIN)/fls-bench claims

# What CI runs of them, against the committed baselines (minutes).
claims-small: $(VENV)/.installed
	set -e; for suite in $(CLAIM_SUITES); do \
		$(BIN)/fls-bench check $$suite --scale small --require-baseline; \
	done

# The reading of single nets, out of sample, and the pages that tell of it (about twelve minutes).
evaluation: $(VENV)/.installed
	$(BIN)/fls-bench run verdict-eval --json baselines/atlas/verdict-eval.json --force
	$(BIN)/python benchmarks/reading_page.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/speed.py

# Writes benchmarks/results/*.json; needs a CUDA build of torch.
bench-gpu: $(VENV)/.installed
	$(BIN)/python benchmarks/gpu.py --device cuda

# The table of docs/error-rates.md (about twenty minutes on one core).
error-rates: $(VENV)/.installed
	$(BIN)/python benchmarks/error_rates.py --runs 500

# The tables of docs/check-rates.md (an hour on 2 cores).
check-rates: $(VENV)/.installed
	$(BIN)/python benchmarks/check_rates.py --write docs/check-rates.md

$(VENV)/.mutation: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutation]'
	touch $@

# The page docs/mutants.md: a fixed sample of 120 faults, at most 40 minutes on 2 cores.
mutants: $(VENV)/.mutation
	$(BIN)/python benchmarks/mutants.py --write docs/mutants.md

schema: $(VENV)/.installed
	$(BIN)/python -m fls_bench.report report > docs/report.schema.json
	$(BIN)/python -m fls_bench.report baseline > docs/baseline.schema.json

metrics-page: $(VENV)/.installed
	$(BIN)/python -c 'from fls_bench.metrics.page import page; print(page(), end="")' > docs/metrics.md

# One report of each kind by real commands, and the README's picture (three minutes on 2 busy cores).
example-reports: $(VENV)/.installed
	$(BIN)/python examples/reports.py

# README and docs/ as pages that need no network: open site/index.html.
site: $(VENV)/.installed
	$(BIN)/python benchmarks/project_page.py site

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
