"""HPSv3: how much people would like an image for its prompt, by a judge's state after a request that asks for a rating.

The request is the authors': it is read from the file of their package that holds it, which nothing runs.
"""

import ast
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import file_sha256
from sana_bench.core.images import load_image
from sana_bench.core.precision import torch_dtype
from sana_bench.core.preprocess import CLIP_MEAN, CLIP_STD
from sana_bench.core.samples import Sample
from sana_bench.core.text import read_text
from sana_bench.metrics.base import MetricAssets, ScoreRow, Summary, mean_summary, tag_summaries
from sana_bench.metrics.clip.features import full_prompt
from sana_bench.suites.schema import MetricSpec
from sana_models.files import first_line, parse_json
from sana_models.libraries import without_torchao

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from sana_bench.metrics.preference.hpsv3_network import PreferenceNetwork

__all__ = ["FILES", "PROTOCOLS", "HpsV3", "HpsV3Files", "build_hpsv3", "read_request"]

PROTOCOLS = ("hpsv3/official@1",)
#: Weights, configuration and tokenizer of the backbone, and the request, as assets of the full tier.
FILES = ("hpsv3_weights", "hpsv3_config", "hpsv3_tokenizer", "hpsv3_request")

_TOKEN = "<|Reward|>"
_PROMPT = "{text_prompt}"
_IMAGE = "<|image_pad|>"
# Qwen2-VL's turn of a user with an image, as its chat template writes it.
_TURN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>{image}<|vision_end|>"
    "{text}<|im_end|>\n<|im_start|>assistant\n"
)
_PIXELS = 256 * 28 * 28
_UNIT = "reward"


class HpsV3Files:
    """The published files; hashed when asked for their identity, loaded on first use."""

    def __init__(self, weights: Path, config: Path, tokenizer: Path, request: Path) -> None:
        self._weights, self._config, self._tokenizer, self._request = weights, config, tokenizer, request

    def identity(self) -> dict[str, Any]:
        return dict(self._hashes)

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {
            "weights_sha256": file_sha256(self._weights),
            "config_sha256": file_sha256(self._config),
            "tokenizer_sha256": file_sha256(self._tokenizer),
            "request_sha256": file_sha256(self._request),
        }

    def network(self, precision: str) -> "PreferenceNetwork":
        """The network with its backbone in `precision`; raises `AssetError` for damaged files."""
        from sana_bench.metrics.preference.hpsv3_network import load_preference_network

        return load_preference_network(self._weights, self._config, torch_dtype(precision))

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """Qwen's tokenizer with the reward token after all of its own; raises `AssetError` for another file."""
        from tokenizers import AddedToken, Tokenizer

        try:
            content = read_text(self._tokenizer)
            known = {token["content"] for token in parse_json(content)["added_tokens"]}
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise AssetError(f"{self._tokenizer}: not a tokenizer ({first_line(error)})") from None
        if lacking := {"<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", _IMAGE} - known:
            raise AssetError(
                f"{self._tokenizer}: not Qwen2-VL's tokenizer, it lacks {', '.join(sorted(lacking))}"
            )
        tokenizer = Tokenizer.from_str(content)
        tokenizer.add_special_tokens([AddedToken(_TOKEN, special=True, normalized=False)])
        return tokenizer

    @cached_property
    def request(self) -> str:
        """The text that a prompt is put into, at `{text_prompt}`."""
        return read_request(self._request)


