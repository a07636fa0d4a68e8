"""PickScore, HPS and the aesthetic predictor: their published arithmetic, on small networks in the published layouts."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from safetensors.torch import load_file, save_file
from torchvision.transforms import InterpolationMode

from sana_bench import metrics
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.preprocess import CLIP_MEAN, CLIP_STD, fitted_pixels
from sana_bench.core.registry import METRICS
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.base import FeatureMetric, MetricAssets, ScoreRow
from sana_bench.metrics.clip.features import OpenClipFeatures
from sana_bench.metrics.clip.metric import FeatureScore
from sana_bench.metrics.preference.aesthetic import Aesthetic, read_head
from sana_bench.metrics.preference.metric import HPS_PROTOCOLS, HumanPreferenceScore, PickScore
from sana_bench.metrics.preference.networks import HpsFeatures, PickFeatures
from sana_bench.metrics.preference.pick_network import ClipTokens, load_pick_network
from sana_bench.metrics.selfcheck.preference import preference_samples, write_head, write_hps, write_pick
from sana_bench.suites.schema import MetricSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("preference")


@pytest.fixture(scope="module")
def built(folder) -> dict[str, FeatureScore]:
    weights, model = write_hps(folder)
    return {
        "hps": HumanPreferenceScore(
            "hpsv2.1", "hpsv2.1/official@1", HpsFeatures(weights, antialias=True, model=model)
        ),
        "pick": PickScore("pickscore/official@1", PickFeatures(*write_pick(folder))),
    }


@pytest.fixture(scope="module")
def samples(folder) -> list[Sample]:
    return preference_samples(folder)


@pytest.mark.parametrize("name", ["hps", "pick"])
def test_scores_do_not_depend_on_batch_or_order(built, samples, name):
    metric = built[name]
    rows = metric.score(samples)
    shuffled = list(samples)
    random.Random(5).shuffle(shuffled)
    again = [row for start in range(0, len(shuffled), 3) for row in metric.score(shuffled[start : start + 3])]
    assert sorted(again, key=lambda row: row.sample_id) == sorted(rows, key=lambda row: row.sample_id)
    assert isinstance(metric, FeatureMetric)
    chunks = [(part, metric.features(part)) for part in (samples[5:], samples[:5])]
    assert metric.summarise_features(samples, chunks, len(samples), 3) == metric.summarise(
        rows, len(samples), 3
    )


def test_hps_multiplies_by_a_hundred_and_pickscore_by_its_own_scale(built, samples):
    one = samples[:1]
    for name, factor in (("hps", 100.0), ("pick", 100.0)):
        metric = built[name]
        features = metric.features(one).astype(np.float64)
        texts = metric._features.of_texts([one[0].prompt.text]).astype(np.float64)
        # 1e-5 of a scale of 100: the recipe's learnt scale is the logarithm of 100 in float32.
        assert metric.score(one)[0].value == pytest.approx(factor * (features * texts).sum(), abs=1e-5 * 100)


def test_another_learnt_scale_is_another_score(folder, samples, tmp_path):
    weights, config, tokenizer = write_pick(folder)
    state = load_file(weights)
    state["logit_scale"] = torch.log(torch.tensor(50.0))
    save_file(state, tmp_path / "model.safetensors")
    first, second = (
        PickScore("pickscore/official@1", PickFeatures(path, config, tokenizer)).score(samples[:3])
        for path in (weights, tmp_path / "model.safetensors")
    )
    # Rounding of the scale in float32: 1e-6 of it.
    assert [row.value for row in second] == pytest.approx([row.value / 2 for row in first], rel=1e-5)


def test_the_note_of_a_style_is_what_the_published_script_prints(built):
    rng = np.random.default_rng(0)
    values = {style: rng.normal(27, 2, 800) for style in ("anime", "photo")}
    rows = [
        ScoreRow(
            f"{style}-{place:05d}/00000", f"{style}-{place:05d}", style, float(value), {"group": place // 80}
        )
        for style, numbers in values.items()
        for place, value in enumerate(numbers)
    ]
    random.Random(1).shuffle(rows)
    overall, *styles = built["hps"].summarise(rows, len(rows), 0)
    assert (overall.key, overall.note) == ("overall", "")
    # Printed with two decimals; a mean of 1,600 numbers in float64.
    assert overall.value == pytest.approx(np.mean([*values["anime"], *values["photo"]]), rel=1e-12)
    assert [summary.key for summary in styles] == ["anime", "photo"]
    for summary in styles:
        means = [np.mean(values[summary.key][start : start + 80]) for start in range(0, 800, 80)]
        assert summary.note == f"10 groups: mean {np.mean(means):.2f}, deviation {np.std(means):.4f}"


def test_groups_come_from_the_prompts(built, samples):
    prompt = Prompt("anime-00163", "a red cat", "anime", {"group": 2})
    grouped = Sample("v", "hpdv2", prompt, 0, samples[0].image_path)
    rows = built["hps"].score([grouped, samples[1]])
    assert [row.details for row in rows] == [{"group": 2}, {}]
    assert built["pick"].score([grouped])[0].details == {}


@pytest.mark.parametrize(
    ("height", "width"), [(300, 300), (301, 150), (97, 512), (20, 13), (28, 28), (28, 9)]
)
@pytest.mark.parametrize("antialias", [True, False])
def test_fitted_pixels_are_torchvisions(height, width, antialias):
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    scale = 28 / max(height, width)
    size = [round(height * scale), round(width * scale)]
    planes = tv.to_tensor(image)
    if scale != 1:
        planes = tv.resize(planes, size, InterpolationMode.BICUBIC, antialias=antialias)
    rows, columns = 28 - size[0], 28 - size[1]
    padded = tv.pad(planes, [columns // 2, rows // 2, columns - columns // 2, rows - rows // 2])
    expected = tv.normalize(padded, CLIP_MEAN, CLIP_STD).numpy()
    # 1e-6 of a few deviations: float32.
    np.testing.assert_allclose(fitted_pixels(image, 28, antialias=antialias), expected, atol=2e-6)


def test_the_two_resizes_share_no_features(folder):
    weights, model = write_hps(folder)
    keys = {HpsFeatures(weights, antialias=antialias, model=model).key for antialias in (True, False)}
    assert len(keys) == 2


def test_the_versions_of_hps_have_no_protocol_in_common():
    protocols = [name for own in HPS_PROTOCOLS.values() for name in own]
    assert len(set(protocols)) == 4
    for name, own in HPS_PROTOCOLS.items():
        assert name in METRICS
        assert all(protocol.startswith(f"{name}/") for protocol in own)


@pytest.mark.parametrize("name", ["hpsv2", "hpsv2.1", "aesthetic"])
def test_what_the_micro_tier_lacks_is_said(name, assets):
    with pytest.raises(SuiteError, match=f"metric '{name}' has no micro tier version"):
        metrics.build(name, "micro", assets)


@pytest.mark.parametrize("name", ["hpsv2", "hpsv2.1", "aesthetic", "pickscore"])
def test_what_the_full_tier_needs_is_said(name, assets, tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    with pytest.raises(
        AssetError, match=f"metric '{name}' on the full tier: .* is missing, needed for {name}"
    ):
        metrics.build(name, "full", assets)
    with pytest.raises(SuiteError, match="has no parameter 'size'"):
        metrics.build(MetricSpec(name=name, parameters={"size": 1}), "full", assets)
    with pytest.raises(SuiteError, match=f"has no protocol '{name}/offical@1'"):
        metrics.build(MetricSpec(name=name, protocol=f"{name}/offical@1"), "full", assets)


def test_pickscore_is_built_from_the_published_files(folder, samples, built, tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    (tmp_path / "pickscore").mkdir()
    for path in write_pick(folder):
        (tmp_path / "pickscore" / path.name).write_bytes(path.read_bytes())
    metric = metrics.build("pickscore", "full", MetricAssets(tmp_path, tmp_path))
    assert metric.protocol == "pickscore/official@1"
    assert metric.score(samples[:2]) == built["pick"].score(samples[:2])
    assert metric.identity() == built["pick"].identity()


def test_micro_pickscore_orders_as_the_clip_score(assets):
    pick, clip = (metrics.build(name, "micro", assets) for name in ("pickscore", "clip_score"))
    assert pick.feature_key == clip.feature_key
    assert pick.factor == pytest.approx(
        float(pick._features.network.model.logit_scale.detach().exp()), rel=1e-6
    )


def test_long_prompts_keep_their_end_and_are_counted(folder):
    _, _, tokenizer = write_pick(folder)
    tokens = ClipTokens(tokenizer, 77)
    end = json.loads(tokenizer.read_text())["model"]["vocab"]["<|endoftext|>"]
    long = "the red cat and " * 40
    ids = tokens(["a cat", long])
    assert ids.shape == (2, 77)
    assert ids[1, -1] == end
    assert (ids[0] == end).sum() == 77 - 3
    assert tokens.cut(["a cat", long]) == [False, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a tokenizer of CLIP's"),
        ("{}", "not a tokenizer of CLIP's .KeyError"),
        ('{"model": []}', "not a tokenizer"),
    ],
)
def test_a_damaged_tokenizer_is_one_line(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(AssetError, match=message) as caught:
        ClipTokens(tmp_path / "tokenizer.json", 77)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_are_refused(folder, tmp_path):
    weights, config, _ = write_pick(folder)
    state = load_file(weights)
    state.pop("visual_projection.weight")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(AssetError, match=r"not the CLIP that config\.json describes"):
        load_pick_network(tmp_path / "model.safetensors", config)
    hps, model = write_hps(folder)
    archive = torch.load(hps, weights_only=True)
    archive["state_dict"].pop("ln_final.bias")
    torch.save(archive, tmp_path / "hps.pt")
    (tmp_path / "none.pt").write_bytes(b"nothing")
    torch.save({"model": archive["state_dict"]}, tmp_path / "other.pt")
    for name in ("hps.pt", "none.pt", "other.pt"):
        with pytest.raises(AssetError, match="not the weights of open_clip's"):
            _ = HpsFeatures(tmp_path / name, antialias=True, model=model).network


def test_old_files_position_numbers_are_passed_over(folder, tmp_path):
    weights, config, _ = write_pick(folder)
    state = load_file(weights)
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, tmp_path / "model.safetensors")
    assert load_pick_network(tmp_path / "model.safetensors", config).text_limit == 77


def test_the_aesthetic_head_is_its_layers_on_unit_features(folder, samples):
    head = write_head(folder)
    weights, model = write_hps(folder)
    state = torch.load(head, weights_only=True)
    features = np.random.default_rng(2).normal(size=(5, 768))
    x = torch.from_numpy(features)
    for place in (0, 2, 4, 6, 7):
        x = torch.nn.functional.linear(
            x, state[f"layers.{place}.weight"].double(), state[f"layers.{place}.bias"].double()
        )
    metric = Aesthetic("aesthetic/laion@1", head, OpenClipFeatures(weights, "png", model=model))
    rows = metric.score_features(samples[:5], features.astype(np.float32))
    # Features are float32: 1e-7 of each.
    assert [row.value for row in rows] == pytest.approx(x.flatten().tolist(), abs=1e-5)
    assert metric.identity()["head_sha256"]


def test_a_head_of_another_shape_is_refused(folder, tmp_path):
    state = torch.load(write_head(folder), weights_only=True)
    torch.save(state | {"layers.8.weight": torch.zeros(1)}, tmp_path / "more.pth")
    torch.save(
        {name: tensor for name, tensor in state.items() if "layers.4" not in name}, tmp_path / "less.pth"
    )
    torch.save(state | {"layers.7.weight": torch.zeros(2, 16)}, tmp_path / "two.pth")
    (tmp_path / "none.pth").write_bytes(b"nothing")
    for name in ("more", "less", "two", "none"):
        with pytest.raises(AssetError, match=rf"{name}\.pth: not the head of LAION's aesthetic predictor"):
            read_head(tmp_path / f"{name}.pth")
