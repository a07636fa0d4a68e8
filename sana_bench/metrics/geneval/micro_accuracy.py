"""Measures the evaluator itself: GenEval's verdicts on rendered scenes whose truth is known.

`python -m sana_bench.metrics.geneval.micro_accuracy --write docs/micro_world.md` renews the tables in that page.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sana_bench.core.errors import UsageError
from sana_bench.core.progress import say
from sana_bench.core.text import read_text
from sana_bench.metrics.geneval.decision import decide
from sana_bench.metrics.geneval.metric import TASKS
from sana_bench.micro.captions import sample_record, scene_for
from sana_bench.micro.detector import detect
from sana_bench.micro.renderer import render
from sana_bench.micro.world import Scene
from sana_bench.micro.wrong_scenes import wrong_records, wrong_scene_for

__all__ = ["Rate", "main", "measure_accepted", "measure_rejected", "write_tables"]

_TOPIC = "detector accuracy"


@dataclass(frozen=True)
class Rate:
    """How many of `n` scenes of one `task` got the right verdict; `kind` is how the scenes were made."""

    task: str
    kind: str
    n_right: int
    n: int


def measure_accepted(n_scenes: int, seed: int) -> list[Rate]:
    """Per task, how many of `n_scenes` scenes that show what their record asks for are found correct."""
    rates = []
    for index, task in enumerate(TASKS):
        rng = np.random.default_rng([seed, 0, index])
        n_right = 0
        for _ in range(n_scenes):
            record = sample_record(task, rng)
            n_right += _is_judged_correct(scene_for(record, rng), record)
        rates.append(Rate(task, "as asked", n_right, n_scenes))
    return rates


def measure_rejected(n_scenes: int, seed: int) -> list[Rate]:
    """Per task and kind of mistake, how many scenes with that one mistake are rejected; `n_scenes` a task."""
    rates = []
    for index, task in enumerate(TASKS):
        rng = np.random.default_rng([seed, 1, index])
        kinds = list(wrong_records(sample_record(task, rng)))
        for position, kind in enumerate(kinds):
            n = n_scenes // len(kinds) + (position < n_scenes % len(kinds))
            n_right = 0
            for _ in range(n):
                record = sample_record(task, rng)
                n_right += not _is_judged_correct(wrong_scene_for(record, rng, kind), record)
            if n:
                rates.append(Rate(task, kind, n_right, n))
    return rates


def write_tables(page: Path, tables: str, topic: str = _TOPIC) -> None:
    """Replace what stands between the page's two markers of `topic`; raises `UsageError` when they are missing."""
    begin, end = f"<!-- {topic}: begin -->", f"<!-- {topic}: end -->"
    text = read_text(page)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise UsageError(f"{page}: needs each of the lines {begin!r} and {end!r} once")
    before, after = text.split(begin)[0], text.split(end)[1]
    page.write_text(f"{before}{begin}\n{tables}\n{end}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sana_bench.metrics.geneval.micro_accuracy", description=__doc__
    )
    parser.add_argument("--scenes", type=int, default=1000, help="scenes per task in each table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="page whose tables to replace")
    options = parser.parse_args(arguments)
    tables = _tables(options.scenes, options.seed)
    if options.write is None:
        say(tables)
    else:
        write_tables(options.write, tables)


def _is_judged_correct(scene: Scene, record: dict[str, Any]) -> bool:
    return decide(record, detect(render(scene))).correct


def _tables(n_scenes: int, seed: int) -> str:
    return "\n".join(
        [
            f"{n_scenes} scenes per task and table, seed {seed}.",
            "",
            *_table("found correct", measure_accepted(n_scenes, seed)),
            "",
            *_table("rejected", measure_rejected(n_scenes, seed)),
        ]
    )


def _table(verdict: str, rates: Sequence[Rate]) -> list[str]:
    rows = [f"| task | scenes | n | {verdict} | share |", "|---|---|---|---|---|"]
    for task in dict.fromkeys(rate.task for rate in rates):
        of_task = [rate for rate in rates if rate.task == task]
        if len(of_task) > 1:
            total = Rate(task, "all", sum(r.n_right for r in of_task), sum(r.n for r in of_task))
            of_task = [total, *of_task]
        rows += [f"| {r.task} | {r.kind} | {r.n} | {r.n_right} | {r.n_right / r.n:.1%} |" for r in of_task]
    return rows


if __name__ == "__main__":
    main()
