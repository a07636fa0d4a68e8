"""OneIG-Bench's style: how near an image comes to reference images of its style, for two encoders of style."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sana_bench.assets.locate import data_root, resolve_folder
from sana_bench.assets.required import required
from sana_bench.assets.table import published_judges
from sana_bench.core.errors import AssetError, UsageError
from sana_bench.core.fingerprint import directory_sha256, file_sha256, fingerprint
from sana_bench.core.samples import Sample
from sana_bench.metrics.base import MetricAssets, ScoreRow, Summary, mean_summary
from sana_bench.metrics.oneig.picture import CODEC, NOTE, picture
from sana_bench.suites.schema import MetricSpec
from sana_models.files import path_of

__all__ = ["OWN", "PROTOCOLS", "Judged", "StyleMetric", "build_style"]

#: With the published reference embeddings, and with reference images of one's own.
PROTOCOLS = ("oneig_style/official@1", "oneig_style/own-references@1")
OWN = PROTOCOLS[1]

_UNIT = "cosine"
Rows = NDArray[np.float64]


class Encoder(Protocol):
    """What gives unit vectors (n, d) of RGB images (height, width, 3)."""

    @property
    def name(self) -> str: ...

    def identity(self) -> dict[str, Any]: ...

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Rows: ...


@dataclass(frozen=True)
class Judged:
    """An encoder with the embeddings (n, d) of reference images by style."""

    encoder: Encoder
    references: Mapping[str, Rows]


class StyleMetric:
    """The mean over the encoders of the largest cosine to a reference image, 0 at least; the value of a row is an image's."""

    name = "oneig_style"
    higher_is_better = True

    def __init__(self, protocol: str, judged: Sequence[Judged], references_sha256: str) -> None:
        self.protocol = protocol
        self._judged = judged
        self._references_sha256 = references_sha256

    def identity(self) -> dict[str, Any]:
        return {
            "metric": self.name,
            "protocol": self.protocol,
            "codec": CODEC,
            "encoders": {one.encoder.name: one.encoder.identity() for one in self._judged},
            "references_sha256": self._references_sha256,
        }

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample; `details` has the `style` and the largest cosine by encoder.

        Raises `UsageError` for a prompt whose style has no references.
        """
        styles = [self._style(sample) for sample in samples]
        images = [picture(sample) for sample in samples]
        nearest = {one.encoder.name: _nearest(one, images, styles) for one in self._judged}
        rows = []
        for place, (sample, style) in enumerate(zip(samples, styles, strict=True)):
            cosines = {name: found[place] for name, found in nearest.items()}
            value = sum(max(cosine, 0.0) for cosine in cosines.values()) / len(cosines)
            details = {"style": style, **cosines}
            rows.append(ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, value, details))
        return rows

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """The mean of all images and of each style's, with 95 % intervals by prompt.

        How the missing samples of an incomplete set spread over styles is not known here: every style counts all of them.
        """
        overall = mean_summary(self, rows, n_expected, seed, unit=_UNIT, note=NOTE)
        n_missing = n_expected - len(rows)
        groups: dict[str, list[ScoreRow]] = {}
        for row in rows:
            groups.setdefault(row.details["style"], []).append(row)
        return [overall] + [
            mean_summary(self, group, len(group) + n_missing, seed, unit=_UNIT, key=style)
            for style, group in sorted(groups.items())
        ]

    def _style(self, sample: Sample) -> str:
        style = sample.prompt.metadata.get("style")
        lacking = [one for one in self._judged if style not in one.references]
        if not isinstance(style, str) or lacking:
            raise UsageError(f"prompt {sample.prompt.id}: there are no references of the style {style!r}")
        return style


def _nearest(judged: Judged, images: Sequence[NDArray[np.uint8]], styles: Sequence[str]) -> list[float]:
    """The largest cosine of each image to a reference of its style."""
    vectors = judged.encoder.encode(images)
    return [
        float((judged.references[style] @ vector).max())
        for style, vector in zip(styles, vectors, strict=True)
    ]


def build_style(tier: str, assets: MetricAssets, choice: MetricSpec | None = None) -> StyleMetric:
    """OneIG-Bench's style on the full tier, by the published reference embeddings.

    The parameter `references` names a folder with one folder of reference images a style, absolute or below the data root, in
    their place; the protocol is then `oneig_style/own-references@1`.

    Raises:
        SuiteError: the micro tier, which has no styles; no such protocol or parameter.
        AssetError: weights or references are missing; the message says where from.
    """
    choice = choice or MetricSpec(name=StyleMetric.name)
    choice.needs_full_tier(tier)
    folder = choice.parameters_among({"references": ""})["references"]
    protocol = choice.pick(PROTOCOLS[1:] if folder or choice.protocol == OWN else PROTOCOLS[:1])
    from sana_bench.metrics.oneig.style_encoders import (
        CSDEncoder,
        OneIGEncoder,
        read_references,
        references_of,
    )

    csd, published = required(StyleMetric.name, ("csd_vit_l_14", "oneig_style_references"))
    try:
        encoder = resolve_folder(published_judges()[StyleMetric.name], data_root())
    except AssetError as error:
        raise AssetError(f"metric {StyleMetric.name!r} on the full tier: {error}") from None
    encoders = (CSDEncoder(csd, assets.device), OneIGEncoder(encoder, assets.device))
    if protocol == OWN:
        own = path_of(folder, data_root())
        judged = [Judged(one, references_of(own, one)) for one in encoders]
        return StyleMetric(protocol, judged, directory_sha256(own))
    files = (published, published.with_name("SE_embed.pt"))
    judged = [Judged(one, read_references(path)) for one, path in zip(encoders, files, strict=True)]
    return StyleMetric(protocol, judged, fingerprint([file_sha256(path) for path in files]))
