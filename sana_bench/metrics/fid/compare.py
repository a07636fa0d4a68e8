"""Two variants compared by what sets of images have as a whole, from stored features and the cached reference."""

from collections.abc import Iterable, Mapping, Sequence
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

__all__ = ["NotMeasuredError", "compare_sets", "evidence_of", "in_order", "reference_of"]

Runs = tuple[RunResults, RunResults]
Pairs = Sequence[tuple[SampleResult, SampleResult]]
Rows = NDArray[np.float32]
Evidence = NDArray[np.float32] | NDArray[np.float64]
_FRECHET_DRAWS = 200


class NotMeasuredError(ValueError):
    """Why two sets could not be compared."""


def compare_sets(
    runs: Runs,
    identity: Mapping[str, Any],
    summaries: tuple[SummaryRecord, SummaryRecord],
    pairs: Pairs,
    seed: int,
    evidence: tuple[Evidence | None, Evidence | None] = (None, None),
) -> Effect:
    """The difference of two numbers over all images, prompts being the units and the reference, if any, held fixed.

    `evidence` is what `evidence_of` says of a side whose images or features are elsewhere.

    Raises:
        NotMeasuredError: stored features or reference statistics are missing or damaged, or an image has no partner.
    """
    reference = reference_of(runs, identity)
    needed = max(2, *(row.n_samples for row in summaries))
    if len(pairs) < needed:
        raise NotMeasuredError(f"only {len(pairs)} of {needed} images are on both sides")
    sets = [in_order([pair[side] for pair in pairs]) for side in (0, 1)]
    first, second = (
        evidence_of(run, identity, samples, reference) if given is None else given
        for run, samples, given in zip(runs, sets, evidence, strict=True)
    )
    by_groups, pairwise = _by_groups(identity), _is_pairwise(identity)
    if first.shape != second.shape or first.ndim != (1 if by_groups or pairwise else 2):
        raise NotMeasuredError(f"other features on either side: {first.shape} and {second.shape}")
    clusters = [sample.prompt.id for sample in sets[0]]
    if pairwise:
        return compare_means(first, second, list(dict.fromkeys(clusters)), seed=seed)
    if not by_groups:
        moments = (reference.mean, reference.covariance)
        return compare_frechet(first, second, moments, clusters, seed=seed, n_draws=_FRECHET_DRAWS)
    if len(first) < 2:
        raise NotMeasuredError("too few prompts to leave any out")
    values = summaries[0].value, summaries[1].value
    return compare_left_out(values, (first, second), n_pairs=len(pairs), n_clusters=len(set(clusters)))


def in_order(samples: Iterable[SampleResult]) -> list[SampleResult]:
    """Samples in the order of `evidence_of`: by task, prompt and index."""
    return sorted(samples, key=lambda one: (one.prompt.tag, *one.sample.place))


def evidence_of(
    run: RunResults, identity: Mapping[str, Any], samples: Sequence[SampleResult], reference: Any
) -> Evidence:
    """What a comparison needs of one variant's images, which are in order.

    Of the micro tier their features (n, d). Of Inception, whose 2,048 dimensions are too many to redraw prompts or to carry, the
    distances (groups,) to the reference without each of twenty groups of prompts. Of distances between images of
    a prompt, the number (prompts,) of each.

    Raises:
        NotMeasuredError: the features are missing or damaged, or a prompt has one image alone.
    """
    if _is_pairwise(identity):
        try:
            rows = _features(run, str(identity["features"]), samples)
            return np.array(list(by_prompt([sample.prompt.id for sample in samples], rows).values()))
        except IncompleteError as error:
            raise NotMeasuredError(str(error)) from None
    if not _by_groups(identity):
        return _features(run, f"{identity.get('network')}/{identity.get('weights_sha256')}", samples)
    from sana_bench.metrics.fid.features import feature_key
    from sana_bench.metrics.fid.metric import dealt_groups

    groups = dealt_groups([sample.prompt.id for sample in samples])
    rows = _features(run, feature_key(identity), samples)
    return _distances(str(identity["metric"]), [rows[group] for group in groups], reference)


def reference_of(runs: Sequence[RunResults], identity: Mapping[str, Any]) -> Any:
    """What the images are held against, from the cache of any of the runs' output folders; none where against one another.

    Raises:
        NotMeasuredError: it is missing or damaged.
    """
    if _is_pairwise(identity):
        return None
    found = (
        _inception_reference(runs, identity) if _by_groups(identity) else _stored_reference(runs, identity)
    )
    if found is None:
        raise NotMeasuredError("reference statistics missing")
    return found


def _by_groups(identity: Mapping[str, Any]) -> bool:
    return "chain" in identity


def _is_pairwise(identity: Mapping[str, Any]) -> bool:
    return identity.get("distance") == PAIRWISE


def _distances(metric: str, groups: Sequence[Rows], reference: Any) -> NDArray[np.float64]:
    """The distance without each group, on the metric's own scale."""
    from sana_bench.metrics.fid.frechet import FrechetTo, grouped_moments, left_out
    from sana_bench.metrics.fid.kernel import kid_left_out
    from sana_bench.metrics.fid.measures import MEASURES

    rows, _, moments = reference
    if metric in MEASURES:
        try:
            return MEASURES[metric].compute(groups, rows)[1]
        except IncompleteError as error:
            raise NotMeasuredError(str(error)) from None
    if metric == "kid":
        return 1000 * kid_left_out(groups, rows)
    return left_out(*grouped_moments(groups, FrechetTo(moments)))


def _features(run: RunResults, key: str, samples: Sequence[SampleResult]) -> Rows:
    rows: Rows | None = load_features(run.output, key, [str(one.image.sha256) for one in samples])
    if rows is None:
        raise NotMeasuredError("features missing")
    return rows


def _inception_reference(runs: Sequence[RunResults], identity: Mapping[str, Any]) -> Any:
    from sana_bench.metrics.fid.reference import read_statistics, statistics_path

    if identity["reference"].get("data") == "none":
        return None, None, None
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


def _stored_reference(runs: Sequence[RunResults], identity: Mapping[str, Any]) -> "Moments | None":
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
