"""OpenAI's CLIP ViT-L/14 as SANA's tools use it: QuickGELU, images by way of JPEG, features of unit length."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import file_sha256
from sana_bench.core.preprocess import batches, clip_pixels, load_preset, prefetch
from sana_bench.core.samples import Sample
from sana_models.files import plain
from sana_models.libraries import without_torchao

if TYPE_CHECKING:
    from torch import nn

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

    def of_samples(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Image features (n, d); raises `ImageError` for a missing or damaged image."""
        size = image_side(self.network)
        read = prefetch(
            lambda sample: clip_pixels(load_preset(sample.image_path, self._codec), size), samples, _THREADS
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


def load_open_clip(weights: Path, model: str = MODEL) -> "nn.Module":
    """open_clip's network with all weights of a safetensors file, in float32, evaluation mode.

    Raises:
        AssetError: a damaged file, a weight that is missing or left over, or an activation other than QuickGELU.
    """
    with without_torchao():
        import open_clip
        from open_clip.transformer import QuickGELU
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    # open_clip's own create_model warns, whatever it is told, that this network is initialised at random.
    network: nn.Module = open_clip.CLIP(**open_clip.get_model_config(model))
    try:
        state = {key: tensor.float() for key, tensor in load_file(plain(weights)).items()}
        network.load_state_dict(state, strict=True)
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise AssetError(f"{weights}: not the weights of open_clip's {model} ({reason})") from None
    # From open_clip 2.32 the plain name builds GELU for OpenAI's weights, which changes every score.
    if not any(isinstance(module, QuickGELU) for module in network.modules()):
        raise AssetError(f"{model}: this open_clip builds it without QuickGELU, which OpenAI's weights need")
    return network.eval()


def image_side(network: "nn.Module") -> int:
    """Height and width in pixels of the images that the network takes."""
    size: Any = network.get_submodule("visual").image_size
    return int(size[0] if isinstance(size, tuple | list) else size)
