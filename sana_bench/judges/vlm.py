"""A judge of any transformers image-text-to-text model: yes or no by the probability of the first word."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import directory_sha256
from sana_bench.judges.mplug.judge import Answer

__all__ = ["INSTRUCTION", "VLMJudge", "vlm_protocol"]

INSTRUCTION = "Answer with Yes or No."
_WORD_MARKS = "▁Ġ "


class VLMJudge:
    """Asks one question at a time and compares the probabilities of all ways to write yes and no.

    Such judges see more than mPLUG does; their scores carry the judge's name and compare with no published
    DPG score. Hub code is never run.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", precision: str = "fp32") -> None:
        """Raises `AssetError` when `folder` is no folder with a `config.json`."""
        if not (folder / "config.json").is_file():
            raise AssetError(f"{folder / 'config.json'} is missing: the image-text-to-text judge")
        self._folder = folder
        self._device = device
        self._precision = precision
        self._sha256 = directory_sha256(folder)

    def identity(self) -> dict[str, Any]:
        return {
            "network": "image-text-to-text",
            "instruction": INSTRUCTION,
            "precision": self._precision,
            "weights_sha256": self._sha256,
        }

    @cached_property
    def processor(self) -> Any:
        """The model's own processor."""
        from transformers import AutoProcessor

        return self._load(AutoProcessor)

    @cached_property
    def model(self) -> Any:
        """The loaded model; raises `AssetError` when tensors are missing or left over."""
        import torch
        from transformers import AutoModelForImageTextToText

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[self._precision]
        model, info = self._load(AutoModelForImageTextToText, dtype=dtype, output_loading_info=True)
        wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
        if wrong:
            raise AssetError(
                f"{self._folder}: {len(wrong)} tensors do not fit the model, e.g. {sorted(wrong)[0]}"
            )
        return model.eval().to(self._device)

    @cached_property
    def word_ids(self) -> tuple[list[int], list[int]]:
        """Token ids that begin a yes and a no."""
        vocabulary = self.processor.tokenizer.get_vocab()
        found = tuple(
            sorted(index for token, index in vocabulary.items() if token.strip(_WORD_MARKS).lower() == word)
            for word in ("yes", "no")
        )
        if not all(found):
            raise AssetError(f"{self._folder}: the vocabulary has no single token for yes and for no")
        return found[0], found[1]

    def answers(self, image: NDArray[np.uint8], questions: Sequence[str]) -> list[Answer]:
        return [self._answer(image, question) for question in questions]

    def _answer(self, image: NDArray[np.uint8], question: str) -> Answer:
        import torch
        from PIL import Image

        content = [{"type": "image"}, {"type": "text", "text": f"{question} {INSTRUCTION}"}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        inputs = self.processor(images=[Image.fromarray(image)], text=[text], return_tensors="pt")
        inputs = inputs.to(self._device, dtype=self.model.dtype)
        with torch.inference_mode():
            logits = self.model(**inputs).logits[0, -1].double()
        yes, no = (torch.logsumexp(logits[ids], dim=0) for ids in self.word_ids)
        p_yes = float(torch.sigmoid(yes - no))
        return Answer("yes" if p_yes > 0.5 else "no", p_yes)

    def _load(self, kind: Any, **options: Any) -> Any:
        try:
            return kind.from_pretrained(
                self._folder, local_files_only=True, trust_remote_code=False, **options
            )
        except (OSError, ValueError, KeyError) as error:
            raise AssetError(
                f"{self._folder}: cannot be loaded ({str(error).splitlines()[0][:200]})"
            ) from None


def vlm_protocol(model_name: str) -> str:
    """The protocol that carries the judge's name, e.g. `dpg/vlm-qwen3-vl-8b-instruct@1`."""
    plain = re.sub(r"[^a-z0-9.]+", "-", model_name.rsplit("/", 1)[-1].lower()).strip("-.")
    if not plain:
        raise ValueError(f"{model_name!r} names no model")
    return f"dpg/vlm-{plain}@1"
