"""Images that exist already, from any model: a folder in GenEval's layout, or with a manifest.

GenEval's layout is `00000/metadata.jsonl` with the prompt beside `00000/samples/00000.png`, `00001.png`, ..: the number of the
folder is the prompt's id, that of the file the sample index. The manifest is `manifest.jsonl`, one object a line:
`{"id": "00000", "prompt": "a photo of a bench", "index": 0, "file": "bench-0.png"}`; paths are relative to the folder, and
without `id` images are found by the prompt's text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from sana_bench.assets.locate import resolve_folder
from sana_bench.core.errors import AssetError, SampleError, SuiteError
from sana_bench.core.fingerprint import HashCache, file_sha256, fingerprint
from sana_bench.core.images import IMAGE_SUFFIXES, ImageError, load_image, source_format
from sana_bench.core.text import lines, lone_surrogate, read_text
from sana_bench.generators.base import Request, refuse_sana_settings
from sana_bench.suites.cells import GeneratorSpec
from sana_bench.suites.schema import Variant
from sana_models.files import first_line, parse_json
from sana_models.shared_parts import files_below

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "MANIFEST",
    "ImageFolder",
    "ImageName",
    "bounded",
    "find_folder",
    "find_name",
    "images_sha256",
    "is_geneval_layout",
    "other_files",
    "read_folder",
]

MANIFEST = "manifest.jsonl"
# What the official evaluator takes for an image and for the folder of a prompt.
_IMAGE, _FOLDER = re.compile(r"[0-9]+\.png"), re.compile(r"[0-9]+")
# Problems that one message names; the rest is counted.
_NAMED = 20


@dataclass(frozen=True)
class ImageName:
    """Which sample a file is: the prompt's id (None where the folder does not say), its text, and the sample index."""

    prompt_id: str | None
    text: str
    index: int

    def __str__(self) -> str:
        prompt = repr(self.text) if self.prompt_id is None else f"prompt {self.prompt_id}"
        return f"image {self.index} of {prompt}"


# Where a message says that an image was found, which sample it is, and its path.
_Entry = tuple[str, ImageName, Path]


def find_folder(variant: Variant, relative_to: Path) -> Path:
    """Return the folder of images; raises `SuiteError` for settings of other generators, `AssetError` for no such folder."""
    model = variant.model
    refuse_sana_settings(variant)
    taken = variant.sampler is not None or variant.tf32 is not None
    if taken or model.instruction != "none" or model.conditioning != "diffusers":
        raise SuiteError(
            f"variant {variant.name!r}: generator images takes no sampler, instruction, conditioning or tf32"
        )
    folder = resolve_folder(model.weights, relative_to)
    read_folder(folder)
    return folder


def read_folder(folder: Path) -> dict[ImageName, Path]:
    """Return the image files of a folder.

    Raises `AssetError` naming file and line for a broken manifest or an image outside the folder, and with a list of them for
    images that are named twice, files that stand for several images, and images that GenEval's layout does not take.
    """
    entries = list(_manifest(folder) if (folder / MANIFEST).is_file() else _geneval_layout(folder))
    if not entries:
        raise AssetError(f"{folder}: no {MANIFEST}, and no 00000/metadata.jsonl with samples")
    _refuse_repeats(entries)
    return {name: path for _, name, path in entries}


def is_geneval_layout(folder: Path) -> bool:
    """Whether a folder has a numbered folder with the metadata of a prompt."""
    inside = (path for path in folder.iterdir() if _FOLDER.fullmatch(path.name))
    return any((path / "metadata.jsonl").is_file() for path in inside)


def find_name(files: Mapping[ImageName, Path], prompt_id: str, text: str, index: int) -> ImageName | None:
    """The name of a sample's image in a folder: by id and text where the folder gives ids, by text otherwise."""
    names = ImageName(prompt_id, text, index), ImageName(None, text, index)
    return next((name for name in names if name in files), None)


def images_sha256(folder: Path, hashes: HashCache | None = None) -> str:
    """Return one SHA-256 over the images that a folder names and which samples they are; no other file takes part.

    Raises `AssetError` as `read_folder` does.
    """
    return fingerprint(
        [
            [name.prompt_id, name.text, name.index, file_sha256(path, hashes) if path.is_file() else None]
            for name, path in sorted(read_folder(folder).items(), key=lambda item: _order(item[0]))
        ]
    )


def other_files(folder: Path) -> list[str]:
    """Return the relative names of the files in a folder of images that are no image of it and do not name one."""
    used = set(read_folder(folder).values())
    names_images = folder / MANIFEST
    return [
        name
        for name, path in files_below(folder).items()
        if path not in used
        and path != names_images
        and not (_FOLDER.fullmatch(path.parent.name) and path.name == "metadata.jsonl")
    ]


def _order(name: ImageName) -> tuple[str, str, int]:
    return name.prompt_id or "", name.text, name.index


