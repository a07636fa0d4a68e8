"""Measures of sets as metrics: their images and networks, the walk over categories, and two variants compared."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
import torchvision.transforms as tv
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Dinov2Model

from sana_bench.core.errors import AssetError, IncompleteError, SuiteError
from sana_bench.core.preprocess import CLIP_MEAN, CLIP_STD
from sana_bench.core.registry import METRICS, SET_METRICS
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics import build
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.fid.compare import NotMeasuredError, compare_sets
from sana_bench.metrics.fid.features import CHAINS, InceptionFeatures, cmmd_pixels, dinov2_pixels
from sana_bench.metrics.fid.image_towers import load_clip_tower, load_dinov2
from sana_bench.metrics.fid.measures import MEASURES
from sana_bench.metrics.fid.metric import DinoFrechet, InceptionFid, NoReference, SetMeasure
from sana_bench.suites.schema import MetricSpec
from tests.metrics.fid.colour_sets import CATEGORIES, Colours
from tests.metrics.fid.test_compare import stored_sample
from tests.metrics.fid.test_metric import summarise
from tests.stand_in_files import write_dinov2

OF_DINOV2 = ("fd_dinov2", "precision", "recall", "density", "coverage", "vendi")
TINY_CLIP = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    """DINOv2 at small size, saved as it is published."""
    weights = write_dinov2(tmp_path_factory.mktemp("dinov2-large"))
    # The names of the published file, which the library's own classes no longer have.
    assert "encoder.layer.0.attention.attention.query.weight" in load_file(weights)
    return weights


def measured(name, reference):
    held_against = reference if MEASURES[name].referenced else NoReference()
    return SetMeasure(name, f"{name}/dinov2@1", reference._features, held_against)


@pytest.mark.parametrize("name", MEASURES)
def test_a_set_and_its_categories_are_measured(name, reference, generated):
    metric = measured(name, reference)
    found = summarise(metric, generated)
    assert list(found) == (["overall"] if name == "vendi" else ["overall", *CATEGORIES])
    ordered = sorted(generated, key=lambda one: (one.prompt.tag, one.prompt.id))
    features = Colours().of_samples(ordered)
    held_against = features if name == "vendi" else reference.features()
    # Groups are summed one after the other: float64 sums in another order.
    assert found["overall"].value == pytest.approx(
        MEASURES[name].compute([features], held_against)[0], rel=1e-9
    )
    for key, summary in found.items():
        assert summary.low <= summary.value <= summary.high
        assert summary.low >= 0
        assert "compare equal numbers" in summary.note
        assert summary.higher_is_better == (name != "cmmd")
        if key != "overall":
            part = [sample for sample in ordered if sample.prompt.tag == key]
            expected = MEASURES[name].compute([Colours().of_samples(part)], reference.features(key))[0]
            assert summary.value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", MEASURES)
def test_numbers_do_not_depend_on_chunks_or_order(name, reference, generated):
    metric = measured(name, reference)
    # Exact: features are put in one order before anything is summed.
    assert summarise(metric, generated[::-1], (1, 9)) == summarise(metric, generated)


def test_too_few_images_are_refused(reference, generated):
    metric = measured("recall", reference)
    with pytest.raises(IncompleteError, match="recall: at least 6 images are needed, got 5"):
        summarise(metric, generated[:5])


def test_fd_is_frechet_under_its_own_name(reference, generated):
    ours, theirs = (
        summarise(kind(f"{kind.name}/x@1", reference._features, reference), generated)
        for kind in (DinoFrechet, InceptionFid)
    )
    assert [s.value for s in ours.values()] == [s.value for s in theirs.values()]
    assert {s.metric for s in ours.values()} == {"fd_dinov2"}


def test_metrics_of_one_network_share_features_and_reference(dinov2):
    parts = [InceptionFeatures(f"{name}/dinov2@1", dinov2) for name in OF_DINOV2]
    assert len({part.key for part in parts}) == 1
    assert len({json.dumps(part.identity(), sort_keys=True) for part in parts}) == 1


@pytest.mark.parametrize("size", [(300, 200), (64, 64), (90, 231)])
def test_pixels_are_those_of_the_published_recipes(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    picture = Image.fromarray(image)
    whole = tv.Compose(
        [
            tv.Resize((224, 224), tv.InterpolationMode.BICUBIC),
            tv.ToTensor(),
            tv.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    # 2e-6 of a few deviations: float32.
    np.testing.assert_allclose(dinov2_pixels(image), whole(picture).numpy(), atol=2e-6)
    side = min(size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    square = Image.fromarray(image[top : top + side, left : left + side]).resize(
        (336, 336), Image.Resampling.BICUBIC
    )
    expected = tv.Compose([tv.ToTensor(), tv.Normalize(CLIP_MEAN, CLIP_STD)])(square)
    np.testing.assert_allclose(cmmd_pixels(image), expected.numpy(), atol=2e-6)


def images_in(folder, n=3):
    rng = np.random.default_rng(4)
    out = []
    for place in range(n):
        path = folder / f"{place}.png"
        Image.fromarray(rng.integers(0, 256, (40 + place, 52, 3), dtype=np.uint8)).save(path)
        out.append(Sample("v", "b", Prompt(str(place), "x", "t"), 0, path))
    return out


def test_features_of_dinov2_are_its_class_token(dinov2, tmp_path):
    samples = images_in(tmp_path)
    found = InceptionFeatures("vendi/dinov2@1", dinov2).of_samples(samples)
    network = Dinov2Model.from_pretrained(dinov2.parent).eval()
    pixels = torch.stack(
        [torch.from_numpy(dinov2_pixels(np.asarray(Image.open(s.image_path)))) for s in samples]
    )
    with torch.inference_mode():
        expected = network(pixels).last_hidden_state[:, 0].numpy()
    # Features near 1 in float32, in a batch of another size.
    np.testing.assert_allclose(found, expected, atol=1e-5)
    single = InceptionFeatures("vendi/dinov2@1", dinov2).of_samples(samples[1:2])
    np.testing.assert_allclose(single, found[1:2], atol=1e-5)


def test_features_of_clip_are_the_projected_ones(tmp_path, monkeypatch):
    (tmp_path / "tiny-336.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = open_clip.create_model("tiny-336", pretrained=None).eval()
    weights = tmp_path / "tiny.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, weights)
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, expected = load_clip_tower(weights, "tiny-336")(pixels), network.encode_image(pixels)
    # The same float32 operations.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert open_clip.get_model_config("ViT-L-14-336-quickgelu")["vision_cfg"]["image_size"] == 336
    assert CHAINS["cmmd/clip-336@1"].side == 336


def test_a_dinov2_that_does_not_fit_is_refused(dinov2, tmp_path):
    state = load_file(dinov2)
    with pytest.raises(AssetError, match="not the weights and configuration of DINOv2"):
        load_dinov2(tmp_path / "model.safetensors")
    shutil.copy(dinov2.parent / "config.json", tmp_path)
    for change in ({"more": torch.zeros(1)}, {"layernorm.weight": torch.ones(3)}, None):
        odd = state | change if change else {name: t for name, t in state.items() if name != "layernorm.bias"}
        save_file(odd, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(AssetError, match=r"model\.safetensors: .*(do not fit|not the weights)") as caught:
            load_dinov2(tmp_path / "model.safetensors")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*MEASURES, "fd_dinov2"])
def test_they_are_of_the_full_tier_and_say_what_is_missing(name, assets, tmp_path, monkeypatch):
    with pytest.raises(SuiteError, match=f"metric '{name}' has no micro tier version"):
        build(name, "micro", assets)
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    with pytest.raises(AssetError, match=f"metric '{name}' on the full tier.*is missing"):
        build(name, "full", assets)
    assert METRICS.entry(name).full_only
    assert (name in SET_METRICS) == (name != "vendi")


def data_root(tmp_path, monkeypatch, dinov2):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    shutil.copytree(dinov2.parent, tmp_path / "dinov2-large")
    return MetricAssets(tmp_path, tmp_path / "cache")


def test_a_folder_of_ones_own_is_held_against(dinov2, tmp_path, monkeypatch):
    found = data_root(tmp_path, monkeypatch, dinov2)
    (tmp_path / "real").mkdir()
    samples = images_in(tmp_path / "real", 8)
    made = build(MetricSpec(name="precision", reference=str(tmp_path / "real")), "full", found)
    assert made.protocol == "precision/dinov2@1+own-reference"
    (summary,) = summarise(made, samples).values()
    assert summary.value == 1.0  # the images are the reference
    np.savez(tmp_path / "s.npz", mu=np.zeros(16), sigma=np.eye(16))
    with pytest.raises(SuiteError, match="precision needs a folder of reference images"):
        build(MetricSpec(name="precision", reference=str(tmp_path / "s.npz")), "full", found)
    with pytest.raises(SuiteError, match="'vendi' holds images against no others; leave reference out"):
        build(MetricSpec(name="vendi", reference=str(tmp_path / "real")), "full", found)


def test_vendi_needs_no_reference(dinov2, tmp_path, monkeypatch):
    made = build("vendi", "full", data_root(tmp_path, monkeypatch, dinov2))
    assert made.identity()["reference"] == {"data": "none"}
    (summary,) = summarise(made, images_in(tmp_path, 4)).values()
    assert 1 <= summary.value <= 4
    assert summary.note.startswith("4 against one another")


@pytest.mark.parametrize("name", MEASURES)
def test_two_variants_are_compared_by_leaving_prompts_out(name, reference, generated, tmp_path, monkeypatch):
    reference.features()
    (tmp_path / "cache").mkdir()
    shutil.copy(reference.path, tmp_path / "cache")
    rows = [Colours().of_samples(generated) * factor for factor in (1.0, 1.3)]
    stored = {
        f"{side}{place}": row for side, part in zip("ab", rows, strict=True) for place, row in enumerate(part)
    }
    monkeypatch.setattr(
        "sana_bench.metrics.fid.compare.load_features",
        lambda output, key, names: np.stack([stored[one] for one in names]),
    )
    metric = measured(name, reference)
    pairs = [
        tuple(stored_sample(sample, f"{side}{place}") for side in "ab")
        for place, sample in enumerate(generated)
    ]
    found = [
        metric.summarise_features(generated, [(generated, part)], len(generated), seed=0)[0] for part in rows
    ]
    runs = tuple(SimpleNamespace(output=tmp_path) for _ in "ab")
    effect = compare_sets(runs, metric.identity(), (found[0], found[1]), pairs, 0)
    assert effect.difference == found[1].value - found[0].value
    assert effect.low <= effect.difference <= effect.high
    if MEASURES[name].referenced:
        shutil.rmtree(tmp_path / "cache")
        with pytest.raises(NotMeasuredError, match="reference statistics missing"):
            compare_sets(runs, metric.identity(), (found[0], found[1]), pairs, 0)
