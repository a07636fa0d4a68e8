"""DreamSim's ensemble (Fu et al. 2023, arXiv 2306.09344): three vision transformers with LoRA, their embeddings side by side.

DINO ViT-B/16 gives the class token of its last block, OpenAI's CLIP ViT-B/16 and LAION's open_clip ViT-B/16 their projected
embeddings. Two images are as far apart as 1 - cosine of their embeddings. The published files are read as they are: backbones in
DINO's layout, and one LoRA adapter of peft over all three, which is added to the weights it belongs to.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from sana_bench.assets.checks import DAMAGED
from sana_bench.assets.required import required
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import file_sha256, fingerprint
from sana_bench.core.preprocess import CLIP_MEAN, CLIP_STD, batches, prefetch
from sana_bench.core.samples import Sample
from sana_bench.metrics.oneig.picture import CODEC, picture
from sana_models.files import first_line, parse_json, plain, read_text
from sana_models.layers import with_our_products

__all__ = ["DreamSim", "Files", "find_dreamsim", "load_dreamsim", "square_pixels"]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH, _THREADS = 16, 4
_ADAPTER = re.compile(r"base_model\.model\.extractor_list\.(\d)\.model\.(.+)\.lora_([AB])\.weight")


@dataclass(frozen=True)
class _Size:
    """A vision transformer; the published ones are ViT-B/16 at 224 pixels, 12 layers of width 768."""

    side: int
    patch: int
    width: int
    layers: int

    @property
    def heads(self) -> int:
        """All of DINO's and CLIP's have heads of this width."""
        return max(1, self.width // 64)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "_Size":
        """That of a state dict."""
        width, _, patch, _ = state["patch_embed.proj.weight"].shape
        patches = math.isqrt(state["pos_embed"].shape[1] - 1)
        layers = {name.split(".")[1] for name in state if name.startswith("blocks.")}
        return cls(patches * patch, patch, width, len(layers))


@dataclass(frozen=True)
class Files:
    """Where the published weights are: a file for each backbone, and the folder of the adapter."""

    dino: Path
    clip: Path
    open_clip: Path
    adapter: Path

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file that is read."""
        adapter = (self.adapter / "adapter_config.json", self.adapter / "adapter_model.safetensors")
        return (self.dino, self.clip, self.open_clip, *adapter)


class DreamSim:
    """Embeddings of images after JPEG, float32. Weights are hashed at once and loaded on first use."""

    def __init__(self, files: Files, device: str = "cpu") -> None:
        self._files, self._device = files, device
        self._sha256 = fingerprint([file_sha256(path) for path in files.all])

    @property
    def key(self) -> str:
        """Name under which stored embeddings may be reused."""
        return f"dreamsim-ensemble/{CODEC}/{self._sha256}"

    def identity(self) -> dict[str, Any]:
        return {"network": "dreamsim-ensemble", "codec": CODEC, "weights_sha256": self._sha256}

    @cached_property
    def network(self) -> "Ensemble":
        """The loaded network; raises `AssetError` for files that are not the published ones' kind."""
        return load_dreamsim(self._files).to(self._device)

    def of_samples(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Embeddings (n, d), batches of one size; raises `ImageError` for a missing or damaged image."""
        side = self.network.side
        read = prefetch(lambda sample: square_pixels(picture(sample), side), samples, _THREADS)
        found = []
        for batch in batches(read, _BATCH):
            padded = np.zeros((_BATCH, 3, side, side), np.float32)
            padded[: len(batch)] = batch
            with torch.inference_mode():
                embedded = self.network(torch.from_numpy(padded).to(self._device))
            found.append(embedded[: len(batch)].float().cpu().numpy())
        return np.concatenate(found)


def find_dreamsim() -> Files:
    """The published files below the data root; raises `AssetError` that says how to get what is missing."""
    dino, archive = required("oneig_diversity", ("dino_vit_b_16", "dreamsim_ensemble"))
    folder = archive.parent
    files = Files(
        dino,
        folder / "clip_vitb16_pretrain.pth.tar",
        folder / "open_clip_vitb16_pretrain.pth.tar",
        folder / "ensemble_lora",
    )
    lacking = next((path for path in files.all if not path.is_file()), None)
    if lacking is not None:
        raise AssetError(
            f"metric 'oneig_diversity' on the full tier: {lacking} is missing: unpack {archive} to {folder}"
        )
    return files


def square_pixels(image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """(3, side, side) in [0, 1]: squeezed to a square by Pillow's bicubic filter."""
    square = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square, np.float32).transpose(2, 0, 1) / np.float32(255))


class _Attention(nn.Module):
    def __init__(self, size: _Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.proj = nn.Linear(size.width, size.width)

    def forward(self, x_BNC: Tensor) -> Tensor:
        n_images, n_tokens, width = x_BNC.shape
        parts = self.qkv(x_BNC).reshape(n_images, n_tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        joined: Tensor = self.proj(mixed.transpose(1, 2).reshape(n_images, n_tokens, width))
        return joined


class _Mlp(nn.Module):
    def __init__(self, width: int, *, quick: bool) -> None:
        super().__init__()
        self.quick = quick
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x_BNC: Tensor) -> Tensor:
        hidden = self.fc1(x_BNC)
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick else F.gelu(hidden)
        out: Tensor = self.fc2(hidden)
        return out


class _Block(nn.Module):
    def __init__(self, size: _Size, *, epsilon: float, quick: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width, eps=epsilon)
        self.attn = _Attention(size)
        self.norm2 = nn.LayerNorm(size.width, eps=epsilon)
        self.mlp = _Mlp(size.width, quick=quick)

    def forward(self, x_BNC: Tensor) -> Tensor:
        x_BNC = x_BNC + self.attn(self.norm1(x_BNC))
        return x_BNC + self.mlp(self.norm2(x_BNC))


class _PatchEmbed(nn.Module):
    def __init__(self, size: _Size) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, size.width, kernel_size=size.patch, stride=size.patch)

    def forward(self, pixels: Tensor) -> Tensor:
        patches: Tensor = self.proj(pixels)
        return patches.flatten(2).transpose(1, 2)


