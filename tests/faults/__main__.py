"""`python -m tests.faults COUNT`: so many faults, each told, and a table by kind; ends with 1 where one went wrong."""

import argparse
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign, Trial, table
from tests.faults.commands import import_everything
from tests.faults.world import World
from tests.small_disk import small_disk

_DISK_KILOBYTES = 16_384


@contextmanager
def _disk(folder: Path):
    """A small disk, or a plain folder where none may be mounted; and which it is."""
    try:
        with small_disk(folder, _DISK_KILOBYTES) as disk:
            yield disk, True
    except pytest.skip.Exception:
        yield folder, False


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("count", type=int, help="faults to try")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first fault, to try one again")
    options = parser.parse_args()
    started = time.monotonic()
    import_everything()
    with (
        tempfile.TemporaryDirectory(prefix="sana-bench-faults-") as name,
        _disk(Path(name) / "disk") as (disk, has_disk),
    ):
        (disk / "work").mkdir()
        world = World(Path(name) / "world", disk / "work")
        world.prepare()
        campaign = Campaign(world, options.seed, has_disk=has_disk)
        full = (
            f"a disk of {_DISK_KILOBYTES // 1024} MB in memory"
            if has_disk
            else "a limit of the length of files (RLIMIT_FSIZE)"
        )
        print(f"seed {options.seed}; a full disk is {full}; commands undisturbed: ", end="")
        print(
            ", ".join(f"{case.command} on {case.state} {case.seconds:.1f} s" for case in world.cases),
            flush=True,
        )
        trials: list[Trial] = []
        number = options.first
        while len(trials) < options.count:
            trial = campaign.trial(number)
            print(trial, flush=True)
            trials += [trial] if trial.struck or trial.wrong else []
            number += 1
    wrong = [trial for trial in trials if trial.wrong]
    print(f"\n{table(trials)}\n")
    print(f"slowest command: {max((trial.slowest for trial in trials), default=0):.1f} s")
    print(f"{len(trials)} faults in {(time.monotonic() - started) / 60:.1f} minutes, {len(wrong)} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
