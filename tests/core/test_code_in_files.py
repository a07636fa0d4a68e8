"""Files that would run code, or fill the memory, when they are read: refused in one line, and the code does not run."""

import io
import json
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sana_bench.assets.unpack import bytes_to_unpack, unpack
from sana_bench.core.arrays import ArraysError, read_arrays
from sana_bench.core.errors import AssetError
from sana_bench.core.images import ImageError, load_image
from sana_bench.metrics.fid.inception import load_inception
from sana_bench.metrics.fid.torchscript import torchscript_tensors
from sana_models.single_files import open_single_file
from sana_models.weight_files import CheckpointError, open_safetensors


class Code:
    """What touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path: Path):
    path = tmp_path / "marker"
    pickle.loads(pickle.dumps(Code(path)))
    assert path.exists(), "the code of the test does not run"
    path.unlink()
    yield path
    assert not path.exists(), "code of a file was run"


def reward(path: Path) -> object:
    from sana_bench.metrics.image_reward.network import _read

    return _read(path)


def mplug(path: Path) -> object:
    from sana_bench.judges.mplug.files import _tensors

    return _tensors(path)


def training_state(path: Path) -> object:
    from sana_models.training.state import KEPT_STATES, StateFolder

    newest = path.parent / "states" / KEPT_STATES[0]
    newest.parent.mkdir()
    path.rename(newest)
    return StateFolder(newest.parent, {}).load()


def sharded_state(path: Path) -> object:
    from sana_models.training.state import KEPT_STATES, StateFolder

    folder = path.parent / "states" / KEPT_STATES[0]
    folder.mkdir(parents=True)
    (folder / "state.json").write_text('{"step": 1}')
    for name in (".metadata", "shard-00001-model-00001-of-00001.safetensors"):
        (folder / name).write_bytes(path.read_bytes())
    return StateFolder(folder.parent, {}).load(lambda: {"modules": {"w": torch.zeros(2)}})


READERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a single file": (open_single_file, "x.pth"),
    "inception, pth": (load_inception, "x.pth"),
    "inception, pt": (load_inception, "x.pt"),
    "image reward": (reward, "x.pt"),
    "mplug": (mplug, "x.bin"),
    "a training state": (training_state, "x.pt"),
    "a state of several processes": (sharded_state, "x.pt"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["archive", "old archive", "pickle"])
def test_code_in_weights_does_not_run(tmp_path, marker, reader, kind) -> None:
    read, name = READERS[reader]
    path = tmp_path / name
    content = {"state_dict": {"w": torch.ones(2)}, "code": Code(marker)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "archive")
    with pytest.raises((AssetError, CheckpointError, ValueError)) as refused:
        read(path)
    assert "\n" not in str(refused.value)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_code_of_torchscript_does_not_run(tmp_path, marker) -> None:
    """`torch.jit.load` runs a module's own way to restore itself, which can write files."""

    class Restores(torch.nn.Module):
        def __init__(self, place: str) -> None:
            super().__init__()
            self.place = place
            self.register_buffer("w", torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.w

        @torch.jit.export
        def __getstate__(self) -> tuple[torch.Tensor, bool, str]:
            return (self.w, self.training, self.place)

        @torch.jit.export
        def __setstate__(self, state: tuple[torch.Tensor, bool, str]) -> None:
            self.place = state[2]
            self.training = state[1]
            written = torch.from_file(state[2], True, 4, dtype=torch.uint8)
            self.w = state[0] + written.fill_(65).float().sum()

    path = tmp_path / "x.pt"
    torch.jit.script(Restores(str(marker))).save(path)
    torch.jit.load(path)
    assert marker.exists(), "the code of the test does not run"
    marker.unlink()
    with pytest.raises(AssetError, match="restores itself by code of its own"):
        load_inception(path)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_tensors_of_torchscript_are_those_that_torch_reads(tmp_path) -> None:
    class Part(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
            self.constant, self.sizes = torch.ones(3), [1, 2]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.convolution(x))

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Part()
            self.rest = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU())
            self.again = self.part
            self.register_buffer("small", torch.arange(6, dtype=torch.float16).reshape(2, 3).T)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.part(x)

    whole = Whole().eval()
    for module in (torch.jit.script(whole), torch.jit.trace(whole, torch.ones(1, 3, 5, 5))):
        module.save(tmp_path / "x.pt")
        expected = torch.jit.load(tmp_path / "x.pt").state_dict()
        found = torchscript_tensors(tmp_path / "x.pt")
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def header(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def with_code(path: Path, marker: Path) -> Path:
    np.savez(path, mu=np.array([Code(marker)], dtype=object), sigma=np.ones(1))
    return path


ARRAYS: dict[str, Callable[[Path, Path], Path]] = {
    "code": with_code,
    "a pickle": lambda path, marker: (path.write_bytes(pickle.dumps(Code(marker))), path)[1],
    "an array that is not there": lambda path, _: npz(
        path, mu=header((10**12,)), sigma=header((1,)) + bytes(8)
    ),
    "a shape beyond all bounds": lambda path, _: npz(path, mu=header((2**62, 2**62)), sigma=b""),
    "zeros without end": lambda path, _: npz(path, mu=header((1 << 28,)) + bytes(1 << 28), sigma=b""),
    "no arrays": lambda path, _: npz(path, other=b"x"),
    "text": lambda path, _: (path.write_text("mu"), path)[1],
    "nothing": lambda path, _: (path.write_bytes(b""), path)[1],
}


@pytest.mark.parametrize("what", ARRAYS)
def test_arrays_hold_no_code_and_fill_no_memory(tmp_path, marker, what) -> None:
    from sana_bench.metrics.fid.own_reference import _read_moments

    path = ARRAYS[what](tmp_path / "x.npz", marker)
    with pytest.raises(ArraysError):
        read_arrays(path, ("mu", "sigma"))
    with pytest.raises(AssetError, match=f"reference {path}: "):
        _read_moments(path, 4)


@pytest.mark.parametrize(
    "claim",
    [8 << 30, (1 << 64) - 1, 100_000_001],
    ids=["8 GB", "all there is", "more than the format allows"],
)
def test_a_header_that_claims_more_than_the_file_has(tmp_path, claim) -> None:
    from sana_bench.assets.checks import safetensors_shapes
    from sana_bench.metrics.clip.micro_network import load_clip

    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", claim) + b'{"a": ')
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        open_safetensors(path)
    with pytest.raises(AssetError, match="not a whole safetensors file"):
        safetensors_shapes(path)
    with pytest.raises(AssetError):
        load_clip(tmp_path)


def test_a_tensor_that_claims_more_than_the_file_has(tmp_path) -> None:
    head = json.dumps({"a": {"dtype": "F32", "shape": [1 << 31], "data_offsets": [0, 1 << 33]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(16))
    with pytest.raises(CheckpointError, match="truncated"):
        open_safetensors(path)


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*one) for one in chunks) + chunk(b"IEND", b"")


BOMB = zlib.compress(bytes(1 << 28), 9)


@pytest.mark.parametrize(
    "content",
    [
        png(60_000, 60_000, (b"IDAT", BOMB)),
        png(2**31 - 1, 2**31 - 1, (b"IDAT", BOMB)),
        png(8, 8, (b"zTXt", b"x\0\0" + BOMB), (b"IDAT", zlib.compress(bytes(8 * 25)))),
        png(8, 8, (b"iCCP", b"x\0\0" + BOMB), (b"IDAT", zlib.compress(bytes(8 * 25)))),
        png(0, 0, (b"IDAT", BOMB)),
    ],
    ids=["pixels", "more pixels", "text", "profile", "no pixels"],
)
def test_a_picture_that_would_fill_the_memory(tmp_path, content) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError, match=f"{tmp_path / 'x.png'}: "):
        load_image(tmp_path / "x.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_more_pixels_than_a_picture_has_are_refused(tmp_path) -> None:
    """Pillow warns from 89 million pixels on and refuses twice as many; nothing that is scored has a tenth of them."""
    Image.new("1", (9_500, 9_500)).save(tmp_path / "x.png")
    with pytest.raises(ImageError, match="9500x9500 pixels are more than the 89,478,485 that are read"):
        load_image(tmp_path / "x.png")


def test_an_archive_that_would_fill_the_disk(tmp_path, monkeypatch) -> None:
    """The space is compared with what the archive says, and no member may give more than that."""
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/zeros.png", bytes(1 << 26))
    assert path.stat().st_size < 100_000
    assert bytes_to_unpack(path, tmp_path / "images") == 1 << 26
    free = type(shutil.disk_usage(tmp_path))(1 << 30, 1 << 30, 1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(AssetError, match=r"67\.1 MB are needed, 1\.0 MB are free"):
        unpack(path, tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_an_archive_that_lies_about_a_member(tmp_path) -> None:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/zeros.png", bytes(1 << 20))
    content = path.read_bytes().replace(struct.pack("<I", 1 << 20), struct.pack("<I", 100))
    path.write_bytes(content)
    with pytest.raises(AssetError, match="cannot be unpacked"):
        unpack(path, tmp_path / "images")
    assert not list((tmp_path / "images").glob("*.png"))