class _Tower(nn.Module):
    """A vision transformer with DINO's names of parameters. CLIP's norm before the first block is called `pos_drop` there."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, size: _Size, mean: Sequence[float], deviation: Sequence[float], *, clip: bool, quick: bool
    ) -> None:
        super().__init__()
        epsilon = 1e-5 if clip else 1e-6
        norm = partial(nn.LayerNorm, size.width, eps=epsilon)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size.side // size.patch) ** 2, size.width))
        self.patch_embed = _PatchEmbed(size)
        self.pos_drop = norm() if clip else nn.Identity()
        self.blocks = nn.ModuleList(_Block(size, epsilon=epsilon, quick=quick) for _ in range(size.layers))
        self.norm = norm()
        self.size = size
        self.projection: nn.Parameter | None = None
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeddings (n, d) of pixels (n, 3, side, side) in [0, 1]."""
        x_BNC = self.patch_embed((pixels - self.mean) / self.deviation)
        x_BNC = torch.cat([self.cls_token.expand(len(pixels), -1, -1), x_BNC], dim=1)
        x_BNC = self.pos_drop(x_BNC + self.pos_embed)
        for block in self.blocks:
            x_BNC = block(x_BNC)
        # Of DINO the published model takes the token before its last norm.
        return x_BNC[:, 0] if self.projection is None else self.norm(x_BNC[:, 0]) @ self.projection


class Ensemble(nn.Module):
    """The towers, in the order in which the adapter numbers them; an embedding is what they give, centred and of unit length."""

    def __init__(self, dino: _Tower, clip: _Tower, open_clip: _Tower) -> None:
        super().__init__()
        self.dino, self.clip, self.open_clip = dino, clip, open_clip

    @property
    def towers(self) -> tuple[_Tower, ...]:
        """All of them."""
        return self.dino, self.clip, self.open_clip

    @property
    def side(self) -> int:
        """Height and width in pixels of the images that they take."""
        return self.dino.size.side

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeddings (n, d) of pixels (n, 3, side, side) in [0, 1]."""
        joined = torch.cat([tower(pixels) for tower in self.towers], dim=1)
        centred = joined - joined.mean(dim=1, keepdim=True)
        return centred / centred.norm(dim=1, keepdim=True)


def load_dreamsim(files: Files) -> Ensemble:
    """The ensemble with the published weights, in float32, evaluation mode.

    Raises:
        AssetError: a damaged file, a weight that is missing or left over, or an adapter of another kind.
    """
    network = Ensemble(
        _tower(files.dino, _IMAGENET_MEAN, _IMAGENET_STD, clip=False, quick=False),
        _tower(files.clip, CLIP_MEAN, CLIP_STD, clip=True, quick=True),
        _tower(files.open_clip, CLIP_MEAN, CLIP_STD, clip=True, quick=False),
    )
    _adapt(network, files.adapter)
    return with_our_products(network.eval().requires_grad_(False))


def _tower(
    path: Path, mean: Sequence[float], deviation: Sequence[float], *, clip: bool, quick: bool
) -> _Tower:
    try:
        found: Mapping[str, Any] = torch.load(plain(path), map_location="cpu", weights_only=True)
        state = {name: tensor.float() for name, tensor in found.get("state_dict", found).items()}
        projection = state.pop("proj", None)
        if (projection is not None) != clip:
            raise ValueError("it has no projection" if clip else "it has a projection")
        tower = _Tower(_Size.of(state), mean, deviation, clip=clip, quick=quick)
        tower.load_state_dict(state)
    except DAMAGED as error:
        raise AssetError(f"{path}: not a vision transformer of DreamSim ({first_line(error)})") from None
    # It is none of the published tower's own parameters.
    tower.projection = None if projection is None else nn.Parameter(projection)
    return tower


def _adapt(network: Ensemble, folder: Path) -> None:
    """Add the adapter's product of two thin matrices to every weight that it was trained for."""
    from safetensors.torch import load_file

    path = folder / "adapter_model.safetensors"
    try:
        settings = parse_json(read_text(folder / "adapter_config.json"))
        scale = float(settings["lora_alpha"]) / float(settings["r"])
        tensors = load_file(plain(path))
        matches = {name: _ADAPTER.fullmatch(name) for name in tensors}
        parts = {(m[1], m[2], m[3]): tensors[name].float() for name, m in matches.items() if m is not None}
        places = {place[:2] for place in parts}
        if settings.get("use_rslora") or len(parts) != len(tensors) or len(parts) != 2 * len(places):
            raise ValueError("it holds other tensors than pairs of LoRA matrices")
        for tower, module in places:
            weight = network.towers[int(tower)].get_parameter(f"{module}.weight")
            weight.data += scale * (parts[tower, module, "B"] @ parts[tower, module, "A"])
    except DAMAGED as error:
        raise AssetError(f"{path}: not the adapter of DreamSim's ensemble ({first_line(error)})") from None
