"""From a training record to its latent: read and decoded in any process, encoded on the autoencoder's device, kept on disk."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sana_models.aspect_ratios import covering_size
from sana_models.dc_ae import DCAE
from sana_models.files import plain, write_whole
from sana_models.image_files import as_rgb
from sana_models.text_cache import working_precision
from sana_models.training.buckets import Bucket
from sana_models.training.records import Record

__all__ = ["DAMAGE", "LatentStore", "Prepared", "load_image", "prefetched", "stored_latent"]

# Sizes that the published code scales to with Lanczos; bicubic elsewhere.
_LANCZOS_FROM = 2048
# Batches that each worker process has ready.
_AHEAD = 2
#: What decoding a damaged image or latent raises.
DAMAGE = (OSError, ValueError, SyntaxError, EOFError)
#: uint8 pixels (3, H, W) to be encoded, a latent (C, h, w), or why there is neither.
Prepared = Tensor | str


class LatentStore:
    """Makes latents one by one, so that none depends on its batch; with `cache`, a folder, they are kept.

    `identity` tells what they depend on beside the precision. Images are decoded by `workers` processes where there are some.
    """

    def __init__(
        self, autoencoder: DCAE, cache: Path | None = None, identity: str = "", workers: int = 0
    ) -> None:
        self.autoencoder, self.workers = autoencoder, workers
        self._cache, self._identity = cache, identity
        self._device = next(autoencoder.parameters()).device

    def precision(self) -> str:
        """Name the precision that latents are made in at this moment."""
        return working_precision(next(self.autoencoder.parameters()), self._device)

    def park(self) -> None:
        """Take the autoencoder off its device; it goes back when a latent has to be made after all."""
        self.autoencoder.to("cpu")

    def stored(self, record: Record, bucket: Bucket) -> bool:
        """Whether nothing needs to be encoded for a record."""
        if record.suffix == ".npy":
            return True
        path = self._path(record, bucket, self.precision())
        return path is not None and path.is_file()

    def prepare(self, record: Record, bucket: Bucket, precision: str) -> Tensor:
        """Read a stored latent, or decode an image; raises one of `DAMAGE`. Needs no device, and so runs in any process."""
        if record.suffix == ".npy":
            return stored_latent(record, self.autoencoder.config.latent_channels)
        path = self._path(record, bucket, precision)
        if path is not None and path.is_file():
            return torch.from_numpy(np.load(plain(path), allow_pickle=False))
        return _pixels(record.read(), *bucket)

    @torch.no_grad()
    def finish(self, record: Record, bucket: Bucket, prepared: Tensor) -> Tensor:
        """Return the fp32 latent of what `prepare` gave, encoded and kept where it was pixels."""
        if prepared.dtype != torch.uint8:
            return prepared.float()
        weight = next(self.autoencoder.parameters())
        if weight.device != self._device:
            self.autoencoder.to(self._device)
        # As decoded, whatever way it came: convolutions round by the layout.
        image = _scaled(prepared)[None].to(self._device, weight.dtype, memory_format=torch.channels_last)
        latent = self.autoencoder.normalise(self.autoencoder.encode(image).float())[0].cpu()
        # Rounded whether it is kept or not, so that a cache changes no number.
        latent = latent.half()
        path = self._path(record, bucket, self.precision())
        if path is not None:
            array = latent.numpy()
            write_whole(path, lambda stream: np.save(stream, array))
        return latent.float()

    def latent(self, record: Record, bucket: Bucket) -> Tensor:
        """Return the fp32 latent of a record; raises one of `DAMAGE`."""
        return self.finish(record, bucket, self.prepare(record, bucket, self.precision()))

    def _path(self, record: Record, bucket: Bucket, precision: str) -> Path | None:
        if self._cache is None:
            return None
        status = record.path.stat()
        # As for remembered hashes: size and modification time stay when a file is replaced by rsync -t or tar.
        times = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
        facts = (
            self._identity,
            precision,
            str(record.path.resolve()),
            record.key,
            record.span,
            bucket,
            *times,
        )
        name = hashlib.sha256(repr(facts).encode()).hexdigest()
        return self._cache / name[:2] / f"{name}.npy"


#: Records of one bucket.
Job = tuple[Bucket, list[Record]]


class _Jobs(IterableDataset):
    """Jobs, one after the other to each worker in turn."""

    def __init__(self, jobs: Iterable[Job], store: LatentStore) -> None:
        self._jobs, self._store, self._precision = jobs, store, store.precision()

    def __iter__(self) -> Iterator["_Packed"]:
        worker = get_worker_info()
        for number, (bucket, records) in enumerate(self._jobs):
            if worker is None or number % worker.num_workers == worker.id:
                yield _packed({record.key: self._prepared(record, bucket) for record in records})

    def _prepared(self, record: Record, bucket: Bucket) -> Prepared:
        try:
            return self._store.prepare(record, bucket, self._precision)
        except DAMAGE as error:
            return str(error) or type(error).__name__


def prefetched(store: LatentStore, jobs: Iterable[Job]) -> Iterator[dict[str, Prepared]]:
    """Yield what `prepare` gives of each job's records, by key, made ahead by the store's worker processes.

    `jobs` may be endless; every worker goes through it for itself, so it must be the same each time.
    """
    loader = DataLoader(
        _Jobs(jobs, store),
        batch_size=None,
        num_workers=store.workers,
        prefetch_factor=_AHEAD if store.workers else None,
        # They touch no device, and share the records.
        multiprocessing_context="fork" if store.workers else None,
    )
    for reasons, groups in loader:
        found: dict[str, Prepared] = dict(reasons)
        for keys, stacked in groups:
            found |= zip(keys, stacked, strict=True)
        yield found


#: Reasons by key, and keys with their tensors as one, whatever their number: each tensor that crosses takes an open file.
_Packed = tuple[dict[str, str], list[tuple[list[str], Tensor]]]


def _packed(prepared: dict[str, Prepared]) -> _Packed:
    groups: dict[tuple[torch.dtype, torch.Size], list[str]] = {}
    for key, item in prepared.items():
        if isinstance(item, Tensor):
            groups.setdefault((item.dtype, item.shape), []).append(key)
    tensors = {key: item for key, item in prepared.items() if isinstance(item, Tensor)}
    reasons = {key: item for key, item in prepared.items() if isinstance(item, str)}
    return reasons, [(keys, torch.stack([tensors[key] for key in keys])) for keys in groups.values()]


def load_image(content: bytes, height: int, width: int) -> Tensor:
    """Decode an image, scale it to cover height x width, crop the centre: fp32 (3, height, width) in [-1, 1].

    Bicubic, Lanczos from 2048 pixels on; colours as `as_rgb` gives them. Raises OSError, ValueError or SyntaxError for a damaged
    image, and for a mode that `as_rgb` does not read.
    """
    return _scaled(_pixels(content, height, width))


def _scaled(pixels: Tensor) -> Tensor:
    return pixels.float().div_(127.5).sub_(1.0)


def _pixels(content: bytes, height: int, width: int) -> Tensor:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as opened:
        image = as_rgb(opened)
    covering = covering_size((image.height, image.width), (height, width))
    kind = Image.Resampling.LANCZOS if max(height, width) >= _LANCZOS_FROM else Image.Resampling.BICUBIC
    scaled = image if image.size == covering[::-1] else image.resize(covering[::-1], kind)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    pixels = np.asarray(scaled.crop((left, top, left + width, top + height)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def stored_latent(record: Record, channels: int) -> Tensor:
    """Return the fp32 latent (C, h, w) of a record; raises one of `DAMAGE` for another shape and values that are not finite."""
    array = np.load(io.BytesIO(record.read()), allow_pickle=False)
    if array.ndim != 3 or array.shape[0] != channels:
        raise ValueError(f"latent has shape {array.shape}, expected ({channels}, h, w)")
    latent = torch.from_numpy(array.astype(np.float32))
    if not bool(torch.isfinite(latent).all()):
        raise ValueError("latent is not finite")
    return latent
