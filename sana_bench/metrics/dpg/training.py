"""Training of the micro world's judges: mPLUG's own class and answer loss on rendered scenes.

Seeded by step and resumable, through the loop that trains SANA. The distillation from a momentum copy, which
the published training uses against noisy web data, is left out: these answers are all true. The published model starts
from CLIP and BERT; this one starts from nothing, so heads that are thrown away afterwards teach it what a patch shows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from sana_bench.judges.mplug.config import MPlugConfig
from sana_bench.judges.mplug.files import load_network, read_vocabulary, save_network
from sana_bench.judges.mplug.judge import MAX_QUESTION_TOKENS, bert_tokenizer
from sana_bench.judges.mplug.network import END, PAD, START, MPlugVQA
from sana_bench.metrics.dpg.reading_loss import reading_loss
from sana_bench.metrics.training import (
    PatchTeacher,
    export_curve,
    go_on_from,
    parameter_groups,
    read_sections,
    training_pixels,
)
from sana_bench.micro import reading_data, vqa_data
from sana_bench.micro.vqa_data import VQABatch
from sana_models.training.loop import TrainingResult, train
from sana_models.training.loop_config import LoopConfig

__all__ = ["STREAMS", "Stream", "VQATask", "run_vqa_training"]

_INITIAL_STD = 0.02
_UNKNOWN = "[UNK]"
# Tensors with a row for each word.
_OF_WORDS = ("word_embeddings.weight", "predictions.decoder.weight", "predictions.bias")


@dataclass(frozen=True)
class Stream:
    """What a judge is shown and asked: `sample(seed, step, images, questions an image, patch)` makes the batch of a step.

    `labels`: further labels of patches that its batches have, with the number of their values.
    """

    vocabulary: tuple[str, ...]
    sample: Callable[[int, int, int, int, int], VQABatch]
    labels: Mapping[str, int] = field(default_factory=dict)


#: By kind of training: the VQA judge's, and the reading judge's.
STREAMS = {
    "vqa": Stream(vqa_data.VOCABULARY, vqa_data.sample_vqa_batch),
    "reading": Stream(reading_data.VOCABULARY, reading_data.sample_reading_batch, reading_data.EXTRA_LABELS),
}


@dataclass(frozen=True)
class _Settings:
    kind: str
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
        stream: Stream = STREAMS["vqa"],
    ) -> None:
        self._seed = seed
        self._stream = stream
        self._questions_per_image = questions_per_image
        self._blur = blur
        self._tokenizer = bert_tokenizer(stream.vocabulary)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = MPlugVQA(config)
            self.network.apply(_initialise)
            self._teacher = PatchTeacher(
                config.hidden_size, config.image_res // config.clip_vision_patch_size, stream.labels
            )
        if start is not None:
            loaded = load_network(start)
            known = read_vocabulary(start, loaded.config)
            if tuple(known) != stream.vocabulary[: len(known)]:
                raise ValueError(f"start: {start} has words that this training numbers otherwise")
            go_on_from(self.network, _with_words(loaded.state_dict(), self.network.state_dict()), start)
        self._patch = config.clip_vision_patch_size
        self.modules: dict[str, nn.Module] = {"vqa": self.network, "teacher": self._teacher}

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Weight decay on matrices only."""
        return parameter_groups(self.modules, learning_rate)

    def loss(self, step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mean over questions of the summed cross-entropy of each right answer's tokens, and the teacher's loss."""
        batch = self._stream.sample(self._seed, step, batch_size, self._questions_per_image, self._patch)
        ids, mask = self._questions(batch.questions)
        answers = self._answers(batch.answers)
        image = self.network.encode_images(training_pixels(batch.images, self._blur, generator))
        context, visible = self.network.known(image, ids, mask)
        losses = self.network.answer_loss(answers, context, visible).float()
        short = torch.tensor([answer in ("yes", "no") for answer in batch.answers])
        labels = torch.from_numpy(batch.shapes), torch.from_numpy(batch.colors)
        more = {name: torch.from_numpy(values) for name, values in batch.more.items()}
        patches = self._teacher.patch_loss(image[:, 1:].float(), *labels, more)
        extra = {"yes_no_loss": float(losses.detach()[short].mean()), "patch_loss": float(patches.detach())}
        if batch.glimpses is None:
            return losses.mean() + patches, extra
        reading = reading_loss(self.network, answers, context, visible, torch.from_numpy(batch.glimpses))
        return losses.mean() + patches + reading, extra | {"reading_loss": float(reading.detach())}

    def _questions(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (n, tokens) of questions, all of whose words are known but for those that say they are not."""
        found = self._tokenizer(
            [text.lower().replace(_UNKNOWN.lower(), _UNKNOWN) for text in texts],
            padding="longest",
            truncation=True,
            max_length=MAX_QUESTION_TOKENS,
            return_tensors="pt",
        )
        ids, mask = found["input_ids"], found["attention_mask"]
        n_unknown = sum(text.count(_UNKNOWN) for text in texts)
        if int((ids == self._tokenizer.unk_token_id).sum()) != n_unknown:
            raise ValueError("a training question has a word that the vocabulary lacks")
        return ids, mask

    def _answers(self, texts: Sequence[str]) -> Tensor:
        """Ids (n, tokens) of answers, whose words stand in the vocabulary as they are."""
        rows = [[START, *self._tokenizer.convert_tokens_to_ids(text.split()), END] for text in texts]
        if any(self._tokenizer.unk_token_id in row for row in rows):
            raise ValueError("a training answer has a word that the vocabulary lacks")
        longest = max(map(len, rows))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def run_vqa_training(config: Mapping[str, Any], out: Path, *, fresh: bool = False) -> TrainingResult:
    """Train the judge that `config` describes and export it to `out/vqa` or `out/reading`, as its kind is; continues an
    interrupted run in `out`, unless `fresh`.

    The folder gets the weights in the published layout with `curve.csv`, `curve.png` and a card that measures them against
    the renderer's truth.

    Raises:
        ValueError: unknown, missing or ill-fitting configuration values.
        AssetError: the weights to start from are missing or damaged.
        FloatingPointError: the loss is not finite.
    """
    from sana_bench.metrics import reading_card
    from sana_bench.metrics.dpg import card

    settings = _parse(config)
    stream = STREAMS[settings.kind]
    task = VQATask(
        settings.model,
        settings.loop.seed,
        settings.questions_per_image,
        settings.blur,
        settings.start,
        stream,
    )
    result = train(task, settings.loop, out, identity=config, fresh=fresh)
    folder = out / settings.kind
    save_network(task.network, stream.vocabulary, folder)
    export_curve(out, folder, ("loss", "yes_no_loss"), settings.name)
    write_card = reading_card.write_card if settings.kind == "reading" else card.write_card
    write_card(folder, config=yaml.safe_dump(dict(config), sort_keys=False), result=result)
    return result


def _with_words(known: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `known`, with the rows of `own` for words that come after its last one."""
    return {
        name: torch.cat([tensor, own[name][len(tensor) :]]) if name.endswith(_OF_WORDS) else tensor
        for name, tensor in known.items()
    }


def _initialise(module: nn.Module) -> None:
    """BERT's own start for linear layers and embeddings; attention of the vision side keeps torch's."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_INITIAL_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _parse(config: Mapping[str, Any]) -> _Settings:
    keys = tuple(entry.name for entry in fields(MPlugConfig) if entry.name != "vocab_size")
    found = read_sections(config, ("questions_per_image", "blur"), keys)
    kind = str(config["kind"])
    try:
        network = MPlugConfig(**found.model, vocab_size=len(STREAMS[kind].vocabulary))
    except TypeError as error:
        raise ValueError(f"model: {error}") from None
    return _Settings(
        kind,
        found.name,
        network,
        found.loop,
        int(found.data.get("questions_per_image", 8)),
        float(found.data.get("blur", 0.0)),
        found.start,
    )
