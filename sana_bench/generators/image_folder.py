"""Images that exist already, from any model: a folder in GenEval's layout, or with a manifest.

GenEval's layout is `00000/metadata.jsonl` with the prompt beside `00000/samples/*.png`. The manifest is `manifest.jsonl`,
one object a line: `{"prompt": "a photo of a bench", "index": 0, "file": "bench-0.png"}`; paths are relative to the folder.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sana_bench.assets import resolve_folder
from sana_bench.errors import AssetError, SuiteError
from sana_bench.generators.base import GeneratorSpec, Request, SampleError
from sana_bench.generators.settings import refuse_sana_settings
from sana_bench.metrics.images import ImageError, load_image
from sana_bench.suite import Variant

__all__ = ["MANIFEST", "ImageFolder", "find_folder", "read_folder"]

MANIFEST = "manifest.jsonl"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def find_folder(variant: Variant, relative_to: Path) -> Path:
    """Return the folder of images; raises `SuiteError` for settings of other generators, `AssetError` for no such folder."""
    model = variant.model
    refuse_sana_settings(variant)
    if variant.sampler is not None or model.instruction != "none" or model.conditioning != "diffusers":
        raise SuiteError(
            f"variant {variant.name!r}: generator images takes no sampler, instruction or conditioning"
        )
    folder = resolve_folder(model.weights, relative_to)
    read_folder(folder)
    return folder


def read_folder(folder: Path) -> dict[tuple[str, int], Path]:
    """Return the image files of a folder by (prompt, index).

    Raises `AssetError` naming file and line for a broken manifest, an image named twice or outside the folder.
    """
    entries = _manifest(folder) if (folder / MANIFEST).is_file() else _geneval_layout(folder)
    found: dict[tuple[str, int], Path] = {}
    for where, key, path in entries:
        if key in found:
            raise AssetError(f"{where}: image {key[1]} of {key[0]!r} appears twice")
        found[key] = path
    if not found:
        raise AssetError(f"{folder}: no {MANIFEST}, and no 00000/metadata.jsonl with samples")
    return found


class ImageFolder:
    """Hands out existing images; see `sana_bench.generators.Generator`. An image that is not there is a failed sample."""

    def __init__(self, spec: GeneratorSpec) -> None:
        self._folder = spec.weights_path
        self._files = read_folder(spec.weights_path)
        self._size = spec.variant.model.height, spec.variant.model.width

    def generate(self, requests: list[Request]) -> np.ndarray:
        """Return uint8 images (batch, height, width, 3)."""
        return np.stack([self._load(request) for request in requests])

    def _load(self, request: Request) -> np.ndarray:
        path = self._files.get((request.prompt, request.index))
        if path is None:
            raise SampleError(f"{self._folder} has no image {request.index} of {request.prompt!r}")
        try:
            image = load_image(path)
        except ImageError as error:
            raise SampleError(str(error)) from None
        if image.shape[:2] != self._size:
            (height, width), (wanted_height, wanted_width) = image.shape[:2], self._size
            raise SampleError(
                f"{path}: is {width}x{height} pixels, the variant has {wanted_width}x{wanted_height}"
            )
        return image


def _manifest(folder: Path) -> Iterator[tuple[str, tuple[str, int], Path]]:
    manifest = folder / MANIFEST
    for number, data in _json_lines(manifest):
        where = f"{manifest}:{number}"
        prompt, file = data.get("prompt"), data.get("file")
        if not isinstance(prompt, str) or not isinstance(file, str):
            raise AssetError(f"{where}: expected prompt and file as text")
        index = data.get("index", 0)
        # JSON's true is a Python int.
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise AssetError(f"{where}: expected index as a whole number from 0")
        path = folder / file
        if not path.resolve().is_relative_to(folder.resolve()):
            raise AssetError(f"{where}: {file!r} lies outside the folder")
        yield where, (prompt, index), path


def _geneval_layout(folder: Path) -> Iterator[tuple[str, tuple[str, int], Path]]:
    for directory in sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()):
        metadata = directory / "metadata.jsonl"
        if not metadata.is_file():
            raise AssetError(f"{metadata} is missing")
        prompt = next(_json_lines(metadata), (1, {}))[1].get("prompt")
        if not isinstance(prompt, str):
            raise AssetError(f"{metadata}:1: no prompt")
        files = [path for path in (directory / "samples").glob("*") if path.suffix.lower() in _SUFFIXES]
        for index, path in enumerate(sorted(files)):
            yield str(path), (prompt, index), path


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AssetError(f"{path}: unreadable ({error})") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError:
            raise AssetError(f"{path}:{number}: not valid JSON") from None
        if not isinstance(data, dict):
            raise AssetError(f"{path}:{number}: expected an object")
        yield number, data
