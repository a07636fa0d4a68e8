"""The Fréchet distance as a metric: reference, cache, interval."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sana_bench.core.errors import AssetError, IncompleteError
from sana_bench.metrics import build
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.clip.micro_features import ClipFeatures
from sana_bench.metrics.fid import micro_reference as frechet_reference
from sana_bench.metrics.fid.frechet import Moments, distance_between
from sana_bench.metrics.fid.micro_reference import Reference, render_reference
from tests.tiny_weights import write_tiny_clip

SIZE = 144  # one scene of every evaluation prompt


@pytest.fixture(autouse=True)
def small_reference(monkeypatch):
    monkeypatch.setattr(frechet_reference, "_N_SCENES", SIZE)


@pytest.fixture
def features(assets):
    return ClipFeatures(assets.weights_dir / "clip")


def summary_of(metric, samples):
    return metric.summarise_features(samples, [(samples, metric.features(samples))], len(samples), seed=0)[0]


def on_disk(images, samples, folder):
    """`samples` with their images replaced."""
    out = []
    for place, (image, sample) in enumerate(zip(images, samples, strict=True)):
        path = folder / f"{place}.png"
        Image.fromarray(image).save(path)
        out.append(replace(sample, image_path=path))
    return out


def test_value_is_the_distance_of_the_moments(samples, assets, features):
    metric = build("fid", "micro", assets)
    summary = summary_of(metric, samples)
    reference = np.concatenate([features.network.encode_images(part) for part in render_reference(SIZE)])
    direct = distance_between(Moments.of(features.of_samples(samples)), Moments.of(reference))
    # 1e-8: merged instead of direct moments (1e-10), through square roots of small eigenvalues.
    assert summary.value == pytest.approx(direct, rel=1e-8)
    assert summary.low < summary.value < summary.high
    assert not summary.higher_is_better


def test_noise_is_farther_from_the_reference_than_scenes(samples, assets, tmp_path):
    metric = build("fid", "micro", assets)
    pixels = np.random.default_rng(0).integers(0, 256, size=(len(samples), 64, 64, 3), dtype=np.uint8)
    noise = on_disk(pixels, samples, tmp_path)
    assert summary_of(metric, noise).low > summary_of(metric, samples).high


def test_reference_scenes_are_balanced_over_tasks_and_do_not_change():
    prompts = frechet_reference._prompts()
    tags = [record["tag"] for record in prompts[:12]]
    assert len(set(tags[:6])) == 6
    assert tags[:6] == tags[6:]
    first = np.concatenate(list(render_reference(10)))
    np.testing.assert_array_equal(np.concatenate(list(render_reference(300)))[:10], first)
    assert len(np.unique(first.reshape(10, -1), axis=0)) == 10


def test_one_image_has_no_covariance(samples, assets):
    metric = build("fid", "micro", assets)
    with pytest.raises(IncompleteError, match="at least 2 images, got 1"):
        summary_of(metric, samples[:1])


def test_one_prompt_has_a_value_but_no_interval(samples, assets):
    summary = summary_of(build("fid", "micro", assets), samples[:3])
    assert summary.value > 0
    assert np.isnan(summary.low)
    assert np.isnan(summary.high)


class Cached:
    """A reference with its cache file already written, and a count of how often it renders again."""

    def __init__(self, features, folder, monkeypatch):
        self.features, self.folder = features, folder
        self.moments = Reference(features, folder).moments()
        self.rendered = []
        original = frechet_reference.render_reference

        def counting(n):
            if n == SIZE:
                self.rendered.append(n)
            return original(n)

        monkeypatch.setattr(frechet_reference, "_prompts", lambda: PROMPTS[:100])
        monkeypatch.setattr(frechet_reference, "render_reference", counting)

    def again(self):
        return Reference(self.features, self.folder)


PROMPTS = frechet_reference._prompts()


@pytest.fixture
def cached(features, tmp_path, monkeypatch):
    # 100 prompts: hashing the first scene of each is then told apart from rendering the 144 of the reference.
    monkeypatch.setattr(frechet_reference, "_prompts", lambda: PROMPTS[:100])
    return Cached(features, tmp_path, monkeypatch)


def same(first, second):
    return np.array_equal(first.mean, second.mean) and np.array_equal(first.scatter, second.scatter)


def test_cache_is_used_when_everything_matches(cached):
    assert same(cached.again().moments(), cached.moments)
    assert cached.rendered == []


def edit(path, **changes):
    with np.load(path) as archive:
        arrays = dict(archive)
    path.write_bytes(b"")
    np.savez(path, **(arrays | changes))


def content_with(path, **changes):
    with np.load(path) as archive:
        return np.array(json.dumps(json.loads(str(archive["content"])) | changes))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:200]), id="truncated"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"not an archive"), id="foreign"),
    ],
)
def test_a_cache_that_cannot_be_read_is_computed_again(cached, damage):
    damage(cached.again().path)
    assert same(cached.again().moments(), cached.moments)
    assert cached.rendered == [SIZE]
    assert same(cached.again().moments(), cached.moments)
    assert cached.rendered == [SIZE]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(
            lambda path: edit(path, mean=np.ones(8)), "whose numbers were changed", id="other numbers"
        ),
        pytest.param(
            lambda path: edit(path, content=content_with(path, n=7)), "of a different n;", id="other count"
        ),
        pytest.param(
            lambda path: edit(path, content=content_with(path, protocol="x@2")),
            "of a different protocol;",
            id="other protocol",
        ),
        pytest.param(
            lambda path: edit(path, content=content_with(path, scenes_sha256="0")),
            "of a different scenes_sha256;",
            id="other scenes",
        ),
        pytest.param(
            lambda path: edit(path, content=content_with(path, network={})),
            "of a different network;",
            id="other network",
        ),
    ],
)
def test_a_cache_that_does_not_match_is_refused(cached, damage, message):
    path = cached.again().path
    damage(path)
    before = path.read_bytes()
    with pytest.raises(AssetError, match=f"{message}.*move it away"):
        cached.again().moments()
    assert path.read_bytes() == before
    path.unlink()
    assert same(cached.again().moments(), cached.moments)


def test_other_weights_have_another_cache_file(cached, tmp_path):
    write_tiny_clip(tmp_path / "clip", seed=1)
    other = Reference(ClipFeatures(tmp_path / "clip"), cached.folder)
    assert other.path != cached.again().path
    assert not same(other.moments(), cached.moments)


def test_a_changed_renderer_changes_the_identity(features, tmp_path, monkeypatch):
    before = Reference(features, tmp_path).identity()
    monkeypatch.setattr(frechet_reference, "_SEED", 1)
    after = Reference(features, tmp_path).identity()
    assert before["scenes_sha256"] != after["scenes_sha256"]


def test_jackknife_has_the_width_of_repeated_experiments(assets, monkeypatch):
    """Many sets of the same size scatter as widely as the interval of one of them says."""
    metric = build("fid", "micro", assets)
    rng = np.random.default_rng(5)
    reference = Moments.of(rng.normal(size=(2000, 3)))
    monkeypatch.setattr(metric._reference, "moments", lambda: reference)
    widths, values = [], []
    for _ in range(120):
        centres = rng.normal(size=(60, 1, 3)) + 0.5
        by_prompt = [Moments.of(rows) for rows in centres + 0.5 * rng.normal(size=(60, 4, 3))]
        interval, _ = metric._interval(by_prompt)
        widths.append(interval.high - interval.value)
        values.append(interval.value)
    # t quantile of 19 degrees of freedom times the true spread. 15 %: 120 sets know it to 6.5 %, and a
    # jackknife of a smooth statistic is biased by a few percent.
    assert np.mean(widths) == pytest.approx(2.093 * np.std(values, ddof=1), rel=0.15)


def test_cache_folder_is_made_when_needed(features, assets, tmp_path):
    metric = build("fid", "micro", MetricAssets(assets.weights_dir, tmp_path / "a" / "b"))
    metric._reference.moments()
    assert len(list((tmp_path / "a" / "b").glob("frechet-*.npz"))) == 1
