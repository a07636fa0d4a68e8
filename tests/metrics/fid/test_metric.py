"""FID and KID over Inception features: numbers against the originals, references, categories, intervals."""

import json
import shutil
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sana_bench.core import fingerprint as fingerprints
from sana_bench.core.errors import AssetError, IncompleteError, SuiteError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.metrics import build
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.fid import frechet as frechet_sets
from sana_bench.metrics.fid import metric as distances
from sana_bench.metrics.fid.frechet import (
    FrechetTo,
    Moments,
    at_infinity,
    bootstrap_interval,
    distance_between,
    frechet_distance,
    grouped_moments,
    merge_moments,
    moments_of_blocks,
)
from sana_bench.metrics.fid.kernel import jackknifed_kid, kernel_distance
from sana_bench.metrics.fid.metric import InceptionFid, InceptionKid
from sana_bench.metrics.fid.reference import InceptionReference
from sana_bench.runner.checks import load_metrics
from sana_bench.suites.schema import MetricSpec
from tests.metrics.fid.colour_sets import CATEGORIES, PER_CATEGORY, Colours

WIDTH = 6


def vectors(n, seed, d=WIDTH, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).normal(size=(d, d))
    return (rng.normal(size=(n, d)) @ mixing + shift).astype(np.float32)


def summarise(metric, samples, sizes=(5, 4)):
    chunks, rest, turn = [], list(samples), 0
    while rest:
        size = sizes[turn % len(sizes)]
        chunks.append((rest[:size], metric.features(rest[:size])))
        rest, turn = rest[size:], turn + 1
    return {s.key: s for s in metric.summarise_features(samples, chunks, len(samples), seed=3)}


def test_overall_and_categories_have_their_own_references(reference, generated):
    metric = InceptionFid("fid/clean@1", reference._features, reference)
    found = summarise(metric, generated)
    assert list(found) == ["overall", *CATEGORIES]
    rows = Colours().of_samples(generated)
    others = Colours().of_samples(
        [replace(s, image_path=p) for s, p in zip(generated, paths(reference), strict=True)]
    )
    # 1e-8: merged moments (1e-10) through square roots of small eigenvalues.
    assert found["overall"].value == pytest.approx(
        distance_between(Moments.of(others), Moments.of(rows)), rel=1e-8
    )
    for place, category in enumerate(CATEGORIES):
        part = slice(place * PER_CATEGORY, (place + 1) * PER_CATEGORY)
        expected = distance_between(Moments.of(others[part]), Moments.of(rows[part]))
        assert found[category].value == pytest.approx(expected, rel=1e-8)
        assert found[category].n_samples == PER_CATEGORY
    mean = np.mean([found[category].value for category in CATEGORIES])
    assert abs(found["overall"].value - mean) > 1e-3 * mean
    for summary in found.values():
        assert summary.low < summary.value < summary.high
        assert "biased upwards below 10,000 images" in summary.note


def paths(reference):
    return [image.path for image in reference._data.images]


@pytest.mark.parametrize("kind", [InceptionFid, InceptionKid])
def test_numbers_do_not_depend_on_chunks_or_order(reference, generated, kind):
    metric = kind("fid/clean@1", reference._features, reference)
    # Exact: features are put in one order before anything is summed.
    assert summarise(metric, generated[::-1], (1, 9)) == summarise(metric, generated)


@pytest.mark.parametrize("kind", [InceptionFid, InceptionKid])
def test_incomplete_features_are_refused(reference, generated, kind):
    metric = kind("fid/clean@1", reference._features, reference)
    part = (generated[:3], metric.features(generated[:3]))
    with pytest.raises(IncompleteError, match="cover 3 of 4"):
        metric.summarise_features(generated[:4], [part], 4, 0)
    with pytest.raises(IncompleteError, match="twice"):
        metric.summarise_features(generated[:3], [part, part], 3, 0)
    with pytest.raises(IncompleteError, match="at least 2 images are needed, got 1"):
        metric.summarise_features(generated[:1], [(generated[:1], part[1][:1])], 1, 0)


