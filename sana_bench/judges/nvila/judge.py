"""VILA-Judge (SANA-1.5, arXiv 2501.18427, section 2.4): NVILA-Lite-2B, tuned to say whether an image shows its prompt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.assets.locate import resolve_folder
from sana_bench.assets.table import VERIFIER
from sana_bench.core.fingerprint import directory_sha256
from sana_bench.core.precision import torch_dtype
from sana_bench.judges.base import YesNo
from sana_bench.judges.nvila.config import FILES, read_config
from sana_bench.judges.nvila.tiles import tiles_of
from sana_bench.suites.schema import JudgeSpec

__all__ = ["QUESTION", "VilaJudge", "build_vila"]

#: The instruction that the network was tuned with, letter by letter (NVlabs/Sana, `tools/inference_scaling`, Apache-2.0).
QUESTION = (
    "You are an AI assistant specializing in image analysis and ranking. Your task is to analyze and compare image "
    "based on how well they match the given prompt.\n"
    "The given prompt is:{prompt}. Please consider the prompt and the image to make a decision and response directly "
    "with 'yes' or 'no'.\n"
)


class VilaJudge:
    """Log-probabilities of `yes` and `no` as the first token of the answer."""

    def __init__(self, folder: Path, device: str, precision: str = "fp32") -> None:
        """`folder` is one on this machine. Raises `AssetError` for one that does not describe such a network."""
        self._folder, self._device, self._precision = folder, device, precision
        self._config = read_config(folder)
        self._sha256 = directory_sha256(folder, ignore=("README.md",))
        self._network: Any = None

    def load(self) -> None:
        """Raises `AssetError` for weights or a tokenizer that do not fit."""
        if self._network is not None:
            return
        from sana_bench.judges.nvila.files import load_network, load_tokenizer

        self._tokenizer = load_tokenizer(self._folder, self._config)
        network = load_network(self._folder, self._config, torch_dtype(self._precision))
        self._network = network.to(self._device)

    def identity(self) -> dict[str, Any]:
        return {
            "judge": "vila@1",
            "weights_sha256": self._sha256,
            "precision": self._precision,
            "instruction": QUESTION,
        }

    def judge(self, prompts: Sequence[str], images: NDArray[np.uint8]) -> list[YesNo]:
        import torch

        self.load()
        network, tokenizer = self._network, self._tokenizer
        dtype, device = network.llm.dtype, self._device
        tiles = [tiles_of(image, self._config) for image in images]
        image_id = tokenizer.convert_tokens_to_ids("<image>")
        with torch.inference_mode():
            end = torch.tensor(tokenizer("\n").input_ids, device=device)
            seen = network.see(torch.from_numpy(np.concatenate(tiles)).to(device, dtype))
            sequences = []
            for prompt, block in zip(prompts, seen.split([len(part) for part in tiles]), strict=True):
                ids = torch.tensor(self._ids(prompt, len(block)), device=device)
                sequences.append(network.splice(ids, image_id, block, end))
            logits = network.first_logits(sequences).double()
        # The reference cuts the embeddings to the tokenizer's entries; what lies beyond is padding.
        logs = torch.log_softmax(logits[:, : len(tokenizer)], dim=-1).cpu()
        yes, no = (tokenizer.encode(word, add_special_tokens=False)[0] for word in ("yes", "no"))
        return [YesNo(float(row[yes]), float(row[no])) for row in logs]

    def _ids(self, prompt: str, n_tiles: int) -> list[int]:
        """Token ids of the conversation so far, with one image token a tile."""
        from sana_bench.judges.nvila.files import IMAGE_TOKEN, MEDIA_TOKENS

        text = QUESTION.format(prompt=prompt)
        for token in MEDIA_TOKENS:
            text = text.replace(token, "")
        place = f"{IMAGE_TOKEN}\n" if self._config.tiled else IMAGE_TOKEN
        turn = [{"role": "user", "content": (place * n_tiles + text).strip()}]
        chat = self._tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer(chat).input_ids)


def build_vila(spec: JudgeSpec, relative_to: Path, device: str) -> VilaJudge:
    """The judge `vila` with the weights of `spec`, by default the published verifier's; raises `AssetError` for none."""
    folder = resolve_folder(spec.weights or VERIFIER, relative_to, FILES)
    return VilaJudge(folder, device, spec.precision)