def bounded(problems: Sequence[str]) -> str:
    """Problems in one line, long lists cut."""
    rest = [f"and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else []
    return "; ".join([*problems[:_NAMED], *rest])


class ImageFolder:
    """Hands out existing images; see `sana_bench.generators.Generator`. An image that is not there is a failed sample."""

    def __init__(self, spec: GeneratorSpec, device: str = "cpu") -> None:
        """`device` is not used: nothing is computed."""
        self._folder = spec.weights_path
        self._found = spec.found
        self._files = read_folder(spec.weights_path) if spec.found is None else {}
        model = spec.variant.model
        self._size = model.size if model.height is not None else None

    def generate(self, requests: list[Request]) -> "list[np.ndarray]":
        """Return a uint8 image (height, width, 3) for each request, of the variant's size or, where it has none, the file's."""
        return [self._load(request) for request in requests]

    def source_format(self, request: Request) -> str | None:
        """See `sana_bench.generators.base.TellsFormat`."""
        path = self._path(request)
        return source_format(path) if path is not None else None

    def _path(self, request: Request) -> Path | None:
        if self._found is not None:
            return self._found.files.get((request.prompt_id, request.index))
        name = find_name(self._files, request.prompt_id, request.prompt, request.index)
        return self._files[name] if name is not None else None

    def _load(self, request: Request) -> "np.ndarray":
        path = self._path(request)
        if path is None:
            raise SampleError(f"{self._folder} has no image {request.index} of {request.prompt!r}")
        try:
            image = load_image(path)
        except ImageError as error:
            raise SampleError(str(error)) from None
        if self._size is not None and image.shape[:2] != self._size:
            (height, width), (wanted_height, wanted_width) = image.shape[:2], self._size
            raise SampleError(
                f"{path}: is {width}x{height} pixels, the variant has {wanted_width}x{wanted_height}"
            )
        return image


def _refuse_repeats(entries: Sequence[_Entry]) -> None:
    """Refuse images and files that appear twice: either would count for more than it is."""
    names: set[ImageName] = set()
    # By the path as it is written: in the hub's cache equal images are links to one file.
    files: dict[Path, ImageName] = {}
    problems, advice = [], ""
    for where, name, path in entries:
        first = files.setdefault(path, name)
        if name in names:
            problems.append(f"{where}: {name} appears twice")
            if name.prompt_id is None:
                advice = " (prompts with the same text need the key id)"
        elif first != name:
            problems.append(f"{where}: {name} names the same file as {first}")
        names.add(name)
    if problems:
        raise AssetError(bounded(problems) + advice)


def _manifest(folder: Path) -> Iterator[_Entry]:
    manifest = folder / MANIFEST
    for number, data in _json_lines(manifest):
        where = f"{manifest}:{number}"
        prompt, file = data.get("prompt"), data.get("file")
        if not isinstance(prompt, str) or not isinstance(file, str):
            raise AssetError(f"{where}: expected prompt and file as text")
        prompt_id = data.get("id")
        if "id" in data and (not isinstance(prompt_id, str) or not prompt_id):
            raise AssetError(f"{where}: expected id as text, the prompt's id in the benchmark")
        index = data.get("index", 0)
        # JSON's true is a Python int.
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise AssetError(f"{where}: expected index as a whole number from 0")
        written = PurePosixPath(file)
        if "\0" in file or written.is_absolute() or ".." in written.parts:
            raise AssetError(f"{where}: {file!r} lies outside the folder")
        name = ImageName(prompt_id if isinstance(prompt_id, str) else None, prompt, index)
        yield where, name, folder / written


def _geneval_layout(folder: Path) -> Iterator[_Entry]:
    """The images of GenEval's layout, which are those that the official evaluator reads; other files count for nothing."""
    directories = [path for path in folder.iterdir() if path.is_dir() and _FOLDER.fullmatch(path.name)]
    foreign: list[str] = []
    for directory in sorted(directories, key=lambda path: (int(path.name), path.name)):
        metadata = directory / "metadata.jsonl"
        if not metadata.is_file():
            raise AssetError(f"{metadata} is missing")
        prompt = next(_json_lines(metadata), (1, {}))[1].get("prompt")
        if not isinstance(prompt, str):
            raise AssetError(f"{metadata}:1: no prompt")
        files = sorted((directory / "samples").glob("*"))
        images = [path for path in files if _IMAGE.fullmatch(path.name)]
        indices = {int(path.stem) for path in images}
        foreign += [str(path) for path in files if _stands_for_another(path, indices)]
        for path in sorted(images, key=lambda path: int(path.stem)):
            name = ImageName(f"{int(directory.name):05d}", prompt, int(path.stem))
            yield str(path), name, path
    if foreign:
        raise AssetError(
            f"GenEval's layout takes only NUMBER.png (other files: name them in {MANIFEST}), found {bounded(foreign)}"
        )


def _stands_for_another(path: Path, indices: set[int]) -> bool:
    """Whether a file looks like the image of a sample that has no PNG."""
    is_image = path.suffix.lower() in IMAGE_SUFFIXES and _FOLDER.fullmatch(path.stem) is not None
    return is_image and int(path.stem) not in indices


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise AssetError(f"{path}: unreadable ({first_line(error)})") from None
    for number, line in enumerate(lines(text), start=1):
        if not line.strip():
            continue
        try:
            data = parse_json(line)
        except ValueError:
            raise AssetError(f"{path}:{number}: not valid JSON") from None
        if not isinstance(data, dict):
            raise AssetError(f"{path}:{number}: expected an object")
        for key, value in data.items():
            if isinstance(value, str) and (half := lone_surrogate(value)) is not None:
                prompt = f" of prompt {data['id']!a}" if key != "id" and "id" in data else ""
                raise AssetError(f"{path}:{number}: {key}{prompt} holds {half}, half of a character")
        yield number, data
