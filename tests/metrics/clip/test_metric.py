"""CLIP score: the number itself, its scale and its aggregation."""

import numpy as np
import pytest
from PIL import Image

from sana_bench.core.images import load_image
from sana_bench.core.samples import Sample
from sana_bench.metrics import build
from sana_bench.metrics.clip.metric import ClipScore
from sana_bench.metrics.clip.micro_features import ClipFeatures
from sana_bench.metrics.clip.micro_network import load_clip


class Fixed(ClipFeatures):
    """Text features given by the test; images are passed to the metric as features."""

    def __init__(self, texts):
        self._known = texts

    def of_texts(self, texts):
        return np.array([self._known[text] for text in texts], dtype=np.float32)


def test_score_is_a_hundred_times_the_cosine(samples, assets):
    rows = build("clip_score", "micro", assets).score(samples)
    clip = load_clip(assets.weights_dir / "clip")
    images = clip.encode_images(np.stack([load_image(sample.image_path) for sample in samples]))
    texts = clip.encode_texts([sample.prompt.text for sample in samples])
    # 1e-5 of a scale of 100: float32 features, products in float64.
    expected = 100 * np.einsum("nd,nd->n", images.astype(float), texts.astype(float))
    np.testing.assert_allclose([row.value for row in rows], expected, atol=1e-5)


def test_negative_cosines_are_kept(samples):
    first, second = samples[0], samples[-1]
    texts = {first.prompt.text: [1.0, 0.0], second.prompt.text: [0.6, 0.8]}
    metric = ClipScore("clip_score/test@1", Fixed(texts))
    rows = metric.score_features([first, second], np.array([[-1.0, 0.0], [0.0, 1.0]], dtype=np.float32))
    # 1e-5: 0.8 in float32 is off by 1e-8, times 100.
    assert [row.value for row in rows] == pytest.approx([-100, 80], abs=1e-5)
    summary = metric.summarise(rows, 2, seed=0)[0]
    assert summary.value == pytest.approx(-10, abs=1e-5)


def test_overall_is_the_mean_over_images(samples, assets):
    metric = build("clip_score", "micro", assets)
    rows = metric.score(samples[:7])  # two prompts with three images, one with a single one
    summaries = {summary.key: summary for summary in metric.summarise(rows, 7, seed=0)}
    assert summaries["overall"].value == pytest.approx(np.mean([row.value for row in rows]), rel=1e-12)
    assert summaries["overall"].unit == "100 x cosine"


def test_features_and_text_must_pair_up(samples, assets):
    metric = build("clip_score", "micro", assets)
    with pytest.raises(ValueError, match="2 samples with 3 feature vectors"):
        metric.score_features(samples[:2], np.zeros((3, 8), np.float32))


def test_an_image_of_another_size_scores_as_its_centre_square_of_the_networks(samples, assets, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (128, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    whole = Image.fromarray(pixels).resize((80, 64), Image.Resampling.BICUBIC)
    whole.crop((8, 0, 72, 64)).save(tmp_path / "small.png")
    large, small = (
        Sample("test", "geneval", samples[0].prompt, 0, tmp_path / name)
        for name in ("large.png", "small.png")
    )
    metric = build("clip_score", "micro", assets)
    np.testing.assert_array_equal(metric.features([large]), metric.features([small]))
