"""FID and KID of two variants compared: groups of prompts left out, from stored features and the cached reference."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from sana_bench.core.fingerprint import fingerprint, short
from sana_bench.core.samples import Sample
from sana_bench.metrics.fid.compare import NotMeasuredError, compare_sets
from sana_bench.metrics.fid.frechet import Moments
from sana_bench.metrics.fid.metric import InceptionFid, InceptionKid
from sana_bench.results.reader import SampleResult
from sana_bench.results.schema import ImageRow
from tests.metrics.fid.colour_sets import Colours


def stored_sample(sample: Sample, sha256: str) -> SampleResult:
    place = (*sample.place, sample.prompt.sha256)
    return SampleResult(sample, ImageRow(*place, "ok", "x.png", sha256, 1, 0.1, 1, "cpu"))


@pytest.fixture
def compared(reference, generated, tmp_path, monkeypatch):
    """Compare the generated images with a copy whose colours are `shift` grey levels off, by a kind of distance."""
    reference.features()
    (tmp_path / "cache").mkdir()
    shutil.copy(reference.path, tmp_path / "cache")

    def run(kind, shift, change=()):
        rows = [Colours().of_samples(generated) + offset for offset in (0, shift)]
        metric = kind(f"{kind.name}/clean@1", reference._features, reference)
        stored = {
            f"{name}{place}": row
            for name, part in zip("ab", rows, strict=True)
            for place, row in enumerate(part)
        }
        seen = []

        def load(output, key, names):
            seen.append(key)
            return np.stack([stored[name] for name in names])

        monkeypatch.setattr("sana_bench.metrics.fid.compare.load_features", load)
        pairs = [
            (stored_sample(s, f"a{place}"), stored_sample(s, f"b{place}"))
            for place, s in enumerate(generated)
        ]
        found = [
            metric.summarise_features(generated, [(generated, part)], len(generated), seed=0)[0]
            for part in rows
        ]
        runs = tuple(SimpleNamespace(output=tmp_path) for _ in "ab")
        identity = {**metric.identity(), **dict(change)}
        effect = compare_sets(runs, identity, (found[0], found[1]), pairs, 0)
        assert effect.difference == found[1].value - found[0].value
        assert seen == ["inception/colours@1/{}/w1"] * 2
        return effect, rows

    return run


def test_fid_of_two_variants_is_compared_by_leaving_prompts_out(compared, reference, generated):
    effect, rows = compared(InceptionFid, 25.0)
    order = np.argsort([f"{s.prompt.tag}/{s.prompt.id}" for s in generated])
    differences = []
    for group in range(20):
        kept = np.array([place for turn, place in enumerate(order) if turn % 20 != group])
        a, b = (reference.distance_to().distance(Moments.of(part[kept])) for part in rows)
        differences.append(b - a)
    error = np.sqrt(19 / 20 * np.sum((differences - np.mean(differences)) ** 2))
    p_value = 2 * scipy.stats.t.sf(abs(effect.difference) / error, 19)
    # 1e-6: moments merged from groups against moments at once, through a difference of distances.
    assert effect.p_value == pytest.approx(p_value, rel=1e-6)
    assert (effect.n_pairs, effect.n_clusters) == (42, 42)
    assert effect.low < effect.difference < effect.high


@pytest.mark.parametrize("kind", [InceptionFid, InceptionKid])
def test_equal_images_show_no_difference(compared, kind):
    effect, _ = compared(kind, 0.0)
    assert (effect.difference, effect.low, effect.high, effect.p_value) == (0, 0, 0, 1)


def test_kid_of_a_far_variant_is_told_apart(compared):
    effect, _ = compared(InceptionKid, 60.0)
    assert effect.difference > 0
    assert effect.p_value < 0.01


def test_distances_to_another_reference_are_not_compared(compared, tmp_path):
    with pytest.raises(NotMeasuredError, match="reference statistics missing"):
        compared(InceptionFid, 1.0, {"weights_sha256": "w2"})
    with pytest.raises(NotMeasuredError, match="reference statistics of a different n"):
        compared(InceptionFid, 1.0, {"reference": {"n": 7}})


def test_a_changed_reference_of_the_micro_tier_is_not_compared_with(tmp_path):
    identity = {"metric": "fid", "protocol": "fid/clip-micro@1", "network": "n", "reference": {"n": 3}}
    expected = {"n": 3, "network": {"network": "n"}}
    path = tmp_path / "cache" / f"frechet-{short(fingerprint(expected))}.npz"
    path.parent.mkdir()
    for content, message in ((expected | {"n": 4}, "of a different n;"), (expected, "numbers were changed")):
        np.savez(path, content=np.array(json.dumps(content)), mean=np.zeros(2), scatter=np.eye(2))
        runs = tuple(SimpleNamespace(output=tmp_path) for _ in "ab")
        with pytest.raises(NotMeasuredError, match=message):
            compare_sets(runs, identity, (None, None), [], 0)
