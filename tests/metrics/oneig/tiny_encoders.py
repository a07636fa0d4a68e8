"""Small random encoders of style in their published layouts, for images of the published size."""

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

SIDE = 224


def write_csd(path: Path, *, width: int = 64, layers: int = 1, patch: int = 32, out: int = 16) -> Path:
    """A checkpoint of CSD's training: OpenAI's names below `backbone`, two projections, and what else training saves."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / max(shape) ** 0.5

    patches = (SIDE // patch) ** 2
    state = {
        "class_embedding": drawn(width),
        "positional_embedding": drawn(1 + patches, width),
        "conv1.weight": drawn(width, 3, patch, patch),
    }
    for norm in (
        "ln_pre",
        "ln_post",
        *(f"transformer.resblocks.{n}.ln_{k}" for n in range(layers) for k in (1, 2)),
    ):
        state |= {f"{norm}.weight": 1 + drawn(width), f"{norm}.bias": drawn(width)}
    for layer in range(layers):
        name = f"transformer.resblocks.{layer}"
        state |= {
            f"{name}.attn.in_proj_weight": drawn(3 * width, width),
            f"{name}.attn.in_proj_bias": drawn(3 * width),
        }
        for part, outputs, inputs in (
            ("attn.out_proj", width, width),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ):
            state |= {f"{name}.{part}.weight": drawn(outputs, inputs), f"{name}.{part}.bias": drawn(outputs)}
    named = {f"module.backbone.{name}": tensor for name, tensor in state.items()}
    named |= {f"module.last_layer_{what}": drawn(width, out) for what in ("style", "content")}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {"model_state_dict": named, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "iter": 3},
        path,
    )
    return path


def write_style_encoder(folder: Path) -> Path:
    """A CLIP vision model as transformers saves it."""
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=32,
        projection_dim=12,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPVisionModelWithProjection(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder
