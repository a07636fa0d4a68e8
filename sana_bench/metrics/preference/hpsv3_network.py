"""HPSv3's network (Ma et al. 2025, arXiv 2508.03789) on transformers' Qwen2-VL: a head that reads one token of the request.

Two habits of the published code are kept, because they change the number. The request ends in a token of its own, `<|Reward|>`,
and the state at that place goes to the head. Tokens are counted one after the other: the code calls the language model
past the method that would have given an image's tokens Qwen's places by row and column.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sana_bench.assets.checks import DAMAGED, check_fit
from sana_bench.core.errors import AssetError
from sana_bench.core.text import read_text
from sana_models.files import parse_json, plain
from sana_models.layers import with_our_products
from sana_models.libraries import without_torchao

with without_torchao():
    from transformers import Qwen2VLConfig, Qwen2VLModel

__all__ = ["PreferenceNetwork", "load_preference_network"]

_HIDDEN = (1024, 16)
_HEAD = "rm_head."
# The head, and words that are only said.
_APART = (_HEAD, "lm_head.")


class PreferenceNetwork(nn.Module):
    """Mean and log deviation of a preference from the state at the reward token."""

    def __init__(self, backbone: Qwen2VLModel, head: nn.Sequential) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, ids: Tensor, pixels: Tensor, grid: Tensor, reward_token: int) -> Tensor:
        """Two numbers (2,) float32 of one request.

        Args:
            ids: (length,), with one `reward_token`, and as many image tokens as the image has.
            pixels: patches of one image (patches, values), as Qwen's processor makes them.
            grid: (3,), how many patches in time, rows and columns.
        """
        network = self.backbone
        embedded = network.language_model.embed_tokens(ids[None])
        seen = network.visual(pixels.to(embedded.dtype), grid_thw=grid[None]).pooler_output
        image = (ids == network.config.image_token_id)[None, :, None].expand_as(embedded)
        embedded = embedded.masked_scatter(image, seen.to(embedded.dtype))
        places = torch.arange(len(ids), device=ids.device).expand(3, 1, -1)
        states = network.language_model(inputs_embeds=embedded, position_ids=places, use_cache=False)
        (place,) = (ids == reward_token).nonzero(as_tuple=True)[0].tolist()
        result: Tensor = self.head(states.last_hidden_state[0, place].float())
        return result


def load_preference_network(weights: Path, config: Path, dtype: torch.dtype) -> PreferenceNetwork:
    """The network of `HPSv3.safetensors` and Qwen2-VL's `config.json`: the backbone in `dtype`, the head in float32.

    Raises:
        AssetError: a damaged file, or a weight that is missing or left over.
    """
    try:
        state = load_file(plain(weights))
        found = Qwen2VLConfig.from_dict(parse_json(read_text(config)))
        # The file has a row for each token of the tokenizer: Qwen's own, the reward token, and none to fill up with.
        found.text_config.vocab_size = len(state["model.embed_tokens.weight"])
        of_head = {
            name.removeprefix(_HEAD): tensor.float()
            for name, tensor in state.items()
            if name.startswith(_HEAD)
        }
        backbone = {_renamed(name): tensor for name, tensor in state.items() if not name.startswith(_APART)}
        network, info = Qwen2VLModel.from_pretrained(
            None, config=found, state_dict=backbone, dtype=dtype, output_loading_info=True
        )
        head = _head(found.text_config.hidden_size)
        head.load_state_dict(of_head, strict=True)
    except DAMAGED as error:
        reason = str(error).strip().partition("\n")[0]
        raise AssetError(f"{weights}: not HPSv3's weights for {config.name} ({reason})") from None
    check_fit(weights, "HPSv3", info)
    return with_our_products(PreferenceNetwork(network, head).eval())


def _head(width: int) -> nn.Sequential:
    """The published layers by their places; what stands at 2 does nothing when a model is used."""
    return nn.Sequential(
        nn.Linear(width, _HIDDEN[0]),
        nn.ReLU(),
        nn.Identity(),
        nn.Linear(*_HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN[1], 2),
    )


def _renamed(name: str) -> str:
    """The name of a published tensor of the backbone in the classes of today."""
    return "language_model." + name.removeprefix("model.") if name.startswith("model.") else name
