"""A function of one's own as a metric: `(image, prompt) -> float`, in a Python file beside the suite.

The image is a uint8 array (height, width, 3), or a Pillow image where the first parameter is annotated so. A lower value is
better where the file says `NAME.higher_is_better = False`. The identity of its scores is the hash of the file.
"""

import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sana_bench.core.errors import SuiteError, UsageError, nearest
from sana_bench.core.fingerprint import file_sha256, short
from sana_bench.core.images import load_image
from sana_bench.core.samples import Sample
from sana_bench.metrics.base import ScoreRow, Summary, mean_summary
from sana_bench.suites.schema import MetricSpec

__all__ = ["FunctionMetric", "build_function_metric"]


class FunctionMetric:
    """One value an image; the summary is the mean over all images, with a 95 % bootstrap interval clustered by prompt."""

    def __init__(self, name: str, path: Path, function_name: str) -> None:
        """Run the file; raises `SuiteError`, with file and line, where that fails or it has no such function."""
        self.name = name
        self._path = path
        self._function_name = function_name
        self._sha256 = file_sha256(path)
        self._function = _load_function(path, function_name, self._sha256)
        self._takes_pillow = _takes_pillow(self._function)
        self.higher_is_better = bool(getattr(self._function, "higher_is_better", True))
        self.protocol = f"{name}/{path.name}@{short(self._sha256)}"

    def identity(self) -> dict[str, Any]:
        return {
            "metric": self.name,
            "protocol": self.protocol,
            "function": self._function_name,
            "file_sha256": self._sha256,
        }

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample, in order.

        Raises `UsageError`, with the line and the sample, where the function fails or gives no finite number, and `ImageError`
        for a missing or damaged image.
        """
        return [
            ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, self._value(sample))
            for sample in samples
        ]

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """The mean over all images."""
        note = f"mean of {self._path.name}:{self._function_name}"
        return [mean_summary(self, rows, n_expected, seed, unit="", note=note)]

    def _value(self, sample: Sample) -> float:
        image: Any = load_image(sample.image_path)
        if self._takes_pillow:
            from PIL import Image

            image = Image.fromarray(image)
        else:
            image = image.copy()  # the function may write into it
        try:
            found = self._function(image, sample.prompt.text)
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"{_where(self._path, error)} (sample {sample.id}, {sample.image_path})"
            ) from error
        try:
            value = float(found)
        except (TypeError, ValueError):
            value = np.nan
        if not np.isfinite(value):
            raise UsageError(
                f"{self._path}: {self._function_name} gave {found!r} and no finite number "
                f"(sample {sample.id}, {sample.image_path})"
            )
        return value


def build_function_metric(choice: MetricSpec) -> FunctionMetric:
    """The metric of a suite's own function; raises `SuiteError` for a file or function that cannot be used."""
    if choice.protocol is not None:
        raise SuiteError(f"metric {choice.name!r} is a function and has no protocols")
    choice.parameters_among({})
    path, name = choice.function_place
    if not path.is_file():
        raise SuiteError(f"metric {choice.name!r}: there is no file {path}")
    return FunctionMetric(choice.name, path, name)


def _load_function(path: Path, name: str, sha256: str) -> Callable[..., Any]:
    module = _load_module(path, sha256)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        raise SuiteError(
            f"{path}: no function {name!r}{nearest(name, known)}; it has {', '.join(known) or 'none'}"
        )
    try:
        inspect.signature(function).bind(None, "")
    except TypeError:
        raise SuiteError(
            f"{path}:{_line(function)}: {name} takes other arguments than (image, prompt)"
        ) from None
    found: Callable[..., Any] = function
    return found


def _load_module(path: Path, sha256: str) -> ModuleType:
    # Under a name of its own, so that pickling and dataclasses inside the file find their module.
    name = f"sana_bench_own_{path.stem}_{short(sha256)}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise SuiteError(_where(path, error)) from error
    return module


def _takes_pillow(function: Callable[..., Any]) -> bool:
    """Whether the annotation of the first parameter names a Pillow image."""
    first = next(iter(inspect.signature(function).parameters.values()))
    annotation = first.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__qualname__", "")
    return str(name).rpartition(".")[2] == "Image"


def _where(path: Path, error: BaseException) -> str:
    """The last line of the file that an error went through, and the error."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    place = f"{path}:{lines[-1]}" if lines else str(path)
    first = str(error).strip().partition("\n")[0]
    return f"{place}: {type(error).__name__}" + (f": {first}" if first else "")


def _line(function: Callable[..., Any]) -> int:
    code = getattr(function, "__code__", None)
    return code.co_firstlineno if code is not None else 1
