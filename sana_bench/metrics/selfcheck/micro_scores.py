"""Checks of the micro tier's CLIP: the scores of stored images, with the weights that are shipped."""

import numpy as np

from sana_bench.core.fingerprint import short
from sana_bench.metrics.selfcheck import golden_files
from sana_bench.metrics.selfcheck.check import Bench, Check, SkippedError, Tolerance

__all__ = ["CHECKS"]


def _scores(bench: Bench) -> float:
    from sana_bench.metrics.clip.micro_features import ClipFeatures

    folder = bench.weights / "clip"
    if not folder.is_dir():
        raise SkippedError(f"{folder} is not there: the micro tier's CLIP")
    stored = golden_files.numbers()["micro"]
    features = ClipFeatures(folder)
    if features.weights_sha256 != stored["clip_sha256"]:
        shipped, found = short(stored["clip_sha256"]), short(features.weights_sha256)
        raise SkippedError(f"{folder} holds weights {found}; the stored scores are of {shipped}")
    images = features.network.encode_images(golden_files.arrays("micro")["images"]).astype(np.float64)
    texts = features.of_texts([scene["caption"] for scene in stored["scenes"]]).astype(np.float64)
    return float(np.abs(100 * (images @ texts.T) - np.array(stored["clip_scores"])).max())


CHECKS = (
    Check(
        "micro CLIP: scores of stored images",
        ("clip_score/micro@1", "fid/clip-micro@1", "pickscore/micro@1"),
        _scores,
        Tolerance(2e-3, "of 100", "float32 sums in another order: 2e-5 of a cosine"),
        quick=True,
    ),
)
