"""Batches from images with captions: aspect buckets, resolution stages, caption choice, cached latents.

What a step sees is a function of (seed, step) and the data alone, so the data position of a resumed run is its step number. A
batch holds images of one bucket. Every image is seen equally often: a bucket's batches run on from one pass over it into the
next, and images of a bucket too small for a batch go to the nearest other one. A record that turns out to be bad is replaced by
the next one of its bucket.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from torch import Tensor

from sana_models.aspect_ratios import training_bucket
from sana_models.dc_ae import DCAE
from sana_models.image_files import upright_size
from sana_models.training.buckets import Bucket, epoch_batches, epoch_position, merge_small_buckets
from sana_models.training.caption_choice import CaptionRule
from sana_models.training.latents import DAMAGE, LatentStore, Prepared, load_image, prefetched
from sana_models.training.progress import tell
from sana_models.training.records import BadRecords, Record

__all__ = ["ImageTextData", "Stage"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of training at one resolution: up to step `until` (exclusive), at about `image_size` squared pixels.

    `batch_size` of None is that of the whole training.
    """

    until: int
    image_size: int
    batch_size: int | None = None


class ImageTextData:
    """Normalised latents with captions.

    Latents are encoded image by image, so they do not depend on the batch; with `cache` they are kept on disk. Images whose best
    caption scores below `minimum_score` are left out. Raises ValueError for stages that do not follow each other, or when
    nothing is left to train on.
    """

    def __init__(
        self,
        records: Sequence[Record],
        autoencoder: DCAE,
        *,
        stages: Sequence[Stage],
        patch_size: int,
        rule: CaptionRule,
        bad: BadRecords,
        seed: int,
        use_buckets: bool = True,
        minimum_score: float = 0.0,
        cache: Path | None = None,
        cache_identity: str = "",
        workers: int = 0,
    ) -> None:
        ends = [stage.until for stage in stages]
        if not ends or ends != sorted(set(ends)) or ends[0] < 1:
            raise ValueError("stages must have rising 'until' steps")
        unit = autoencoder.config.spatial_compression * patch_size
        odd = [stage.image_size for stage in stages if stage.image_size % unit]
        if odd and not use_buckets:
            raise ValueError(
                f"image_size is {odd[0]}; without buckets it must be a multiple of {unit} pixels"
            )
        self.autoencoder = autoencoder
        self.rule, self.bad, self.seed = rule, bad, seed
        self.stages = list(stages)
        self.last_names: list[str] = []
        self._unit = unit
        self._use_buckets = use_buckets
        self.store = LatentStore(autoencoder, cache, cache_identity, workers)
        self._prefetch: tuple[tuple[int, str], Iterator[dict[str, Prepared]]] | None = None
        self._sizes: dict[str, tuple[int, int]] = {}
        self._told: set[str] = set()
        self._members: tuple[tuple[int, int], dict[Bucket, list[int]]] = ((-1, 0), {})
        self._plans: dict[tuple[int, int, int], list[tuple[Bucket, list[int]]]] = {}
        scored = [record for record in records if _best_score(record) >= minimum_score]
        self.records = [record for record in scored if self._measure(record)]
        if not self.records:
            raise ValueError(f"none of {len(records)} training records can be used{bad.first()}")

    def batch_size(self, step: int, default: int) -> int:
        """Return the size of a step's batch, over all processes."""
        return self.stages[self.stage(step)].batch_size or default

    def stage(self, step: int) -> int:
        """Return the number of the stage that a step belongs to."""
        return next((i for i, stage in enumerate(self.stages) if step < stage.until), len(self.stages) - 1)

    def batch(
        self, step: int, size: int, rows: slice, generator: torch.Generator
    ) -> tuple[Tensor, list[str]]:
        """Return the fp32 latents (n, C, h, w) and captions of the batch's `rows`.

        Draws as much from `generator` whatever `rows` is. Raises ValueError when too many records are bad.
        """
        latents, captions = [], []
        self.last_names = []
        ahead = self._ahead(step, size, rows)

        def load(record: Record, bucket: Bucket) -> Tensor:
            prepared = ahead.get(record.key)
            if isinstance(prepared, str):
                raise ValueError(prepared)
            return (
                self._latent(record, bucket)
                if prepared is None
                else self.store.finish(record, bucket, prepared)
            )

        for record, latent, caption in self._draw(step, size, rows, generator, load):
            latents.append(latent)
            self.last_names.append(record.key)
            captions.append(caption)
        return torch.stack(latents), captions

    def _ahead(self, step: int, size: int, rows: slice) -> dict[str, Prepared]:
        """Return what worker processes have prepared of a batch's rows, by record; they go on with the steps after it."""
        if not self.store.workers:
            return {}
        now = (step, self.store.precision())
        self._members_of(self.stage(step), size)  # once, and not by every worker
        if self._prefetch is None or self._prefetch[0] != now:
            self._prefetch = (now, prefetched(self.store, _Steps(self, step, size, rows)))
        batches = self._prefetch[1]
        # The next stage has batches of another size, and workers of its own.
        goes_on = self.stage(step + 1) == self.stage(step)
        self._prefetch = ((step + 1, self.store.precision()), batches) if goes_on else None
        return next(batches)

    def _job(self, step: int, size: int, rows: slice) -> tuple[Bucket, list[Record]]:
        bucket, wanted = self._plan(step, size)
        return bucket, [self.records[index] for index in wanted[rows]]

    def all_jobs(self, default: int) -> list[tuple[Bucket, Record]]:
        """Return every record with every bucket that some stage sees it in, `default` being the size of a batch."""
        found: dict[tuple[Bucket, str], tuple[Bucket, Record]] = {}
        for number, stage in enumerate(self.stages):
            for bucket, group in self._members_of(number, stage.batch_size or default).items():
                for index in group:
                    record = self.records[index]
                    found.setdefault((bucket, record.key), (bucket, record))
        return [job for job in found.values() if job[1].key not in self.bad.reasons]

    def pictures(self, step: int, size: int, generator: torch.Generator) -> list[tuple[Tensor, str]]:
        """Return what a step trains on as pictures, fp32 (3, H, W) in [-1, 1], with their captions; latents left out."""
        drawn = self._draw(step, size, slice(None), generator, _picture)
        return [(picture, caption) for _, picture, caption in drawn if picture is not None]

    def latent_of(self, record: Record) -> Tensor | None:
        """Return the latent (C, h, w) of a record in the last stage's bucket for it; None of a bad one, which is counted."""
        if not self._measure(record):
            return None
        try:
            return self._latent(record, self._bucket(record, self.stages[-1].image_size))
        except DAMAGE as error:
            self.bad.add(record.key, error)
            return None

    def size_of(self, record: Record) -> tuple[int, int]:
        """Return height and width of an image in pixels, or of a latent in positions."""
        return self._sizes[record.key]

    def buckets(self, step: int, size: int) -> dict[Bucket, int]:
        """Return the number of records in each bucket, (height, width) in pixels, at a step."""
        return {bucket: len(group) for bucket, group in self._members_of(self.stage(step), size).items()}

    def _draw(
        self,
        step: int,
        size: int,
        rows: slice,
        generator: torch.Generator,
        load: Callable[[Record, Bucket], T],
    ) -> Iterator[tuple[Record, T, str]]:
        """Yield the records of the batch's `rows`, what `load` makes of each, and the caption drawn for it."""
        uniform = torch.rand(size, generator=generator).tolist()
        bucket, wanted = self._plan(step, size)
        for index, draw in zip(wanted[rows], uniform[rows], strict=True):
            record, loaded = self._usable(index, bucket, load)
            yield (
                record,
                loaded,
                self.rule.choose(record.captions, record.scores, draw, record.weights),
            )

    def _measure(self, record: Record) -> bool:
        try:
            self.rule.probabilities(record.captions, record.scores, record.weights)
            stored = record.size if record.suffix != ".npy" else None
            self._sizes[record.key] = stored or _stored_size(record)
        except DAMAGE as error:
            self.bad.add(record.key, error)
            return False
        return True

    def _bucket(self, record: Record, image_size: int) -> Bucket:
        """Return the (height, width) in pixels that a record is trained at; a stored latent has its own."""
        height, width = self._sizes[record.key]
        if record.suffix == ".npy":
            factor = self.autoencoder.config.spatial_compression
            return height * factor, width * factor
        if not self._use_buckets:
            return image_size, image_size
        return training_bucket(height, width, image_size, unit=self._unit)

    def _plan(self, step: int, size: int) -> tuple[Bucket, list[int]]:
        """Return bucket and record numbers of a step's batch."""
        stage = self.stage(step)
        first = self.stages[stage - 1].until if stage else 0
        members = self._members_of(stage, size)
        epoch, position = epoch_position([len(group) for group in members.values()], size, step - first)
        key = (stage, epoch, size)
        if key not in self._plans:
            # Only the epoch in use is kept.
            self._plans = {key: epoch_batches(members, size, [self.seed, stage], epoch)}
        return self._plans[key][position]

    def _members_of(self, stage: int, size: int) -> dict[Bucket, list[int]]:
        """Return the record numbers by bucket, none smaller than a batch; those of one stage are remembered."""
        if self._members[0] != (stage, size):
            members: dict[Bucket, list[int]] = defaultdict(list)
            for index, record in enumerate(self.records):
                members[self._bucket(record, self.stages[stage].image_size)].append(index)
            latents = {index for index, record in enumerate(self.records) if record.suffix == ".npy"}
            filled, lines = merge_small_buckets(dict(sorted(members.items())), size, latents)
            for line in lines:
                if line not in self._told:
                    self._told.add(line)
                    tell(line)
            self._members = ((stage, size), filled)
        return self._members[1]

    def _usable(self, index: int, bucket: Bucket, load: Callable[[Record, Bucket], T]) -> tuple[Record, T]:
        group = self._members[1][bucket]
        for number in chain([index], _after(group, index)):
            record = self.records[number]
            if record.key in self.bad.reasons:
                continue
            try:
                return record, load(record, bucket)
            except DAMAGE as error:
                self.bad.add(record.key, error)
        which = f"all {len(group)} training records of bucket {bucket[1]}x{bucket[0]} are bad"
        raise ValueError(f"{which}{self.bad.first()}")

    def _latent(self, record: Record, bucket: Bucket) -> Tensor:
        return self.store.latent(record, bucket)


