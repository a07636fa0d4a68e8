"""Judges of inference-time scaling: does this image show this prompt, yes or no, and how surely.

A judge is found by the name that a variant gives under `best_of_n.judge.name`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sana_bench.assets.locate import micro_weights_root, resolve_folder
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.fingerprint import directory_sha256
from sana_bench.core.registry import JUDGES
from sana_bench.generators.best_of_n.tournament import Answer
from sana_bench.suites.schema import JudgeSpec

if TYPE_CHECKING:
    import torch

__all__ = ["INSTRUCTION", "ClipJudge", "Judge", "VisionLanguageJudge", "build_judge"]

#: What a vision-language model is told; `{prompt}` is the image's prompt.
INSTRUCTION = (
    "You review pictures made by a computer. The wanted picture is described as: {prompt}\n"
    "Does the image show everything in this description? Answer only yes or no."
)
_SPELLINGS = {"yes": ("yes", "Yes", " yes", " Yes"), "no": ("no", "No", " no", " No")}


class Judge(Protocol):
    """Judges every image on its own; a pure function of prompt and image. Making one reads no weights but to hash them."""

    def load(self) -> None:
        """Load what `judge` needs; raises `AssetError` when it is not what it should be."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that can change an answer. JSON-able."""
        ...

    def judge(self, prompts: Sequence[str], images: np.ndarray) -> list[Answer]:
        """Answer for each prompt and uint8 image (n, height, width, 3), in order."""
        ...


class ClipJudge:
    """The micro tier's CLIP score as a judge: `yes` is the score, `no` its negative, so the larger score always wins."""

    def __init__(self, folder: Path) -> None:
        from sana_bench.metrics.clip.micro_features import ClipFeatures

        self._features = ClipFeatures(folder)

    def load(self) -> None:
        _ = self._features.network

    def identity(self) -> dict[str, Any]:
        return {"judge": "clip_score@1", **self._features.identity()}

    def judge(self, prompts: Sequence[str], images: np.ndarray) -> list[Answer]:
        """Raises `SuiteError` for images of another size than the network reads."""
        network = self._features.network
        size = network.image_size
        if images.shape[1:3] != (size, size):
            found = f"{images.shape[2]}x{images.shape[1]}"
            raise SuiteError(f"judge clip_score reads {size}x{size} pixels, the variant makes {found}")
        seen = network.encode_images(images).astype(np.float64)
        scores = 100 * np.sum(seen * self._features.of_texts(prompts).astype(np.float64), axis=1)
        return [Answer(float(score), -float(score)) for score in scores]


