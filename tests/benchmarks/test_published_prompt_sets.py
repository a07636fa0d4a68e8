"""MJHQ-30K and ImageReward's prompts as they are published."""

import json

import pytest

from sana_bench.assets.mjhq30k import Mjhq30k
from sana_bench.benchmarks.hpdv2 import STYLES, read_style
from sana_bench.benchmarks.image_reward import read_prompts
from sana_bench.benchmarks.mjhq30k import generation_prompt
from sana_bench.core.errors import AssetError
from sana_bench.core.registry import BENCHMARKS
from tests import SHARED

DATA = SHARED / "data/imagereward"


@pytest.mark.parametrize("name", ["benchmark-prompts.json", "sana-benchmark-prompts-dict.json"])
def test_both_published_files_hold_the_same_prompts(name):
    if not (DATA / name).is_file():
        pytest.skip(f"{DATA / name} is not here")
    prompts = read_prompts(DATA / name)
    assert len(prompts) == len({prompt.id for prompt in prompts}) == 100
    assert (prompts[0].id, prompts[0].text) == ("005695-0057", "a concept art of a vehicle, cyberpunk")
    assert prompts == read_prompts(DATA / "benchmark-prompts.json")


def entries(n):
    return [{"id": f"{place:03d}", "prompt": f"prompt {place}"} for place in range(n)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("{", "cannot be read", id="no JSON"),
        pytest.param(json.dumps(entries(99)), "99 prompts, the benchmark has 100", id="short"),
        pytest.param(json.dumps([*entries(99), entries(1)[0]]), "'000' appears twice", id="repeated"),
        pytest.param(json.dumps([{"id": 3, "prompt": "x"}]), "the id and prompt", id="number"),
        pytest.param(json.dumps(["a", "b"]), "the id and prompt", id="strings"),
        pytest.param("[]", "0 prompts", id="empty"),
    ],
)
def test_other_prompt_files_are_refused(tmp_path, content, message):
    (tmp_path / "prompts.json").write_text(content)
    with pytest.raises(AssetError, match=message):
        read_prompts(tmp_path / "prompts.json")


def test_image_reward_reads_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    benchmark = BENCHMARKS.build("image_reward")
    with pytest.raises(AssetError, match=r"benchmark-prompts\.json is missing"):
        benchmark.prompts("full")
    (tmp_path / "image_reward").mkdir()
    (tmp_path / "image_reward" / "benchmark-prompts.json").write_text(json.dumps(entries(100)))
    assert [prompt.text for prompt in benchmark.prompts("full")] == [
        entry["prompt"] for entry in entries(100)
    ]
    assert benchmark.default_images_per_prompt == 10


@pytest.mark.parametrize("folder", ["mjhq30k_imgs", "imgs", "."])
def test_mjhq_keeps_the_order_of_the_file(tmp_path, folder):
    meta = {"b2": {"category": "art", "prompt": "x --ar 3:2"}, "a1": {"category": "logo", "prompt": " y"}}
    (tmp_path / "meta_data.json").write_text(json.dumps(meta))
    for key, entry in meta.items():
        (tmp_path / folder / entry["category"]).mkdir(parents=True)
        (tmp_path / folder / entry["category"] / f"{key}.jpg").write_bytes(b"x")
    data = Mjhq30k(tmp_path / "meta_data.json")
    assert [(image.id, image.category) for image in data.images] == [("b2", "art"), ("a1", "logo")]
    data.require_images()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("[]", "expected an object", id="list"),
        pytest.param('{"a": {"category": "art"}}', "no category and prompt", id="no prompt"),
        pytest.param('{"../a": {"category": "art", "prompt": "x"}}', "file name", id="path"),
        pytest.param('{"a": {"category": "..", "prompt": "x"}}', "file name", id="parent"),
        pytest.param('{"a": 1, "a": 2}', "appears twice", id="repeated"),
    ],
)
def test_other_meta_data_is_refused(tmp_path, content, message):
    (tmp_path / "meta_data.json").write_text(content)
    with pytest.raises(AssetError, match=message):
        Mjhq30k(tmp_path / "meta_data.json")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat --ar 16:9", "a cat"),
        ("a cat --aspect_ratio 1:1 and more", "a cat"),
        ("--hw 512 a cat", ""),
        (" plain ", "plain"),
        ("a semi--argyle", "a semi"),
    ],
)
def test_shape_options_are_cut_as_sana_cuts_them(text, expected):
    assert generation_prompt(text) == expected


def test_mjhq_prompts_carry_category_and_whole_text(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    (tmp_path / "mjhq30k").mkdir()
    meta = {"a": {"category": "art", "prompt": "x --ar 3:2"}, "b": {"category": "logo", "prompt": "y"}}
    (tmp_path / "mjhq30k" / "meta_data.json").write_text(json.dumps(meta))
    first, second = BENCHMARKS.build("mjhq30k").prompts("full")
    assert (first.text, first.tag, first.metadata["full_prompt"]) == ("x", "art", "x --ar 3:2")
    assert second.metadata == {"category": "logo"}


def write_styles(folder, count=800):
    folder.mkdir(parents=True, exist_ok=True)
    for style in STYLES:
        texts = [f"{style} number {place}" for place in range(count)]
        (folder / f"{style}.json").write_text(json.dumps(texts))


def test_hpdv2_numbers_its_prompts_as_the_published_images_are(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    benchmark = BENCHMARKS.build("hpdv2")
    with pytest.raises(AssetError, match=r"anime\.json is missing, needed for the prompts of hpdv2"):
        benchmark.prompts("full")
    write_styles(tmp_path / "hpdv2")
    prompts = benchmark.prompts("full")
    assert len(prompts) == len({prompt.id for prompt in prompts}) == 3200
    assert list(dict.fromkeys(prompt.tag for prompt in prompts)) == list(STYLES)
    one = prompts[800 + 163]
    assert (one.id, one.text, one.metadata) == ("concept-art-00163", "concept-art number 163", {"group": 2})
    groups = {(prompt.tag, prompt.metadata["group"]) for prompt in prompts}
    assert len(groups) == 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("{", "cannot be read", id="no JSON"),
        pytest.param('{"a": 1}', "expected a list of prompts", id="object"),
        pytest.param('["a", " "]', "expected a list of prompts", id="blank"),
        pytest.param('["a"]', "1 prompts, the benchmark has 2", id="short"),
    ],
)
def test_other_files_of_a_style_are_refused(tmp_path, content, message):
    (tmp_path / "anime.json").write_text(content)
    with pytest.raises(AssetError, match=message):
        read_style(tmp_path / "anime.json", 2)


def test_a_style_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    write_styles(tmp_path / "hpdv2")
    (tmp_path / "hpdv2" / "photo.json").unlink()
    with pytest.raises(AssetError, match=r"photo\.json: cannot be read"):
        BENCHMARKS.build("hpdv2").prompts("full")


@pytest.mark.parametrize("name", ["hpdv2", "image_reward", "mjhq30k"])
def test_micro_worlds_prompts_stand_in(name):
    benchmark = BENCHMARKS.build(name)
    assert len(benchmark.prompts("micro")) > 100
