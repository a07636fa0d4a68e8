"""What the campaign works on: a small suite, a folder of images, and results in every state that a command starts from."""

import csv
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sana_bench.results.run_folder import open_store
from tests import suite_files
from tests.faults.commands import Ended, start

__all__ = ["COMMANDS", "COSTS", "Case", "World"]

COMMANDS = ("run", "score", "report", "import", "gate")
#: Columns of a report that say what an image cost to make, which the store alone knows.
COSTS = ("generated_per_image", "generation_s", "judge_s", "generation_flops", "judge_flops")
_PROMPTS = (
    "a photo of a red circle",
    "a photo of a blue square",
    "a photo of a green star",
    "a photo of two red squares",
)
_SAMPLER = "sampler: {steps: 2, guidance_scale: 2.0}"
_SEARCH = "best_of_n: {generator: sana, candidates: 2, judge: {name: clip_score}}"
# A command that takes longer than undisturbed by a minute hangs.
_HANGS_AFTER_S = 60.0


@dataclass
class Case:
    """A command in a state of its folders, what it gives undisturbed, and how long that takes."""

    command: str
    state: str
    arguments: list[str]
    template: Path
    numbers: Callable[[Ended], Any]
    expected: Any = None
    code: int = 0
    seconds: float = 0.0
    slowest: float = field(default=0.0, compare=False)

    @property
    def limit(self) -> float:
        """Seconds after which it hangs."""
        return _HANGS_AFTER_S + self.seconds


