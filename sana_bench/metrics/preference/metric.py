"""PickScore, HPS v2 and HPS v2.1: cosines of image and prompt by networks that were trained on people's choices.

Each multiplies by a factor of its own and reads images in a way of its own; numbers of one are never held against another's,
those of the two versions of HPS least of all.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.samples import Sample
from sana_bench.metrics.base import MetricAssets, ScoreRow, Summary
from sana_bench.metrics.clip.metric import ClipScore
from sana_bench.metrics.clip.micro_features import ClipFeatures
from sana_bench.metrics.preference.networks import HpsFeatures, PickFeatures
from sana_bench.suites.schema import MetricSpec

__all__ = [
    "HPS_PROTOCOLS",
    "PICK_PROTOCOLS",
    "HumanPreferenceScore",
    "PickScore",
    "build_hps",
    "build_pickscore",
]

PICK_PROTOCOLS = ("pickscore/official@1",)
#: By protocol, whether a shrinking image is filtered: torchvision does so with tensors from 0.17 on, and did not before.
HPS_PROTOCOLS = {
    "hpsv2": {"hpsv2/official@1": True, "hpsv2/aliased@1": False},
    "hpsv2.1": {"hpsv2.1/official@1": True, "hpsv2.1/aliased@1": False},
}
_PICK_FILES = ("pickscore_weights", "pickscore_config", "pickscore_tokenizer")
_HPS_FILES = {"hpsv2": ("hpsv2_weights",), "hpsv2.1": ("hpsv2_1_weights",)}


class PickScore(ClipScore):
    """The cosine times the network's own learnt scale."""

    name = "pickscore"
    unit = "logit scale x cosine"

    def __init__(self, protocol: str, features: PickFeatures | ClipFeatures) -> None:
        super().__init__(protocol, features)
        self._scaled = features

    @property
    def factor(self) -> float:
        return self._scaled.logit_scale


class HumanPreferenceScore(ClipScore):
    """100 times the cosine; where prompts come in groups, as HPDv2's do, with the spread of the groups' means."""

    def __init__(self, name: str, protocol: str, features: HpsFeatures) -> None:
        super().__init__(protocol, features)
        self.name = name

    def score_features(self, samples: Sequence[Sample], features: NDArray[np.float32]) -> list[ScoreRow]:
        """As `ClipScore`; `details` has the `group` of a prompt that is in one."""
        groups = [sample.prompt.metadata.get("group") for sample in samples]
        return [
            row if group is None else replace(row, details={"group": group})
            for row, group in zip(super().score_features(samples, features), groups, strict=True)
        ]

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """As `ClipScore`; the note of a style says how its groups spread."""
        return [
            replace(summary, note=_spread([row for row in rows if row.tag == summary.key]))
            for summary in super().summarise(rows, n_expected, seed)
        ]


def _spread(rows: Sequence[ScoreRow]) -> str:
    """Mean and deviation of the means of groups, as the published benchmark prints them; empty without groups."""
    groups: dict[int, list[float]] = {}
    for row in sorted(rows, key=lambda row: row.sample_id):
        if "group" in row.details:
            groups.setdefault(row.details["group"], []).append(row.value)
    if not groups:
        return ""
    means = [float(np.mean(values)) for _, values in sorted(groups.items())]
    return f"{len(means)} groups: mean {np.mean(means):.2f}, deviation {np.std(means):.4f}"


def build_pickscore(tier: str, assets: MetricAssets, choice: MetricSpec) -> PickScore:
    """PickScore of `tier`; on the micro tier the same computation on its CLIP, which knows no preferences.

    Raises:
        SuiteError: a protocol that the tier does not have, or parameters, of which it has none.
        AssetError: a file is missing.
    """
    choice.parameters_among({})
    if tier == "micro":
        protocol = choice.pick(("pickscore/micro@1",))
        return PickScore(protocol, ClipFeatures(assets.weights_dir / "clip"))
    from sana_bench.assets.required import required

    protocol = choice.pick(PICK_PROTOCOLS)
    weights, config, tokenizer = required(choice.name, _PICK_FILES)
    return PickScore(protocol, PickFeatures(weights, config, tokenizer, assets.device))


def build_hps(tier: str, assets: MetricAssets, choice: MetricSpec) -> HumanPreferenceScore:
    """HPS v2 (`hpsv2`) or v2.1 (`hpsv2.1`), by name; raises as `build_pickscore`, and `SuiteError` on the micro tier."""
    from sana_bench.assets.required import required

    choice.needs_full_tier(tier)
    choice.parameters_among({})
    protocols = HPS_PROTOCOLS[choice.name]
    protocol = choice.pick(tuple(protocols))
    (weights,) = required(choice.name, _HPS_FILES[choice.name])
    features = HpsFeatures(weights, assets.device, antialias=protocols[protocol])
    return HumanPreferenceScore(choice.name, protocol, features)
