"""Colours of objects: GenEval's crops and phrases, and the activation that OpenAI's weights need."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import image_transform_v2
from PIL import Image

from sana_bench.core.errors import AssetError
from sana_bench.metrics.geneval.colors import ColorClassifier, check_quick_gelu, crop_object
from sana_bench.metrics.geneval.decision import PALETTE

TOWERS = (
    {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
)


def tiny_clip(quick_gelu=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return open_clip.CLIP(16, *TOWERS, quick_gelu=quick_gelu).eval()


@pytest.fixture(scope="module")
def classifier():
    found = ColorClassifier(Path("weights"), batch_size=3)
    config = open_clip.transform.PreprocessCfg(
        size=32, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD,
        interpolation="bicubic", resize_mode="shortest",
    )  # fmt: skip
    preprocess = image_transform_v2(config, is_train=False)
    # Tiny towers in place of the published ones; everything around them is what is tested.
    found.__dict__["_network"] = (tiny_clip(), preprocess, open_clip.get_tokenizer("ViT-L-14-quickgelu"))
    return found


def objects():
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    boxes = ((3.0, 4.0, 40.0, 30.0), (0.0, 0.0, 80.0, 60.0), (50.0, 10.0, 57.0, 59.0), (9.0, 9.0, 10.0, 10.0))
    found = []
    for box in boxes:
        x1, y1, x2, y2 = map(int, box)
        mask = np.zeros(image.shape[:2], dtype=bool)
        mask[y1:y2, x1:x2] = rng.random((y2 - y1, x2 - x1)) < 0.7
        found.append((mask, box))
    return image, found


def test_crops_are_the_reference_composites_cut_to_the_box():
    image, found = objects()
    for mask, box in found:
        blank = Image.new("RGB", (80, 60), color="#999")
        expected = Image.composite(Image.fromarray(image), blank, Image.fromarray(mask)).crop(box)
        assert (crop_object(image, mask, box, "cat").pixels == np.asarray(expected)).all()


@torch.inference_mode()
def test_colors_are_those_of_one_object_at_a_time(classifier):
    image, found = objects()
    crops = [
        crop_object(image, mask, box, name)
        for (mask, box), name in zip(found, ("cat", "bus", "cat", "hot dog"), strict=True)
    ]
    model, preprocess, tokenizer = classifier._network
    expected = []
    for crop in crops:
        columns = []
        for color in PALETTE:
            phrases = [
                f"a photo of a {color} {crop.name}",
                f"a photo of a {color}-colored {crop.name}",
                f"a photo of a {color} object",
            ]
            vectors = model.encode_text(tokenizer(phrases))
            mean = (vectors / vectors.norm(dim=-1, keepdim=True)).mean(0)
            columns.append(mean / mean.norm())
        feature = model.encode_image(preprocess(Image.fromarray(crop.pixels))[None])[0]
        logits = 100 * (feature / feature.norm()) @ torch.stack(columns, dim=1)
        expected.append(PALETTE[int(logits.argmax())])
    assert classifier.classify(crops) == expected
    assert classifier.classify([]) == []


def test_weights_under_another_activation_are_refused():
    check_quick_gelu(tiny_clip(), Path("w.safetensors"))
    with pytest.raises(AssetError, match="GELU activation, OpenAI's weights need QuickGELU"):
        check_quick_gelu(tiny_clip(quick_gelu=False), Path("w.safetensors"))


def test_open_clip_still_gives_the_named_model_quick_gelu():
    assert open_clip.get_model_config("ViT-L-14-quickgelu")["quick_gelu"] is True
