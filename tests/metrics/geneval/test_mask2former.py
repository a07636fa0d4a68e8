"""GenEval's detector against mmdet: the same weights by name, golden outputs made once by
tests/golden/mask2former/make.py."""

import hashlib
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sana_bench.core.errors import AssetError
from sana_bench.metrics.geneval import mask2former
from sana_bench.metrics.geneval.mask2former import convert_mmdet, load_hub, load_mmdet, official_config
from sana_bench.metrics.geneval.mask2former_images import prepare, read_logits, resize_bilinear
from sana_bench.metrics.selfcheck import golden_files
from sana_bench.metrics.selfcheck.detectors import save_hub, small_config, small_state
from sana_bench.metrics.selfcheck.recipes import mask2former as recipe
from tests import ROOT
from tests.float64 import assert_as_exact, in_float64

ALL_MASKS = ROOT / "tests" / "golden" / "mask2former" / "masks.npz"


@pytest.fixture(scope="module")
def keys():
    return golden_files.mask2former_keys()


@pytest.fixture(scope="module")
def golden():
    return golden_files.arrays("mask2former")


@pytest.fixture(scope="module")
def all_masks():
    with np.load(ALL_MASKS) as archive:
        return dict(archive)


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
    return run(network)


def run(network):
    """Prepared image, class logits and mask logits of each image of the recipe."""
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
def test_logits_are_mmdets(index, golden, all_masks, outputs):
    _, classes, masks = outputs[index]
    # The demand of the comparison; float32 sums in another order differ by some 1e-5 at these magnitudes.
    np.testing.assert_allclose(classes, golden[f"{index}/classes"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(masks, all_masks[str(index)], rtol=0, atol=1e-4)
    # What the package carries of them.
    np.testing.assert_array_equal(all_masks[str(index)][:, ::4, ::4], golden[f"{index}/masks"])


@pytest.mark.parametrize("index", range(len(recipe.SIZES)))
def test_detections_are_mmdets(index, golden, all_masks, outputs):
    """Scores differ by what the logits' own differences and the pixels that fell on another side explain, on any processor."""
    prepared, classes, masks = outputs[index]
    found = read_logits(classes, masks, prepared, min_score=0.0)
    assert len(found) == len(golden[f"{index}/found"]) == 100
    assert [one.label for one in found] == golden[f"{index}/found"][:, 0].tolist()
    # No two of a class are so close that ranks could pair them wrongly.
    assert len({(row[0], f"{row[5]:.3e}") for row in golden[f"{index}/found"]}) == 100
    # A score is a probability times a mean of sigmoids of positive logits. Class logits off by e move the probability by
    # at most 2 e of itself; mask logits off by e move a sigmoid by e / 4, and the mean, at least a half, by e / 2 of
    # itself. Exponentials, sums and means in float32 add some units of 6e-8. A pixel that enters or leaves has a sigmoid of
    # a half, and moves the mean of n, at most 1, by at most 1 / (2 n) of itself.
    off_classes = float(np.abs(classes.numpy() - golden[f"{index}/classes"]).max())
    off_masks = float(np.abs(masks.numpy() - all_masks[str(index)]).max())
    allowed = min(2 * off_classes + off_masks / 2 + 1e-6, 2e-4)
    for one, row in _match(found, golden[f"{index}/found"]):
        moved = abs(one.mask.sum() - row[6])
        assert one.score == pytest.approx(row[5], rel=allowed + moved / (2 * row[6]), abs=0)
        assert one.box == tuple(row[1:5])
        places = np.arange(one.mask.size).reshape(one.mask.shape)
        # A pixel whose logit is within 1e-4 of zero may fall on either side.
        assert moved <= 3
        assert abs((places * one.mask).sum() - row[7]) <= 3 * one.mask.size


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
    """Matrix kernels add in another order for another batch size; neither order may be further from float64."""
    images = [recipe.image(index, recipe.SIZES[0]) for index in range(3)]
    prepared = [prepare(image, recipe.SCALE) for image in images]
    with torch.inference_mode():
        together = network(pixel_values=torch.stack([one.pixels for one in prepared]))
        alone = [network(pixel_values=one.pixels[None]) for one in prepared]
    for place, single in enumerate(alone):
        for name in ("class_queries_logits", "masks_queries_logits"):
            pixels = prepared[place].pixels[None]
            exact = in_float64(lambda: network(pixel_values=pixels)[name][0])
            assert_as_exact(together[name][place], single[name][0], exact)
        batched, apart = (
            read_logits(output.class_queries_logits[at], output.masks_queries_logits[at], prepared[place])
            for output, at in ((together, place), (single, 0))
        )
        assert [(one.label, one.box) for one in batched] == [(one.label, one.box) for one in apart]
        assert batched
        for one, other in zip(batched, apart, strict=True):
            # A pixel whose logit is within 1e-4 of zero may fall on either side.
            assert (one.mask != other.mask).sum() <= 3


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
    with pytest.raises(AssetError, match=r"decoder\.layernorm|not a parameter of mmdet"):
        load_mmdet(tmp_path / "other.pth", small_config())


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": {}, "meta": Path}, tmp_path / "code.pth")
    with pytest.raises(
        AssetError, match=r"not a readable checkpoint \(Unsupported global: GLOBAL pathlib.Path"
    ):
        load_mmdet(tmp_path / "code.pth")
    with pytest.raises(AssetError, match="is missing"):
        load_mmdet(tmp_path / "none.pth")


@pytest.mark.parametrize("core", ["core", "_core"])
def test_training_settings_may_hold_numbers_of_numpy(core, tmp_path, network, monkeypatch):
    """As mmdet stores the best score of a training; NumPy 1.x pickles its functions under `numpy.core`."""
    meta = {
        "best": np.float64(0.4), "epoch": np.int64(3), "done": np.bool_(True), "rate": np.float32(1e-4),
        "losses": np.arange(6.0).reshape(2, 3), "seeds": np.array([1, 2], dtype=np.int32), "names": np.array(["a", "bc"]),
    }  # fmt: skip
    for function in (meta["best"].__reduce__()[0], meta["losses"].__reduce__()[0]):
        monkeypatch.setattr(function, "__module__", f"numpy.{core}.multiarray", raising=False)
    torch.save({"meta": meta, "state_dict": small_state()}, tmp_path / "trained.pth")
    with zipfile.ZipFile(tmp_path / "trained.pth") as archive:
        assert f"numpy.{core}.multiarray".encode() in archive.read("trained/data.pkl")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "trained.pth", weights_only=True)
    loaded = load_mmdet(tmp_path / "trained.pth", small_config()).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in network.state_dict().items())


