"""The committed leaderboard of the shipped micro variants.

Usage: python scripts/update_leaderboard.py --from results   collect from a result store, then write the pages
       python scripts/update_leaderboard.py                  write the pages again from reports/micro/results.json
       python scripts/update_leaderboard.py --check          exit 1 if a page, or the measured weights, are stale
"""

import argparse
import sys
from pathlib import Path

from sana_bench.analysis.leaderboard import collect_leaderboard, weights_sha256
from sana_bench.core.errors import BenchError
from sana_reports.files import write_text_atomic
from sana_reports.leaderboard import render_leaderboard, write_leaderboard
from sana_reports.leaderboard_data import Leaderboard, from_json, to_json

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="output", type=Path, metavar="DIR", help="folder of the result store")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--to", type=Path, default=ROOT / "reports" / "micro", metavar="DIR")
    arguments = parser.parse_args()
    results = arguments.to / "results.json"
    if arguments.output is not None:
        text = to_json(collect_leaderboard(arguments.output, tier="micro"))
        if not arguments.check:
            write_text_atomic(results, text)
    else:
        text = results.read_text(encoding="utf-8")
    board = from_json(text)
    if not arguments.check:
        print(f"leaderboard: {write_leaderboard(board, arguments.to).html}")
        return 0
    problems = stale_pages(board, arguments.to) + stale_weights(board)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def stale_pages(board: Leaderboard, folder: Path) -> list[str]:
    """Say which committed page is missing or not what the data give today."""
    problems = []
    for name, content in render_leaderboard(board).items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content.encode("utf-8"):
            problems.append(f"{path} is stale: python scripts/update_leaderboard.py")
    return problems


def stale_weights(board: Leaderboard) -> list[str]:
    """Say which measured weights are no longer the shipped ones."""
    measured = {
        (entry.weights, entry.weights_sha256)
        for table in board.tables
        for entry in table.entries
        if entry.weights.startswith("micro://")
    }
    return [
        f"{weights} was measured with other weights than are shipped: make leaderboard"
        for weights, sha256 in sorted(measured)
        if weights_sha256(weights) != sha256
    ]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, OSError, ValueError) as error:
        sys.exit(f"update_leaderboard: {error}")
