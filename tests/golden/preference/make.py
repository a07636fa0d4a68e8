"""Golden scores of the preference scores' own packages for small random weights.

Run where the packages are, for example:

    uv venv --python 3.11 era
    uv pip install --python era/bin/python torch torchvision transformers==4.45.2 timm ftfy einops clint webdataset \
        braceexpand pandas datasets accelerate tensorboard
    uv pip install --python era/bin/python --no-deps hpsv2==1.2.0 hpsv3==1.0.0
    era/bin/python tests/golden/preference/make.py

HPS: model, transform and tokens of `hpsv2`, at a small size. PickScore: the lines of its model card on transformers' classes. The
aesthetic head: the published sequence of layers. PickScore and HPS are made twice the size of a score here: what is stored is a
score for each image and prompt.
"""

import importlib.util
import json
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
import torchvision
import transformers
from PIL import Image
from torch import nn

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from sana_bench.metrics.selfcheck.recipes import plain  # noqa: E402
from sana_bench.metrics.selfcheck.recipes import preference as recipe  # noqa: E402

OUT = ROOT / "sana_bench/metrics/selfcheck/golden/preference.json"


def pictures() -> list[Image.Image]:
    return [Image.fromarray(recipe.image(*size)) for size in recipe.IMAGES]


def load(network: nn.Module, weight) -> nn.Module:
    state = {
        name: torch.from_numpy(weight(name, tuple(tensor.shape)))
        for name, tensor in network.state_dict().items()
        if not name.endswith("position_ids")
    }
    network.load_state_dict(state, strict=False)
    return network.eval()


@torch.no_grad()
def hps(antialias: bool) -> list[list[float]]:
    """100 x cosine, as `evaluate_benchmark`; by torchvision's resize of today or of before 0.17."""
    from hpsv2.src.open_clip import get_tokenizer, transform
    from hpsv2.src.open_clip.model import CLIP

    resize = torchvision.transforms.functional.resize
    transform.F.resize = lambda *args: resize(*args, antialias=antialias)
    preprocess = transform.image_transform(recipe.HPS_SIDE, is_train=False, resize_longest_max=True)
    network = load(CLIP(**recipe.HPS, output_dict=True), plain.clip_weight)
    images = torch.stack([preprocess(picture) for picture in pictures()])
    outputs = network(images, get_tokenizer("ViT-H-14")(list(recipe.PROMPTS)))
    transform.F.resize = resize
    return (outputs["image_features"] @ outputs["text_features"].T * 100).tolist()


@torch.no_grad()
def pick(folder: Path) -> list[list[float]]:
    """The model card's lines: learnt scale x cosine."""
    model = recipe.pick_tokenizer()["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *model["merges"]]) + "\n")
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder)
    side = recipe.pick_config()["vision_config"]["image_size"]
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    processor = transformers.CLIPProcessor(images, tokenizer)
    network = load(
        transformers.CLIPModel(transformers.CLIPConfig(**recipe.pick_config())), recipe.pick_weight
    )
    settings = {"padding": True, "truncation": True, "max_length": 77, "return_tensors": "pt"}
    image_inputs = processor(images=pictures(), return_tensors="pt")
    image_embs = network.get_image_features(**image_inputs)
    image_embs = image_embs / torch.norm(image_embs, dim=-1, keepdim=True)
    text_embs = network.get_text_features(**processor(text=list(recipe.PROMPTS), **settings))
    text_embs = text_embs / torch.norm(text_embs, dim=-1, keepdim=True)
    return (network.logit_scale.exp() * (text_embs @ image_embs.T)).T.tolist()


@torch.no_grad()
def aesthetic() -> list[float]:
    sizes = ((768, 1024), (1024, 128), (128, 64), (64, 16), (16, 1))
    names = dict(zip((0, 2, 4, 6, 7), sizes, strict=True))
    layers = nn.Module()
    layers.layers = nn.Sequential(
        *(nn.Linear(*names[place]) if place in names else nn.Dropout(0.2) for place in range(8))
    )
    network = load(layers, recipe.head_weight)
    features = torch.from_numpy(plain.uniform("aesthetic", (6, 768)))
    return network.layers(features / features.norm(dim=-1, keepdim=True)).flatten().tolist()


def without_training() -> None:
    """Stand in for what `hpsv3` imports for its training alone, and leave out its package's `__init__`."""
    import transformers.trainer  # noqa: F401

    root = Path(importlib.util.find_spec("hpsv3").submodule_search_locations[0])
    for name, path in (("hpsv3", root), ("hpsv3.utils.training_utils", None), ("trl", None), ("peft", None)):
        module = types.ModuleType(name)
        if path is not None:
            module.__path__ = [str(path)]
        sys.modules[name] = module
    sys.modules["trl"].RewardTrainer = sys.modules["peft"].PeftModel = object
    sys.modules["hpsv3.utils.training_utils"].get_peft_state_non_lora_maybe_zero_3 = None


@torch.no_grad()
def hpsv3() -> list[list[float]]:
    """Both pictures in one batch, filled up to the right, as the package asks."""
    without_training()
    from hpsv3.model.qwen2vl_trainer import Qwen2VLRewardModelBT

    settings = {name: value for name, value in recipe.HPSV3.items() if name != "model_type"}
    config = transformers.Qwen2VLConfig(**settings)
    config.pad_token_id = 0
    network = load(
        Qwen2VLRewardModelBT(
            config, output_dim=2, special_token_ids=[recipe.HPSV3_REWARD], rm_head_type="ranknet"
        ),
        recipe.hpsv3_weight,
    )
    rows = [torch.tensor(recipe.hpsv3_ids(grid)) for grid in recipe.HPSV3_GRIDS]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    found = network(
        input_ids=ids,
        attention_mask=(ids > 0).long(),
        pixel_values=torch.from_numpy(
            np.concatenate([recipe.hpsv3_pixels(grid) for grid in recipe.HPSV3_GRIDS])
        ),
        image_grid_thw=torch.tensor(recipe.HPSV3_GRIDS),
        return_dict=True,
    )
    return found["logits"].tolist()


def rounded(values):
    return [rounded(value) for value in values] if isinstance(values, list) else round(values, 6)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "hps": rounded(hps(True)),
            "hps_aliased": rounded(hps(False)),
            "pick": rounded(pick(Path(folder))),
            "aesthetic": rounded(aesthetic()),
            "hpsv3": rounded(hpsv3()),
        }
    OUT.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
