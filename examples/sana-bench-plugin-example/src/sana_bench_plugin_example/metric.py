"""A metric of single images: how bright they are."""

from collections.abc import Sequence
from typing import Any

from sana_bench import MetricSpec, Sample, ScoreRow, Summary, load_image, mean_summary


class Brightness:
    """Mean of all pixels and channels, 0 to 255."""

    name = "brightness"
    protocol = "brightness@1"
    higher_is_better = True

    def identity(self) -> dict[str, Any]:
        """Everything that changes a score; sana-bench adds the package and its version."""
        return {"channels": "RGB"}

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """Return one row per sample, in order."""
        return [
            ScoreRow(s.id, s.prompt.id, s.prompt.tag, float(load_image(s.image_path).mean())) for s in samples
        ]

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """Return the mean over all images with its interval."""
        return [mean_summary(self, rows, n_expected, seed, unit="grey levels")]


def build_brightness(tier: str, assets: object, spec: MetricSpec) -> Brightness:
    """Return the metric; it needs no weights in any tier. Parameters that it does not have are refused."""
    spec.parameters_among({})
    return Brightness()
