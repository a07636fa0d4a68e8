"""Distances to a reference of one's own: a folder gives what its images give, an `.npz` what its folder gave."""

import numpy as np
import pytest
from PIL import Image

from sana_bench.assets.locate import micro_weights_root
from sana_bench.assets.reference_set import reference_sha256
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics import build
from sana_bench.metrics.base import MetricAssets, metric_key
from sana_bench.metrics.fid import FEATURES
from sana_bench.metrics.fid.frechet import Moments, distance_between
from sana_bench.metrics.fid.kernel import kernel_distance
from sana_bench.metrics.fid.metric import InceptionFid, InceptionKid
from sana_bench.metrics.fid.own_reference import FolderReference, StatisticsReference
from sana_bench.suites.schema import MetricSpec
from tests.metrics.fid.colour_sets import Colours


def write(folder, count, seed, size=64):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for place in range(count):
        pixels = rng.normal(120 + 9 * seed, 40, (size, size, 3)) + rng.normal(0, 20, 3)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{place:02d}.png")
    return folder


def samples_of(folder):
    return [
        Sample("v", "mine", Prompt(path.stem, "", "all"), 0, path) for path in sorted(folder.glob("*.png"))
    ]


def summary(metric, samples):
    return metric.summarise_features(samples, [(samples, metric.features(samples))], len(samples), seed=3)[0]


@pytest.fixture
def images(tmp_path):
    return samples_of(write(tmp_path / "images", 12, 0))


@pytest.fixture
def real(tmp_path):
    return write(tmp_path / "real", 15, 1)


def rows_of(samples):
    return Colours().of_samples(samples)


def test_fid_to_a_folder_is_that_of_its_images(images, real, tmp_path):
    metric = InceptionFid(
        "fid/clean@1+own-reference", Colours(), FolderReference(Colours(), real, tmp_path / "c")
    )
    found = summary(metric, images)
    expected = distance_between(Moments.of(rows_of(samples_of(real))), Moments.of(rows_of(images)))
    # 1e-8: merged moments (1e-10) through square roots of small eigenvalues.
    assert found.value == pytest.approx(expected, rel=1e-8)
    assert found.note.startswith("12 against 15 images; biased upwards")
    assert found.low < found.value < found.high


def test_kid_to_a_folder_is_that_of_its_images(images, real, tmp_path):
    metric = InceptionKid(
        "kid/clean@1+own-reference", Colours(), FolderReference(Colours(), real, tmp_path / "c")
    )
    expected = 1000 * kernel_distance(rows_of(images), rows_of(samples_of(real)), seed=3)
    assert summary(metric, images).value == pytest.approx(expected, rel=1e-12)


def test_a_folder_is_read_once_and_again_when_it_changed(images, real, tmp_path):
    def distance():
        features = Colours()
        metric = InceptionFid("fid/clean@1", features, FolderReference(features, real, tmp_path / "c"))
        return summary(metric, images).value, features.read - len(images), metric_key(metric)

    first, read, key = distance()
    assert read == 15
    assert distance() == (first, 0, key)
    (real / "00.png").rename(real / "99.png")  # names are no content
    assert distance()[2] == key
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(real / "99.png")
    changed, read, other = distance()
    assert changed != first
    assert (read, other != key) == (15, True)


def test_hidden_statistics_of_another_folder_do_not_collide(images, real, tmp_path):
    other = write(tmp_path / "other", 15, 2)
    first, second = (FolderReference(Colours(), folder, tmp_path / "c") for folder in (real, other))
    assert first.path != second.path
    values = [summary(InceptionFid("fid/clean@1", Colours(), one), images).value for one in (first, second)]
    assert values[0] != values[1]


@pytest.mark.parametrize("keys", [("mu", "sigma"), ("mean", "cov")])
def test_an_archive_gives_the_distance_of_the_images_behind_it(images, real, tmp_path, keys):
    moments = Moments.of(rows_of(samples_of(real)))
    np.savez(tmp_path / "real.npz", **dict(zip(keys, (moments.mean, moments.covariance), strict=True)))
    reference = StatisticsReference(Colours(), tmp_path / "real.npz", 6, tmp_path / "c")
    found = summary(InceptionFid("fid/clean@1", Colours(), reference), images)
    folder = FolderReference(Colours(), real, tmp_path / "c")
    # 1e-8, as above: both are square roots of the same covariances.
    assert found.value == pytest.approx(
        summary(InceptionFid("fid/clean@1", Colours(), folder), images).value, rel=1e-8
    )
    assert found.note.startswith("12 against the statistics of real.npz")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"feats": np.zeros((3, 6))}, r"no mu and sigma \(it has feats\)"),
        ({"mu": np.zeros(5), "sigma": np.eye(5)}, r"mean \(5,\) and covariance \(5, 5\), expected \(6,\)"),
        ({"mu": np.full(6, np.nan), "sigma": np.eye(6)}, "values that are not finite"),
        ({"mu": np.array([object()]), "sigma": np.eye(6)}, "no archive of arrays"),
    ],
)
def test_an_archive_of_something_else_is_refused(tmp_path, content, told):
    np.savez(tmp_path / "s.npz", **content)
    with pytest.raises(AssetError, match=told):
        StatisticsReference(Colours(), tmp_path / "s.npz", 6, tmp_path)


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "s.npz").write_bytes(b"PK nonsense")
    with pytest.raises(AssetError, match=r"s\.npz: no archive of arrays"):
        StatisticsReference(Colours(), tmp_path / "s.npz", 6, tmp_path)


