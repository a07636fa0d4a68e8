"""Checks of the networks behind FID, KID, CLIP score and ImageReward, with the references' weights by name."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sana_bench.core.preprocess import clip_pixels
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.selfcheck import golden_files
from sana_bench.metrics.selfcheck.check import Bench, Check, SkippedError, Tolerance
from sana_bench.metrics.selfcheck.recipes import image_reward as reward_recipe
from sana_bench.metrics.selfcheck.recipes.plain import (
    CLIP,
    CLIP_TOKENS,
    clip_weight,
    inception_weight,
    uniform,
)
from sana_models.libraries import without_torchao

if TYPE_CHECKING:
    import torch

__all__ = ["CHECKS", "clip_network", "reward_config", "reward_samples", "write_reward_files"]

_INCEPTION = ("fid/sana@1", "fid/pytorch-fid@1", "fid/clean@1", "kid/clean@1")
_CLIP_IMAGES = (
    "clip_score/sana@1", "geneval/official@1", "geneval/sana@1", "geneval/hf-detector@1", "aesthetic/laion@1",
)  # fmt: skip
_CLIP_USERS = _CLIP_IMAGES[:-1]
# Known from OpenAI's published tokenizer.
_TOKENS = {
    "a photo of a cat": (49406, 320, 1125, 539, 320, 2368, 49407),
    "A photo of  a dog": (49406, 320, 1125, 539, 320, 1929, 49407),
}


def _relative(found: NDArray[np.float32], stored: NDArray[np.float32]) -> float:
    difference = found.astype(np.float64) - stored
    return float(np.linalg.norm(difference) / np.linalg.norm(stored))


def _inception(bench: Bench) -> float:
    import torch

    from sana_bench.metrics.fid import INPUT_SIZE
    from sana_bench.metrics.fid.inception import build_inception, parameter_shapes

    state = {
        name: torch.from_numpy(inception_weight(name, shape)) for name, shape in parameter_shapes().items()
    }
    network = build_inception(state, Path("the self-check's Inception")).to(bench.device)
    pixels = torch.from_numpy(uniform("inception", (1, 3, INPUT_SIZE, INPUT_SIZE)))
    with torch.inference_mode():
        features = network(pixels.to(bench.device))[0].cpu().numpy()
    return _relative(features[::8], golden_files.arrays("networks")["inception"])


def clip_network() -> "torch.nn.Module":
    """open_clip's network of the recipe, evaluation mode."""
    import torch

    with without_torchao():
        from open_clip import CLIP as Network

    network = Network(CLIP["embed_dim"], CLIP["vision_cfg"], CLIP["text_cfg"], quick_gelu=True)
    state = {
        name: torch.from_numpy(clip_weight(name, tuple(tensor.shape)))
        for name, tensor in network.state_dict().items()
    }
    network.load_state_dict(state, strict=True)
    result: torch.nn.Module = network.eval()
    return result


def _clip(bench: Bench) -> float:
    import torch

    network: Any = clip_network().to(bench.device)
    stored = golden_files.arrays("networks")
    pixels = torch.from_numpy(uniform("clip", (2, 3, 32, 32))).to(bench.device)
    with torch.inference_mode():
        images = network.encode_image(pixels, normalize=True).cpu().numpy()
        texts = network.encode_text(torch.tensor(CLIP_TOKENS, device=bench.device), normalize=True)
    return max(_relative(images, stored["clip_images"]), _relative(texts.cpu().numpy(), stored["clip_texts"]))


def _quick_gelu(_: Bench) -> float:
    with without_torchao():
        import open_clip

    from sana_bench.metrics.clip.features import MODEL
    from sana_bench.metrics.clip.features import MODEL as OF_COLORS

    configs = [open_clip.get_model_config(name) or {} for name in (MODEL, OF_COLORS)]
    return float(sum(config.get("quick_gelu") is not True for config in configs))


def _tokens(_: Bench) -> float:
    with without_torchao():
        import open_clip

    from sana_bench.metrics.clip.features import MODEL

    ids = open_clip.get_tokenizer(MODEL)(list(_TOKENS)).tolist()
    wanted = [[*known, *[0] * (77 - len(known))] for known in _TOKENS.values()]
    return float(sum(found != expected for found, expected in zip(ids, wanted, strict=True)))


def reward_config() -> dict[str, Any]:
    """The content of `med_config.json` for ImageReward's small text tower."""
    recipe = reward_recipe
    return {
        "vocab_size": len(recipe.vocabulary()) + 2, "hidden_size": recipe.TEXT["hidden"],
        "intermediate_size": recipe.TEXT["intermediate"], "num_hidden_layers": recipe.TEXT["layers"],
        "num_attention_heads": recipe.TEXT["heads"], "max_position_embeddings": recipe.TEXT["max_position"],
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0, "encoder_width": 768,
    }  # fmt: skip


