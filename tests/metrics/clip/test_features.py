"""SANA's CLIP score: preprocessing, truncation and activation as OpenAI's network needs them."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sana_bench.core.errors import AssetError
from sana_bench.core.preprocess import as_jpeg, clip_pixels
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.clip.features import MODEL, OpenClipFeatures, load_open_clip
from sana_bench.metrics.clip.metric import ClipScore
from sana_bench.metrics.geneval.colors import ColorClassifier, ObjectCrop
from sana_bench.metrics.geneval.decision import PALETTE
from sana_models.layers import with_our_products

TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
LONG = "a very detailed painting of a lighthouse " * 20


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small network of the same classes, known to open_clip under a name of its own."""
    import json

    folder = tmp_path_factory.mktemp("configs")
    (folder / "tiny-quickgelu.json").write_text(json.dumps(TINY))
    (folder / "tiny-gelu.json").write_text(json.dumps(TINY | {"quick_gelu": False}))
    open_clip.add_model_config(folder)
    return "tiny-quickgelu"


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = open_clip.create_model(model, pretrained=None)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    out = []
    for place, (width, height) in enumerate([(64, 64), (90, 50), (40, 70)]):
        path = folder / f"{place}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        text = LONG if place == 0 else f"a picture number {place}"
        out.append(Sample("v", "mjhq30k", Prompt(str(place), text, "people"), 0, path))
    return out


@pytest.mark.parametrize(("width", "height"), [(1024, 1024), (500, 333), (120, 201)])
def test_pixels_are_those_of_open_clips_transform(width, height):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    transform = open_clip.image_transform(224, is_train=False)
    # 1e-6: the same grey levels, scaled in float32.
    np.testing.assert_allclose(clip_pixels(image, 224), transform(Image.fromarray(image)).numpy(), atol=1e-6)


def test_score_is_a_hundred_cosines_of_the_network(model, weights, samples):
    metric = ClipScore("clip_score/sana@1", OpenClipFeatures(weights, "jpeg", model=model))
    network = load_open_clip(weights, model)
    transform = open_clip.image_transform(28, is_train=False)
    tokens = open_clip.get_tokenizer(model)([sample.prompt.text for sample in samples])
    pixels = [transform(Image.fromarray(as_jpeg(np.asarray(Image.open(s.image_path))))) for s in samples]
    with torch.inference_mode():
        images = network.encode_image(torch.stack(pixels), normalize=True).double()
        texts = network.encode_text(tokens, normalize=True).double()
    expected = 100 * (images * texts).sum(dim=1)
    # 1e-4 of a scale of 100: float32 features.
    np.testing.assert_allclose([row.value for row in metric.score(samples)], expected.numpy(), atol=1e-4)


def test_long_prompts_keep_their_end(model):
    tokens = open_clip.get_tokenizer(model)([LONG])[0]
    assert int(tokens[76]) == 49407


def test_options_cut_for_generation_are_scored(model, weights, samples):
    features = OpenClipFeatures(weights, "jpeg", model=model)
    metric = ClipScore("clip_score/sana@1", features)
    one = samples[1]
    whole = Prompt(one.prompt.id, one.prompt.text + " --ar 3:2", "people")
    cut = Prompt(one.prompt.id, one.prompt.text, "people", {"full_prompt": whole.text})
    first, second = (
        metric.score([Sample("v", "b", prompt, 0, one.image_path)])[0].value for prompt in (whole, cut)
    )
    assert first == second
    assert first != metric.score([one])[0].value


def test_jpeg_and_png_features_have_other_keys(weights, model, samples):
    jpeg, png = (OpenClipFeatures(weights, codec, model=model) for codec in ("jpeg", "png"))
    assert jpeg.key != png.key
    assert np.abs(jpeg.of_samples(samples) - png.of_samples(samples)).max() > 1e-3


def test_other_weights_and_activations_are_refused(model, weights, tmp_path):
    from safetensors.torch import load_file

    state = load_file(weights)
    state.pop("ln_final.bias")
    save_file(state, tmp_path / "short.safetensors")
    with pytest.raises(AssetError, match="not the weights of open_clip's tiny-quickgelu"):
        load_open_clip(tmp_path / "short.safetensors", model)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(AssetError, match="not the weights"):
        load_open_clip(tmp_path / "bad.safetensors", model)
    with pytest.raises(AssetError, match="without QuickGELU"):
        load_open_clip(weights, "tiny-gelu")


def test_loading_says_nothing_of_random_weights(model, weights, caplog, capfd):
    load_open_clip(weights, model)
    colors = ColorClassifier(weights, model=model)
    assert colors.classify([ObjectCrop("cat", np.zeros((20, 30, 3), np.uint8))])[0] in PALETTE
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_a_network_is_open_clips_own(model, weights):
    theirs = with_our_products(open_clip.create_model(model, pretrained=None))
    ours = load_open_clip(weights, model)
    assert type(ours) is type(theirs)
    assert str(ours) == str(theirs)


def test_the_pinned_model_is_openais_with_its_activation():
    config = open_clip.get_model_config(MODEL)
    assert config["quick_gelu"] is True
    assert config["vision_cfg"]["layers"], config["vision_cfg"]["patch_size"] == (24, 14)
    assert config["embed_dim"] == 768
