"""Training of the micro world's VQA judge: mPLUG's own class and answer loss on rendered scenes.

Seeded by step and resumable, through the loop that trains SANA. The distillation from a momentum copy, which
the published training uses against noisy web data, is left out: these answers are all true. The published model starts
from CLIP and BERT; this one starts from nothing, so heads that are thrown away afterwards teach it what a patch shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from sana_bench.judges.mplug.config import MPlugConfig
from sana_bench.judges.mplug.files import load_network, save_network
from sana_bench.judges.mplug.judge import MAX_QUESTION_TOKENS, bert_tokenizer
from sana_bench.judges.mplug.network import START, MPlugVQA
from sana_bench.metrics.training import (
    PatchTeacher,
    export_curve,
    go_on_from,
    parameter_groups,
    read_sections,
    training_pixels,
)
from sana_bench.micro.vqa_data import VOCABULARY, sample_vqa_batch
from sana_models.training.loop import LoopConfig, TrainingResult, train

__all__ = ["VQATask", "run_vqa_training"]

_INITIAL_STD = 0.02
_MAX_ANSWER_TOKENS = 14


@dataclass(frozen=True)
class _Settings:
    name: str
    model: MPlugConfig
    loop: LoopConfig
    questions_per_image: int
    blur: float
    start: Path | None


class VQATask:
    """What the loop trains: right answers to questions about scenes, by cross-entropy."""

    def __init__(
        self,
        config: MPlugConfig,
        seed: int,
        questions_per_image: int,
        blur: float,
        start: Path | None = None,
    ) -> None:
        self._seed = seed
        self._questions_per_image = questions_per_image
        self._blur = blur
        self._tokenizer = bert_tokenizer(VOCABULARY)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = MPlugVQA(config)
            self.network.apply(_initialise)
            self._teacher = PatchTeacher(
                config.hidden_size, config.image_res // config.clip_vision_patch_size
            )
        if start is not None:
            go_on_from(self.network, load_network(start), start)
        self._patch = config.clip_vision_patch_size
        self.modules: dict[str, nn.Module] = {"vqa": self.network, "teacher": self._teacher}

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Weight decay on matrices only."""
        return parameter_groups(self.modules, learning_rate)

    def loss(self, step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mean over questions of the summed cross-entropy of each right answer's tokens, and the teacher's loss."""
        batch = sample_vqa_batch(self._seed, step, batch_size, self._questions_per_image, self._patch)
        ids, mask = self._tokens(batch.questions, MAX_QUESTION_TOKENS)
        answers, _ = self._tokens(batch.answers, _MAX_ANSWER_TOKENS)
        image = self.network.encode_images(training_pixels(batch.images, self._blur, generator))
        losses = self.network.answer_loss(image, ids, mask, answers).float()
        short = torch.tensor([answer in ("yes", "no") for answer in batch.answers])
        labels = torch.from_numpy(batch.shapes), torch.from_numpy(batch.colors)
        patches = self._teacher.patch_loss(image[:, 1:].float(), *labels)
        extra = {"yes_no_loss": float(losses.detach()[short].mean()), "patch_loss": float(patches.detach())}
        return losses.mean() + patches, extra

    def _tokens(self, texts: Sequence[str], longest: int) -> tuple[Tensor, Tensor]:
        found = self._tokenizer(
            [text.lower() for text in texts],
            padding="longest",
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        )
        ids, mask = found["input_ids"], found["attention_mask"]
        if bool((ids == self._tokenizer.unk_token_id).any()) or not bool((ids[:, 0] == START).all()):
            raise ValueError("a training question or answer has a word that the vocabulary lacks")
        return ids, mask


def run_vqa_training(config: Mapping[str, Any], out: Path, *, fresh: bool = False) -> TrainingResult:
    """Train what `config` describes and export it to `out/vqa`; continues an interrupted run in `out`, unless
    `fresh`.

    `out/vqa` gets the weights in the published layout with `curve.csv`, `curve.png` and a card that measures
    them against the renderer's truth.

    Raises:
        ValueError: unknown, missing or ill-fitting configuration values.
        AssetError: the weights to start from are missing or damaged.
        FloatingPointError: the loss is not finite.
    """
    from sana_bench.metrics.dpg.card import write_card

    settings = _parse(config)
    task = VQATask(
        settings.model, settings.loop.seed, settings.questions_per_image, settings.blur, settings.start
    )
    result = train(task, settings.loop, out, identity=config, fresh=fresh)
    folder = out / "vqa"
    save_network(task.network, VOCABULARY, folder)
    export_curve(out, folder, ("loss", "yes_no_loss"), settings.name)
    write_card(folder, config=yaml.safe_dump(dict(config), sort_keys=False), result=result)
    return result


def _initialise(module: nn.Module) -> None:
    """BERT's own start for linear layers and embeddings; attention of the vision side keeps torch's."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_INITIAL_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _parse(config: Mapping[str, Any]) -> _Settings:
    keys = tuple(entry.name for entry in fields(MPlugConfig) if entry.name != "vocab_size")
    found = read_sections(config, ("questions_per_image", "blur"), keys)
    try:
        network = MPlugConfig(**found.model, vocab_size=len(VOCABULARY))
    except TypeError as error:
        raise ValueError(f"model: {error}") from None
    return _Settings(
        found.name,
        network,
        found.loop,
        int(found.data.get("questions_per_image", 8)),
        float(found.data.get("blur", 0.0)),
        found.start,
    )
