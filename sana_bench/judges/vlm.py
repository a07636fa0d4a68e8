"""Judges made of any transformers image-text-to-text model: its words, and how probably its answer begins with a spelling."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.assets.checks import DAMAGED, check_fit
from sana_bench.assets.locate import resolve_folder
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.fingerprint import directory_sha256
from sana_bench.core.precision import torch_dtype
from sana_bench.core.text import read_text
from sana_bench.judges.base import Answer, FirstToken
from sana_bench.judges.image_questions import ImageQuestions, can_share, one_image
from sana_bench.suites.schema import JudgeSpec
from sana_models.libraries import without_torchao

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["INSTRUCTION", "VLMJudge", "VisionLanguageModel", "build_vision_language"]

#: What follows a question of DPG-Bench.
INSTRUCTION = "Answer with Yes or No."
_WORD_MARKS = "▁Ġ "
# Questions about an image that are answered as one batch.
_BATCH = 16
# Tokens of an answer that are written side by side; what is longer is written anew, alone and with a cache of its own.
_SHORT = 4
_TRIED = ("Is there a dog?", "How many cats can be seen in this picture?")
# Where a model's chat template can be.
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


class VisionLanguageModel:
    """A `ReadingJudge`: any transformers image-text-to-text model with its processor.

    Questions about an image share what the model makes of the image (`ImageQuestions`), and `batch` of them a forward pass, which
    changes last bits only. Answers are what `generate` gives without sampling: the most probable token at each step, under the
    repetition penalty that the model comes with. A model that can think aloud does not.

    Weights are hashed at once and loaded on first use. Hub code is never run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        batch: int = _BATCH,
        ignored: tuple[str, ...] = ("README.md",),
    ) -> None:
        """`folder` is one on this machine, whose files but those `ignored` are hashed.

        Raises `AssetError` when it has no `config.json`.
        """
        if not (folder / "config.json").is_file():
            raise AssetError(f"{folder / 'config.json'} is missing: the image-text-to-text judge")
        self._folder, self._device, self._precision, self._batch = folder, device, precision, batch
        self._sha256 = directory_sha256(folder, ignore=ignored)

    def load(self) -> None:
        """Raises `AssetError` for a folder without such a model."""
        _ = self.network, self.processor

    def identity(self) -> dict[str, Any]:
        return {"judge": "vision_language@1", **self.weights_identity()}

    def weights_identity(self) -> dict[str, Any]:
        """The part of an identity that is about the weights and how they are used."""
        return {"precision": self._precision, "weights_sha256": self._sha256, **self._silent}

    def probabilities(
        self, image: NDArray[np.uint8], questions: Sequence[str], spellings: Sequence[Sequence[str]]
    ) -> list[list[FirstToken]]:
        """Raises ValueError for a spelling without tokens."""
        tokens = [[self._first_token(spelling) for spelling in group] for group in spellings]
        shares = self.next_logits(image, questions).softmax(-1)
        return [
            [FirstToken(token, float(row[token]), whole) for token, whole in group]
            for row, group in zip(shares, tokens, strict=True)
        ]

    def answer(
        self, image: NDArray[np.uint8], questions: Sequence[str], *, max_tokens: int = 16
    ) -> list[str]:
        import torch

        with torch.inference_mode():
            asked = self._ask(image, questions)
            said: list[list[int]] = [[] for _ in questions]
            unfinished = list(range(len(questions)))
            for _ in range(min(_SHORT, max_tokens) if asked.shared else 0):
                if not unfinished:
                    break
                for row, logits in zip(unfinished, asked.next_logits(unfinished, said), strict=True):
                    said[row].append(self._most_probable([*asked.ids[row], *said[row]], logits))
                unfinished = [
                    row
                    for row in unfinished
                    if said[row][-1] not in self._ends and len(said[row]) < max_tokens
                ]
            for row in unfinished:
                said[row] = self._write(asked.inputs(row), max_tokens)
        return [self.processor.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in said]

    def read_text(self, image: NDArray[np.uint8], request: str, *, max_tokens: int = 1024) -> str:
        return self.answer(image, [request], max_tokens=max_tokens)[0]

    def next_logits(self, image: NDArray[np.uint8], texts: Sequence[str]) -> "Tensor":
        """Logits (n, vocabulary), float64, of the token after each text about an RGB image (height, width, 3)."""
        import torch

        with torch.inference_mode():
            return self._ask(image, texts).next_logits(range(len(texts)))

    @cached_property
    def processor(self) -> Any:
        """The model's own processor; raises `AssetError` when there is none."""
        with without_torchao():
            from transformers import AutoProcessor

        return self._read(AutoProcessor)

    @cached_property
    def network(self) -> Any:
        """The loaded model; raises `AssetError` when it cannot be read or tensors are missing or left over."""
        with without_torchao():
            from transformers import AutoModelForImageTextToText

        from sana_models.layers import with_our_products

        dtype = torch_dtype(self._precision)
        network, info = self._read(AutoModelForImageTextToText, dtype=dtype, output_loading_info=True)
        check_fit(self._folder, f"the judge's {type(network).__name__}", info)
        return with_our_products(network.eval()).to(self._device)

    def turn(self, text: str) -> str:
        """The user's turn of one image and `text`, in the model's chat template where it has one."""
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": text}]
            turns = [{"role": "user", "content": content}]
            silent = {f"enable_{name}": value for name, value in self._silent.items()}
            text = self.processor.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False, **silent
            )
            return str(text)
        return f"{getattr(self.processor, 'image_token', '<image>')} {text}"

    @cached_property
    def _silent(self) -> dict[str, bool]:
        """That a model does not think aloud, of one that can."""
        templates = [self._folder / name for name in _TEMPLATES]
        thinks = any("enable_thinking" in read_text(path) for path in templates if path.is_file())
        return {"thinking": False} if thinks else {}

    def _ask(self, image: NDArray[np.uint8], texts: Sequence[str]) -> ImageQuestions:
        share = len(texts) > 1 and self._shares
        return ImageQuestions(self.network, self._rows(image, texts), self._batch, share=share)

    @cached_property
    def _shares(self) -> bool:
        """Whether questions about an image may share what the model makes of it, tried on one picture."""
        picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        return can_share(self.network, self._rows(picture, _TRIED))

    def _rows(self, image: NDArray[np.uint8], texts: Sequence[str]) -> list[Any]:
        """What the processor makes of each text and the image."""
        from PIL import Image

        picture = Image.fromarray(image)
        with one_image(self.processor):
            rows = [
                self.processor(text=[self.turn(text)], images=[picture], return_tensors="pt")
                for text in texts
            ]
        for row in rows:
            row.pop("labels", None)  # what training compares with
        return rows

    def _first_token(self, spelling: str) -> tuple[int, bool]:
        tokenizer = self.processor.tokenizer
        ids = tokenizer.encode(spelling, add_special_tokens=False)
        if not ids:
            raise ValueError(f"judge {self._folder}: its tokenizer has no token for {spelling!r}")
        return ids[0], len(ids) == 1 and ids[0] != tokenizer.unk_token_id

    def _most_probable(self, ids: Sequence[int], logits: "Tensor") -> int:
        """The token after `ids`, as `generate` chooses it without sampling."""
        import torch

        with without_torchao():
            from transformers import RepetitionPenaltyLogitsProcessor

        penalty = self.network.generation_config.repetition_penalty or 1.0
        before = torch.tensor([ids], device=logits.device)
        return int(RepetitionPenaltyLogitsProcessor(penalty)(before, logits[None].float()).argmax())

    @cached_property
    def _ends(self) -> set[int]:
        """The tokens that end an answer."""
        found = self.network.generation_config.eos_token_id
        return set(found) if isinstance(found, list) else {found}

    def _write(self, inputs: Any, max_tokens: int) -> list[int]:
        """An answer written token by token."""
        written = self.network.generate(
            **inputs, max_new_tokens=max_tokens, do_sample=False, temperature=None, top_p=None, top_k=None
        )
        ids: list[int] = written[0, inputs["input_ids"].shape[1] :].tolist()
        return ids

    def _read(self, kind: Any, **options: Any) -> Any:
        try:
            return kind.from_pretrained(
                self._folder, local_files_only=True, trust_remote_code=False, **options
            )
        except DAMAGED as error:
            first = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise AssetError(f"judge {self._folder}: not an image-text-to-text model ({first})") from None


