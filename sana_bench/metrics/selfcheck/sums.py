"""Checks of what is computed from features and scores: distances and intervals, in float64 on the processor."""

import numpy as np

from sana_bench.metrics.fid.frechet import Moments, distance_between, frechet_distance, merge_moments
from sana_bench.metrics.fid.kernel import kernel_distance, unbiased_mmd
from sana_bench.metrics.fid.measures import MEASURES, cmmd, vendi
from sana_bench.metrics.selfcheck import golden_files
from sana_bench.metrics.selfcheck.check import Bench, Check, Tolerance, user_judge
from sana_bench.metrics.selfcheck.recipes.plain import vectors
from sana_bench.results.statistics.intervals import (
    Interval,
    clustered_bootstrap,
    clustered_proportion,
    student_t_quantile,
    wilson_interval,
)

__all__ = ["CHECKS", "LONG", "N_VECTORS", "SCORES", "SEED", "SHORT", "WIDTH", "bootstrap_intervals"]

WIDTH = 64
N_VECTORS = 200
#: Fewer vectors than dimensions: covariances of half the rank.
SHORT = 32
#: More vectors than the kernel distance's largest subset has.
LONG = 1100
#: What subsets are drawn from.
SEED = 7
_DISTANCES = ("fid/clip-micro@1", "fid/sana@1", "fid/pytorch-fid@1", "fid/clean@1", "fd_dinov2/dinov2@1")
_MEASURED = ("cmmd/clip-336@1", *(f"{name}/dinov2@1" for name in MEASURES if name != "cmmd"))
_INTERVALS = (
    *_DISTANCES, "kid/clean@1", "clip_score/micro@1", "clip_score/sana@1", "geneval/micro@1",
    "geneval/official@1", "geneval/sana@1", "geneval/hf-detector@1", "dpg/micro@1", "dpg/official@1",
    "dpg/strict@1", "dpg/sana-grid@1", user_judge("dpg"), "image_reward/micro@1", "image_reward/official@1",
    "image_reward/sana-jpeg@1", "geneval2/official@1", "geneval2/distinct-tokens@1", user_judge("geneval2"),
    "geneval2/micro@1", "longtext/official@1", user_judge("longtext"), "longtext/micro@1",
    "oneig_alignment/official@1", user_judge("oneig_alignment"), "oneig_alignment/micro@1", "oneig_text/official@1",
    user_judge("oneig_text"), "oneig_text/micro@1", "oneig_style/official@1", "oneig_style/own-references@1",
    "oneig_diversity/official@1", "oneig_diversity/micro@1", user_judge("vqascore"),
    "pickscore/micro@1", "pickscore/official@1", "hpsv2/official@1", "hpsv2/aliased@1", "hpsv2.1/official@1",
    "hpsv2.1/aliased@1", "aesthetic/laion@1", "hpsv3/official@1", *_MEASURED,
)  # fmt: skip
#: A fixed sample: scores of 12 prompts with 4 images each.
SCORES = tuple(round(0.5 + 0.4 * np.sin(1.7 * place + 0.3 * (place // 4)), 6) for place in range(48))


def _relative(found: float, expected: float) -> float:
    return abs(found - expected) / abs(expected)


def _closed_form(_: Bench) -> float:
    """Diagonal covariances: the sum over dimensions of (m1 - m2)^2 + (s1 - s2)^2."""
    d = np.arange(1, 41, dtype=np.float64)
    first, second = np.sqrt(d), 1 / d
    exact = float(np.sum((0.1 * d) ** 2) + np.sum((first - second) ** 2))
    found = frechet_distance(0.1 * d, np.diag(first**2), np.zeros(40), np.diag(second**2))
    return _relative(found, exact)


def _full_rank(_: Bench) -> float:
    moments = [Moments.of(vectors(name, N_VECTORS, WIDTH)) for name in ("first", "second")]
    return _relative(distance_between(*moments), golden_files.numbers()["frechet"]["full"])


def _singular(_: Bench) -> float:
    moments = [Moments.of(vectors(name, SHORT, WIDTH)) for name in ("first", "second")]
    return _relative(distance_between(*moments), golden_files.numbers()["frechet"]["singular"])


def _merged(_: Bench) -> float:
    rows, other = vectors("first", N_VECTORS, WIDTH), Moments.of(vectors("second", N_VECTORS, WIDTH))
    parts = merge_moments(Moments.of(part) for part in (rows[150:], rows[:3], rows[3:150]))
    return _relative(distance_between(parts, other), distance_between(Moments.of(rows), other))


def _kernel(_: Bench) -> float:
    found = unbiased_mmd(vectors("first", N_VECTORS, WIDTH), vectors("second", N_VECTORS, WIDTH))
    return _relative(found, golden_files.numbers()["kernel"])


def _kernel_mean(_: Bench) -> float:
    """The seeded mean over 100 subsets, and one subset of the largest size."""
    stored = golden_files.numbers()["kernel_mean"]
    some, many = vectors("first", SHORT, WIDTH), vectors("second", N_VECTORS, WIDTH)
    long = [vectors(name, LONG, WIDTH) for name in ("first", "second")]
    return max(
        _relative(kernel_distance(some, many, seed=SEED), stored["subsets"]),
        _relative(kernel_distance(*long, seed=SEED, n_subsets=1), stored["largest"]),
    )


def bootstrap_intervals() -> dict[str, Interval]:
    """Both seeded intervals of the fixed sample."""
    prompts = [place // 4 for place in range(len(SCORES))]
    hits = [float(score > 0.5) for score in SCORES]
    return {
        "bootstrap": clustered_bootstrap(SCORES, prompts, seed=7),
        "proportion": clustered_proportion(hits, prompts, seed=7),
    }


def _intervals(_: Bench) -> float:
    stored = golden_files.numbers()["intervals"]
    return max(
        _relative(getattr(interval, part), stored[name][part])
        for name, interval in bootstrap_intervals().items()
        for part in ("value", "low", "high")
    )


def _quantiles(_: Bench) -> float:
    stored = golden_files.numbers()["quantiles"]
    wilson = wilson_interval(0.8, 10)
    found = {"wilson_low": wilson.low, "wilson_high": wilson.high, "t": student_t_quantile(0.975, 19)}
    return max(_relative(value, stored[name]) for name, value in found.items())


def _measures(_: Bench) -> float:
    """Seven points and their neighbours on a line, and two directions: numbers worked out by hand."""
    line = np.arange(7, dtype=np.float64)[:, None]
    # The fifth nearest of 0 to 6 lie at 5, 4, 3, 3, 3, 4, 5: so 6.5 is near 4 to 6, and 9.5, 10 and 10.5 are near 6 alone.
    drawn = [np.array([[6.5], [9.5]]), np.array([[10.0], [10.5], [11.0], [11.5]])]
    # The fifth nearest of 6.5 lies at 5, which takes in 2 to 6; the others take in none.
    found = {
        name: MEASURES[name].compute(drawn, line)[0]
        for name in ("precision", "recall", "density", "coverage")
    }
    plane = [np.array([[2.0, 0.0]]), np.array([[0.0, 5.0]])]
    found["vendi"] = vendi(plane, line)[0]
    # Unit vectors, |x - y|^2 of 0 or 2: the plane's own mean is (1 + far) / 2, as is that across, and the reference's is 1.
    found["cmmd"] = cmmd(plane, np.array([[0.0, 1.0]]))[0]
    far = np.exp(-0.01)
    expected = {
        "precision": 4 / 6,
        "recall": 5 / 7,
        "density": (3 + 1 + 1 + 1) / 5 / 6,
        "coverage": 3 / 7,
        "vendi": 2.0,
        "cmmd": 1000 * ((1 + far) / 2 + 1 - 2 * (1 + far) / 2),
    }
    return max(_relative(found[name], value) for name, value in expected.items())


_ROUNDING = "float64 sums in another order"

CHECKS = (
    Check(
        "precision, recall, density, coverage, Vendi, CMMD: worked out by hand",
        _MEASURED,
        _measures,
        Tolerance(1e-10, "relative", "float64 sums, of which CMMD's cancel to a thousandth"),
        quick=True,
    ),
    Check(
        "Fréchet distance: closed form",
        _DISTANCES,
        _closed_form,
        Tolerance(1e-12, "relative", _ROUNDING),
        quick=True,
    ),
    Check(
        "Fréchet distance: scipy's matrix root, full rank",
        _DISTANCES,
        _full_rank,
        Tolerance(1e-8, "relative", "the matrix root of the reference is exact to about 1e-9"),
        quick=True,
    ),
    Check(
        "Fréchet distance: singular covariances",
        _DISTANCES,
        _singular,
        Tolerance(1e-6, "relative", "eigenvalues that are zero come out as rounding, whose root is taken"),
        quick=True,
    ),
    Check(
        "Fréchet distance: shards merged",
        _DISTANCES,
        _merged,
        Tolerance(1e-10, "relative", _ROUNDING),
        quick=True,
    ),
    Check(
        "kernel distance: clean-fid's",
        ("kid/clean@1",),
        _kernel,
        Tolerance(1e-9, "relative", "sums of 40,000 kernel values of which most cancel"),
        quick=True,
    ),
    Check(
        "kernel distance: clean-fid's mean over 100 subsets, drawn from a seed",
        ("kid/clean@1",),
        _kernel_mean,
        Tolerance(1e-9, "relative", "sums of up to 1,000,000 kernel values of which most cancel"),
        quick=True,
    ),
    Check(
        "bootstrap intervals of a fixed sample",
        _INTERVALS,
        _intervals,
        Tolerance(1e-12, "relative", "a seed fixes every draw; float64 sums in another order"),
        quick=True,
    ),
    Check(
        "Wilson's and Student's bounds: scipy's",
        _INTERVALS,
        _quantiles,
        Tolerance(1e-9, "relative", "quantiles by other algorithms"),
        quick=True,
    ),
)
