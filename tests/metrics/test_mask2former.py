"""GenEval's detector against mmdet: the same weights by name, golden outputs made once by
tests/golden/mask2former/make.py."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from sana_bench.errors import AssetError
from sana_bench.metrics import mask2former
from sana_bench.metrics.mask2former import convert_mmdet, load_mmdet, official_config
from sana_bench.metrics.mask2former_images import prepare, read_logits, resize_bilinear
from sana_bench.selfcheck import golden_files
from sana_bench.selfcheck.detectors import small_config, small_state
from sana_bench.selfcheck.recipes import mask2former as recipe


@pytest.fixture(scope="module")
def keys():
    return golden_files.mask2former_keys()


@pytest.fixture(scope="module")
def golden():
    return golden_files.arrays("mask2former")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("mmdet") / "small.pth"
    torch.save(
        {"meta": {"mmdet_version": "2.28.2", "CLASSES": ("person",)}, "state_dict": small_state()}, path
    )
    return path


@pytest.fixture(scope="module")
def network(checkpoint):
    return load_mmdet(checkpoint, small_config())


@pytest.fixture(scope="module")
def outputs(network):
    found = []
    for index, size in enumerate(recipe.SIZES):
        prepared = prepare(recipe.image(index, size), recipe.SCALE)
        with torch.inference_mode():
            output = network(pixel_values=prepared.pixels[None])
        found.append((prepared, output.class_queries_logits[0], output.masks_queries_logits[0]))
    return found


@pytest.mark.parametrize("index", range(len(recipe.SIZES)))
def test_preprocessing_is_mmdets(index, golden, outputs):
    # Pixels reach 2.7 in size; two float32 operations in either order stay within 4 units of 2**-22.
    np.testing.assert_allclose(outputs[index][0].pixels[:, ::16, ::16], golden[f"{index}/pixels"], atol=1e-6)


@pytest.mark.parametrize("index", range(len(recipe.SIZES)))
def test_logits_are_mmdets(index, golden, outputs):
    _, classes, masks = outputs[index]
    # The demand of the comparison; float32 sums in another order differ by some 1e-5 at these magnitudes.
    np.testing.assert_allclose(classes, golden[f"{index}/classes"], atol=1e-4)
    np.testing.assert_allclose(masks[:, ::4, ::4], golden[f"{index}/masks"], atol=1e-4)


@pytest.mark.parametrize("index", range(len(recipe.SIZES)))
def test_detections_are_mmdets(index, golden, outputs):
    prepared, classes, masks = outputs[index]
    found = read_logits(classes, masks, prepared, min_score=0.0)
    expected = {_key(row[0], row[5]): row for row in golden[f"{index}/found"]}
    ours = {_key(one.label, one.score): one for one in found}
    assert len(found) == len(golden[f"{index}/found"]) == 100
    assert [one.label for one in found] == golden[f"{index}/found"][:, 0].tolist()
    assert len(expected) == 100
    matched = _match(found, golden[f"{index}/found"])
    for one, row in matched:
        # A score is a softmax times a mean of sigmoids: errors of 1e-4 in either logit change it by less.
        assert one.score == pytest.approx(row[5], rel=2e-4, abs=1e-9)
        assert one.box == tuple(row[1:5])
        places = np.arange(one.mask.size).reshape(one.mask.shape)
        # A pixel whose logit is within 1e-4 of zero may fall on either side.
        assert abs(one.mask.sum() - row[6]) <= 3
        assert abs((places * one.mask).sum() - row[7]) <= 3 * one.mask.size
    assert ours


def _key(label, score):
    return int(label), f"{score:.3e}"


def _match(found, rows):
    """Pair detections of a class by rank of score."""
    pairs = []
    for label in sorted({one.label for one in found}):
        mine = sorted((one for one in found if one.label == label), key=lambda one: one.score)
        theirs = sorted((row for row in rows if row[0] == label), key=lambda row: row[5])
        pairs += zip(mine, theirs, strict=True)
    return pairs


def test_a_minimal_score_only_leaves_out(outputs):
    prepared, classes, masks = outputs[0]
    everything = read_logits(classes, masks, prepared, min_score=0.0)
    best = sorted(one.score for one in everything)[-10]
    some = read_logits(classes, masks, prepared, min_score=best)
    kept = [one for one in everything if one.score >= best]
    assert len(some) == len(kept) == 10
    for one, other in zip(some, kept, strict=True):
        assert (one.label, one.box) == (other.label, other.box)
        assert one.score == other.score
        assert (one.mask == other.mask).all()


def test_batches_detect_what_single_images_do(network):
    images = [recipe.image(index, recipe.SIZES[0]) for index in range(3)]
    prepared = [prepare(image, recipe.SCALE) for image in images]
    with torch.inference_mode():
        together = network(pixel_values=torch.stack([one.pixels for one in prepared]))
        alone = [network(pixel_values=one.pixels[None]) for one in prepared]
    for place, single in enumerate(alone):
        # Matrix kernels add in another order for another batch size; see the logits above.
        torch.testing.assert_close(
            together.class_queries_logits[place], single.class_queries_logits[0], atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("size", ["1024x1024", "512x512", "768x1344", "1333x700", "400x400", "37x61"])
def test_resizing_is_opencvs_to_the_last_bit(size, keys):
    height, width = map(int, size.split("x"))
    new_height, new_width, digest = keys["resized"][size]
    image = recipe.image(0, (height, width))
    resized = resize_bilinear(image, new_height, new_width)
    assert prepare(image).resized == (new_height, new_width)
    assert hashlib.sha256(np.ascontiguousarray(resized).tobytes()).hexdigest() == digest


def test_halving_averages_four_pixels():
    image = np.array([[[1], [2]], [[3], [5]]], dtype=np.uint8)
    assert resize_bilinear(image, 1, 1).tolist() == [[[3]]]


def test_every_official_parameter_has_its_place_and_no_place_is_empty(keys):
    from transformers import Mask2FormerForUniversalSegmentation

    state = {name: torch.empty(shape, device="meta") for name, shape in keys["official"].items()}
    with torch.device("meta"):
        wanted = Mask2FormerForUniversalSegmentation(official_config()).state_dict()
    assert list(mask2former._mismatches(wanted, convert_mmdet(state))) == []
    parameters = sum(
        int(np.prod(shape))
        for name, shape in keys["official"].items()
        if "relative_position_index" not in name
    )
    # The published size, less what only training needs.
    assert parameters == pytest.approx(68.74e6, abs=0.02e6)


@pytest.mark.parametrize("damage", ["missing", "unknown", "shape", "renamed"])
def test_other_weights_are_refused(damage, tmp_path):
    state = small_state()
    first = next(name for name in state if name.endswith("post_norm.weight"))
    if damage == "missing":
        del state[first]
    elif damage == "unknown":
        state["panoptic_head.extra.weight"] = torch.zeros(1)
    elif damage == "shape":
        state[first] = torch.zeros(3)
    else:  # as mmdet 3.x names them
        state = {name.replace("lateral_convs", "lateral"): tensor for name, tensor in state.items()}
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    with pytest.raises(AssetError, match=r"decoder\.layernorm|no parameter of mmdet"):
        load_mmdet(tmp_path / "other.pth", small_config())


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": {}, "meta": Path}, tmp_path / "code.pth")
    with pytest.raises(AssetError, match="not a readable checkpoint"):
        load_mmdet(tmp_path / "code.pth")
    with pytest.raises(AssetError, match="is missing"):
        load_mmdet(tmp_path / "none.pth")