class VLMJudge:
    """Answers questions of DPG-Bench by comparing the probabilities of all single tokens that spell yes and no.

    Such judges see more than mPLUG does; their scores carry the judge's name and compare with no published DPG score.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", precision: str = "fp32") -> None:
        """`folder` is one on this machine; raises `AssetError` when it has no `config.json`."""
        # Its stored scores hold a hash of all files.
        self.model = VisionLanguageModel(folder, device=device, precision=precision, ignored=())
        self._folder = folder

    def load(self) -> None:
        """Raises `AssetError` for a folder without such a model, or a vocabulary without single tokens for yes and no."""
        self.model.load()
        _ = self.word_ids

    def identity(self) -> dict[str, Any]:
        return {
            "network": "image-text-to-text",
            "instruction": INSTRUCTION,
            **self.model.weights_identity(),
        }

    def answers(self, image: NDArray[np.uint8], questions: Sequence[str]) -> list[Answer]:
        import torch

        logits = self.model.next_logits(image, [f"{question} {INSTRUCTION}" for question in questions])
        yes, no = (torch.logsumexp(logits[:, ids], dim=1) for ids in self.word_ids)
        return [Answer("yes" if p > 0.5 else "no", p) for p in torch.sigmoid(yes - no).tolist()]

    @cached_property
    def word_ids(self) -> tuple[list[int], list[int]]:
        """Ids of the tokens that spell yes, and of those that spell no; raises `AssetError` when there are none."""
        vocabulary = self.model.processor.tokenizer.get_vocab()
        spelt = {token: token.strip(_WORD_MARKS).lower() for token in vocabulary}
        yes, no = (
            sorted(vocabulary[token] for token in spelt if spelt[token] == word) for word in ("yes", "no")
        )
        for word, ids in (("yes", yes), ("no", no)):
            if not ids:
                raise AssetError(f"judge {self._folder}: its tokenizer has no single token for {word!r}")
        return yes, no


def build_vision_language(spec: JudgeSpec, relative_to: Path, device: str) -> VisionLanguageModel:
    """The judge `vision_language`; raises `SuiteError` without weights and `AssetError` when they are not there."""
    if spec.weights is None:
        raise SuiteError("judge: vision_language needs weights, a folder or hub id on this machine")
    folder = resolve_folder(spec.weights, relative_to, "an image-text-to-text model with its processor")
    return VisionLanguageModel(folder, device=device, precision=spec.precision)
