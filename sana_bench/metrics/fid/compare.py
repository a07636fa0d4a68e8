"""Two variants compared by what sets of images have as a whole, from stored features and the cached reference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.errors import AssetError, IncompleteError
from sana_bench.core.fingerprint import fingerprint, short
from sana_bench.metrics.oneig.diversity import PAIRWISE, by_prompt
from sana_bench.results.reader import RunResults, SampleResult, load_features
from sana_bench.results.schema import SummaryRecord
from sana_bench.results.statistics.distances import compare_frechet, compare_left_out
from sana_bench.results.statistics.effect import Effect
from sana_bench.results.statistics.paired import compare_means

if TYPE_CHECKING:
    from sana_bench.metrics.fid.frechet import Moments

__all__ = ["NotMeasuredError", "compare_sets"]

Pairs = Sequence[tuple[SampleResult, SampleResult]]
Rows = NDArray[np.float32]
_FRECHET_DRAWS = 200


class NotMeasuredError(ValueError):
    """Why two sets could not be compared."""


def compare_sets(
    runs: tuple[RunResults, RunResults],
    identity: Mapping[str, Any],
    summaries: tuple[SummaryRecord, SummaryRecord],
    pairs: Pairs,
    seed: int,
) -> Effect:
    """The difference of two numbers over all images, prompts being the units and the reference, if any, held fixed.

    Raises:
        NotMeasuredError: stored features or reference statistics are missing or damaged, or an image has no partner.
    """
    if identity.get("distance") == PAIRWISE:
        return _compare_diversity(runs, identity, pairs, seed)
    if "chain" in identity:
        return _compare_inception(runs, identity, summaries, pairs)
    reference = _stored_reference(runs, identity)
    if reference is None:
        raise NotMeasuredError("reference statistics missing")
    key = f"{identity.get('network')}/{identity.get('weights_sha256')}"
    sets = _features(runs, key, pairs)
    clusters = [sample.prompt.id for sample, _ in pairs]
    return compare_frechet(
        *sets, (reference.mean, reference.covariance), clusters, seed=seed, n_draws=_FRECHET_DRAWS
    )


def _compare_diversity(
    runs: tuple[RunResults, RunResults], identity: Mapping[str, Any], pairs: Pairs, seed: int
) -> Effect:
    """Every prompt has a number of its own on either side."""
    prompts = [sample.prompt.id for sample, _ in pairs]
    try:
        first, second = (by_prompt(prompts, rows) for rows in _features(runs, identity["features"], pairs))
    except IncompleteError as error:
        raise NotMeasuredError(str(error)) from None
    names = list(first)
    return compare_means([first[name] for name in names], [second[name] for name in names], names, seed=seed)


def _compare_inception(
    runs: tuple[RunResults, RunResults],
    identity: Mapping[str, Any],
    summaries: tuple[SummaryRecord, SummaryRecord],
    pairs: Pairs,
) -> Effect:
    """Twenty groups of prompts are left out in turn: distances of 2,048 dimensions are too slow for redrawing prompts."""
    from sana_bench.metrics.fid.features import feature_key
    from sana_bench.metrics.fid.metric import dealt_groups

    reference = _inception_reference(runs, identity)
    if len(pairs) < summaries[0].n_samples:
        raise NotMeasuredError(f"only {len(pairs)} of {summaries[0].n_samples} images are on both sides")
    ordered = sorted(pairs, key=lambda pair: (pair[0].prompt.tag, *pair[0].sample.place))
    groups = dealt_groups([sample.prompt.id for sample, _ in ordered])
    left_out = []
    for rows in _features(runs, feature_key(identity), ordered):
        left_out.append(_distances(str(identity["metric"]), [rows[group] for group in groups], reference))
    if len(left_out[0]) < 2:
        raise NotMeasuredError("too few prompts to leave any out")
    return compare_left_out(
        (summaries[0].value, summaries[1].value),
        (left_out[0], left_out[1]),
        n_pairs=len(pairs),
        n_clusters=len({sample.prompt.id for sample, _ in pairs}),
    )


def _distances(metric: str, groups: Sequence[Rows], reference: Any) -> NDArray[np.float64]:
    """The distance without each group, on the metric's own scale."""
    from sana_bench.metrics.fid.frechet import FrechetTo, grouped_moments, left_out
    from sana_bench.metrics.fid.kernel import kid_left_out

    rows, _, moments = reference
    if metric == "kid":
        return 1000 * kid_left_out(groups, rows)
    return left_out(*grouped_moments(groups, FrechetTo(moments)))


def _features(runs: tuple[RunResults, RunResults], key: str, pairs: Pairs) -> tuple[Rows, Rows]:
    sets = [
        load_features(run.output, key, [str(pair[side].image.sha256) for pair in pairs])
        for side, run in enumerate(runs)
    ]
    if sets[0] is None or sets[1] is None:
        raise NotMeasuredError("features missing")
    return sets[0], sets[1]


def _inception_reference(runs: tuple[RunResults, RunResults], identity: Mapping[str, Any]) -> Any:
    from sana_bench.metrics.fid.reference import read_statistics, statistics_path

    if identity["reference"].get("data") == "statistics" and (stored := _stored_reference(runs, identity)):
        return None, None, stored
    chain = {name: identity[name] for name in ("chain", "parameters", "weights_sha256")}
    for run in runs:
        path = statistics_path(run.output / "cache", chain, identity["reference"])
        if path.is_file():
            try:
                return read_statistics(path, {**identity["reference"], **chain})
            except AssetError as error:
                raise NotMeasuredError(str(error)) from None
    raise NotMeasuredError("reference statistics missing")


def _stored_reference(runs: tuple[RunResults, RunResults], identity: Mapping[str, Any]) -> "Moments | None":
    """Moments of the reference that `identity` names, from the cache of either output folder."""
    return next((found for run in runs if (found := _moments(run.output, identity))), None)


def _moments(output: Path, identity: Mapping[str, Any]) -> "Moments | None":
    if "reference" not in identity:
        return None
    from sana_bench.metrics.fid.micro_reference import stored_moments

    network = {k: v for k, v in identity.items() if k not in ("metric", "protocol", "reference")}
    expected = {**identity["reference"], "network": network}
    name = short(fingerprint(expected))
    try:
        return stored_moments(output / "cache" / f"frechet-{name}.npz", expected)
    except AssetError as error:
        raise NotMeasuredError(str(error)) from None