def damaged_files():
    """Name and content of files that are no checkpoint, from both of torch's formats."""
    whole = []
    for zipped in (True, False):
        file = io.BytesIO()
        content = {"meta": {"epoch": 1}, "state_dict": {"a": torch.zeros(3), "b": torch.ones(2)}}
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        whole.append(file.getvalue())
    rng = np.random.default_rng(0)
    yield "empty", b""
    yield "text", b"<html>404</html>"
    for place in range(60):
        yield f"random {place}", rng.bytes(200)
        yield f"pickle {place}", b"\x80\x02" + rng.bytes(200)
        content = whole[place % 2]
        yield f"cut {place}", content[: rng.integers(len(content))]
        flipped = bytearray(content)
        for _ in range(3):
            flipped[rng.integers(min(400, len(flipped)))] = rng.integers(256)
        yield f"flipped {place}", bytes(flipped)


def test_junk_is_one_clear_line(tmp_path):
    path = tmp_path / "junk.pth"
    for name, content in damaged_files():
        path.write_bytes(content)
        with pytest.raises(AssetError, match=r"junk\.pth") as caught:
            load_mmdet(path, small_config())
        assert "\n" not in str(caught.value), name
        assert len(str(caught.value)) < len(str(path)) + 300, name


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("backbone.stages.0.blocks.0.attn.w_msa.qkv.weight", ()),
        ("backbone.stages.0.downsample.norm.weight", (5,)),
        ("panoptic_head.transformer_decoder.layers.0.attentions.1.attn.in_proj_bias", (2,)),
    ],
)
def test_weights_that_cannot_be_split_are_refused(name, shape, tmp_path):
    torch.save({"state_dict": {**small_state(), name: torch.zeros(shape)}}, tmp_path / "odd.pth")
    with pytest.raises(AssetError, match=r"odd\.pth: .*has the shape"):
        load_mmdet(tmp_path / "odd.pth", small_config())


def test_weights_without_names_are_refused(tmp_path):
    torch.save({"state_dict": {0: torch.zeros(1)}}, tmp_path / "list.pth")
    with pytest.raises(AssetError, match=r"list\.pth: holds no state dict"):
        load_mmdet(tmp_path / "list.pth", small_config())


