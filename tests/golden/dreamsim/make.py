"""Golden embeddings of the original `dreamsim` package for small random weights.

Run in an environment with the package, for example:

    pip install --target era --no-deps dreamsim==0.2.1 peft==0.21.2 accelerate==1.15.0
    PYTHONPATH=era python tests/golden/dreamsim/make.py

Model, adapter and preprocessing are the package's own. Sizes are small: its `vit_base`, and the DINO that it takes from
torch's hub, are replaced by its own transformer of another width.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), *(str(ROOT / name) for name in ("models", "kernels", "reports"))]

import dreamsim.feature_extraction.load_clip_as_dino as clip  # noqa: E402
import dreamsim.feature_extraction.load_open_clip_as_dino as open_clip  # noqa: E402
from dreamsim import dreamsim  # noqa: E402
from dreamsim.feature_extraction.vision_transformer import VisionTransformer  # noqa: E402

from sana_bench.metrics.selfcheck.golden_files import FOLDER  # noqa: E402
from sana_bench.metrics.selfcheck.readings import write_dreamsim  # noqa: E402
from sana_bench.metrics.selfcheck.recipes import dreamsim as recipe  # noqa: E402


def small(patch_size: int = 16) -> VisionTransformer:
    return VisionTransformer(
        patch_size=patch_size, embed_dim=recipe.WIDTH, depth=recipe.LAYERS, num_heads=recipe.HEADS, mlp_ratio=4,
        qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    )  # fmt: skip


def hub(folder: Path) -> VisionTransformer:
    """What `torch.hub.load` gives: DINO with its weights."""
    network = small()
    network.load_state_dict(torch.load(folder / "dino.pth", weights_only=True))
    return network


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dreamsim(folder)
        heads = {
            f"module.head.mlp.{place}.{part}": torch.zeros(1)
            for place in (0, 2, 4)
            for part in ("weight", "bias")
        }
        # A projection of DINO that the ensemble never uses.
        torch.save(
            {"student": heads | {"module.head.last_layer.weight": torch.zeros(1)}},
            folder / "dino_vitb16_pretrain.pth",
        )
        clip.vit_base = open_clip.vit_base = small
        torch.hub.load = lambda *_: hub(folder)
        model, preprocess = dreamsim(
            pretrained=True, device="cpu", cache_dir=str(folder), dreamsim_type="ensemble"
        )
        pixels = [preprocess(Image.fromarray(image)) for image in recipe.images()]
        embeddings = torch.cat([model.embed(one) for one in pixels]).numpy()
        distances = [float(model(pixels[0], pixels[place])) for place in (1, 2)]
    np.savez_compressed(FOLDER / "dreamsim.npz", embeddings=embeddings, distances=np.array(distances))
    print(embeddings.shape, distances)


if __name__ == "__main__":
    main()
