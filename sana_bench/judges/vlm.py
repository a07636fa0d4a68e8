"""Judges made of any transformers image-text-to-text model: how probably its answer begins with yes, and with no."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.assets.locate import resolve_folder
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.fingerprint import directory_sha256
from sana_bench.core.precision import torch_dtype
from sana_bench.judges.base import Answer, YesNo
from sana_bench.suites.schema import JudgeSpec
from sana_models.libraries import without_torchao

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "INSTRUCTION",
    "REVIEW",
    "VLMJudge",
    "VLMPromptJudge",
    "VisionLanguageModel",
    "build_vision_language",
]

#: What follows a question of a metric.
INSTRUCTION = "Answer with Yes or No."
#: What a search asks; `{prompt}` is the image's prompt.
REVIEW = (
    "You review pictures made by a computer. The wanted picture is described as: {prompt}\n"
    "Does the image show everything in this description? Answer only yes or no."
)
_WORD_MARKS = "▁Ġ "


class VisionLanguageModel(ABC):
    """Any transformers image-text-to-text model with its processor, asked for the first token of an answer.

    Weights are hashed at once and loaded on first use. Hub code is never run.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", precision: str = "fp32") -> None:
        """`folder` is one on this machine; raises `AssetError` when it has no `config.json`."""
        if not (folder / "config.json").is_file():
            raise AssetError(f"{folder / 'config.json'} is missing: the image-text-to-text judge")
        self._folder, self._device, self._precision = folder, device, precision
        self._sha256 = directory_sha256(folder, ignore=self._ignored)

    # Files of the folder that do not take part in its hash.
    _ignored: tuple[str, ...] = ()

    @abstractmethod
    def _tokens_of(self, word: str) -> list[int]:
        """Return the ids of the single tokens that begin an answer of `word`, yes or no."""

    def load(self) -> None:
        """Raises `AssetError` for a folder without such a model, or a vocabulary without single tokens for yes and no."""
        _ = self.network, self.word_ids

    @cached_property
    def processor(self) -> Any:
        """The model's own processor; raises `AssetError` when there is none."""
        with without_torchao():
            from transformers import AutoProcessor

        processor = self._read(AutoProcessor)
        # Answers are read at the last position.
        processor.tokenizer.padding_side = "left"
        return processor

    @cached_property
    def network(self) -> Any:
        """The loaded model; raises `AssetError` when it cannot be read or tensors are missing or left over."""
        with without_torchao():
            from transformers import AutoModelForImageTextToText

        dtype = torch_dtype(self._precision)
        network, info = self._read(AutoModelForImageTextToText, dtype=dtype, output_loading_info=True)
        wrong = sorted({*info["missing_keys"], *info["unexpected_keys"], *map(str, info["mismatched_keys"])})
        if wrong:
            raise AssetError(
                f"judge {self._folder}: {len(wrong)} tensors do not fit the model, e.g. {wrong[0]}"
            )
        return network.eval().to(self._device)

    @cached_property
    def word_ids(self) -> tuple[list[int], list[int]]:
        """Ids of the tokens that begin a yes, and of those that begin a no; raises `AssetError` when there are none."""
        yes, no = found = self._tokens_of("yes"), self._tokens_of("no")
        for word, ids in zip(("yes", "no"), found, strict=True):
            if not ids:
                raise AssetError(f"judge {self._folder}: its tokenizer has no single token for {word!r}")
        return yes, no

    def first_logits(self, images: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> "Tensor":
        """Logits (n, vocabulary), float64, of the token after each text about its RGB image (height, width, 3), as one batch."""
        import torch
        from PIL import Image

        inputs = self.processor(
            text=[self.turn(text) for text in texts],
            images=[Image.fromarray(image) for image in images],
            padding=True,
            return_tensors="pt",
        ).to(self._device, dtype=self.network.dtype)
        with torch.inference_mode():
            logits: Tensor = self.network(**inputs).logits[:, -1].double()
        return logits

    def turn(self, text: str) -> str:
        """The user's turn of one image and `text`, in the model's chat template where it has one."""
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": text}]
            turns = [{"role": "user", "content": content}]
            return str(self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        return f"{getattr(self.processor, 'image_token', '<image>')} {text}"

    def _read(self, kind: Any, **options: Any) -> Any:
        try:
            return kind.from_pretrained(
                self._folder, local_files_only=True, trust_remote_code=False, **options
            )
        except (OSError, ValueError, KeyError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise AssetError(f"judge {self._folder}: not an image-text-to-text model ({first})") from None


class VLMJudge(VisionLanguageModel):
    """Answers questions, one at a time, by comparing the probabilities of all single tokens that spell yes and no.

    Such judges see more than mPLUG does; their scores carry the judge's name and compare with no published DPG score.
    """

    def identity(self) -> dict[str, Any]:
        return {
            "network": "image-text-to-text",
            "instruction": INSTRUCTION,
            "precision": self._precision,
            "weights_sha256": self._sha256,
        }

    def answers(self, image: NDArray[np.uint8], questions: Sequence[str]) -> list[Answer]:
        return [self._answer(image, question) for question in questions]

    def _answer(self, image: NDArray[np.uint8], question: str) -> Answer:
        import torch

        logits = self.first_logits([image], [f"{question} {INSTRUCTION}"])[0]
        yes, no = (torch.logsumexp(logits[ids], dim=0) for ids in self.word_ids)
        p_yes = float(torch.sigmoid(yes - no))
        return Answer("yes" if p_yes > 0.5 else "no", p_yes)

    def _tokens_of(self, word: str) -> list[int]:
        vocabulary = self.processor.tokenizer.get_vocab()
        return sorted(
            index for token, index in vocabulary.items() if token.strip(_WORD_MARKS).lower() == word
        )


class VLMPromptJudge(VisionLanguageModel):
    """Log-probabilities that the model's answer begins with yes, and with no, to whether an image shows its prompt.

    The probabilities of all spellings (`yes`, `Yes`, with and without a space in front) that are one token are added.
    The published verifier code compares raw scores of one spelling; the paper speaks of log-probabilities.
    """

    _ignored = ("README.md",)

    def identity(self) -> dict[str, Any]:
        return {
            "judge": "vision_language@1",
            "weights_sha256": self._sha256,
            "precision": self._precision,
            "instruction": REVIEW,
        }

    def judge(self, prompts: Sequence[str], images: NDArray[np.uint8]) -> list[YesNo]:
        import torch

        logits = self.first_logits(list(images), [REVIEW.format(prompt=prompt) for prompt in prompts])
        logs = torch.log_softmax(logits, dim=-1)
        return [YesNo(*(float(row[ids].logsumexp(0)) for ids in self.word_ids)) for row in logs]

    def _tokens_of(self, word: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        spellings = (word, word.title(), f" {word}", f" {word.title()}")
        encoded = [tokenizer.encode(text, add_special_tokens=False) for text in spellings]
        return sorted({ids[0] for ids in encoded if len(ids) == 1 and ids[0] != tokenizer.unk_token_id})


def build_vision_language(spec: JudgeSpec, relative_to: Path, device: str) -> VLMPromptJudge:
    """The judge `vision_language`; raises `SuiteError` without weights and `AssetError` when they are not there."""
    if spec.weights is None:
        raise SuiteError("best_of_n.judge: vision_language needs weights, a folder or hub id on this machine")
    folder = resolve_folder(spec.weights, relative_to, "an image-text-to-text model with its processor")
    return VLMPromptJudge(folder, device=device, precision=spec.precision)