@pytest.fixture(scope="module")
def hub(network, tmp_path_factory):
    """The small network as the hub's repository holds it: with position numbers, without what no output needs."""
    folder = save_hub(network, tmp_path_factory.mktemp("hub") / "repository")
    state = load_file(folder / "model.safetensors")
    encoder = "model.pixel_level_module.encoder."
    block = f"{encoder}encoder.layers.0.blocks.0."
    # As transformers 4.26 named them, which made the published file.
    old = ("attention.self.query.weight", "attention.self.relative_position_bias_table", "attention.output.dense.bias",
           "intermediate.dense.weight", "output.dense.weight", "layernorm_before.weight")  # fmt: skip
    assert {f"{block}{name}" for name in old} <= set(state)
    assert f"{encoder}embeddings.patch_embeddings.projection.weight" in state
    unused = [name for name in state if ".swin.layernorm." in name]
    assert len(unused) == 2
    for name in unused:
        del state[name]
    state[f"{block}attention.self.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    # Settings that version wrote and this one does not know.
    config = json.loads((folder / "config.json").read_text())
    config |= {"init_std": 0.02, "torch_dtype": "float32", "transformers_version": None}
    config["backbone_config"] |= {
        "add_cross_attention": False,
        "bad_words_ids": None,
        "path_norm": True,
        "top_k": 50,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_hubs_files_are_the_same_network(hub, network, outputs, capfd):
    loaded = load_hub(hub)
    assert capfd.readouterr().err == ""
    ours, theirs = loaded.state_dict(), network.state_dict()
    assert ours.keys() == theirs.keys()
    unused = set(mask2former._UNUSED)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() - unused)
    for (_, classes, masks), (_, other_classes, other_masks) in zip(run(loaded), outputs, strict=True):
        # The same weights in the same class.
        assert torch.equal(classes, other_classes)
        assert torch.equal(masks, other_masks)


QUERY = "model.pixel_level_module.encoder.encoder.layers.0.blocks.0.attention.self.query.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.extra.weight": torch.zeros(2)}, "1 problems, e.g. model.extra.weight has no place"),
        ({"class_predictor.bias": None}, "1 problems, e.g. nothing for class_predictor.bias"),
        ({"class_predictor.bias": torch.zeros(3)}, r"1 problems, e.g. class_predictor.bias is \(3,\), not \(81,\)"),
        ({QUERY: torch.zeros(3)}, r"1 problems, e.g. .*q_proj.weight is \(3,\), not \(16, 16\)"),
    ],
)  # fmt: skip
def test_other_weights_of_the_hub_are_refused(hub, tmp_path, change, message):
    folder = shutil.copytree(hub, tmp_path / "other")
    state = {**load_file(hub / "model.safetensors"), **change}
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssetError, match=rf"model\.safetensors: not the detector's weights: {message}$"):
        load_hub(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", None, r"model\.safetensors is missing"),
        ("model.safetensors", b"", r"model\.safetensors: not a readable file of tensors"),
        ("model.safetensors", b"<html>404</html>", r"model\.safetensors: not a readable file of tensors"),
        ("config.json", None, r"config\.json is missing"),
        ("config.json", b"{", r"config\.json: not a configuration of the detector"),
        ("config.json", b"[1]", r"config\.json: not a configuration of the detector"),
        ("config.json", b"\xff", r"config\.json: not a configuration of the detector"),
        ("config.json", {"model_type": "bert"}, r"config\.json: .*model_type is not mask2former"),
        ("config.json", {"hidden_dim": "wide"}, r"config\.json: .*expected int, got str"),
        ("config.json", {"hidden_dim": -3}, r"no network has this configuration"),
        ("config.json", {"num_attention_heads": 0}, r"no network has this configuration"),
        ("config.json", {"activation_function": "none"}, r"no network has this configuration"),
        ("config.json", {"backbone_config": {"model_type": "none"}}, r"config\.json: not a configuration"),
        ("config.json", {"id2label": ["person"]}, r"config\.json: not a configuration"),
        ("config.json", {"id2label": {"0": "person"}}, r"config\.json: its 1 classes are not COCO's 80"),
        ("config.json", {"num_queries": 21}, r"model\.safetensors: not the detector's weights: 2 problems"),
    ],
)  # fmt: skip
def test_damaged_files_of_the_hub_are_one_clear_line(hub, tmp_path, file, content, message):
    folder = shutil.copytree(hub, tmp_path / "other")
    if content is None:
        (folder / file).unlink()
    elif isinstance(content, bytes):
        (folder / file).write_bytes(content)
    else:
        (folder / file).write_text(json.dumps({**json.loads((hub / file).read_text()), **content}))
    with pytest.raises(AssetError, match=message) as caught:
        load_hub(folder)
    assert "\n" not in str(caught.value)