def test_reference_is_computed_once(mjhq, tmp_path, generated):
    first = Colours()
    again = Colours()
    InceptionReference(first, mjhq / "meta_data.json", tmp_path).features()
    stored = InceptionReference(again, mjhq / "meta_data.json", tmp_path)
    assert len(stored.features()) == stored.n == len(generated)
    assert first.read == stored.n
    assert again.read == 0


def rewrite(path, **changes):
    with np.load(path) as archive:
        arrays = dict(archive)
    content = json.loads(str(arrays["content"]))
    for name, value in changes.items():
        if name in arrays:
            arrays[name] = value
        else:
            content[name] = value
    arrays["content"] = np.array(json.dumps(content))
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-50]), "damaged", id="truncated"),
        pytest.param(lambda path: rewrite(path, chain="fid/sana@1"), "different chain", id="protocol"),
        pytest.param(lambda path: rewrite(path, n=3), "different n", id="count"),
        pytest.param(lambda path: rewrite(path, weights_sha256="0"), "different weights", id="weights"),
        pytest.param(lambda path: rewrite(path, images="0"), "different images", id="images"),
        pytest.param(lambda path: rewrite(path, mean=np.ones(WIDTH)), "were changed", id="numbers"),
    ],
)
def test_statistics_that_do_not_match_are_refused(mjhq, tmp_path, damage, message):
    reference = InceptionReference(Colours(), mjhq / "meta_data.json", tmp_path)
    reference.features()
    damage(reference.path)
    with pytest.raises(AssetError, match=message) as caught:
        InceptionReference(Colours(), mjhq / "meta_data.json", tmp_path).features()
    assert "\n" not in str(caught.value)


def test_other_images_are_another_reference(mjhq, tmp_path):
    before = InceptionReference(Colours(), mjhq / "meta_data.json", tmp_path)
    before.features()
    path = paths(before)[0]
    content = path.read_bytes()
    try:
        path.write_bytes(content + b"\0")
        with pytest.raises(AssetError, match="different images"):
            InceptionReference(Colours(), mjhq / "meta_data.json", tmp_path).features()
        path.unlink()
        with pytest.raises(AssetError, match=r"1 of 42 MJHQ-30K images are missing, first .*animals000\.jpg"):
            InceptionReference(Colours(), mjhq / "meta_data.json", tmp_path).features()
    finally:
        path.write_bytes(content)


@pytest.fixture
def settled(monkeypatch):
    """Hashes of files are remembered however young the files are."""
    monkeypatch.setattr(fingerprints, "_SETTLED_NS", 0)


def test_an_image_changed_in_place_is_another_reference(mjhq, tmp_path, settled):
    hashes = FileHashes()
    before = InceptionReference(Colours(), mjhq / "meta_data.json", tmp_path, hashes)
    before.features()
    path = paths(before)[3]
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-3] + b"\0" + content[-2:])
        again = FileHashes(hashes.learnt)
        changed = InceptionReference(Colours(), mjhq / "meta_data.json", tmp_path, again)
        with pytest.raises(AssetError, match="of a different images_sha256;"):
            changed.features()
        with pytest.raises(AssetError, match="of a different images_sha256;"):
            changed.check()
        assert [key[0] for key in again.learnt] == [str(path)]
    finally:
        path.write_bytes(content)


def test_unchanged_images_are_hashed_once(mjhq, tmp_path, settled):
    hashes = FileHashes()
    InceptionReference(Colours(), mjhq / "meta_data.json", tmp_path, hashes).features()
    assert len(hashes.learnt) == 42
    again = FileHashes(hashes.learnt)
    InceptionReference(Colours(), mjhq / "meta_data.json", tmp_path, again).features()
    assert again.learnt == {}


def test_hashing_the_reference_is_said_once(mjhq, tmp_path, settled, capsys):
    hashes = FileHashes()
    InceptionReference(Colours(), mjhq / "meta_data.json", tmp_path, hashes).check()
    InceptionReference(Colours(), mjhq / "meta_data.json", tmp_path, FileHashes(hashes.learnt)).check()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("hashing the reference of FID: 42/42 images, ")


