"""CLIP image and text features, computed once and shared by every metric that needs them."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import NOT_WEIGHTS, directory_sha256
from sana_bench.core.images import load_image
from sana_bench.core.preprocess import crop_resized
from sana_bench.core.samples import Sample

if TYPE_CHECKING:
    from sana_bench.metrics.clip.micro_network import MicroClip


class ClipFeatures:
    """Unit-length features of the micro world's CLIP. Weights are hashed at once and loaded on first use."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise AssetError(f"{folder} is missing: the CLIP weights of the micro tier")
        self._folder = folder
        self.weights_sha256 = directory_sha256(folder, ignore=NOT_WEIGHTS)
        self._texts: dict[str, NDArray[np.float32]] = {}

    @property
    def key(self) -> str:
        """Name under which stored image features may be reused."""
        return f"clip-micro@1/{self.weights_sha256}"

    def identity(self) -> dict[str, Any]:
        return {"network": "clip-micro@1", "weights_sha256": self.weights_sha256}

    @cached_property
    def network(self) -> "MicroClip":
        """The loaded network; raises `AssetError` for damaged weights."""
        from sana_bench.metrics.clip.micro_network import load_clip

        return load_clip(self._folder)

    def of_samples(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Image features (n, d); raises `ImageError` for a missing or damaged image."""
        return self.of_files([sample.image_path for sample in samples])

    def of_files(self, paths: Sequence[Path]) -> NDArray[np.float32]:
        """Image features (n, d) of files.

        Images of another size than the network's are brought to it as the full tier's CLIP does: shorter side by bicubic
        resizing, centre square. Raises `ImageError` for a missing or damaged image.
        """
        size = self.network.image_size
        images = [crop_resized(load_image(path), size, Image.Resampling.BICUBIC) for path in paths]
        return self.network.encode_images(
            np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8)
        )

    @property
    def dimensions(self) -> int:
        """Numbers in a feature vector."""
        return int(self.network.model.text_projection.shape[1])

    @property
    def logit_scale(self) -> float:
        """What the network multiplied cosines by where it was trained."""
        return float(self.network.model.logit_scale.detach().exp())

    @property
    def text_limit(self) -> int:
        """Tokens of a text that the network reads, start and end included."""
        return self.network.tokenizer.context_length

    def cut(self, texts: Sequence[str]) -> list[bool]:
        """Say of each text whether it is read without its end."""
        return self.network.tokenizer.cut(texts)

    def of_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Text features (n, d), each distinct text encoded once."""
        unseen = sorted(set(texts) - set(self._texts))
        if unseen:
            self._texts.update(zip(unseen, self.network.encode_texts(unseen), strict=True))
        return np.stack([self._texts[text] for text in texts])
