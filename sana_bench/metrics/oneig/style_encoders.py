"""The two encoders of style that OneIG-Bench takes, and the reference embeddings of its styles.

CSD (Somepalli et al. 2024, arXiv 2404.01292) is OpenAI's CLIP ViT-L/14 with a projection of its own; OneIG's encoder is a CLIP
vision model of transformers. Both take a square of 224 pixels as CLIP does, and give unit vectors.
"""

import argparse
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sana_bench.assets.checks import DAMAGED, check_fit
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import directory_sha256, file_sha256
from sana_bench.core.images import IMAGE_SUFFIXES, load_image
from sana_bench.core.precision import torch_dtype
from sana_bench.core.preprocess import batches, clip_pixels
from sana_models.files import first_line, plain
from sana_models.layers import with_our_products
from sana_models.libraries import without_torchao

__all__ = ["CSDEncoder", "OneIGEncoder", "StyleEncoder", "read_references", "references_of"]

_BATCH = 16
# What a checkpoint of CSD's training holds beside tensors; names of numbers and of options, which run nothing.
_HARMLESS = (argparse.Namespace, np.dtype, np.dtypes.Float64DType, np.dtypes.Int64DType)


class StyleEncoder(ABC):
    """Unit vectors of images. Weights are hashed at once and loaded on first use."""

    name: str
    side = 224

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that can change a vector."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The loaded network; raises `AssetError` for files that are not what they should be."""

    @abstractmethod
    def _encode(self, pixels: Tensor) -> Tensor: ...

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Vectors (n, d) of RGB images (height, width, 3), in batches of one size."""
        found = []
        for batch in batches(images, _BATCH):
            padded = np.zeros((_BATCH, 3, self.side, self.side), np.float32)
            for place, image in enumerate(batch):
                padded[place] = clip_pixels(image, self.side)
            with torch.inference_mode():
                vectors = self._encode(torch.from_numpy(padded))[: len(batch)]
            found.append(nn.functional.normalize(vectors, dim=-1).double().cpu().numpy())
        return np.concatenate(found)


class CSDEncoder(StyleEncoder):
    """CSD from its training checkpoint, in fp32 as published."""

    name = "csd"

    def __init__(self, checkpoint: Path, device: str = "cpu", head_width: int = 64) -> None:
        self._checkpoint, self._device, self._head_width = checkpoint, device, head_width
        self._sha256 = file_sha256(checkpoint)

    def identity(self) -> dict[str, Any]:
        return {"network": "csd", "precision": "fp32", "weights_sha256": self._sha256}

    @cached_property
    def network(self) -> nn.Module:
        with without_torchao():
            from open_clip.transformer import QuickGELU, VisionTransformer

        state = _csd_state(self._checkpoint)
        try:
            width, _, patch, _ = state["conv1.weight"].shape
            patches = math.isqrt(len(state["positional_embedding"]) - 1)
            network: nn.Module = VisionTransformer(
                image_size=patches * patch,
                patch_size=patch,
                width=width,
                layers=len({name.split(".")[2] for name in state if ".resblocks." in name}),
                heads=width // self._head_width,
                mlp_ratio=4.0,
                output_dim=state["proj"].shape[1],
                act_layer=QuickGELU,
            )
            network.load_state_dict(state)
        except DAMAGED as error:
            raise AssetError(f"{self._checkpoint}: not a checkpoint of CSD ({first_line(error)})") from None
        return with_our_products(network.eval().requires_grad_(False)).to(self._device)

    def _encode(self, pixels: Tensor) -> Tensor:
        return self.network(pixels.to(self._device))


class OneIGEncoder(StyleEncoder):
    """OneIG's encoder from a folder of transformers, in bf16 as published unless told otherwise."""

    name = "oneig"

    def __init__(self, folder: Path, device: str = "cpu", precision: str = "bf16") -> None:
        """Raises `AssetError` when `folder` has no `config.json`."""
        if not (folder / "config.json").is_file():
            raise AssetError(f"{folder / 'config.json'} is missing: OneIG's encoder of style")
        self._folder, self._device, self._precision = folder, device, precision
        self._sha256 = directory_sha256(folder, ignore=("README.md",))

    def identity(self) -> dict[str, Any]:
        return {
            "network": "clip-vision",
            "precision": self._precision,
            "weights_sha256": self._sha256,
        }

    @cached_property
    def network(self) -> nn.Module:
        with without_torchao():
            from transformers import CLIPVisionModelWithProjection

        try:
            network, info = CLIPVisionModelWithProjection.from_pretrained(
                self._folder,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch_dtype(self._precision),
                output_loading_info=True,
            )
        except DAMAGED as error:
            raise AssetError(f"{self._folder}: not a CLIP vision model ({first_line(error)})") from None
        # A published file of the whole of CLIP has the texts' half too.
        check_fit(self._folder, "OneIG's encoder of style", info | {"unexpected_keys": ()})
        return with_our_products(network.eval()).to(self._device)

    def _encode(self, pixels: Tensor) -> Tensor:
        network = self.network
        return network(pixels.to(self._device, torch_dtype(self._precision))).image_embeds


def read_references(path: Path) -> dict[str, NDArray[np.float64]]:
    """Published embeddings of reference images, (n, d) by style; raises `AssetError` for another file."""
    try:
        found = torch.load(plain(path), map_location="cpu", weights_only=True)
        return {str(style): rows.double().reshape(len(rows), -1).numpy() for style, rows in found.items()}
    except DAMAGED as error:
        raise AssetError(f"{path}: not embeddings by style ({first_line(error)})") from None


def references_of(folder: Path, encoder: StyleEncoder) -> dict[str, NDArray[np.float64]]:
    """Embeddings (n, d) of the images in each folder below `folder`, whose names are styles.

    Raises:
        AssetError: there is no such folder, or one without images.
        ImageError: an image is damaged.
    """
    styles = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    found = {}
    for style in styles:
        images = sorted(path for path in style.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise AssetError(f"{style}: no reference images")
        found[style.name] = encoder.encode([load_image(path) for path in images])
    if not found:
        raise AssetError(f"{folder}: no folders of reference images, one a style")
    return found


def _csd_state(path: Path) -> dict[str, Tensor]:
    """The vision tower's weights under open_clip's names, with the projection of style as its own."""
    try:
        with torch.serialization.safe_globals([*_HARMLESS, *_numpy_scalars()]):
            checkpoint = torch.load(plain(path), map_location="cpu", weights_only=True)
        state = {
            name.removeprefix("module."): tensor for name, tensor in checkpoint["model_state_dict"].items()
        }
        found = {
            name.removeprefix("backbone."): state[name] for name in state if name.startswith("backbone.")
        }
        return {**found, "proj": state["last_layer_style"]}
    except DAMAGED as error:
        raise AssetError(f"{path}: not a checkpoint of CSD ({first_line(error)})") from None


def _numpy_scalars() -> list[Any]:
    """The function that makes a number of numpy, under the name that it had before numpy 2 and the one that it has."""
    from numpy._core.multiarray import scalar

    return [scalar, (scalar, "numpy.core.multiarray.scalar")]