class _Steps:
    """The jobs of one process's rows from a step to the end of its stage.

    Data that holds the worker processes holds this: with a reference back, they would wait for Python to find the circle, and
    then for five seconds each, as what tells them to end is gone before torch says so.
    """

    def __init__(self, data: ImageTextData, first: int, size: int, rows: slice) -> None:
        self._data, self._first, self._size, self._rows = weakref.proxy(data), first, size, rows

    def __iter__(self) -> Iterator[tuple[Bucket, list[Record]]]:
        stage = self._data.stage(self._first)
        for step in count(self._first):
            if self._data.stage(step) != stage:
                return
            yield self._data._job(step, self._size, self._rows)


def _after(group: list[int], index: int) -> Iterator[int]:
    """The others of a group, from the one behind `index` on."""
    start = group.index(index)
    return (group[(start + offset) % len(group)] for offset in range(1, len(group)))


def _picture(record: Record, bucket: Bucket) -> Tensor | None:
    return None if record.suffix == ".npy" else load_image(record.read(), *bucket)


def _best_score(record: Record) -> float:
    return max(record.scores.values(), default=float("inf"))


def _stored_size(record: Record) -> tuple[int, int]:
    """Height and width of an image in pixels, or of a latent in positions."""
    from PIL import Image

    with record.stream() as stream:
        if record.suffix == ".npy":
            shape = _array_shape(stream)
            if len(shape) != 3 or 0 in shape:
                raise ValueError(f"latent has shape {shape}, expected (C, h, w)")
            return shape[1], shape[2]
        with Image.open(stream) as image:
            return upright_size(image)


def _array_shape(stream: BinaryIO) -> tuple[int, ...]:
    """What the header of a `.npy` file tells."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format is not read")
    return tuple(readers[version](stream)[0])