class World:
    """Templates of folders, and `work`, a copy of one of them, on which a command works and a fault strikes."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.folder, self.work, self.scratch = folder, work, folder / "scratch"
        self.out, self.other = work / "out", work / "other"
        self._write_inputs()
        self.run_id = ""
        self._run: list[str] = []
        self.cases: list[Case] = []

    def prepare(self) -> None:
        """Make the templates, and learn what every command gives undisturbed."""
        run = [
            "run",
            str(self.folder / "few.yaml"),
            "--tier",
            "micro",
            "--batch-size",
            "2",
            "-o",
            str(self.out),
        ]
        score = [
            "score", str(self.work / "images"), "--prompts", str(self.folder / "prompts.csv"), "--metrics", "clip_score",
            "--tier", "micro", "-o", str(self.out),
        ]  # fmt: skip
        self._run = run
        self._reset(None)
        self._do(run)
        (self.run_id,) = (path.name for path in (self.out / "runs").iterdir())
        self._do(["baseline", "set", "known", f"{self.run_id}:quick", "-o", str(self.out)])
        done = self._keep("done")
        self._reset(None)
        self._do([*run, "--limit", "2"], 3)
        half = self._keep("half")
        killed = self._killed(run)
        self._reset(None)
        shutil.copytree(done / "out" / "runs" / self.run_id / "images", self.folder / "made")
        self._with_images()
        images = self._keep("images_only")
        self._do(score)
        scored = self._keep("scored")
        self._reset(None)
        nothing = self._keep("nothing")
        shutil.copytree(done / "out", self.other)
        source = self._keep("source")
        self._do(["import", str(self.other), "-o", str(self.out)])
        imported = self._keep("imported")

        gate = [
            "gate", f"{self.run_id}:searched", "--baseline", "known", "--policy", str(self.folder / "policy.yaml"),
            "-o", str(self.out), "--junit", str(self.work / "gate.xml"), "--markdown", str(self.work / "gate.md"),
        ]  # fmt: skip
        bring = ["import", str(self.other), "-o", str(self.out)]
        for name, template in (("nothing", nothing), ("half", half), ("killed", killed), ("done", done)):
            self._add("run", name, run, template, self._summaries)
        self._add("score", "nothing", score, images, self._summaries)
        self._add("score", "done", score, scored, self._summaries)
        self._add("report", "done", ["report", self.run_id, "-o", str(self.out)], done, self._report)
        self._add("import", "nothing", bring, source, self._summaries)
        self._add("import", "done", bring, imported, self._summaries)
        self._add("gate", "done", gate, done, lambda ended: (ended.code, ended.out))

    @property
    def longest(self) -> float:
        """Seconds after which any command hangs."""
        return max(case.limit for case in self.cases)

    def run_into(self, output: Path) -> list[str]:
        """How to run the suite into an output folder, as a line may ask for."""
        return [*self._run[:-1], str(output)]

    def reset(self, case: Case) -> None:
        """Let the working folder be as the case begins."""
        self._reset(case.template)

    def _add(
        self, command: str, state: str, arguments: list[str], template: Path, numbers: Callable[[Ended], Any]
    ) -> None:
        case = Case(command, state, arguments, template, numbers)
        self.reset(case)
        ended = start(arguments, self.scratch).wait(600)
        assert ended.code in (0, 4), f"{command} on {state}: {ended}"
        assert ended.is_clean, ended
        case.code, case.expected, case.seconds = ended.code, numbers(ended), ended.seconds
        self.cases.append(case)

    def _summaries(self, _: Ended) -> Any:
        with open_store(self.out) as store:
            runs = [str(row["run_id"]) for row in store.rows("SELECT run_id FROM runs ORDER BY run_id")]
            return {run: store.summaries(run) for run in runs}

    def _report(self, _: Ended) -> Any:
        with open(self.out / "runs" / self.run_id / "report" / "report.csv", newline="") as file:
            return list(csv.DictReader(file))

    def _write_inputs(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        suite_files.write_variant(self.folder, "quick", _SAMPLER, tier="micro", weights="micro://sana-micro")
        suite_files.write_variant(
            self.folder,
            "searched",
            "generator: best_of_n",
            _SAMPLER,
            _SEARCH,
            tier="micro",
            weights="micro://sana-micro",
        )
        rows = "".join(f"{number:02},{text}\n" for number, text in enumerate(_PROMPTS))
        (self.folder / "prompts.csv").write_text(f"id,prompt\n{rows}")
        benchmark = "{name: mine, prompts: ./prompts.csv, images_per_prompt: 1, metrics: [clip_score]}"
        suite_files.write_suite(self.folder, benchmark, ["quick", "searched"], tier="micro", name="few")
        (self.folder / "policy.yaml").write_text("schema_version: 1\nmetrics: {clip_score: {worse_by: 50}}\n")

    def _with_images(self) -> None:
        (self.work / "images").mkdir()
        for path in (self.folder / "made").glob("quick-*/mine/*/00000.png"):
            shutil.copyfile(path, self.work / "images" / f"{path.parent.name}.png")

    def _killed(self, run: list[str]) -> Path:
        """A run that was killed while its log was not yet in the store."""
        while True:
            self._reset(None)
            running = start(run, self.scratch)
            log = self.out / "store.sqlite-wal"
            while not running.is_over() and not (log.exists() and len(list(self.out.rglob("*.png"))) > 2):
                time.sleep(0.01)
            running.send(signal.SIGKILL)
            running.wait(60)
            if log.exists() and log.stat().st_size:
                return self._keep("killed")

    def _do(self, arguments: list[str], code: int = 0) -> None:
        ended = start(arguments, self.scratch).wait(600)
        assert ended.code == code, ended

    def _keep(self, name: str) -> Path:
        shutil.copytree(self.work, self.folder / name, symlinks=True)
        return self.folder / name

    def _reset(self, template: Path | None) -> None:
        for path in self.work.iterdir():
            _remove(path)
        for path in template.iterdir() if template is not None else ():
            if path.is_dir():
                shutil.copytree(path, self.work / path.name, symlinks=True)
            else:
                shutil.copy2(path, self.work / path.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.chmod(0o700)
        for below in path.rglob("*"):
            if below.is_dir() and not below.is_symlink():
                below.chmod(0o700)
        shutil.rmtree(path)
    else:
        path.unlink()
