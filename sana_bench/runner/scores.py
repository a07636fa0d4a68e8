"""What scoring folders of images gives: numbers, samples and paired verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sana_bench.analysis.compare import Comparison, compare_with_first
from sana_bench.analysis.compare_text import as_data
from sana_bench.results.reader import RunResults, load_run
from sana_bench.runner.score import ScoreOptions, score_folders

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Scores", "score", "scores_of"]


@dataclass(frozen=True)
class Scores:
    """The run that folders of images became; `comparisons` are of the first folder with each other one.

    `exit_code` is 0 when everything was scored and 3 when something is missing.
    """

    run: RunResults
    exit_code: int
    comparisons: tuple[Comparison, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every image that was asked for is there and has every score."""
        return self.exit_code == 0 and self.run.complete

    @property
    def report(self) -> Path:
        """The report as a page."""
        return self.run.files.report / "report.html"

    def table(self) -> "pd.DataFrame":
        """One row for each number: variant, benchmark, metric, key, value, low, high, n_samples, n_expected, protocol, unit."""
        import pandas as pd

        return pd.DataFrame(self._numbers())

    def samples(self) -> "pd.DataFrame":
        """One row for each image: variant, prompt_id, index, prompt, tag, image, and the value of each metric that has one."""
        import pandas as pd

        return pd.DataFrame(
            {
                "variant": sample.sample.variant,
                "prompt_id": sample.prompt.id,
                "index": sample.index,
                "prompt": sample.prompt.text,
                "tag": sample.prompt.tag,
                "image": str(sample.sample.image_path),
                **{metric: record.value for metric, record in sample.scores.items()},
            }
            for variant in self.run.variants.values()
            for sample in variant.samples
        )

    def to_dict(self) -> dict[str, Any]:
        """All but the single images, as JSON holds it: `run`, `complete`, `reasons`, `report`, `numbers`, `comparisons`."""
        return {
            "run": self.run.run_id,
            "directory": str(self.run.files.directory),
            "report": str(self.report),
            "tier": self.run.suite.tier,
            "complete": self.complete,
            "reasons": {
                variant.name: [reason for found in variant.reasons.values() for reason in found]
                for variant in self.run.variants.values()
            },
            "numbers": self._numbers(),
            "comparisons": [as_data(found) for found in self.comparisons],
        }

    def _numbers(self) -> list[dict[str, Any]]:
        names = (
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
        )
        more = ("unit", "higher_is_better", "protocol", "complete", "note")
        return [{name: getattr(row, name) for name in (*names, *more)} for row in self.run.summaries]


def scores_of(options: ScoreOptions) -> Scores:
    """Score folders, and compare the first with each other one; raises as `score_folders` does."""
    outcome = score_folders(options)
    run = load_run(options.output, outcome.run_id)
    return Scores(run, outcome.exit_code, tuple(compare_with_first(run)))


def score(
    images: str | Path,
    *,
    prompts: str | Path | None = None,
    metrics: Sequence[str] = (),
    reference: str | Path | None = None,
    compare: Sequence[str | Path] = (),
    name: str | None = None,
    images_per_prompt: int | None = None,
    output: str | Path = "results",
    tier: str = "auto",
    allow_incomplete: bool = False,
) -> Scores:
    """Score a folder of images that exist already, as `sana-bench score` does.

    Args:
        images: folder of PNG, JPEG or WebP files.
        prompts: file of prompts; without one, what a manifest or GenEval's layout in the folder says.
        metrics: names, protocols (`fid/clean@1`) or functions (`./file.py:name`); `clip_score` by default.
        reference: folder of images, or `.npz` of statistics, for `fid` and `kid`.
        compare: further folders of images of the same prompts.
        name: how the images are called; the folder's name by default.
        images_per_prompt: by default as many as there are of any prompt.
        output: folder of runs and of the result store.
        tier: `auto`, `micro` or `full`.
        allow_incomplete: score what matches although images or prompts are left over.

    Raises:
        UsageError: files that cannot be read or matched, or metrics that do not fit.
        IncompleteError: images that belong to no prompt, unless `allow_incomplete`.
    """
    from sana_bench.core.errors import UsageError
    from sana_bench.core.tiers import TIER_REQUESTS

    request = next((known for known in TIER_REQUESTS if known == tier), None)
    if request is None:
        raise UsageError(f"tier {tier!r}: one of {', '.join(TIER_REQUESTS)}")
    return scores_of(
        ScoreOptions(
            folders=(Path(images), *map(Path, compare)),
            prompts=None if prompts is None else Path(prompts),
            metrics=tuple(metrics),
            reference=None if reference is None else str(reference),
            names=() if name is None else (name,),
            images_per_prompt=images_per_prompt,
            output=Path(output),
            tier=request,  # type: ignore[arg-type]
            allow_incomplete=allow_incomplete,
        )
    )
