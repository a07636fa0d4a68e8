"""Image-and-text models that answer questions about an image, and the judges of searches by name."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sana_bench.core.registry import JUDGES
from sana_bench.suites.schema import JudgeSpec

if TYPE_CHECKING:
    from sana_bench.judges.base import PromptJudge

__all__ = ["build", "identity"]


def build(spec: JudgeSpec, relative_to: Path, device: str) -> "PromptJudge":
    """Return the judge that a variant names under `best_of_n.judge`, not loaded yet; `weights` may be relative to a folder.

    Raises `SuiteError` for an unknown name or unfit settings and `AssetError` for missing weights.
    """
    judge: PromptJudge = JUDGES.build(spec.name, spec, relative_to, device)
    return judge


def identity(spec: JudgeSpec, judge: "PromptJudge") -> dict[str, Any]:
    """Return everything that changes what the judge of `spec` says; for a plug-in also its package and version."""
    plugin = JUDGES.plugin(spec.name)
    return {**judge.identity(), **({"plugin": plugin.identity} if plugin is not None else {})}