def test_a_reference_of_too_few_images_is_refused(tmp_path):
    with pytest.raises(AssetError, match="1 images, a distance needs at least 2"):
        reference_sha256(write(tmp_path / "one", 1, 0))
    with pytest.raises(AssetError, match="no such folder"):
        reference_sha256(tmp_path / "none")
    with pytest.raises(AssetError, match="no such file"):
        reference_sha256(tmp_path / "none.npz")


class TestMicroTier:
    @pytest.fixture
    def built(self, tmp_path):
        assets = MetricAssets(micro_weights_root(), tmp_path / "cache", hashes=FileHashes())
        return lambda reference: build(MetricSpec(name="fid", reference=str(reference)), "micro", assets)

    def test_a_set_against_itself_is_no_distance_away(self, built, real):
        metric = built(real)
        samples = samples_of(real)
        assert metric.protocol == "fid/clip-micro@1+own-reference"
        # 1e-5: features of unit length, whose traces cancel to rounding of float64 square roots of singular covariances.
        assert summary(metric, samples).value == pytest.approx(0, abs=1e-5)

    def test_an_archive_stands_for_the_folder(self, built, images, real, tmp_path):
        folder = built(real)
        moments = Moments.of(folder.features(samples_of(real)))
        np.savez(tmp_path / "real.npz", mu=moments.mean, sigma=moments.covariance)
        archive = built(tmp_path / "real.npz")
        assert summary(archive, images).value == pytest.approx(summary(folder, images).value, rel=1e-8)
        assert metric_key(archive) != metric_key(folder)

    def test_a_named_set_is_the_full_tiers(self, built):
        with pytest.raises(SuiteError, match="mjhq30k is a reference of the full tier"):
            built("mjhq30k")

    def test_images_of_other_sizes_are_brought_to_the_networks(self, built, tmp_path):
        metric = built(write(tmp_path / "large", 3, 1, size=128))
        samples = samples_of(tmp_path / "large")
        small = []
        for sample in samples:
            path = sample.image_path.with_suffix(".small.png")
            Image.open(sample.image_path).resize((64, 64), Image.Resampling.BICUBIC).save(path)
            small.append(Sample("v", "mine", sample.prompt, 0, path))
        np.testing.assert_array_equal(metric.features(samples), metric.features(small))


class TestFullTier:
    @pytest.fixture
    def assets(self, tmp_path, monkeypatch):
        import torch

        from tests.metrics.fid.inception_cases import random_state

        monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
        (tmp_path / "inception").mkdir()
        torch.save(random_state(), tmp_path / "inception" / "pt_inception-2015-12-05-6726825d.pth")
        return MetricAssets(tmp_path, tmp_path / "cache", hashes=FileHashes())

    def test_a_folder_needs_no_published_set(self, assets, tmp_path):
        real = write(tmp_path / "real", 3, 1)
        spec = MetricSpec(name="fid", protocol="fid/pytorch-fid@1", reference=str(real))
        metric = build(spec, "full", assets)
        assert metric.protocol == "fid/pytorch-fid@1+own-reference"
        samples = samples_of(write(tmp_path / "images", 3, 0))
        found = summary(metric, samples)
        rows = [metric.features(part) for part in (samples_of(real), samples)]
        expected = distance_between(*map(Moments.of, rows))
        # 1e-6: of 3 images a covariance has rank 2 of 2,048.
        assert found.value == pytest.approx(expected, rel=1e-6)

    def test_kid_needs_images(self, assets, tmp_path):
        np.savez(tmp_path / "s.npz", mu=np.zeros(FEATURES), sigma=np.eye(FEATURES))
        (tmp_path / "inception" / "inception-2015-12-05.pt").write_bytes(b"x")
        with pytest.raises(
            SuiteError, match="a mean and a covariance; kid needs a folder of reference images"
        ):
            build(MetricSpec(name="kid", reference=str(tmp_path / "s.npz")), "full", assets)