def test_a_run_remembers_the_hashes_of_the_reference(mjhq, tmp_path, monkeypatch, settled):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    (tmp_path / "mjhq30k").symlink_to(mjhq)
    (tmp_path / "inception").mkdir()
    torch.save({}, tmp_path / "inception" / "pt_inception-2015-12-05-6726825d.pth")
    benchmark = SimpleNamespace(metrics=("fid",), choice=lambda name: MetricSpec(name=name))
    resolved = SimpleNamespace(tier=SimpleNamespace(tier="full", device="cpu"), benchmarks=[benchmark])
    hashes = FileHashes()
    load_metrics(resolved, tmp_path / "output" / "cache", hashes)
    kinds = Counter(Path(key.path).suffix for key in hashes.learnt)
    # Images, their table, and the network's weights.
    assert kinds == {".jpg": 42, ".json": 1, ".pth": 1}
    assert not (tmp_path / "output").exists()


def test_a_category_of_one_reference_image_is_refused(mjhq, tmp_path):
    shutil.copytree(mjhq, tmp_path / "mjhq30k")
    meta = tmp_path / "mjhq30k" / "meta_data.json"
    entries = json.loads(meta.read_text())
    meta.write_text(json.dumps({key: entry for key, entry in entries.items() if key <= "people000"}))
    with pytest.raises(
        AssetError, match=r"meta_data\.json: category 'people' has 1 image.*at least 2"
    ) as caught:
        InceptionReference(Colours(), meta, tmp_path).check()
    assert "\n" not in str(caught.value)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 299), max_size=5))
def test_streamed_moments_do_not_depend_on_shards(seed, cuts):
    rows = vectors(300, seed, shift=50)
    order = np.random.default_rng(seed).permutation(300)
    parts = [part for part in np.split(rows[order], sorted(set(cuts))) if len(part)]
    merged = moments_of_blocks(parts[0])
    for part in parts[1:]:
        merged = merged.merge(moments_of_blocks(part))
    whole = Moments.of(rows)
    reference = FrechetTo(Moments.of(vectors(200, 9)))
    # 1e-10: asked of the statistics whatever the split and order.
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-10)
    np.testing.assert_allclose(
        merged.scatter, whole.scatter, rtol=0, atol=1e-10 * np.abs(whole.scatter).max()
    )
    assert reference.distance(merged) == pytest.approx(reference.distance(whole), rel=1e-10)


def scipy_distance(first, second):
    root = scipy.linalg.sqrtm(first.covariance @ second.covariance)
    offset = first.mean - second.mean
    return float(offset @ offset + np.trace(first.covariance + second.covariance - 2 * np.real(root)))


# Asked for: 1e-8 at full rank, 1e-6 where rank is lacking.
@pytest.mark.parametrize(("n", "rel"), [(700, 1e-8), (60, 1e-6)])
def test_cached_reference_gives_scipys_distance(n, rel):
    first, second = Moments.of(vectors(n, 1, d=96)), Moments.of(vectors(n + 40, 2, d=96, shift=0.3))
    cached = FrechetTo(first).distance(second)
    assert cached == pytest.approx(scipy_distance(first, second), rel=rel)
    direct = frechet_distance(first.mean, first.covariance, second.mean, second.covariance)
    assert cached == pytest.approx(direct, rel=1e-12)  # the same steps


def test_distances_refuse_a_single_vector_and_other_widths():
    reference = FrechetTo(Moments.of(vectors(20, 0)))
    with pytest.raises(ValueError, match="at least 2 vectors"):
        reference.distance(Moments.of(vectors(1, 0)))
    with pytest.raises(ValueError, match="do not compare"):
        reference.distance(Moments.of(vectors(9, 0, d=4)))
    constant = Moments.of(np.ones((5, WIDTH)))
    assert np.isfinite(FrechetTo(constant).distance(constant))