class HpsV3:
    """The mean of the preference; the network's own deviation is not used."""

    name = "hpsv3"
    higher_is_better = True

    def __init__(
        self, protocol: str, files: HpsV3Files, device: str = "cpu", precision: str = "bf16"
    ) -> None:
        self.protocol = protocol
        self._files, self._device, self._precision = files, device, precision

    def identity(self) -> dict[str, Any]:
        return {
            "metric": self.name,
            "protocol": self.protocol,
            "precision": self._precision,
            **self._files.identity(),
        }

    @cached_property
    def _network(self) -> "PreferenceNetwork":
        return self._files.network(self._precision).to(self._device)

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample, in order; raises `ImageError` for a missing or damaged image."""
        return [
            ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, self._mean(sample)) for sample in samples
        ]

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """Mean over all images and over each task's, with 95 % bootstrap intervals clustered by prompt."""
        overall = mean_summary(self, rows, n_expected, seed, unit=_UNIT)
        return [overall, *tag_summaries(self, rows, n_expected, seed, unit=_UNIT)]

    def _mean(self, sample: Sample) -> float:
        """One request at a time, so that no number depends on what is scored with it."""
        import torch

        tokenizer, network = self._files.tokenizer, self._network
        pixels, grid = self._patches(load_image(sample.image_path))
        merge = network.backbone.config.vision_config.spatial_merge_size
        text = self._files.request.replace(_PROMPT, full_prompt(sample))
        turn = _TURN.format(image=_IMAGE * (int(np.prod(grid)) // merge**2), text=text)
        ids = torch.tensor(tokenizer.encode(turn).ids, device=self._device)
        with torch.inference_mode():
            found = network(
                ids,
                torch.from_numpy(pixels).to(self._device),
                torch.from_numpy(grid).to(self._device),
                tokenizer.token_to_id(_TOKEN),
            )
        return float(found[0])

    def _patches(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Patches and their grid (3,) of the image at about 448 x 448 pixels, its sides multiples of 28."""
        with without_torchao():
            from transformers import Qwen2VLImageProcessor
            from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        vision = self._network.backbone.config.vision_config
        factor = vision.patch_size * vision.spatial_merge_size
        height, width = smart_resize(*image.shape[:2], factor, _PIXELS, _PIXELS)
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        processor = Qwen2VLImageProcessor(
            do_resize=False, image_mean=list(CLIP_MEAN), image_std=list(CLIP_STD), patch_size=vision.patch_size,
            temporal_patch_size=vision.temporal_patch_size, merge_size=vision.spatial_merge_size,
        )  # fmt: skip
        found = processor(images=[resized], return_tensors="np")
        return np.asarray(found["pixel_values"], np.float32), np.asarray(found["image_grid_thw"][0], np.int64)


def read_request(path: Path) -> str:
    """The request in the package's `data_collator_qwen.py`, read and not run, with `{text_prompt}` for the prompt.

    Raises `AssetError` unless both of its texts are there as plain strings, the prompt and the reward token once each.
    """
    try:
        found = {
            statement.targets[0].id: ast.literal_eval(statement.value)
            for statement in ast.parse(read_text(path)).body
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        }
        request = found["INSTRUCTION"].format(text_prompt=_PROMPT) + found["prompt_with_special_token"]
    except (OSError, ValueError, SyntaxError, LookupError, AttributeError, TypeError) as error:
        raise AssetError(f"{path}: not the request of HPSv3 ({first_line(error)})") from None
    if request.count(_PROMPT) != 1 or request.count(_TOKEN) != 1:
        raise AssetError(
            f"{path}: not the request of HPSv3: it asks with {{text_prompt}} and {_TOKEN} once each"
        )
    return request


def build_hpsv3(tier: str, assets: MetricAssets, choice: MetricSpec) -> HpsV3:
    """HPSv3, which the full tier alone has; the parameter `precision` is that of the backbone, `bf16` (the default) or `fp32`.

    Raises:
        SuiteError: the micro tier, another protocol or parameter.
        AssetError: a file is missing or damaged.
    """
    from sana_bench.assets.required import required
    from sana_bench.core.errors import SuiteError

    choice.needs_full_tier(tier)
    precision = str(choice.parameters_among({"precision": "bf16"})["precision"])
    if precision not in ("bf16", "fp32"):
        raise SuiteError(f"metric {choice.name!r}: precision is {precision!r}; one of fp32, bf16")
    protocol = choice.pick(PROTOCOLS)
    files = HpsV3Files(*required(choice.name, FILES))
    _ = files.request
    return HpsV3(protocol, files, assets.device, precision)
