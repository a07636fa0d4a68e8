"""Training of the micro world's reward model: ImageReward's own class and pairwise loss on graded scenes.

Seeded by step and resumable, through the loop that trains SANA. The published model starts from BLIP; this one starts
from nothing, so heads that are thrown away afterwards teach it what a patch shows, which words are true, and where
what they name is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from sana_bench.metrics.image_reward.metric import RewardFiles
from sana_bench.metrics.image_reward.network import MAX_TOKENS, RewardNetwork, VisionSize, save_reward_network
from sana_bench.metrics.training import (
    PatchTeacher,
    export_curve,
    go_on_from,
    only_keys,
    parameter_groups,
    read_sections,
    training_pixels,
)
from sana_bench.micro.reward_data import FAMILY, VOCABULARY, sample_reward_batch
from sana_bench.micro.templates import RELATIONS
from sana_bench.micro.world import IMAGE_SIZE
from sana_models.training.loop import TrainingResult, train
from sana_models.training.loop_config import LoopConfig

__all__ = ["RewardTask", "pairwise_loss", "run_reward_training"]

_TEXT_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
_FIXED_TEXT = {
    "vocab_size": len(VOCABULARY),
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_IDS = {word: place for place, word in enumerate(VOCABULARY)}


@dataclass(frozen=True)
class _Settings:
    name: str
    vision: VisionSize
    text: dict[str, Any]
    loop: LoopConfig
    blur: float
    start: Path | None


class _Teacher(PatchTeacher):
    """Heads of the training alone: what a patch shows and where it is, and for words whether the fact that they state is shown
    and where what they name is.
    """

    def __init__(self, vision_width: int, side: int, hidden: int) -> None:
        super().__init__(vision_width, side)
        self.words = nn.Linear(hidden, 1)
        self.word_places = nn.ModuleList(nn.Linear(hidden, n) for n in (side, side, len(RELATIONS)))

    def word_loss(self, states: Tensor, truth: Tensor) -> Tensor:
        """Binary cross-entropy of word states (.., W, hidden) against truth (.., W), NaN where a word states none."""
        known = ~truth.isnan()
        return F.binary_cross_entropy_with_logits(self.words(states)[..., 0][known], truth[known])

    def place_loss(self, states: Tensor, places: Tensor) -> Tensor:
        """Cross-entropies of word states (.., W, hidden) against row, column and relation (.., W, 3), -1 where unknown, added."""
        losses = []
        for head, labels in zip(self.word_places, places.unbind(-1), strict=True):
            known = labels >= 0
            if bool(known.any()):
                losses.append(F.cross_entropy(head(states[known]), labels[known]))
        return torch.stack(losses).sum() if losses else states.new_zeros(())


class RewardTask:
    """What the loop trains: rewards that rank the pictures of a prompt as the renderer's truth does."""

    def __init__(
        self, vision: VisionSize, text: dict[str, Any], seed: int, blur: float, start: Path | None = None
    ) -> None:
        self._seed = seed
        self._blur = blur
        self._patch = vision.patch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = RewardNetwork(vision, text)
            # Linear to the end: a start that keeps the size of what goes through it.
            for layer in self.network.head.modules():
                if not isinstance(layer, nn.Linear):
                    continue
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)
            self._teacher = _Teacher(
                vision.width, vision.image_size // vision.patch, int(text["hidden_size"])
            )
        if start is not None:
            go_on_from(self.network, RewardFiles.of_folder(start).network.state_dict(), start)
        self.modules: dict[str, nn.Module] = {"reward": self.network, "teacher": self._teacher}

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Weight decay on matrices only."""
        return parameter_groups(self.modules, learning_rate)

    def loss(self, step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The pairwise loss of `batch_size` pictures under the prompts of their families, and the two teachers'."""
        batch = sample_reward_batch(self._seed, step, batch_size // FAMILY, self._patch)
        seen = self.network.see(training_pixels(batch.images, self._blur, generator))
        ids, mask = (_per_pair(words, dim=2) for words in _tokens(batch.prompts))
        states = self.network.read(_per_pair(seen, dim=1), ids, mask)
        grades = torch.from_numpy(batch.grades)
        pairs, right = pairwise_loss(self.network.reward(states).unflatten(0, grades.shape), grades)
        truth = torch.from_numpy(batch.words)
        of_words = states.unflatten(0, grades.shape)[..., 1 : 1 + truth.shape[-1], :]
        words = self._teacher.word_loss(of_words, truth)
        places = self._teacher.place_loss(of_words, torch.from_numpy(batch.places))
        labels = torch.from_numpy(batch.shapes), torch.from_numpy(batch.colors)
        patches = self._teacher.patch_loss(seen[:, 1:], *labels)
        extra = {
            "pair_loss": pairs,
            "pair_accuracy": right,
            "word_loss": words,
            "place_loss": places,
            "patch_loss": patches,
        }
        total = pairs + words + places + patches
        return total, {name: float(value.detach()) for name, value in extra.items()}


def pairwise_loss(rewards: Tensor, grades: Tensor) -> tuple[Tensor, Tensor]:
    """ImageReward's loss over all pairs of pictures of one prompt that differ in grade, and the share ranked rightly.

    Mean of -log sigmoid(better - worse). `rewards` and `grades` (.., pictures). Source: Xu et al. 2023, section 3.
    """
    better = grades[..., :, None] > grades[..., None, :]
    margins = (rewards[..., :, None] - rewards[..., None, :])[better]
    return F.softplus(-margins).mean(), (margins > 0).float().mean()


def run_reward_training(config: Mapping[str, Any], out: Path, *, fresh: bool = False) -> TrainingResult:
    """Train what `config` describes and export it to `out/reward`; continues an interrupted run in `out`, unless
    `fresh`.

    `out/reward` gets the weights with `curve.csv`, `curve.png` and a card that measures them against the renderer's
    truth.

    Raises:
        ValueError: unknown, missing or ill-fitting configuration values.
        AssetError: the weights to start from are missing or damaged.
        FloatingPointError: the loss is not finite.
    """
    from sana_bench.metrics.image_reward.card import write_card

    settings = _parse(config)
    task = RewardTask(settings.vision, settings.text, settings.loop.seed, settings.blur, settings.start)
    result = train(task, settings.loop, out, identity=config, fresh=fresh)
    folder = out / "reward"
    save_reward_network(task.network, VOCABULARY, folder)
    export_curve(out, folder, ("pair_loss", "pair_accuracy"), settings.name)
    write_card(folder, config=yaml.safe_dump(dict(config), sort_keys=False), result=result)
    return result


def _tokens(prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Ids and mask (n, longest) as `WordPieces` gives them, which cuts all words of this vocabulary whole."""
    rows = [[_IDS["[CLS]"], *(_IDS[word] for word in prompt.split()), _IDS["[SEP]"]] for prompt in prompts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [_IDS["[PAD]"]] * (longest - len(row)) for row in rows])
    return ids, (ids != _IDS["[PAD]"]).long()


def _per_pair(rows: Tensor, dim: int) -> Tensor:
    """Rows (F * FAMILY, ..) repeated for every pair (F, prompt, picture): over prompts (dim 1) or pictures (dim 2)."""
    families = rows.unflatten(0, (-1, FAMILY)).unsqueeze(dim)
    shape = [-1] * families.ndim
    shape[dim] = FAMILY
    return families.expand(shape).flatten(0, 2)


def _parse(config: Mapping[str, Any]) -> _Settings:
    found = read_sections(config, ("blur",), ("vision", "text"))
    sizes: dict[str, dict[str, Any]] = {}
    vision_keys = tuple(entry.name for entry in fields(VisionSize))
    for name, keys in (("vision", vision_keys), ("text", _TEXT_KEYS)):
        section = found.model.get(name)
        if not isinstance(section, Mapping) or set(keys) - set(section):
            raise ValueError(f"section 'model.{name}' needs {', '.join(keys)}")
        only_keys(f"model.{name}.", section, keys)
        sizes[name] = dict(section)
    vision = VisionSize(**sizes["vision"])
    if vision.image_size != IMAGE_SIZE or IMAGE_SIZE % vision.patch:
        raise ValueError(f"model.vision: image_size is {IMAGE_SIZE}, and patch divides it")
    if sizes["text"]["max_position_embeddings"] < MAX_TOKENS:
        raise ValueError(
            f"model.text.max_position_embeddings is at least {MAX_TOKENS}, to which prompts are padded"
        )
    if found.loop.batch_size % FAMILY:
        raise ValueError(
            f"training.batch_size counts pictures, {FAMILY} a family: not {found.loop.batch_size}"
        )
    blur = float(found.data.get("blur", 0.0))
    return _Settings(found.name, vision, {**sizes["text"], **_FIXED_TEXT}, found.loop, blur, found.start)