@pytest.mark.parametrize("rank", ["full", "lacking"])
def test_few_images_have_the_same_distances_in_fewer_dimensions(rank):
    d = 96
    reference = FrechetTo(Moments.of(vectors(700 if rank == "full" else 50, 1, d=d)))
    groups = np.split(vectors(30, 2, d=d, shift=0.3), [1, 4, 15])
    moments, narrowed = grouped_moments(groups, reference)
    assert [part.mean.shape for part in moments] == [(30,)] * 4
    for chosen in ([0, 1, 2, 3], [0, 3], [1, 2], [1]):
        whole = Moments.of(np.concatenate([groups[place] for place in chosen]))
        found = narrowed.distance(merge_moments([moments[place] for place in chosen]))
        # 1e-6: both lack rank, and in 96 dimensions rounding leaves more eigenvalues to take roots of.
        assert found == pytest.approx(reference.distance(whole), rel=1e-6)
        assert found == pytest.approx(scipy_distance(reference.reference, whole), rel=1e-6)


def test_as_many_images_as_dimensions_stay_in_all_of_them():
    reference = FrechetTo(Moments.of(vectors(200, 1)))
    groups = np.split(vectors(WIDTH, 2), 2)
    moments, same = grouped_moments(groups, reference)
    assert same is reference
    np.testing.assert_array_equal(moments[0].scatter, Moments.of(groups[0]).scatter)


def test_two_prompts_of_one_image_have_a_value_without_warnings(reference, generated):
    metric = InceptionFid("fid/clean@1", reference._features, reference)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = summarise(metric, generated[:2])
    assert found["overall"].value > 0
    assert np.isnan(found["overall"].low)
    assert np.isnan(found["overall"].high)


def test_bootstrap_has_the_width_of_repeated_experiments():
    reference = FrechetTo(Moments.of(vectors(5000, 0)))
    values, widths = [], []
    for seed in range(80):
        rows = vectors(400, 100 + seed, shift=1.0)
        interval = bootstrap_interval([Moments.of(part) for part in np.split(rows, 20)], reference, seed=seed)
        values.append(interval.value)
        widths.append((interval.high - interval.low) / 2)
    # 20 %: 80 experiments know their own spread to 8 %, and each width comes from 20 groups and 50 draws.
    assert np.mean(widths) == pytest.approx(1.96 * np.std(values, ddof=1), rel=0.2)


def test_one_group_has_no_interval():
    interval = bootstrap_interval([Moments.of(vectors(30, 1))], FrechetTo(Moments.of(vectors(30, 2))), seed=0)
    assert interval.value > 0
    assert np.isnan(interval.low)


def test_extrapolation_removes_the_bias_of_few_images():
    reference = FrechetTo(Moments.of(vectors(200_000, 0)))
    rows = [vectors(800, seed) for seed in range(1, 13)]
    plain = np.mean([reference.distance(Moments.of(part)) for part in rows])
    at = np.mean([at_infinity(part, reference, seed=5, smallest=100) for part in rows])
    # The two sets are of one distribution: the truth is 0, and all of `plain` is bias.
    assert abs(at) < 0.3 * plain
    with pytest.raises(ValueError, match="too few"):
        at_infinity(rows[0], reference, seed=0, smallest=500)


def test_enough_images_get_a_number_at_infinity(reference, generated, monkeypatch):
    monkeypatch.setattr(distances, "_SMALLEST_SUBSET", 20)
    monkeypatch.setattr(frechet_sets, "BIASED_BELOW", 20)
    found = summarise(InceptionFid("fid/clean@1", reference._features, reference), generated)
    assert list(found)[:2] == ["overall", "at_infinity"]
    assert found["at_infinity"].value < found["overall"].value
    assert "another number" in found["at_infinity"].note


