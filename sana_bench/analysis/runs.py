"""Stored runs as objects: numbers and images in tables, variants compared, a picture, and how all that looks in a notebook."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sana_bench.analysis.baselines import only_variant, resolve
from sana_bench.analysis.compare import Selected, compare_variants
from sana_bench.analysis.comparison import Comparison
from sana_bench.analysis.policy import load_policy
from sana_bench.core.plain import plain
from sana_bench.core.samples import OVERALL
from sana_bench.results import reader
from sana_bench.results.reader import RunResults, SampleResult
from sana_bench.results.run_folder import DEFAULT_OUTPUT, LATEST
from sana_bench.results.schema import SummaryRecord
from sana_reports.labels import MICRO_NOTICE
from sana_reports.notebook import section

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from sana_bench.analysis.agreement import Agreement

__all__ = ["Run", "Target", "compare", "load_run", "select"]

_NUMBER = (
    *(
        "variant",
        "benchmark",
        "metric",
        "key",
        "value",
        "low",
        "high",
        "n_samples",
        "n_expected",
        "n_prompts",
    ),
    *("unit", "higher_is_better", "protocol", "complete", "note"),
)
# Of a number in a notebook.
_SHOWN = ("variant", "benchmark", "metric", "value", "low", "high", "n_samples", "n_expected", "protocol")


@dataclass(frozen=True, repr=False)
class Run:
    """A run as the store has it: whatever was generated or scored later is in a `load_run` made later.

    `results` are its samples and numbers as the harness itself reads them; `comparisons`, after `score` with several folders, are
    of the first folder with each other one.
    """

    results: RunResults
    comparisons: tuple[Comparison, ...] = ()

    @property
    def name(self) -> str:
        """Name of the run's directory."""
        return self.results.run_id

    @property
    def tier(self) -> str:
        """`micro` or `full`; numbers of the micro tier say nothing about published ones."""
        return self.results.suite.tier

    @property
    def variants(self) -> list[str]:
        """Names of the variants that the suite asks for."""
        return list(self.results.variants)

    @property
    def complete(self) -> bool:
        """Whether every variant has every image, score and number that the suite asks for."""
        return self.results.complete

    @property
    def settled(self) -> bool:
        """Whether every variant is complete, or was stopped early because a question about it was answered."""
        return self.results.settled

    @property
    def reasons(self) -> dict[str, list[str]]:
        """By variant, why it is incomplete; empty lists where it is not."""
        return {
            name: [reason for found in variant.reasons.values() for reason in found]
            for name, variant in self.results.variants.items()
        }

    @property
    def report(self) -> Path:
        """The report as a page."""
        return self.results.files.report / "report.html"

    def table(self, *, tasks: bool = False) -> "pd.DataFrame":
        """One row a variant and metric; with `tasks` also one a task of it, under the task's name as `key`.

        variant, benchmark, metric, key, value, low and high (95 % interval), n_samples, n_expected, n_prompts, unit,
        higher_is_better, protocol, complete, note.
        """
        import pandas as pd

        rows = [row for row in self._numbers() if tasks or row["key"] == OVERALL]
        return pd.DataFrame(rows, columns=_NUMBER)

    def samples(self) -> "pd.DataFrame":
        """One row a finished image.

        variant, benchmark, prompt_id, index, prompt, tag, image (its file), a column for each metric with the image's score, and
        `reasons`: why a metric that gives verdicts failed it.
        """
        import pandas as pd

        rows = [_sample(one) for variant in self.results.variants.values() for one in variant.samples]
        found = pd.DataFrame(rows)
        return found[[*(name for name in found.columns if name != "reasons"), "reasons"]] if rows else found

    def compare(self, a: str, b: str) -> Comparison:
        """Variant b against variant a, paired by prompt and sample; raises `UsageError` for a name that is none."""
        sides = [(self.results, self.results.variant(name)) for name in (a, b)]
        return _compared(*sides)

    def agreement(self, images: int = 8) -> "Agreement":
        """What the run's metrics agree on, with up to `images` images for each pair of them, as `sana-bench agreement` finds it.

        Raises `UsageError` where there is nothing to compare.
        """
        from sana_bench.analysis.agreement import find_agreement

        return find_agreement(self.results, images)

    def plot(self, *metrics: str) -> "Figure":
        """Numbers with their 95 % intervals, a panel for each of `metrics`, by default for all; hollow where incomplete.

        Raises `UsageError` for a metric that the run has no number of.
        """
        from sana_bench.analysis.plot import plot_numbers

        return plot_numbers(self.name, self.tier, self.results.summaries, metrics)

    def to_dict(self) -> dict[str, Any]:
        """All but the single images, as JSON holds it.

        run, directory, report, tier, complete, reasons, numbers, sequences (the last look of each), comparisons.
        """
        return {
            "run": self.name,
            "directory": str(self.results.files.directory),
            "report": str(self.report),
            "tier": self.tier,
            "complete": self.complete,
            "reasons": self.reasons,
            "numbers": self._numbers(),
            "sequences": [plain(one.last) | {"finding": one.finding} for one in self.results.sequences],
            "comparisons": [found.to_dict() for found in self.comparisons],
        }

    def _numbers(self) -> list[dict[str, Any]]:
        return [_number(row) for row in self.results.summaries]

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return f"<Run {self.name}: {', '.join(self.variants)}; {state}>"

    def _repr_html_(self) -> str:
        reasons = [
            f"incomplete: {name}: {reason}" for name, found in self.reasons.items() for reason in found
        ]
        notice = MICRO_NOTICE if self.tier == "micro" else ""
        lines = [f"{self.name}, {self.tier} tier", notice, *reasons, f"report: {self.report}"]
        return section(lines, self.table()[list(_SHOWN)])