class VisionLanguageJudge:
    """Any transformers image-text-to-text model: log-probabilities that its answer begins with yes or no.

    The probabilities of all spellings (`yes`, `Yes`, with and without a space in front) that are one token are added.
    The published verifier code compares raw scores of one spelling; the paper speaks of log-probabilities.
    """

    def __init__(self, folder: Path, device: str, precision: str = "fp32") -> None:
        """`folder` is one on this machine."""
        self._folder = folder
        self._device = device
        self._sha256 = directory_sha256(folder, ignore=("README.md",))
        self._precision = precision
        self._ids: dict[str, list[int]] = {}

    def load(self) -> None:
        """Raises `AssetError` for a folder without such a model, or a tokenizer without single tokens for yes and no."""
        if self._ids:
            return
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from sana_bench.generators.torch_device import torch_dtype

        folder = self._folder
        try:
            self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
            model, info = AutoModelForImageTextToText.from_pretrained(
                folder, local_files_only=True, dtype=torch_dtype(self._precision), output_loading_info=True
            )
        except (OSError, ValueError, KeyError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise AssetError(f"judge {folder}: not an image-text-to-text model ({first})") from None
        wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
        if wrong:
            raise AssetError(f"judge {folder}: {len(wrong)} tensors do not fit the model, e.g. {wrong[0]}")
        self._model = model.to(self._device).eval()
        # Answers are read at the last position.
        self._processor.tokenizer.padding_side = "left"
        self._ids = {answer: self._token_ids(answer) for answer in _SPELLINGS}

    def identity(self) -> dict[str, Any]:
        return {
            "judge": "vision_language@1",
            "weights_sha256": self._sha256,
            "precision": self._precision,
            "instruction": INSTRUCTION,
        }

    def judge(self, prompts: Sequence[str], images: np.ndarray) -> list[Answer]:
        import torch
        from PIL import Image

        self.load()
        inputs = self._processor(
            text=[self._question(prompt) for prompt in prompts],
            images=[Image.fromarray(image) for image in images],
            padding=True,
            return_tensors="pt",
        ).to(self._device)
        inputs = {
            name: value.to(self._model.dtype) if value.is_floating_point() else value
            for name, value in inputs.items()
        }
        with torch.inference_mode():
            logits = self._model(**inputs).logits[:, -1].double()
        logs = torch.log_softmax(logits, dim=-1)
        return [Answer(self._sum(row, "yes"), self._sum(row, "no")) for row in logs]

    def _sum(self, logs: "torch.Tensor", answer: str) -> float:
        return float(logs[self._ids[answer]].logsumexp(0))

    def _question(self, prompt: str) -> str:
        text = INSTRUCTION.format(prompt=prompt)
        if getattr(self._processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": text}]
            turn = [{"role": "user", "content": content}]
            return str(self._processor.apply_chat_template(turn, add_generation_prompt=True))
        return f"{getattr(self._processor, 'image_token', '<image>')} {text}"

    def _token_ids(self, answer: str) -> list[int]:
        tokenizer = self._processor.tokenizer
        encoded = [tokenizer.encode(text, add_special_tokens=False) for text in _SPELLINGS[answer]]
        found = sorted({ids[0] for ids in encoded if len(ids) == 1 and ids[0] != tokenizer.unk_token_id})
        if not found:
            raise AssetError(f"judge {self._folder}: its tokenizer has no single token for {answer!r}")
        return found


def build_clip(spec: JudgeSpec, relative_to: Path, device: str) -> Judge:
    if spec.weights is not None:
        raise SuiteError("best_of_n.judge: clip_score is the micro tier's own and takes no weights")
    return ClipJudge(micro_weights_root() / "clip")


def build_image_reward(spec: JudgeSpec, relative_to: Path, device: str) -> Judge:
    from sana_bench.generators.best_of_n.reward_judge import ImageRewardJudge, find_reward_files

    _needs_fp32(spec)
    return ImageRewardJudge(find_reward_files(spec.weights, relative_to), device)


def build_vqa(spec: JudgeSpec, relative_to: Path, device: str) -> Judge:
    from sana_bench.generators.best_of_n.vqa_judge import find_vqa_judge

    _needs_fp32(spec)
    return find_vqa_judge(spec.weights, relative_to, device)


def build_vila(spec: JudgeSpec, relative_to: Path, device: str) -> Judge:
    from sana_bench.generators.best_of_n.vila_judge import VilaJudge, find_verifier

    return VilaJudge(find_verifier(spec.weights, relative_to), device, spec.precision)


def _needs_fp32(spec: JudgeSpec) -> None:
    if spec.precision != "fp32":
        raise SuiteError(f"best_of_n.judge: {spec.name} computes in fp32; precision is {spec.precision}")


def build_vision_language(spec: JudgeSpec, relative_to: Path, device: str) -> Judge:
    if spec.weights is None:
        raise SuiteError("best_of_n.judge: vision_language needs weights, a folder or hub id on this machine")
    folder = resolve_folder(spec.weights, relative_to, "an image-text-to-text model with its processor")
    return VisionLanguageJudge(folder, device, spec.precision)


def build_judge(spec: JudgeSpec, relative_to: Path, device: str) -> Judge:
    """Return a judge, not loaded yet.

    Raises `SuiteError` for an unknown name or unfit settings and `AssetError` for missing weights.
    """
    judge: Judge = JUDGES.build(spec.name, spec, relative_to, device)
    return judge
