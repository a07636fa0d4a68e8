# `make demo` and `make test` do everything from a fresh clone; both need only Python 3.11+ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Page faults dominate CPU inference and training when the allocator hands memory back after every layer:
# keep it. Measured factor: 5 to 10.
export MALLOC_MMAP_THRESHOLD_ := 8589934592
export MALLOC_TRIM_THRESHOLD_ := 17179869184
export MALLOC_TOP_PAD_ := 268435456

.PHONY: setup demo test lint train leaderboard lock clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) scripts/bootstrap.py $(VENV)
	touch $@

demo: setup
	$(BIN)/sana-bench run suites/geneval.yaml

test: lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Reproduces every shipped micro weight, in this order (two and a half hours on two cores).
train: setup
	$(BIN)/sana-bench train configs/train/dc_ae_micro.yaml
	$(BIN)/sana-bench train configs/train/sana_micro.yaml
	$(BIN)/sana-bench train configs/train/clip_micro.yaml

# Measures the shipped micro variants and writes reports/micro/.
leaderboard: setup
	$(BIN)/sana-bench run suites/geneval.yaml --tier micro --output results/leaderboard
	$(BIN)/python scripts/update_leaderboard.py --from results/leaderboard

# Newest versions that satisfy pyproject.toml; versions only, no index addresses.
lock: setup
	$(VENV)/uv/bin/uv pip compile pyproject.toml --extra test --extra lint --no-header --no-annotate \
		--no-emit-index-url --output-file requirements.lock --upgrade

clean:
	rm -rf $(VENV) results