#: A variant: of a run that has one only, by run and name, or as on the command line (`RUN:VARIANT`, a baseline).
Target = Run | tuple[Run, str] | str | Path


def load_run(run: str | Path = LATEST, output: str | Path = DEFAULT_OUTPUT) -> Run:
    """Read a run: `latest`, its name or how that begins, its suite, its hash, or its directory.

    Raises `UsageError` with the nearest name for a run that is not there, and for a damaged one.
    """
    return Run(reader.load_run(Path(output), str(run)))


def compare(
    a: Target, b: Target, *, run: str | Path | None = None, output: str | Path = DEFAULT_OUTPUT
) -> Comparison:
    """Variant b against variant a, paired by prompt and sample, as `sana-bench compare` does.

    Args:
        a: a run of one variant, `(run, variant)`, or a name as on the command line.
        b: as `a`; differences are b minus a.
        run: the run that holds both, where they are given by the variant's name alone.
        output: folder of runs and of the result store.

    Raises:
        UsageError: a run, variant or baseline that is not there.
    """
    return _compared(select(a, output, run), select(b, output, run))


def _compared(a: Selected, b: Selected) -> Comparison:
    """The comparison, with the number of prompts that would show what the default policy says matters."""
    return compare_variants(a, b, sizes=load_policy().sizes)


def select(target: Target, output: str | Path, run: str | Path | None = None) -> Selected:
    """The variant that `target` stands for; raises `UsageError` as `baselines.resolve` does."""
    match target:
        case Run(results=results):
            return results, only_variant(results, results.run_id)
        case Run(results=results), str(name):
            return results, results.variant(name)
    return resolve(Path(output), str(target), None if run is None else str(run))


def _number(row: SummaryRecord) -> dict[str, Any]:
    return {name: plain(getattr(row, name)) for name in _NUMBER}


def _sample(one: SampleResult) -> dict[str, Any]:
    reasons = [str(reason) for score in one.scores.values() for reason in score.details.get("reasons", ())]
    return {
        "variant": one.sample.variant,
        "benchmark": one.benchmark,
        "prompt_id": one.prompt.id,
        "index": one.index,
        "prompt": one.prompt.text,
        "tag": one.prompt.tag,
        "image": str(one.sample.image_path),
        **{metric: score.value for metric, score in one.scores.items()},
        "reasons": "; ".join(reasons),
    }