def test_kid_is_clean_fids():
    from cleanfid.fid import kernel_distance as theirs

    x, y = vectors(300, 1).astype(np.float64), vectors(300, 2, shift=0.2).astype(np.float64)
    # Subsets of all rows hold the same rows in whatever order they are drawn: both draws give one number. 1e-9:
    # float64 sums in another order, with cancellation between their three terms.
    assert kernel_distance(x, y, seed=0, n_subsets=2) == pytest.approx(theirs(x, y, num_subsets=2), rel=1e-9)


def test_kid_of_subsets_is_unbiased_and_seeded():
    x, y = vectors(2500, 1), vectors(2500, 2)
    first = kernel_distance(x, y, seed=4, n_subsets=5)
    assert first == kernel_distance(x, y, seed=4, n_subsets=5)
    assert first != kernel_distance(x, y, seed=5, n_subsets=5)
    shifted = kernel_distance(x, y + 0.5, seed=4, n_subsets=5)
    assert abs(first) < 0.2 * shifted
    with pytest.raises(ValueError, match="at least 2 vectors"):
        kernel_distance(x[:1], y, seed=0)
    with pytest.raises(ValueError, match="one width"):
        kernel_distance(x, y[:, :3], seed=0)


def test_kid_interval_has_the_width_of_repeated_experiments():
    # As many as there are generated images: the one subset is then all of both sets, as in the interval.
    reference = vectors(200, 0)
    values, widths = [], []
    for seed in range(60):
        rows = vectors(200, 100 + seed, shift=0.8)
        value = kernel_distance(rows, reference, seed=0, n_subsets=1, largest_subset=10_000)
        interval = jackknifed_kid(value, np.split(rows, 20), reference)
        values.append(value)
        widths.append(interval.high - interval.value)
    # 25 %: 60 experiments know their own spread to 9 %, and 20 groups of ten know theirs to about 16 %.
    assert np.mean(widths) == pytest.approx(2.093 * np.std(values, ddof=1), rel=0.25)


def test_kid_is_reported_times_a_thousand(reference, generated):
    metric = InceptionKid("kid/clean@1", reference._features, reference)
    summary = summarise(metric, generated)["overall"]
    rows = metric.features(sorted(generated, key=lambda s: (s.prompt.tag, s.prompt.id)))
    # 1e-9: subsets of all rows, in another order.
    assert summary.value == pytest.approx(
        1000 * kernel_distance(rows, reference.features(), seed=9), rel=1e-9
    )
    assert summary.unit == "x 1000"
    assert summary.low < summary.value < summary.high


def test_building_says_what_is_missing_and_which_protocols_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    assets = MetricAssets(tmp_path, tmp_path)
    with pytest.raises(
        AssetError, match=r"pt_inception-2015-12-05-6726825d\.pth is missing.*meta_data\.json"
    ):
        build("fid", "full", assets)
    with pytest.raises(AssetError, match=r"/inception-2015-12-05\.pt is missing"):
        build(MetricSpec(name="fid", protocol="fid/clean@1"), "full", assets)
    with pytest.raises(SuiteError, match=r"no protocol 'fid/clean' \(did you mean 'fid/clean@1'"):
        build(MetricSpec(name="fid", protocol="fid/clean"), "full", assets)
    with pytest.raises(SuiteError, match=r"no parameter 'size' \(did you mean 'image_size'"):
        build(MetricSpec(name="fid", parameters={"size": 256}), "full", assets)
    with pytest.raises(SuiteError, match="'image_size' is '256', expected int"):
        build(MetricSpec(name="fid", parameters={"image_size": "256"}), "full", assets)
    for size in (-5, 0, 4097):
        with pytest.raises(SuiteError, match=f"'image_size' is {size}, expected 1 to 4096"):
            build(
                MetricSpec(name="fid", protocol="fid/sana@1", parameters={"image_size": size}), "full", assets
            )
    with pytest.raises(SuiteError, match="no micro tier"):
        build("kid", "micro", assets)
    with pytest.raises(SuiteError, match=r"no protocol 'fid/clean@1'.*fid/clip-micro@1"):
        build(MetricSpec(name="fid", protocol="fid/clean@1"), "micro", assets)
