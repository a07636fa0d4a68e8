"""Faults one after the other, each judged: the undisturbed run's numbers, or one line and exit code 2 or 3; nothing else."""

import random
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from pprint import pformat
from typing import Any

from sana_bench.core.errors import BenchError
from tests.faults.commands import Ended, start
from tests.faults.kinds import KINDS, PRECIOUS, Fault, strike
from tests.faults.world import COMMANDS, COSTS, Case, World

__all__ = ["Campaign", "Trial", "table"]

# How often what a line says is done before the line is taken for the end of it.
_ROUNDS = 4
# The store that is to be checked.
_STORE = re.compile(r"`sana-bench store check -o (\S+)`")
# The folder that has lost its store.
_NO_STORE = re.compile(r"(/\S+): there is no result store; sana-bench run makes one")
# The output folder of the run that a line is about.
_RUN = re.compile(r"(/\S+)/runs/")
# The share of faults that strike before a command starts.
_AT_REST = 0.35
# Of a path in a line, what is to be removed.
_IN_THE_WAY = re.compile(
    r"(/\S+?)(?:: is (?:a|an) .*? remove it| stands where a folder belongs|: .*?; delete it|: .* move it away)"
)


@dataclass
class Trial:
    """One fault: where it struck, how the command and the same command again ended, and what was wrong about that."""

    number: int
    kind: str
    case: Case
    moment: str
    what: str
    struck: bool = True
    end: str = ""
    rounds: int = 0
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        end = f"WRONG: {'; '.join(self.wrong)}" if self.wrong else self.end if self.struck else "not counted"
        return f"{self.number:3} {self.kind:13} {self.case.command} on {self.case.state} {self.moment}: {self.what}: {end}"


