"""VILA-Judge with random weights: its directory, its parts and its answers against the same network written out by hand."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sana_bench import judges
from sana_bench.core.errors import AssetError
from sana_bench.generators.best_of_n.tournament import beats
from sana_bench.judges.base import YesNo
from sana_bench.judges.nvila.config import read_config
from sana_bench.judges.nvila.judge import QUESTION, VilaJudge
from sana_bench.judges.nvila.network import merge_neighbours
from sana_bench.judges.nvila.tiles import tile_grid, tiles_of
from sana_bench.suites.schema import JudgeSpec
from tests.float64 import assert_as_exact, in_float64
from tests.judges.nvila.nvila_by_hand import PREPARATION, SIDE, ByHand, merge_by_hand, write_directory

# fp32 through five layers against float64: the largest difference seen is 1.3e-6 of values up to 8; eight times that.
CLOSE = 1e-5
PROMPTS = ["a photo of two dogs", "a cat", "a photo of a bench left of a bear, yes or no"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory(tmp_path_factory.mktemp("nvila") / "verifier")


@pytest.fixture(scope="module")
def judge(folder: Path) -> VilaJudge:
    made = judges.build(JudgeSpec(name="vila", weights=str(folder)), Path(), "cpu")
    made.load()
    return made


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    # Soft, so that resizing them to tiles leaves them different from one another.
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (3, 6, 9, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((96, 64))) for one in small])


def ids_by_hand(words, prompt: str, n_tiles: int) -> list[int]:
    text = (
        "<|im_start|>user\n"
        + "<image>\n" * n_tiles
        + "You are an AI assistant specializing in image analysis and "
        "ranking. Your task is to analyze and compare image based on how well they match the given prompt.\nThe given "
        f"prompt is:{prompt}. Please consider the prompt and the image to make a decision and response directly with "
        "'yes' or 'no'.<|im_end|>\n<|im_start|>assistant\n"
    )
    return words(text).input_ids


@pytest.mark.parametrize("merge", [2, 3])
@pytest.mark.parametrize("side", [2, 3, 4, 5, 6])
def test_neighbours_are_merged_as_by_hand(merge, side):
    x = torch.arange(2 * side * side * 5, dtype=torch.float64).reshape(2, side * side, 5)
    merged = merge_neighbours(x, merge)
    # Exact: values only change their places.
    for mine, tokens in zip(merged, x, strict=True):
        np.testing.assert_array_equal(mine.numpy(), merge_by_hand(tokens.numpy(), merge))


def test_tokens_that_form_no_square_are_refused():
    with pytest.raises(ValueError, match="do not make a square"):
        merge_neighbours(torch.zeros(1, 5, 2), 3)


def test_the_published_sizes_give_the_published_numbers_of_tokens():
    # 448 pixels in patches of 14 are 32 x 32 tokens; filled to 33 x 33 they become 11 x 11.
    assert merge_neighbours(torch.zeros(1, 1024, 1), 3).shape == (1, 121, 9)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        # A square takes the largest square grid of which it has more than half the pixels.
        ((1024, 1024), (3, 3)),
        ((512, 512), (1, 1)),
        ((768, 768), (2, 2)),
        ((1024, 512), (2, 1)),
        ((512, 1536), (1, 3)),
        ((4096, 512), (8, 1)),
        ((9000, 100), (12, 1)),
        ((1000, 700), (3, 2)),
    ],
)
def test_the_grid_of_tiles(size, grid):
    assert tile_grid(*size, 448, 1, 12) == grid


def test_a_minimum_of_tiles_is_kept():
    assert tile_grid(100, 100, 448, 4, 12) == (2, 2)


def test_tiles_are_the_image_row_by_row_and_the_whole_at_last(folder):
    config = read_config(folder)
    image = np.random.default_rng(1).integers(0, 256, (2 * SIDE, 3 * SIDE, 3), np.uint8)
    tiles = tiles_of(image, config)
    assert tiles.shape == (7, 3, SIDE, SIDE)
    back = np.rint((tiles * 0.5 + 0.5) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    for place, (row, column) in enumerate(itertools.product(range(2), range(3))):
        part = image[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
        np.testing.assert_array_equal(back[place], part)
    small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(back[6], np.asarray(small))
    assert len(tiles_of(image[:SIDE, :SIDE], config)) == 1


def test_tiles_are_prepared_as_transformers_prepares_for_siglip(folder):
    from transformers import SiglipImageProcessor

    image = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    processor = SiglipImageProcessor(size=PREPARATION["size"])
    theirs = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"].numpy()
    # fp32 scaling in another order, of values up to 1.
    np.testing.assert_allclose(tiles_of(image, read_config(folder)), theirs, atol=1e-6)


@pytest.mark.parametrize("merge", [2, 3])
def test_answers_are_those_of_the_network_by_hand(tmp_path, images, merge):
    judge = VilaJudge(write_directory(tmp_path, merge=merge, seed=7), "cpu")
    by_hand = ByHand(merge, seed=7)
    yes, no = by_hand.words.convert_tokens_to_ids(["yes", "no"])
    answers = judge.judge(PROMPTS, images)
    for prompt, image, answer in zip(PROMPTS, images, answers, strict=True):
        tiles = tiles_of(image, read_config(tmp_path))
        assert len(tiles) == 3 * 2 + 1
        logs = by_hand.log_probabilities(
            tiles.astype(np.float64), ids_by_hand(by_hand.words, prompt, len(tiles))
        )
        assert answer.yes == pytest.approx(logs[yes], abs=CLOSE)
        assert answer.no == pytest.approx(logs[no], abs=CLOSE)
    # Else the comparison could not tell right from wrong.
    assert np.ptp([answer.yes for answer in answers]) > 100 * CLOSE


def test_an_answer_depends_on_prompt_and_image(judge, images):
    same_image = judge.judge(PROMPTS, images[[0, 0, 0]])
    same_prompt = judge.judge(PROMPTS[:1] * 3, images)
    for answers in (same_image, same_prompt):
        assert len({answer.yes for answer in answers}) == 3
        assert np.ptp([answer.yes for answer in answers]) > 100 * CLOSE


def test_the_spliced_sequence_is_what_qwen2_reads(judge, images):
    network, words = judge._network, judge._tokenizer
    ids = torch.tensor(ids_by_hand(words, PROMPTS[0], 7))
    image_id = words.convert_tokens_to_ids("<image>")
    with torch.inference_mode():
        seen = network.see(torch.from_numpy(tiles_of(images[0], read_config(judge._folder))))
        vectors = network.splice(ids, image_id, seen, torch.tensor(words("\n").input_ids))
        logits = network.llm(inputs_embeds=vectors[None]).logits[0, -1].double()
    # Four tokens a tile and the line's end instead of one token.
    assert len(vectors) == len(ids) + 7 * 4
    logs = torch.log_softmax(logits[: len(words)], 0)
    answer = judge.judge(PROMPTS[:1], images[:1])[0]
    for word, value in (("yes", answer.yes), ("no", answer.no)):
        assert value == pytest.approx(float(logs[words.convert_tokens_to_ids(word)]), abs=CLOSE)
    with pytest.raises(ValueError, match="7 image tokens for 6 tiles"):
        network.splice(ids, image_id, seen[:6], torch.tensor([0]))


def test_a_batch_answers_as_its_images_do_alone(judge, images):
    """Padding is masked; what is left are sums in another order, no further from float64."""

    def answers(of: slice) -> list[tuple[float, float]]:
        return [(answer.yes, answer.no) for answer in judge.judge(PROMPTS[of], images[of])]

    everything = slice(len(PROMPTS))
    alone = [answers(slice(index, index + 1))[0] for index in range(len(PROMPTS))]
    assert_as_exact(answers(everything), alone, in_float64(lambda: answers(everything)))


def test_decision_and_pairwise_rule(judge, images):
    answers = judge.judge(PROMPTS[:1] * 3, images)
    assert all(answer.says_yes == (answer.yes > answer.no) for answer in answers)
    for first, second in itertools.permutations(answers, 2):
        if first.says_yes != second.says_yes:
            expected = first.says_yes
        elif first.says_yes:
            expected = first.yes > second.yes
        else:
            expected = first.no < second.no
        assert beats(first, second) is expected
    assert not beats(answers[0], YesNo(answers[0].yes, answers[0].no))


def test_media_tokens_in_a_prompt_are_no_images(judge, images):
    marked = judge.judge(["a <image>cat<vila/video>"], images[:1])[0]
    assert marked == judge.judge(["a cat"], images[:1])[0]


def test_an_image_squeezed_into_one_tile(tmp_path, images):
    judge = VilaJudge(write_directory(tmp_path, image_aspect_ratio="resize"), "cpu")
    by_hand = ByHand()
    tiles = tiles_of(images[0], read_config(tmp_path))
    assert len(tiles) == 1
    ids = ids_by_hand(by_hand.words, PROMPTS[0], 1)
    line_end = ids.index(by_hand.words.convert_tokens_to_ids("<image>")) + 1
    # Without tiles no line ends after the image token.
    logs = by_hand.log_probabilities(tiles.astype(np.float64), ids[:line_end] + ids[line_end + 1 :])
    answer = judge.judge(PROMPTS[:1], images[:1])[0]
    assert answer.yes == pytest.approx(logs[by_hand.words.convert_tokens_to_ids("yes")], abs=CLOSE)


def test_identity_covers_weights_and_instruction(judge, folder, tmp_path):
    other = VilaJudge(write_directory(tmp_path, seed=3), "cpu").identity()
    assert judge.identity()["weights_sha256"] != other["weights_sha256"]
    assert judge.identity()["instruction"] == QUESTION
    assert VilaJudge(folder, "cpu", "bf16").identity() != judge.identity()


def test_half_precision_answers_nearly_the_same(folder, judge, images):
    half = judges.build(JudgeSpec(name="vila", weights=str(folder), precision="bf16"), Path(), "cpu")
    whole, rounded = (
        np.array([(answer.yes, answer.no) for answer in one.judge(PROMPTS, images)]) for one in (judge, half)
    )
    assert not np.array_equal(rounded, whole)
    # Eight bits, rounded in each of five layers: the largest difference seen is 0.04 of values around 5.
    np.testing.assert_allclose(rounded, whole, rtol=0, atol=0.1)


def test_a_template_named_by_the_directory_is_used(tmp_path):
    folder = write_directory(tmp_path, chat_template="plain")
    (folder / "plain.jinja").write_text(
        "{% for message in messages %}\n    {{ message['content'] }}\n{% endfor %}\n"
    )
    judge = VilaJudge(folder, "cpu")
    judge.load()
    assert judge._tokenizer.decode(judge._ids("a cat", 1)).startswith("<image>\nYou are")
    (folder / "plain.jinja").unlink()
    with pytest.raises(AssetError, match=r"plain\.jinja is missing"):
        VilaJudge(folder, "cpu")


def change_state(path: Path, change) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("mm_projector", lambda s: s.pop("layers.5.bias"), r"1 missing \(layers\.5\.bias\)"),
        ("mm_projector", lambda s: s.update(extra=torch.zeros(1)), r"1 of unknown layers \(extra\)"),
        ("mm_projector", lambda s: s.update({"layers.7.bias": torch.zeros(3)}), "has shape"),
        (
            "vision_tower",
            lambda s: s.pop("vision_model.encoder.layers.1.mlp.fc1.bias"),
            r"1 missing \(.*encoder\.layers\.1\.mlp\.fc1\.bias\)",
        ),
        (
            "vision_tower",
            lambda s: s.update({"vision_model.head.probe": torch.zeros(1, 1, 8)}),
            r"1 of unknown layers \(.*head\.probe\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_one_clear_line(tmp_path, file, change, message):
    folder = write_directory(tmp_path)
    change_state(folder / file / "model.safetensors", change)
    with pytest.raises(AssetError, match=message) as caught:
        VilaJudge(folder, "cpu").load()
    assert "\n" not in str(caught.value)


def test_language_weights_are_loaded_strictly(tmp_path):
    folder = write_directory(tmp_path)
    index = folder / "llm" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    name = "model.layers.1.mlp.up_proj.weight"
    file = folder / "llm" / content["weight_map"].pop(name)
    index.write_text(json.dumps(content))
    change_state(file, lambda state: state.pop(name))
    with pytest.raises(AssetError, match=r"1 missing \(model\.layers\.1\.mlp\.up_proj\.weight\)"):
        VilaJudge(folder, "cpu").load()


def test_tied_weights_may_be_stored_twice_but_not_differ(tmp_path, images):
    folder = write_directory(tmp_path)
    index = folder / "llm" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    files = [folder / "llm" / content["weight_map"]["model.embed_tokens.weight"]]
    files.append(files[0])
    words = load_file(files[0])["model.embed_tokens.weight"]
    plain = VilaJudge(folder, "cpu").judge(PROMPTS, images)
    content["weight_map"]["lm_head.weight"] = files[0].name
    index.write_text(json.dumps(content))
    change_state(files[0], lambda state: state.update({"lm_head.weight": words.clone()}))
    assert VilaJudge(folder, "cpu").judge(PROMPTS, images) == plain
    change_state(files[0], lambda state: state.update({"lm_head.weight": words + 1}))
    with pytest.raises(AssetError, match="lm_head and embed_tokens"):
        VilaJudge(folder, "cpu").load()


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("config.json", "dynamic_s2", True, "it uses dynamic_s2"),
        (
            "config.json",
            "image_aspect_ratio",
            "dynamic_s2",
            "image_aspect_ratio is 'dynamic_s2'; known: dynamic",
        ),
        ("config.json", "mm_vision_select_feature", "patch", "mm_vision_select_feature is 'patch'"),
        ("config.json", "image_encoder", {"_target_": "x.TSPImageEncoder"}, "only a plain BasicImageEncoder"),
        ("mm_projector/config.json", "mm_projector_type", "mlp2x_gelu", "mm_projector_type is 'mlp2x_gelu'"),
        ("vision_tower/preprocessor_config.json", "size", {"height": 9, "width": 9}, "reads 56 pixels"),
        ("vision_tower/preprocessor_config.json", "do_normalize", False, "leaves out do_normalize"),
    ],
)
def test_networks_of_another_kind_are_refused_by_name(tmp_path, file, key, value, message):
    folder = write_directory(tmp_path)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | {key: value}))
    with pytest.raises(AssetError, match=message) as caught:
        VilaJudge(folder, "cpu")
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path, monkeypatch):
    folder = write_directory(tmp_path / "whole")
    (folder / "mm_projector" / "config.json").unlink()
    with pytest.raises(AssetError, match=r"mm_projector.config\.json is missing"):
        VilaJudge(folder, "cpu")
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        AssetError, match=r"hf download Efficient-Large-Model/NVILA-Lite-2B-Verifier"
    ) as caught:
        judges.build(JudgeSpec(name="vila"), tmp_path, "cpu")
    assert "llm/, vision_tower/, mm_projector/" in str(caught.value)
    assert "\n" not in str(caught.value)
