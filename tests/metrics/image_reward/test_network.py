"""ImageReward against golden scores of the original package on shared random weights, and its failure modes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.preprocess import as_jpeg, clip_pixels
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.image_reward.metric import ImageReward, RewardFiles, build_image_reward
from sana_bench.metrics.image_reward.network import VisionSize, load_reward_network
from sana_bench.metrics.selfcheck import golden_files
from sana_bench.metrics.selfcheck.encoders import reward_config
from sana_bench.metrics.selfcheck.recipes import image_reward as SHARED
from sana_bench.suites.schema import MetricSpec
from tests.float64 import assert_as_exact, in_float64

GOLDEN = golden_files.image_reward()
VISION = VisionSize(
    SHARED.IMAGE_SIZE, SHARED.PATCH, SHARED.VISION["width"], SHARED.VISION["depth"], SHARED.VISION["heads"]
)
CONFIG = reward_config()


def weights():
    return {
        name: torch.from_numpy(SHARED.weight(name, tuple(shape)))
        for name, shape in GOLDEN["keys"].items()
        if not name.endswith("position_ids")
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image_reward")
    torch.save(weights(), folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("\n".join(SHARED.vocabulary()) + "\n", encoding="utf-8")
    return RewardFiles(folder / "ImageReward.pt", folder / "med_config.json", folder / "vocab.txt", VISION)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    out = []
    for name, width, height in SHARED.IMAGES:
        Image.fromarray(SHARED.image(name, width, height)).save(folder / f"{name}.png")
        out += [
            Sample("v", "image_reward", Prompt(f"{name}-{place}", text, "all"), 0, folder / f"{name}.png")
            for place, text in enumerate(SHARED.PROMPTS)
        ]
    return out


def golden(codec):
    return [value for name, *_ in SHARED.IMAGES for value in GOLDEN["scores"][codec][name]]


# 1e-4 of rewards of order one: float32 sums in another order, through five layers that amplify them.
@pytest.mark.parametrize(
    ("protocol", "codec"), [("image_reward/official@1", "png"), ("image_reward/sana-jpeg@1", "jpg")]
)
def test_scores_are_those_of_the_original_package(files, samples, protocol, codec):
    rows = ImageReward(protocol, files).score(samples)
    assert [row.sample_id for row in rows] == [sample.id for sample in samples]
    np.testing.assert_allclose([row.value for row in rows], golden(codec), rtol=1e-4, atol=1e-4)


def test_the_presets_differ(files, samples):
    png, jpeg = (np.array(golden(codec)) for codec in ("png", "jpg"))
    assert np.abs(png - jpeg).min() > 1e-3  # else the comparison above could not tell them apart


def test_a_jpeg_is_not_compressed_again(files, samples, tmp_path):
    stored = []
    for sample in samples:
        path = tmp_path / f"{sample.prompt.id}.jpg"
        Image.open(sample.image_path).save(path)
        stored.append(Sample("v", "image_reward", sample.prompt, 0, path))
    metric = ImageReward("image_reward/sana-jpeg@1", files)
    assert [row.value for row in metric.score(stored)] == [row.value for row in metric.score(samples)]


def test_tokens_are_those_of_the_original_tokenizer(files):
    ids, mask = files.tokens(SHARED.PROMPTS)
    assert ids.tolist() == GOLDEN["input_ids"]
    assert mask.tolist() == GOLDEN["attention_mask"]
    assert ids.shape == (len(SHARED.PROMPTS), 35)
    assert mask[2].all()  # the long prompt is cut


def test_pixels_are_those_of_the_original_transform():
    for name, width, height in SHARED.IMAGES:
        ours = clip_pixels(SHARED.image(name, width, height), SHARED.IMAGE_SIZE)[:, ::13, ::7].ravel()
        # 1e-6: the same grey levels, scaled and shifted in float32.
        np.testing.assert_allclose(ours, GOLDEN["pixels"][name], atol=1e-6)


def test_scores_do_not_depend_on_batches_or_order(files, samples):
    """Batches are padded to one size, but a row's place in its batch may change the order of sums: whole, single and
    reversed runs are equally far from float64.
    """
    metric = ImageReward("image_reward/official@1", files)

    def values(of):
        return [row.value for row in metric.score(of)]

    whole, exact = values(samples), in_float64(lambda: values(samples))
    assert_as_exact([values([sample])[0] for sample in samples[:3]], whole[:3], exact[:3])
    assert_as_exact(values(samples[::-1])[::-1], whole, exact)


def test_summary_is_the_mean_of_prompt_means(files, samples):
    metric = ImageReward("image_reward/official@1", files)
    rows = metric.score(samples)
    (summary,) = metric.summarise(rows, len(rows), seed=1)
    assert summary.value == pytest.approx(np.mean([row.value for row in rows]), rel=1e-12)
    assert summary.low < summary.value < summary.high
    assert (summary.key, summary.unit, summary.n_prompts) == ("overall", "reward", len(rows))


def without(state, key):
    return {name: tensor for name, tensor in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda s: without(s, "mlp.layers.4.bias"), "1 missing", id="missing"),
        pytest.param(lambda s: s | {"mlp.layers.9.bias": torch.zeros(1)}, "unknown layers", id="surplus"),
        pytest.param(lambda s: s | {"mlp.layers.7.bias": torch.zeros(2)}, "has shape", id="shape"),
        pytest.param(lambda s: {"model": s}, "not a state dict", id="nested"),
        pytest.param(lambda s: s | {"x": print}, "more than tensors", id="code"),
    ],
)
def test_other_weights_are_refused(files, tmp_path, change, message):
    torch.save(change(weights()), tmp_path / "ImageReward.pt")
    with pytest.raises(AssetError, match=message):
        load_reward_network(tmp_path / "ImageReward.pt", files._paths[1], VISION)


def test_damaged_files_are_refused(files, tmp_path):
    content = files._paths[0].read_bytes()
    (tmp_path / "ImageReward.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(AssetError, match=r"ImageReward\.pt"):
        load_reward_network(tmp_path / "ImageReward.pt", files._paths[1], VISION)
    (tmp_path / "med_config.json").write_text("{}")
    with pytest.raises(AssetError, match="not the configuration"):
        load_reward_network(files._paths[0], tmp_path / "med_config.json", VISION)
    with pytest.raises(AssetError, match="is missing"):
        load_reward_network(tmp_path / "none.pt", files._paths[1], VISION)


def test_building_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    assets = MetricAssets(tmp_path, tmp_path)
    with pytest.raises(AssetError, match=r"ImageReward\.pt is missing.*med_config\.json.*vocab\.txt"):
        build_image_reward("full", assets, MetricSpec(name="image_reward"))
    with pytest.raises(SuiteError, match=r"no protocol 'image_reward/sana@1'.*image_reward/sana-jpeg@1"):
        build_image_reward("full", assets, MetricSpec(name="image_reward", protocol="image_reward/sana@1"))
    with pytest.raises(SuiteError, match="no parameter 'size'"):
        build_image_reward("full", assets, MetricSpec(name="image_reward", parameters={"size": 3}))
    with pytest.raises(AssetError, match=r"reward is missing, these weights are not shipped"):
        build_image_reward("micro", assets, MetricSpec(name="image_reward"))
    with pytest.raises(SuiteError, match=r"it has image_reward/micro@1 on this tier"):
        build_image_reward(
            "micro", assets, MetricSpec(name="image_reward", protocol="image_reward/official@1")
        )


def test_published_sizes(tmp_path):
    """The published configuration has the published number of parameters."""
    config = CONFIG | {
        "vocab_size": 30524, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 512,
    }  # fmt: skip
    from sana_bench.metrics.image_reward.network import RewardNetwork

    with torch.device("meta"):
        network = RewardNetwork(VisionSize(), config)
    ours = sum(parameter.numel() for parameter in network.parameters())
    # The published count includes two projections to 256 that no score uses.
    assert round((ours + 1024 * 256 + 256 + 768 * 256 + 256) / 1e6, 2) == 446.67


def test_jpeg_keeps_the_shape_and_loses_detail():
    image = SHARED.image("square", 96, 80)
    assert as_jpeg(image).shape == image.shape
    assert np.abs(as_jpeg(image).astype(int) - image).mean() > 0.5
