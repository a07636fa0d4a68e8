"""Image-and-text models that answer questions about an image, and the judges of searches by name."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sana_bench.core.errors import SuiteError
from sana_bench.core.registry import JUDGES
from sana_bench.suites.schema import JudgeSpec

if TYPE_CHECKING:
    from sana_bench.judges.base import PromptJudge, ReadingJudge

__all__ = ["build", "build_reading", "identity"]


def build(spec: JudgeSpec, relative_to: Path, device: str) -> "PromptJudge":
    """Return the judge that a variant names under `best_of_n.judge`, not loaded yet; `weights` may be relative to a folder.

    One that reads is asked for its review. Raises `SuiteError` for an unknown name or unfit settings and `AssetError` for missing
    weights.
    """
    from sana_bench.judges.base import PromptJudge, ReadingJudge
    from sana_bench.judges.review import Review

    judge = JUDGES.build(spec.name, spec, relative_to, device)
    if isinstance(judge, PromptJudge):
        return judge
    if isinstance(judge, ReadingJudge):
        return Review(judge)
    raise SuiteError(f"{JUDGES.entry(spec.name).label} has no judge")


def build_reading(spec: JudgeSpec, relative_to: Path, device: str) -> "ReadingJudge":
    """Return the judge that a metric asks in its own words, not loaded yet.

    Raises `SuiteError` as `build` does, and for one that answers no questions.
    """
    from sana_bench.judges.base import ReadingJudge

    judge = JUDGES.build(spec.name, spec, relative_to, device)
    if not isinstance(judge, ReadingJudge):
        raise SuiteError(f"{JUDGES.entry(spec.name).label} scores images and answers no questions in words")
    return judge


def identity(spec: JudgeSpec, judge: "PromptJudge | ReadingJudge") -> dict[str, Any]:
    """Return everything that changes what the judge of `spec` says; for a plug-in also its package and version."""
    plugin = JUDGES.plugin(spec.name)
    return {**judge.identity(), **({"plugin": plugin.identity} if plugin is not None else {})}
