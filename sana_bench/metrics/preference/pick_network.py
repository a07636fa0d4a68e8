"""PickScore's network (Kirstain et al. 2023, arXiv 2305.01569): transformers' CLIP, as the authors publish it, and its tokens."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sana_bench.assets.checks import DAMAGED
from sana_bench.core.errors import AssetError
from sana_bench.core.text import read_text
from sana_models.files import parse_json, plain
from sana_models.layers import with_our_products
from sana_models.libraries import without_torchao

with without_torchao():
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

__all__ = ["ClipTokens", "PickNetwork", "load_pick_network"]

_END = "<|endoftext|>"


class PickNetwork(nn.Module):
    """Projected features of images and texts, not of unit length."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.side = int(clip.config.vision_config.image_size)
        self.text_limit = int(clip.config.text_config.max_position_embeddings)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(n, d) of pixels (n, 3, side, side)."""
        features: Tensor = self.clip.visual_projection(self.clip.vision_model(pixels).pooler_output)
        return features

    def encode_text(self, ids: Tensor) -> Tensor:
        """(n, d) of token ids (n, length), each row with its end of text; what follows that is not looked at."""
        features: Tensor = self.clip.text_projection(self.clip.text_model(ids).pooler_output)
        return features


class ClipTokens:
    """CLIP's tokens by a published `tokenizer.json`; too long a text keeps its end-of-text token."""

    def __init__(self, path: Path, context_length: int) -> None:
        """Raises `AssetError` for a file that is no tokenizer of CLIP's."""
        self.context_length = context_length
        try:
            model = parse_json(read_text(path))["model"]
            # Files hold pairs as lists, or as words with a space between.
            merges = [
                tuple(pair.split()) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]
            ]
            # What the file says beside the words is what this class does, which transformers rebuilds in each version.
            self._tokenizer = CLIPTokenizer(model["vocab"], merges).backend_tokenizer
            end = int(model["vocab"][_END])
        except DAMAGED as error:
            raise AssetError(f"{path}: not a tokenizer of CLIP's ({type(error).__name__}: {error})") from None
        self._tokenizer.enable_truncation(context_length)
        self._tokenizer.enable_padding(length=context_length, pad_id=end, pad_token=_END)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids, int64 (n, context_length)."""
        found = self._tokenizer.encode_batch(list(texts))
        return torch.tensor([one.ids for one in found], dtype=torch.long)

    def cut(self, texts: Sequence[str]) -> list[bool]:
        """Say of each text whether it is read without its end."""
        return [bool(one.overflowing) for one in self._tokenizer.encode_batch(list(texts))]


def load_pick_network(weights: Path, config: Path) -> PickNetwork:
    """The network of `model.safetensors` and `config.json`, in float32, evaluation mode.

    Raises:
        AssetError: a damaged file, or a weight that is missing or left over.
    """
    try:
        network = CLIPModel(CLIPConfig.from_dict(parse_json(read_text(config))))
        state = {name: tensor.float() for name, tensor in load_file(plain(weights)).items()}
        # Position numbers, which older files hold too, are no weights.
        state = {name: tensor for name, tensor in state.items() if not name.endswith("position_ids")}
        network.load_state_dict(state, strict=True)
    except DAMAGED as error:
        reason = str(error).strip().partition("\n")[0]
        raise AssetError(f"{weights}: not the CLIP that {config.name} describes ({reason})") from None
    return PickNetwork(with_our_products(network.float().eval()))
