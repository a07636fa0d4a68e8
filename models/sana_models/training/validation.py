"""A training looked at while it goes on: loss on held-out images, a fixed grid of samples, and exports, the best marked."""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from sana_models.files import TEMPORARY_PREFIX, parse_json, read_text, write_whole
from sana_models.pipeline import SanaPipeline
from sana_models.training.distributed import barrier, is_main, most_of, share_of, sum_over_processes
from sana_models.training.flow import flow_matching_pair, shift_noise_levels
from sana_models.training.loop import Seen
from sana_models.training.pictures import write_sheet
from sana_models.training.reading import Section
from sana_models.training.text_to_image import LEVELS, TextInput, level_sums
from sana_models.transformer import SanaTransformer

__all__ = ["HeldOut", "Validation", "ValidationSettings", "forget_validation"]

_BATCH = 8
_NOISE_SEED = 20_241_014


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSettings:
    """Section `validation`: what is looked at every `every` steps.

    `share` of the training images, chosen by their names, and the images of `paths` are held out, up to `images` of them;
    without either there is no validation loss. `prompts` are drawn with seeds from `seed` on. The newest `exports` pipelines
    stay beside the best.
    """

    every: int
    share: float = 0.0
    paths: tuple[Path, ...] = ()
    images: int = 256
    prompts: tuple[str, ...] = ()
    steps: int = 20
    guidance: float = 4.5
    seed: int = 0
    exports: int = 0

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Raises ValueError on unknown, missing or ill-fitting values."""
        keys = {"every", "share", "paths", "images", "prompts", "steps", "guidance", "seed", "exports"}
        values = Section(data, "validation", keys)
        return cls(
            every=values.integer("every"),
            share=values.number("share", 0.0, low=0, high=0.5),
            paths=values.paths("paths"),
            images=values.integer("images", 256),
            prompts=values.texts("prompts"),
            steps=values.integer("steps", 20),
            guidance=values.number("guidance", 4.5, low=0),
            seed=values.integer("seed", 0, low=0),
            exports=values.integer("exports", 0, low=0),
        )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Normalised latents (C, h, w) of images that are not trained on, the text of each, and how to embed texts."""

    latents: Sequence[Tensor]
    texts: Sequence[str]
    text_input: TextInput


class Validation:
    """Looks at a training for `loop.train`; every look is at the same images, noise and prompts.

    Leaves `samples/step-N.png` in `out`, and with exports `exports/step-N`, `exports/best`, a link, and `exports/best.json`.
    """

    def __init__(
        self,
        settings: ValidationSettings,
        held_out: HeldOut,
        pipeline: SanaPipeline,
        embed: Callable[[Tensor, Tensor], Tensor],
        export: Callable[[Path], None],
        out: Path,
    ) -> None:
        """`embed` makes embeddings of a text encoder's input, `export` writes a pipeline folder, called in all processes."""
        self.every = settings.every
        self._settings, self._held_out, self._pipeline = settings, held_out, pipeline
        self._embed, self._export, self._out = embed, export, out

    @property
    def has_loss(self) -> bool:
        """Whether there are images to measure the loss on."""
        return bool(self._held_out.latents)

    def look(self, step: int) -> Seen:
        """Return validation losses and the grid's file; all processes share the losses, the first one writes the rest.

        Every process makes as many passes through the networks as the others: of a sharded one, each holds a share.
        """
        values = self._losses() if self.has_loss else {}
        pictures = {}
        if self._settings.prompts:
            pictures["samples"] = self._draw(step)
        if self._settings.exports:
            folder = self._out / "exports"
            self._export(folder / f"step-{step:06d}")
            if is_main():
                self._keep(folder, step, values.get("validation_loss"))
        barrier()
        return Seen(values, pictures)

    def _losses(self) -> dict[str, float]:
        transformer = self._pipeline.transformer
        sums = torch.zeros(len(LEVELS), 2, dtype=torch.float64)
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index in share_of(range(len(self._held_out.latents))):
            groups[tuple(self._held_out.latents[index].shape)].append(index)
        batches = [
            group[first : first + _BATCH]
            for group in groups.values()
            for first in range(0, len(group), _BATCH)
        ]
        device = transformer.proj_out.weight.device
        for number in range(most_of(len(batches), device)):
            found = self._sums(transformer, batches[number] if number < len(batches) else [0])
            if number < len(batches):
                sums += found
        sums = sum_over_processes(sums, device)
        total, count = sums.sum(0).tolist()
        values = {"validation_loss": total / count}
        for name, (part, number) in zip(LEVELS, sums.tolist(), strict=True):
            if number:
                values[f"validation_loss_{name}"] = part / number
        return {name: round(value, 6) for name, value in values.items()}

    def _sums(self, transformer: SanaTransformer, indices: Sequence[int]) -> Tensor:
        """Sum and number of the images' errors by noise level, float64 (levels, 2)."""
        device = transformer.proj_out.weight.device
        latents = torch.stack([self._held_out.latents[index].float() for index in indices])
        # Levels at even quantiles of those in training: as informative with far fewer images than drawn ones.
        count = len(self._held_out.latents)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(_NOISE_SEED))
        quantiles = (order[list(indices)].double() + 0.5) / count
        uniform = torch.sigmoid(torch.special.ndtri(quantiles)).float()
        shift = self._pipeline.flow_shift
        assert shift is not None
        sigma = shift_noise_levels((1000 * uniform).floor() / 1000, shift)
        noise = torch.stack(
            [
                torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(_NOISE_SEED + index))
                for index in indices
            ]
        )
        noisy, target = flow_matching_pair(latents, sigma, noise)
        text, mask = (
            part.to(device) for part in self._held_out.text_input([self._held_out.texts[i] for i in indices])
        )
        velocity = transformer(
            noisy.to(device), (1000 * sigma).floor().to(device), self._embed(text, mask), mask
        )
        return level_sums(velocity, target.to(device), sigma)

    def _draw(self, step: int) -> Path:
        prompts, settings = self._settings.prompts, self._settings
        path = self._out / "samples" / f"step-{step:06d}.png"
        shown = []
        for first in range(0, len(prompts), _BATCH):
            batch = prompts[first : first + _BATCH]
            images = self._pipeline(
                batch,
                seeds=[settings.seed + first + number for number in range(len(batch))],
                steps=settings.steps,
                guidance_scale=settings.guidance,
            )
            shown += list(zip(images.numpy(), batch, strict=True))
        if is_main():
            write_sheet(path, shown)
        return path

    def _keep(self, folder: Path, step: int, loss: float | None) -> None:
        """Mark the best by validation loss, and remove what is neither that nor among the newest."""
        note = folder / "best.json"
        best = parse_json(read_text(note)) if note.is_file() else None
        # A resumed training makes some steps again.
        if loss is not None and (best is None or loss < best["validation_loss"] or best["step"] >= step):
            best = {"step": step, "validation_loss": loss}
            write_whole(note, lambda stream: stream.write(json.dumps(best).encode()))
            temporary = folder / f"{TEMPORARY_PREFIX}best"
            temporary.unlink(missing_ok=True)
            os.symlink(f"step-{step:06d}", temporary)
            os.replace(temporary, folder / "best")
        found = sorted(path for path in folder.glob("step-*") if path.is_dir())
        kept = {f"step-{best['step']:06d}"} if best is not None else set()
        for path in found[: -self._settings.exports]:
            if path.name not in kept:
                shutil.rmtree(path)


def forget_validation(out: Path) -> None:
    """Remove what a look left in a training's folder."""
    for name in ("samples", "exports"):
        shutil.rmtree(out / name, ignore_errors=True)