def write_reward_files(folder: Path) -> Any:
    """ImageReward's three files, small, with the recipe's weights: a `RewardFiles`."""
    import torch

    from sana_bench.metrics.image_reward.metric import RewardFiles
    from sana_bench.metrics.image_reward.network import VisionSize

    recipe = reward_recipe
    state = {
        name: torch.from_numpy(recipe.weight(name, tuple(shape)))
        for name, shape in golden_files.image_reward()["keys"].items()
        if not name.endswith("position_ids")
    }
    torch.save(state, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(reward_config()))
    (folder / "vocab.txt").write_text("\n".join(recipe.vocabulary()) + "\n", encoding="utf-8")
    vision = recipe.VISION
    size = VisionSize(recipe.IMAGE_SIZE, recipe.PATCH, vision["width"], vision["depth"], vision["heads"])
    return RewardFiles(folder / "ImageReward.pt", folder / "med_config.json", folder / "vocab.txt", size)


def reward_samples(folder: Path) -> list[Sample]:
    """The recipe's images, each with each prompt."""
    samples = []
    for name, width, height in reward_recipe.IMAGES:
        path = folder / f"{name}.png"
        Image.fromarray(reward_recipe.image(name, width, height)).save(path)
        samples += [
            Sample("v", "image_reward", Prompt(f"{name}-{place}", text, "all"), 0, path)
            for place, text in enumerate(reward_recipe.PROMPTS)
        ]
    return samples


def _rewards(protocol: str, codec: str, bench: Bench) -> float:
    from sana_bench.metrics.image_reward.metric import ImageReward

    folder = bench.folder(f"reward-{codec}")
    metric = ImageReward(protocol, write_reward_files(folder), bench.device)
    scores = [row.value for row in metric.score(reward_samples(folder))]
    stored = golden_files.image_reward()["scores"][codec]
    expected = [value for name, *_ in reward_recipe.IMAGES for value in stored[name]]
    # As numpy's allclose with equal relative and absolute parts.
    return max(abs(a - b) / (1 + abs(b)) for a, b in zip(scores, expected, strict=True))


def _reward_tokens(bench: Bench) -> float:
    import torch

    stored = golden_files.image_reward()
    ids, mask = write_reward_files(bench.folder("reward-tokens")).tokens(reward_recipe.PROMPTS)
    wrong = (ids != torch.tensor(stored["input_ids"])) | (mask != torch.tensor(stored["attention_mask"]))
    return float(wrong.sum())


def _micro_reward(bench: Bench) -> float:
    """Share of drawn scenes' captions that do not beat another scene's caption, whose shapes the picture lacks."""
    from sana_bench.metrics.image_reward.metric import BATCH, RewardFiles

    folder = bench.weights / "reward"
    if not folder.is_dir():
        raise SkippedError(f"{folder} is not there: the micro reward model's weights")
    files = RewardFiles.of_folder(folder)
    scenes = golden_files.numbers()["micro"]["scenes"]
    captions = [scene["caption"] for scene in scenes]
    shapes = [{item["label"] for item in scene["objects"]} for scene in scenes]
    lost = []
    for place, image in enumerate(golden_files.arrays("micro")["images"]):
        pixels = clip_pixels(image, files.network.image_size)
        found: list[float] = []
        for start in range(0, len(captions), BATCH):
            part = captions[start : start + BATCH]
            found += files.rewards(np.stack([pixels] * len(part)), part, bench.device)
        lost += [found[place] <= found[other] for other, named in enumerate(shapes) if named - shapes[place]]
    return sum(lost) / len(lost)


_TF32 = "convolutions in TF32, torch's default: 10 bits of mantissa, not measured on every device"

CHECKS = (
    Check(
        "Inception: pytorch-fid's features",
        _INCEPTION,
        _inception,
        Tolerance(1e-5, "relative", "float32 convolutions in another order, batch normalisation folded in"),
        Tolerance(3e-3, "relative", _TF32),
    ),
    Check(
        "CLIP: transformers' features, QuickGELU",
        _CLIP_IMAGES,
        _clip,
        Tolerance(1e-5, "relative", "float32 sums in another order"),
        Tolerance(3e-3, "relative", _TF32),
    ),
    Check(
        "CLIP ViT-L/14 is built with QuickGELU",
        _CLIP_IMAGES,
        _quick_gelu,
        Tolerance(0, "names that are not", "a name or another"),
    ),
    Check("CLIP: tokens", _CLIP_USERS, _tokens, Tolerance(0, "texts that differ", "integers")),
    Check(
        "ImageReward: the original package's scores, PNG",
        ("image_reward/official@1",),
        lambda bench: _rewards("image_reward/official@1", "png", bench),
        Tolerance(1e-4, "of 1 + reward", "float32 sums in another order, through layers that amplify them"),
        Tolerance(1e-2, "of 1 + reward", _TF32),
    ),
    Check(
        "ImageReward: the original package's scores, JPEG",
        ("image_reward/sana-jpeg@1",),
        lambda bench: _rewards("image_reward/sana-jpeg@1", "jpg", bench),
        Tolerance(1e-4, "of 1 + reward", "float32 sums in another order, through layers that amplify them"),
        Tolerance(1e-2, "of 1 + reward", _TF32),
    ),
    Check(
        "ImageReward: tokens",
        ("image_reward/official@1", "image_reward/sana-jpeg@1"),
        _reward_tokens,
        Tolerance(0, "tokens that differ", "integers"),
    ),
    Check(
        "ImageReward: micro reward model on drawn scenes",
        ("image_reward/micro@1",),
        _micro_reward,
        Tolerance(0.1, "share of captions ranked wrongly", "a trained model errs; a broken one does in half"),
    ),
)
