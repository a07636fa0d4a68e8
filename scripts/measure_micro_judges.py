"""Measure the micro tier's judges against the renderer's truth and print the table of the documentation.

Usage: python scripts/measure_micro_judges.py vqa|reading|reward [--weights FOLDER]
           [--write docs/dpg_bench.md|docs/judges.md|docs/image_reward.md]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sana_bench.assets.locate import micro_weights_root
from sana_bench.core.errors import BenchError
from sana_bench.metrics.geneval.micro_accuracy import write_tables


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("judge", choices=("vqa", "reading", "reward"))
    parser.add_argument("--weights", type=Path, help="folder of the judge; the shipped one by default")
    parser.add_argument("--write", type=Path, help="page whose table to replace")
    options = parser.parse_args(arguments)
    try:
        tables = measure(options.judge, options.weights or micro_weights_root() / options.judge)
        if options.write is None:
            print(tables)
        else:
            write_tables(options.write, tables, f"{options.judge} accuracy")
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def measure(judge: str, folder: Path) -> str:
    """The accuracy tables of the weights in `folder`, as Markdown."""
    if judge == "vqa":
        from sana_bench.judges.mplug.judge import MPlugJudge
        from sana_bench.metrics.dpg.card import accuracy_tables

        return accuracy_tables(MPlugJudge(folder))
    if judge == "reading":
        from sana_bench.judges.mplug.reading import ReadingMPlug
        from sana_bench.metrics.reading_card import accuracy_tables as reading_tables

        return reading_tables(ReadingMPlug(folder))
    from sana_bench.metrics.image_reward import card as image_reward_card
    from sana_bench.metrics.image_reward.metric import RewardFiles

    return image_reward_card.accuracy_tables(RewardFiles.of_folder(folder))


if __name__ == "__main__":
    sys.exit(main())
