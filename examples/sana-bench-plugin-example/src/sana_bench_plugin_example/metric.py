"""A metric of single images: how bright they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sana_bench import MetricSpec, Sample, ScoreRow, Summary, check_rows, clustered_bootstrap, load_image


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
        check_rows(self.name, rows, n_expected)
        values = np.array([row.value for row in rows])
        prompts = [row.prompt_id for row in rows]
        interval = clustered_bootstrap(values, prompts, seed=seed)
        return [
            Summary(
                metric=self.name,
                protocol=self.protocol,
                key="overall",
                value=interval.value,
                low=interval.low,
                high=interval.high,
                n_samples=len(rows),
                n_expected=n_expected,
                n_prompts=len(set(prompts)),
                unit="grey levels",
                higher_is_better=self.higher_is_better,
            )
        ]


def build_brightness(tier: str, assets: object, spec: MetricSpec) -> Brightness:
    """Return the metric; it needs no weights in any tier. Parameters that it does not have are refused."""
    spec.parameters_among({})
    return Brightness()