class Campaign:
    """Seeded faults on a world; the same seed strikes the same places, at moments that a machine's speed moves."""

    def __init__(self, world: World, seed: int, *, has_disk: bool) -> None:
        self._world, self._seed, self._has_disk = world, seed, has_disk
        self._victim = world.work.parent / "victim"

    def trial(self, number: int) -> Trial:
        """Let fault number `number` happen and judge what follows; one that found nothing to strike says so."""
        rng = random.Random(f"{self._seed}-{number}")
        kind = KINDS[number % len(KINDS)]
        command = (
            COMMANDS[number // len(KINDS) % len(COMMANDS)] if rng.random() < 0.5 else rng.choice(COMMANDS)
        )
        case = rng.choice([case for case in self._world.cases if case.command == command])
        at_rest = kind != "kill" and rng.random() < _AT_REST
        moment = 0.0 if at_rest else rng.uniform(0.02, 0.98)
        trial = Trial(number, kind, case, "at rest" if at_rest else f"at {100 * moment:.0f} %", "")
        self._world.reset(case)
        self._victim.write_bytes(PRECIOUS)
        fault, first = self._disturbed(case, kind, rng, moment)
        trial.what, trial.struck = fault.what, fault.struck
        self._judge(trial, first, case, "disturbed", killed=kind == "kill")
        self._again(trial, case, fault)
        if self._victim.read_bytes() != PRECIOUS:
            trial.wrong.append("a file outside was changed")
        if fault.lift is not None:
            fault.lift()
        return trial

    def _disturbed(self, case: Case, kind: str, rng: random.Random, moment: float) -> tuple[Fault, Ended]:
        world = self._world
        if not moment or (kind == "fill the disk" and not self._has_disk):
            fault = strike(kind, world.work, self._victim, rng, None, has_disk=self._has_disk)
            return fault, start(case.arguments, world.scratch, fault.prepare).wait(case.limit)
        running = start(case.arguments, world.scratch)
        while running.seconds < moment * case.seconds and not running.is_over():
            time.sleep(0.005)
        fault = strike(kind, world.work, self._victim, rng, running, has_disk=self._has_disk)
        return fault, running.wait(case.limit)

    def _again(self, trial: Trial, case: Case, fault: Fault) -> None:
        """The same command again, with what its line says done each time, until it ends with the numbers or nothing helps."""
        said = ""
        for trial.rounds in range(_ROUNDS):
            ended = start(case.arguments, self._world.scratch).wait(case.limit)
            self._judge(trial, ended, case, "again")
            if trial.wrong:
                return
            if ended.code == case.code and not (case.code and ended.lines):
                trial.end = "the numbers" if not trial.rounds else "the numbers after what the line says"
                return
            said = ended.line or ended.out.strip().rpartition("\n")[2]
            if not self._follow(said, trial, fault):
                break
        trial.end = f"one line: {said}"

    def _follow(self, line: str, trial: Trial, fault: Fault) -> bool:
        """Do what a line says; False where nothing of it can be done."""
        if fault.lift is not None:
            fault.lift()
            fault.lift = None
            return True
        if (store := _STORE.search(line)) is not None:
            repaired = self._told(trial, ["store", "repair", "-o", store[1]])
            # It says that something is lost, which these two make again by themselves.
            if repaired.code == 3 and trial.case.command not in ("run", "score"):
                self._told(trial, self._world.run_into(Path(store[1])))
            return repaired.code in (0, 3) or self._follow(repaired.line, trial, fault)
        of = _NO_STORE.search(line) or ("run the suite again" in line and _RUN.search(line))
        if of:
            told = self._told(trial, self._world.run_into(Path(of[1]))).line
            return not told or self._follow(told, trial, fault)
        if (found := _IN_THE_WAY.search(line)) is not None and self._world.work in Path(found[1]).parents:
            place = Path(found[1])
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink(
                missing_ok=True
            )
            return True
        if "put a copy of the file in its place" in line:
            place = Path(line.removeprefix("sana-bench: ").partition(": has a second name")[0])
            place.unlink()
            return True
        return False

    def _told(self, trial: Trial, arguments: list[str]) -> Ended:
        """Run another command that a line asks for, which must neither hang nor crash."""
        ended = start(arguments, self._world.scratch).wait(self._world.longest)
        if ended.code is None or not ended.is_clean:
            trial.wrong.append(f"{arguments[0]}, as a line says: {ended.code}: {ended.err.strip()[-300:]}")
        return ended

    def _judge(self, trial: Trial, ended: Ended, case: Case, when: str, *, killed: bool = False) -> None:
        trial.slowest = max(trial.slowest, ended.seconds)
        if ended.code is None:
            trial.wrong.append(f"{when}: hung for {ended.seconds:.0f} s")
            return
        if killed and ended.code < 0:
            return
        if not ended.is_clean:
            trial.wrong.append(f"{when}: {ended.line or ended.err.strip()[-300:]}")
        elif ended.code == case.code and not (case.code and ended.lines):
            self._compare(trial, ended, case, when)
        elif ended.code not in (2, 3):
            trial.wrong.append(f"{when}: exit code {ended.code}: {ended.line or ended.err.strip()[-300:]}")
        elif not ended.lines and "incomplete" not in ended.out and "interrupted" not in ended.out:
            trial.wrong.append(f"{when}: exit code {ended.code} without a line")

    def _compare(self, trial: Trial, ended: Ended, case: Case, when: str) -> None:
        # A fault may strike a file that the command no longer looks at: the first to see it is whoever reads the numbers, as the
        # same command does when it begins again.
        if when == "disturbed" and "report.csv" in trial.what:
            return
        try:
            found: Any = case.numbers(ended)
        except (BenchError, OSError) as error:
            if when == "again":
                trial.wrong.append(f"{when}: exit code {ended.code}, and the numbers cannot be read: {error}")
            return
        except Exception as error:  # noqa: BLE001 - whatever keeps the numbers from being read is a finding
            trial.wrong.append(f"{when}: exit code {ended.code}, and the numbers cannot be read: {error}")
            return
        expected = case.expected
        if isinstance(expected, dict):  # a run that was renamed, or is of other prompts, is another one
            found = {run: found.get(run) for run in expected}
        if case.command == "report" and len(found) == len(expected):
            expected = [_with_costs_of(row, other) for row, other in zip(expected, found, strict=True)]
        if found != expected:
            trial.wrong.append(f"{when}: other numbers: {_difference(found, expected)}")


def _with_costs_of(expected: dict[str, str], found: dict[str, str]) -> dict[str, str]:
    """A row of a report with the costs of another one, where those are lost with the store, or were measured anew since."""
    free = [name for name in COSTS if not found.get(name) or name.endswith("_s")]
    return expected | {name: found[name] for name in free if name in found}


def _difference(found: object, expected: object) -> str:
    """The first line in which two results differ, as one has it and as the other."""
    pairs = zip_longest(*(pformat(one, width=1).splitlines() for one in (found, expected)))
    return next((f"{one!r:.300} is to be {other!r:.300}" for one, other in pairs if one != other), "")


def table(trials: Sequence[Trial]) -> str:
    """Trials by kind, as Markdown."""
    lines = [
        "| fault | tried | the numbers at once | the numbers after what the line says | one line, 2 or 3 | anything else |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    counts: tuple[Callable[[Trial], bool], ...] = (
        lambda one: one.end == "the numbers" and not one.wrong,
        lambda one: one.end.startswith("the numbers after") and not one.wrong,
        lambda one: one.end.startswith("one line") and not one.wrong,
        lambda one: bool(one.wrong),
    )
    for kind in (*KINDS, "all"):
        own = [one for one in trials if kind in (one.kind, "all")]
        cells = [str(len(own)), *(str(sum(map(count, own))) for count in counts)]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)
