"""The micro CLIP: tokens, weights on disk, and equality with what open_clip itself loads."""

import json

import numpy as np
import open_clip
import pytest
import torch

from sana_bench.core.errors import AssetError
from sana_bench.metrics.clip.micro_network import (
    WordTokenizer,
    build_model,
    images_to_tensor,
    load_clip,
    save_clip,
)
from sana_bench.micro.captions import VOCABULARY, sample_training_batch
from tests.float64 import assert_as_exact, in_float64

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = WordTokenizer(VOCABULARY, 16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(CONFIG, tokenizer)
    path = tmp_path_factory.mktemp("clip")
    save_clip(model, tokenizer, CONFIG, path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_words_become_ids_between_start_and_end():
    tokenizer = WordTokenizer(("red", "circle"), 6)
    pad, red, circle, unknown, start, end = range(6)
    assert tokenizer.size == 6
    assert tokenizer(["red circle", "Red, CIRCLE!", "blue circle", ""]).tolist() == [
        [start, red, circle, end, pad, pad],
        [start, red, circle, end, pad, pad],
        [start, unknown, circle, end, pad, pad],
        [start, end, pad, pad, pad, pad],
    ]


def test_a_text_that_is_too_long_keeps_its_end():
    tokenizer = WordTokenizer(("red",), 4)
    assert tokenizer(["red red red red red"]).tolist() == [[3, 1, 1, 4]]


def test_every_caption_is_known_and_fits():
    tokenizer = WordTokenizer(VOCABULARY, 16)
    _, captions = sample_training_batch(3, 0, 200)
    tokens = tokenizer(captions)
    assert (tokens.argmax(dim=1) <= 15).all()
    assert not (tokens == tokenizer.size - 3).any()
    assert (tokens[:, -1] == 0).all()  # nothing is cut off


def test_a_word_listed_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        WordTokenizer(("red", "red"), 8)


def test_features_have_unit_length(folder):
    images, captions = sample_training_batch(0, 0, 5)
    clip = load_clip(folder)
    for features in (clip.encode_images(images), clip.encode_texts(captions)):
        assert features.shape == (5, 8)
        assert features.dtype == np.float32
        # 1e-6: normalised in float32.
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)


def test_no_images_give_no_features(folder):
    assert load_clip(folder).encode_images(np.zeros((0, 64, 64, 3), np.uint8)).shape == (0, 8)
    assert load_clip(folder).encode_texts([]).shape == (0, 8)


def test_open_clip_loads_the_same_folder(folder):
    """The same weights in float32, in batches of another size, which round alike against float64."""
    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    images, captions = sample_training_batch(1, 0, 4)
    ours = load_clip(folder)
    with torch.inference_mode():
        their_images = theirs.encode_image(images_to_tensor(images), normalize=True).numpy()
        their_texts = theirs.encode_text(ours.tokenizer(captions), normalize=True).numpy()
    assert_as_exact(ours.encode_images(images), their_images, in_float64(lambda: ours.encode_images(images)))
    assert_as_exact(ours.encode_texts(captions), their_texts, in_float64(lambda: ours.encode_texts(captions)))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 64, 3), np.uint8),
        np.zeros((2, 64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint8),
    ],
    ids=["size", "type", "rank"],
)
def test_other_images_are_refused(folder, images):
    with pytest.raises(ValueError, match="images must be uint8"):
        load_clip(folder).encode_images(images)


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda at: (at / "model.safetensors").unlink(), r"model\.safetensors is missing"),
        (lambda at: (at / "vocab.json").unlink(), r"vocab\.json is missing"),
        (lambda at: (at / "open_clip_config.json").write_text("{"), r"config\.json: cannot be read"),
        (lambda at: (at / "open_clip_config.json").write_text("{}"), r"config\.json: not a usable"),
        (lambda at: rewrite(at / "vocab.json", lambda vocab: vocab["words"].pop()), "tokens, .* expects"),
        (
            lambda at: rewrite(at / "open_clip_config.json", lambda c: c["model_cfg"].update(embed_dim=4)),
            r"model\.safetensors: does not hold this model",
        ),
        (
            lambda at: (at / "model.safetensors").write_bytes((at / "model.safetensors").read_bytes()[:-9]),
            r"model\.safetensors: does not hold this model",
        ),
    ],
    ids=["no weights", "no words", "broken json", "no model", "fewer words", "other width", "truncated"],
)
def test_damaged_folders_are_one_clear_line(copy, damage, message):
    damage(copy)
    with pytest.raises(AssetError, match=message) as caught:
        load_clip(copy)
    assert "\n" not in str(caught.value)
