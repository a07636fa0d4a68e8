"""HPSv3: the request read and not run, the image as the authors resize it, and the state that the head reads."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sana_bench import metrics
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.preference.hpsv3 import HpsV3, HpsV3Files, read_request
from sana_bench.metrics.preference.hpsv3_network import load_preference_network
from sana_bench.suites.schema import MetricSpec
from tests.stand_in_files import HPSV3_REQUEST, write_hpsv3_files


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> HpsV3Files:
    return HpsV3Files(*write_hpsv3_files(tmp_path_factory.mktemp("hpsv3")))


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("images")
    out = []
    for place, (height, width) in enumerate([(64, 64), (90, 50), (600, 900)]):
        path = folder / f"{place}.png"
        pixels = np.random.default_rng(place).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        out.append(Sample("v", "b", Prompt(str(place), f"a {{red}} dog {place}", "t"), 0, path))
    return out


@pytest.fixture(scope="module")
def metric(files) -> HpsV3:
    return HpsV3("hpsv3/official@1", files, precision="fp32")


def test_the_request_is_read_and_not_run(files):
    assert (
        files.request
        == "\nRate it {twice}. Textual prompt - {text_prompt}\n\nThe rating: <|Reward|>\n\nEND\n"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = (", "not the request of HPSv3"),
        ("INSTRUCTION = 'a {text_prompt}'", "not the request of HPSv3"),
        ("INSTRUCTION = 'a'\nprompt_with_special_token = '<|Reward|>'", "once each"),
        ("INSTRUCTION = '{text_prompt}'\nprompt_with_special_token = 'b'", "once each"),
        ("INSTRUCTION = open('x')\nprompt_with_special_token = 'b'", "not the request of HPSv3"),
    ],
)
def test_another_file_is_no_request(tmp_path, content, message):
    (tmp_path / "r.py").write_text(content)
    with pytest.raises(AssetError, match=message) as caught:
        read_request(tmp_path / "r.py")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), (448, 448)), ((600, 900), (364, 532)), ((90, 50), (616, 336))]
)
def test_images_come_to_the_published_size(metric, size, expected):
    """By the package's rule: sides by multiples of 28, down where there is too much, up where there is too little."""
    pixels, grid = metric._patches(np.zeros((*size, 3), np.uint8))
    assert tuple(grid * [1, 14, 14]) == (1, *expected)
    assert pixels.shape == (int(np.prod(grid)), 3 * 2 * 14 * 14)


def test_a_score_is_a_function_of_its_own_image_and_prompt(metric, samples):
    rows = metric.score(samples)
    assert len({row.value for row in rows}) == 3
    assert metric.score(samples[::-1])[::-1] == rows
    other = Sample("v", "b", Prompt("0", "a red cat", "t"), 0, samples[0].image_path)
    assert metric.score([other])[0].value != rows[0].value
    overall, _ = metric.summarise(rows, 3, 0)
    # Float64 sums of three numbers.
    assert overall.value == pytest.approx(np.mean([row.value for row in rows]), rel=1e-12)


def test_what_follows_the_reward_token_is_not_looked_at(metric, files, samples, tmp_path):
    later = tmp_path / "later.py"
    later.write_text(HPSV3_REQUEST.replace("\n\nEND", "\n\nno end at all"))
    changed = HpsV3(
        "hpsv3/official@1",
        HpsV3Files(files._weights, files._config, files._tokenizer, later),
        precision="fp32",
    )
    # 1e-5 of a reward near 1: float32 sums over another length.
    assert changed.score(samples[:1])[0].value == pytest.approx(metric.score(samples[:1])[0].value, abs=1e-5)


def test_precision_is_part_of_the_identity(files):
    names = [HpsV3("hpsv3/official@1", files, precision=name).identity() for name in ("bf16", "fp32")]
    assert names[0] != names[1]


def test_weights_that_do_not_fit_are_refused(files, tmp_path):
    state = load_file(files._weights)
    more = state | {"model.more.weight": torch.zeros(1)}
    less = {name: tensor for name, tensor in state.items() if name != "model.norm.weight"}
    headless = {name: tensor for name, tensor in state.items() if not name.startswith("rm_head.5")}
    for odd in (more, less, headless, {}):
        save_file(odd, tmp_path / "HPSv3.safetensors")
        with pytest.raises(
            AssetError, match=r"HPSv3\.safetensors: .*(do not fit|not HPSv3's weights)"
        ) as caught:
            load_preference_network(tmp_path / "HPSv3.safetensors", files._config, torch.float32)
        assert "\n" not in str(caught.value)


def test_another_tokenizer_is_refused(files, tmp_path):
    for content in ("{", "{}", '{"added_tokens": [{"content": "<|im_end|>"}]}'):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(AssetError, match=r"tokenizer\.json: not"):
            _ = HpsV3Files(
                files._weights, files._config, tmp_path / "tokenizer.json", files._request
            ).tokenizer


def test_it_is_built_from_the_published_files(files, samples, metric, tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    found = MetricAssets(tmp_path, tmp_path)
    with pytest.raises(AssetError, match=r"metric 'hpsv3' on the full tier: .* is missing, needed for hpsv3"):
        metrics.build("hpsv3", "full", found)
    (tmp_path / "hpsv3").symlink_to(files._weights.parent)
    built = metrics.build(MetricSpec(name="hpsv3", parameters={"precision": "fp32"}), "full", found)
    assert built.score(samples[:1]) == metric.score(samples[:1])
    assert metrics.build("hpsv3", "full", found).identity()["precision"] == "bf16"
    with pytest.raises(SuiteError, match="precision is 'fp8'; one of fp32, bf16"):
        metrics.build(MetricSpec(name="hpsv3", parameters={"precision": "fp8"}), "full", found)
    with pytest.raises(SuiteError, match="no micro tier version"):
        metrics.build("hpsv3", "micro", found)
