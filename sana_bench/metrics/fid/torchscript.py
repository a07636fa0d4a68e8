"""The tensors of a TorchScript archive, without its code: `torch.jit.load` runs what a module does when it is restored."""

import ast
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sana_bench.core.arrays import refuse_bombs
from sana_models.files import open_plain

__all__ = ["torchscript_tensors"]

_DTYPES = {
    f"{name}Storage": dtype
    for name, dtype in (
        ("Float", torch.float32), ("Double", torch.float64), ("Half", torch.float16), ("BFloat16", torch.bfloat16),
        ("Long", torch.int64), ("Int", torch.int32), ("Short", torch.int16), ("Char", torch.int8),
        ("Byte", torch.uint8), ("Bool", torch.bool),
    )
}  # fmt: skip
# Lists of plain values, which the archive builds through functions of this module.
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
# How the source of a module names what of it is a parameter and what a buffer.
_CLASS = re.compile(
    r"^class (\w+)\(Module\):\n  __parameters__ = (\[.*?\])\n  __buffers__ = (\[.*?\])\n", re.MULTILINE
)


class _Module:
    """What stands for a module of the archive: its name and its attributes."""

    name = ""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"the module {self.name} restores itself by code of its own")
        self.state = state


def torchscript_tensors(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by the names that `state_dict` of the loaded archive has.

    Raises `OSError`, and what `sana_bench.assets.checks.DAMAGED` lists for a damaged archive or one that could only be restored
    by running its code.
    """
    try:
        with open_plain(path) as file, zipfile.ZipFile(file) as archive:
            refuse_bombs(archive)
            names = archive.namelist()
            (data,) = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
            root = data.partition("/")[0]
            with archive.open(data) as content:
                top = _Unpickler(content, archive, root).load()
            if not isinstance(top, _Module):
                raise ValueError("holds no module")
            return dict(_tensors(top, "", dict(_declared(archive, root, names))))
    except (zipfile.BadZipFile, zlib.error, SyntaxError) as error:
        raise ValueError(str(error)) from None


class _Unpickler(pickle.Unpickler):
    """Restores data alone: every name that is not known is refused."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type("_Named", (_Module,), {"name": f"{module}.{name}"})
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle" and name in _LISTS:
            return list
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"names {module}.{name}, which is not plain data")

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"names {kind}, which is no storage")
        content = bytearray(self._archive.read(f"{self._root}/data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset).clone()


def _declared(
    archive: zipfile.ZipFile, root: str, names: list[str]
) -> Iterator[tuple[str, tuple[list[str], list[str]]]]:
    """Parameters and buffers of each class of the archive, from its source, which is read and not run."""
    for name in names:
        if name.startswith(f"{root}/code/") and name.endswith(".py"):
            module = name.removeprefix(f"{root}/code/").removesuffix(".py").replace("/", ".")
            for found in _CLASS.finditer(archive.read(name).decode("utf-8")):
                yield f"{module}.{found[1]}", (ast.literal_eval(found[2]), ast.literal_eval(found[3]))


def _tensors(
    module: _Module, prefix: str, declared: dict[str, tuple[list[str], list[str]]]
) -> Iterator[tuple[str, Tensor]]:
    parameters, buffers = declared[module.name]
    for name in (*parameters, *buffers):
        if isinstance(value := module.state.get(name), Tensor):
            yield prefix + name, value
    for name, value in module.state.items():
        if isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.", declared)
