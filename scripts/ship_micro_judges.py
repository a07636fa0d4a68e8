"""Copy the trained judges of the micro tier into the package, with their model cards: VQA, reading and reward.

Usage: python scripts/ship_micro_judges.py [vqa] [reading] [reward]

Reads `results/train/{vqa_micro_second,reading_micro,reward_micro_second}`, which training leaves in half precision with a card
that measures them against the renderer's truth. Without names it ships whichever is there. Renews their lines of `SHA256SUMS`.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from weight_sums import write_sums

from sana_bench.judges.mplug.judge import MPlugJudge
from sana_bench.metrics.image_reward.metric import RewardFiles

ROOT = Path(__file__).resolve().parents[1]
TRAINED = ROOT / "results" / "train"
WEIGHTS = ROOT / "sana_bench" / "micro" / "weights"
#: Judges with the name of the last of their trainings.
JUDGES = {"vqa": "vqa_micro_second", "reading": "reading_micro", "reward": "reward_micro_second"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*JUDGES, []], help="what to ship; all by default")
    parser.add_argument("--trained", type=Path, default=TRAINED)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    options = parser.parse_args(arguments)
    there = [name for name in JUDGES if (source(options.trained, name) / "README.md").is_file()]
    lacking = [name for name in options.names if name not in there]
    if lacking or not there:
        wanted = ", ".join(str(source(options.trained, name)) for name in lacking or JUDGES)
        print(f"no finished training: {wanted}", file=sys.stderr)
        return 2
    for name in options.names or there:
        ship(source(options.trained, name), options.weights / name)
        print(f"shipped {options.weights / name}")
    write_sums(options.weights, tuple(JUDGES))
    return 0


def source(trained: Path, name: str) -> Path:
    """Where the training of a judge leaves it."""
    return trained / JUDGES[name] / name


def ship(trained: Path, target: Path) -> None:
    """Copy a folder after loading it whole, so that nothing broken is shipped."""
    if target.name in ("vqa", "reading"):
        MPlugJudge(trained).load()
    else:
        files = RewardFiles.of_folder(trained)
        _ = files.network, files.tokens
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(trained, target)


if __name__ == "__main__":
    sys.exit(main())
