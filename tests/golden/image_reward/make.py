"""Golden scores of the original `image-reward` package for small random weights.

Run in an environment of the package's own era, for example:

    uv venv --python 3.11 era
    uv pip install --python era/bin/python torch==2.1.2 torchvision==0.16.2 transformers==4.30.2 timm==0.6.13 \
        "numpy<2" fairscale==0.4.13 "pillow<11" "setuptools<70"
    uv pip install --python era/bin/python --no-deps image-reward==1.5
    era/bin/python tests/golden/image_reward/make.py

The package's `__init__` modules are left out (they import OpenAI's `clip` from git, and training code); the reward
model, its BLIP, its tokenisation and its preprocessing are the package's own. Sizes are small: the vision tower, the
head and the input size are passed to the package's own classes in place of its constants.
"""

import importlib
import importlib.util
import json
import sys
import tempfile
import types
from pathlib import Path

import torch
from PIL import Image, features

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from sana_bench.metrics.selfcheck.recipes import image_reward as shared  # noqa: E402


def package_without_init(name: str, path: Path) -> None:
    module = types.ModuleType(name)
    module.__path__ = [str(path)]
    sys.modules[name] = module


def original_model(folder: Path) -> torch.nn.Module:
    root = Path(importlib.util.find_spec("ImageReward").submodule_search_locations[0])
    package_without_init("ImageReward", root)
    package_without_init("ImageReward.models", root / "models")
    package_without_init("ImageReward.models.BLIP", root / "models" / "BLIP")
    blip = importlib.import_module("ImageReward.models.BLIP.blip")
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(shared.vocabulary()) + "\n", encoding="utf-8")
    tokenizer_class = blip.BertTokenizer
    blip.BertTokenizer = types.SimpleNamespace(from_pretrained=lambda name: tokenizer_class(str(vocabulary)))
    pretrain = importlib.import_module("ImageReward.models.BLIP.blip_pretrain")
    vit = importlib.import_module("ImageReward.models.BLIP.vit")

    def small_vit(vit_name, image_size, *args, **kwargs):
        tower = vit.VisionTransformer(
            img_size=shared.IMAGE_SIZE,
            patch_size=shared.PATCH,
            embed_dim=shared.VISION["width"],
            depth=shared.VISION["depth"],
            num_heads=shared.VISION["heads"],
        )
        return tower, shared.VISION["width"]

    pretrain.create_vit = small_vit
    reward = importlib.import_module("ImageReward.ImageReward")
    config = {
        "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": shared.TEXT["hidden"], "initializer_range": 0.02,
        "intermediate_size": shared.TEXT["intermediate"], "layer_norm_eps": 1e-12,
        "max_position_embeddings": shared.TEXT["max_position"], "model_type": "bert",
        "num_attention_heads": shared.TEXT["heads"], "num_hidden_layers": shared.TEXT["layers"],
        "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": len(shared.vocabulary()) + 2,
        "encoder_width": 768, "add_cross_attention": True,
    }  # fmt: skip
    path = folder / "med_config.json"
    path.write_text(json.dumps(config))
    model = reward.ImageReward(med_config=str(path), device="cpu")
    model.mlp = reward.MLP(shared.TEXT["hidden"])
    model.preprocess = reward._transform(shared.IMAGE_SIZE)
    state = {
        name: torch.from_numpy(shared.weight(name, tuple(tensor.shape)))
        for name, tensor in model.state_dict().items()
        if not name.endswith("position_ids")
    }
    print(model.load_state_dict(state, strict=False))
    return model.eval()


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        folder = Path(name)
        model = original_model(folder)
        tokens = model.blip.tokenizer(
            list(shared.PROMPTS), padding="max_length", truncation=True, max_length=shared.MAX_TOKENS
        )
        scores: dict[str, dict[str, list[float]]] = {"png": {}, "jpg": {}}
        pixels = {}
        for image, width, height in shared.IMAGES:
            picture = Image.fromarray(shared.image(image, width, height))
            for suffix in scores:
                path = folder / f"{image}.{suffix}"
                picture.save(path)
                loaded = Image.open(path)
                scores[suffix][image] = [model.score(prompt, str(path)) for prompt in shared.PROMPTS]
                if suffix == "png":
                    pixels[image] = model.preprocess(loaded)[:, ::13, ::7].flatten().tolist()
        two = [str(folder / "square.png"), str(folder / "wide.png")]
        golden = {
            "made_with": {
                "image-reward": "1.5", "torch": torch.__version__,
                "transformers": importlib.import_module("transformers").__version__,
                "timm": importlib.import_module("timm").__version__, "pillow": importlib.import_module("PIL").__version__,
                "libjpeg_turbo": features.version("libjpeg_turbo"),
            },
            "keys": {key: list(tensor.shape) for key, tensor in model.state_dict().items()},
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "pixels": pixels,
            "scores": scores,
            "two_images": model.score(shared.PROMPTS[0], two),
        }  # fmt: skip
    (ROOT / "sana_bench/metrics/selfcheck/golden/image_reward.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
