# `make demo` and `make test` do everything from a fresh clone; both need only Python 3.11+ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test faults benchmarks lint train train-story leaderboard lock clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) scripts/bootstrap.py $(VENV)
	touch $@

demo: setup
	$(BIN)/sana-bench run suites/demo.yaml --tier micro

test: lint
	$(BIN)/python -m pytest

# Random faults at random moments of real commands, and the same command again (about six minutes on two cores).
FAULTS ?= 200
SEED ?= 1
faults: setup
	$(BIN)/python -m tests.faults $(FAULTS) --seed $(SEED)

# Speed against other implementations and of the harness itself (half an hour on two cores); `sana-bench history results/benchmarks` shows it.
benchmarks: setup
	$(BIN)/python -m benchmarks --to reports/benchmarks

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture

# Reproduces SANA, CLIP and the judges of the micro tier, in this order (about seven hours on two cores).
train: setup
	$(BIN)/sana-bench train configs/train/dc_ae_micro.yaml
	$(BIN)/sana-bench train configs/train/sana_micro.yaml
	$(BIN)/sana-bench train configs/train/clip_micro.yaml
	$(BIN)/python scripts/ship_micro_weights.py
	$(BIN)/sana-bench train configs/train/vqa_micro.yaml
	$(BIN)/sana-bench train configs/train/vqa_micro_second.yaml
	$(BIN)/python scripts/ship_micro_judges.py vqa
	$(BIN)/sana-bench train configs/train/reading_micro.yaml
	$(BIN)/sana-bench train configs/train/reward_micro.yaml
	$(BIN)/sana-bench train configs/train/reward_micro_second.yaml
	$(BIN)/python scripts/ship_micro_judges.py

# Reproduces the micro tier's SANA-1.5 family (about an hour on two quiet cores, after `train`).
STORY := results/train/sana15_micro
train-story: setup
	$(BIN)/sana-bench train configs/train/sana15_micro_base.yaml
	$(BIN)/sana-bench grow $(STORY)_base/pipeline --depth 8 --keep 3 -o $(STORY)_grown_start
	$(BIN)/sana-bench train configs/train/sana15_micro_grown.yaml
	$(BIN)/sana-bench train configs/train/sana15_micro_scratch.yaml
	$(BIN)/sana-bench prune $(STORY)_grown/pipeline --keep 6 -o $(STORY)_pruned75_start
	$(BIN)/sana-bench train configs/train/sana15_micro_pruned75.yaml
	$(BIN)/sana-bench prune $(STORY)_grown/pipeline --keep 4 -o $(STORY)_pruned50_start
	$(BIN)/sana-bench train configs/train/sana15_micro_pruned50.yaml
	$(BIN)/python scripts/ship_story_weights.py

# Measures the shipped micro variants and writes reports/micro/.
leaderboard: setup
	$(BIN)/sana-bench run suites/geneval.yaml --tier micro --output results/leaderboard
	$(BIN)/sana-bench run suites/sana15_micro.yaml --tier micro --output results/leaderboard
	$(BIN)/python scripts/update_leaderboard.py --from results/leaderboard

# Newest versions that satisfy pyproject.toml; versions only, no index addresses.
lock: setup
	$(VENV)/uv/bin/uv pip compile pyproject.toml --extra test --extra lint --no-header --no-annotate \
		--no-emit-index-url --output-file requirements.lock --upgrade

clean:
	rm -rf $(VENV) results
