"""OpenAI's CLIP ViT-L/14 as SANA's tools use it: QuickGELU, images by way of JPEG, features of unit length."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.assets.checks import DAMAGED
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import file_sha256
from sana_bench.core.preprocess import batches, clip_pixels, load_preset, prefetch
from sana_bench.core.samples import Sample
from sana_models.files import plain
from sana_models.libraries import without_torchao

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["MODEL", "OpenClipFeatures", "full_prompt", "image_side", "load_open_clip"]

MODEL = "ViT-L-14-quickgelu"
_BATCH = 16
_THREADS = 4


class OpenClipFeatures:
    """Image and text features (n, 768), float32. Weights are hashed at once and loaded on first use."""

    def __init__(self, weights: Path, codec: str, device: str = "cpu", model: str = MODEL) -> None:
        """`codec: jpeg` sends images that are no JPEG through one of quality 75."""
        self._weights = weights
        self._codec = codec
        self._device = device
        self._model = model
        self.weights_sha256 = file_sha256(weights)
        self._texts: dict[str, NDArray[np.float32]] = {}

    @property
    def key(self) -> str:
        """Name under which stored image features may be reused."""
        return f"{self._model}/{self._codec}/{self.weights_sha256}"

    def identity(self) -> dict[str, Any]:
        return {"network": self._model, "codec": self._codec, "weights_sha256": self.weights_sha256}

    @cached_property
    def network(self) -> "nn.Module":
        return load_open_clip(self._weights, self._model).to(self._device)

    @property
    def side(self) -> int:
        """Height and width in pixels of the images that the network takes."""
        return image_side(self.network)

    def pixels(self, image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        """The network's input (3, side, side) of an image (height, width, 3)."""
        return clip_pixels(image, side)

    def of_samples(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Image features (n, d); raises `ImageError` for a missing or damaged image."""
        side = self.side
        read = prefetch(
            lambda sample: self.pixels(load_preset(sample.image_path, self._codec), side), samples, _THREADS
        )
        parts = [self._padded("encode_image", np.stack(batch)) for batch in batches(read, _BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 768), np.float32)

    def of_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Text features (n, d), each distinct text encoded once; what is cut keeps its end-of-text token."""
        unseen = sorted(set(texts) - set(self._texts))
        for batch in batches(unseen, _BATCH):
            encoded = self._padded("encode_text", self._tokenizer(batch).numpy())
            self._texts.update(zip(batch, encoded, strict=True))
        return np.stack([self._texts[text] for text in texts])

    @property
    def text_limit(self) -> int:
        """Tokens of a text that the network reads, start and end included."""
        return int(self._tokenizer.context_length)

    def cut(self, texts: Sequence[str]) -> list[bool]:
        """Say of each text whether it is read without its end."""
        return [len(self._tokenizer.encode(text)) + 2 > self.text_limit for text in texts]

    @cached_property
    def _tokenizer(self) -> Any:
        with without_torchao():
            import open_clip

        return open_clip.get_tokenizer(self._model)

    def _padded(self, encode: str, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Unit-length features of one batch, padded to the fixed size."""
        import torch

        padded = np.zeros((_BATCH, *inputs.shape[1:]), inputs.dtype)
        padded[: len(inputs)] = inputs
        with torch.inference_mode():
            features = getattr(self.network, encode)(torch.from_numpy(padded).to(self._device))
            features = features / features.norm(dim=-1, keepdim=True)
        result: NDArray[np.float32] = features[: len(inputs)].float().cpu().numpy()
        return result


def full_prompt(sample: Sample) -> str:
    """The prompt as published: where options were cut off it for generation, the score keeps them."""
    return str(sample.prompt.metadata.get("full_prompt", sample.prompt.text))


def load_open_clip(weights: Path, model: str = MODEL, *, quick_gelu: bool = True) -> "nn.Module":
    """open_clip's network with all weights of a file, in float32, evaluation mode.

    The file is a safetensors file, or one of `torch.save` that holds them as `state_dict`.

    Raises:
        AssetError: a damaged file, a weight that is missing or left over, or QuickGELU where the weights were not trained with
            it or the reverse.
    """
    with without_torchao():
        import open_clip
        from open_clip.transformer import QuickGELU

    from sana_models.layers import with_our_products

    # open_clip's own create_model warns, whatever it is told, that this network is initialised at random.
    network: nn.Module = open_clip.CLIP(**open_clip.get_model_config(model))
    try:
        network.load_state_dict({key: tensor.float() for key, tensor in _read(weights).items()}, strict=True)
    except DAMAGED as error:
        reason = str(error).strip().partition("\n")[0]
        raise AssetError(f"{weights}: not the weights of open_clip's {model} ({reason})") from None
    # From open_clip 2.32 the plain name builds GELU for OpenAI's weights, which changes every score.
    if any(isinstance(module, QuickGELU) for module in network.modules()) != quick_gelu:
        built = "without QuickGELU, which OpenAI's weights need" if quick_gelu else "with QuickGELU"
        raise AssetError(f"{model}: this open_clip builds it {built}")
    return with_our_products(network.eval())


def _read(weights: Path) -> "Mapping[str, Tensor]":
    """The tensors of a file by name; one of `DAMAGED` is raised for anything else."""
    from safetensors.torch import load_file

    from sana_models.single_files import read_archive

    if weights.suffix == ".safetensors":
        return load_file(plain(weights))
    state: Mapping[str, Tensor] = read_archive(weights)["state_dict"]
    return state


def image_side(network: "nn.Module") -> int:
    """Height and width in pixels of the images that the network takes."""
    size: Any = network.get_submodule("visual").image_size
    return int(size[0] if isinstance(size, tuple | list) else size)
