"""The Inception network of the Fréchet and kernel distances, from either of its two public weight files.

Both files hold the ImageNet classifier of December 2015 (Szegedy et al. 2016, arXiv 1512.00567) in its TensorFlow
form: 1,008 classes, average pooling that leaves padding out, and maximum pooling in the last block. They are the
`.pth` of pytorch-fid (names as torchvision's) and the TorchScript archive of StyleGAN2-ADA (names of the TensorFlow
graph), which clean-fid uses. Here batch normalisation is folded into the convolutions, in float64.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sana_bench.assets.checks import DAMAGED
from sana_bench.core.errors import AssetError
from sana_bench.metrics.fid import FEATURES
from sana_bench.metrics.fid.torchscript import torchscript_tensors
from sana_models.files import plain

__all__ = ["FidInception", "build_inception", "load_inception", "parameter_shapes"]

_CLASSES = 1008
_EPSILON = 1e-3  # of the batch normalisation


@dataclass(frozen=True)
class _Conv:
    """A convolution: its names in the two files, output channels, kernel (height, width), stride and padding."""

    name: str
    script_name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    pad: bool = True

    @property
    def padding(self) -> tuple[int, int]:
        return (self.kernel[0] // 2, self.kernel[1] // 2) if self.pad else (0, 0)


@dataclass(frozen=True)
class _Branch:
    """Convolutions in a row after an optional pooling; `split` ones all read the last of the row."""

    row: tuple[_Conv, ...] = ()
    split: tuple[_Conv, ...] = ()
    pool: str = ""


@dataclass(frozen=True)
class _Block:
    name: str
    script_name: str
    branches: tuple[_Branch, ...]


_SQUARE, _FIVE, _WIDE, _TALL = (3, 3), (5, 5), (1, 7), (7, 1)

_STEM: tuple[_Conv | str, ...] = (
    _Conv("Conv2d_1a_3x3", "conv", 32, _SQUARE, stride=2, pad=False),
    _Conv("Conv2d_2a_3x3", "conv_1", 32, _SQUARE, pad=False),
    _Conv("Conv2d_2b_3x3", "conv_2", 64, _SQUARE),
    "pool",
    _Conv("Conv2d_3b_1x1", "conv_3", 80),
    _Conv("Conv2d_4a_3x3", "conv_4", 192, _SQUARE, pad=False),
    "pool",
)


def _row(name: str, tower: str, *layers: tuple[int, tuple[int, int]], last_stride: int = 1) -> _Branch:
    """A tower: `name_1`, `name_2`, ... in one file, `tower.conv`, `tower.conv_1`, ... in the other."""
    return _Branch(
        tuple(
            _Conv(
                f"{name}_{place + 1}",
                f"{tower}.conv" + (f"_{place}" if place else ""),
                channels,
                kernel,
                stride=last_stride if place == len(layers) - 1 else 1,
                pad=last_stride == 1 or place < len(layers) - 1,
            )
            for place, (channels, kernel) in enumerate(layers)
        )
    )


def _pooled(kind: str, channels: int) -> _Branch:
    return _Branch((_Conv("branch_pool", "tower_2.conv", channels),), pool=kind)


def _block_a(name: str, script_name: str, pool_channels: int) -> _Block:
    return _Block(
        name,
        script_name,
        (
            _Branch((_Conv("branch1x1", "conv", 64),)),
            _row("branch5x5", "tower", (48, (1, 1)), (64, _FIVE)),
            _row("branch3x3dbl", "tower_1", (64, (1, 1)), (96, _SQUARE), (96, _SQUARE)),
            _pooled("average", pool_channels),
        ),
    )


def _block_c(name: str, script_name: str, width: int) -> _Block:
    long = ((width, (1, 1)), (width, _TALL), (width, _WIDE), (width, _TALL), (192, _WIDE))
    return _Block(
        name,
        script_name,
        (
            _Branch((_Conv("branch1x1", "conv", 192),)),
            _row("branch7x7", "tower", (width, (1, 1)), (width, _WIDE), (192, _TALL)),
            _row("branch7x7dbl", "tower_1", *long),
            _pooled("average", 192),
        ),
    )


def _block_e(name: str, script_name: str, pool: str) -> _Block:
    def halves(branch: str, tower: str) -> tuple[_Conv, _Conv]:
        return (
            _Conv(f"{branch}a", f"{tower}_mixed_conv", 384, (1, 3)),
            _Conv(f"{branch}b", f"{tower}_mixed_conv_1", 384, (3, 1)),
        )

    doubled = (
        _Conv("branch3x3dbl_1", "tower_1_conv", 448),
        _Conv("branch3x3dbl_2", "tower_1_conv_1", 384, _SQUARE),
    )
    return _Block(
        name,
        script_name,
        (
            _Branch((_Conv("branch1x1", "conv", 320),)),
            _Branch((_Conv("branch3x3_1", "tower_conv", 384),), halves("branch3x3_2", "tower")),
            _Branch(doubled, halves("branch3x3dbl_3", "tower_1")),
            _Branch((_Conv("branch_pool", "tower_2_conv", 192),), pool=pool),
        ),
    )


_BLOCKS = (
    _block_a("Mixed_5b", "mixed", 32),
    _block_a("Mixed_5c", "mixed_1", 64),
    _block_a("Mixed_5d", "mixed_2", 64),
    _Block(
        "Mixed_6a",
        "mixed_3",
        (
            _Branch((_Conv("branch3x3", "conv", 384, _SQUARE, stride=2, pad=False),)),
            _row("branch3x3dbl", "tower", (64, (1, 1)), (96, _SQUARE), (96, _SQUARE), last_stride=2),
            _Branch(pool="halve"),
        ),
    ),
    _block_c("Mixed_6b", "mixed_4", 128),
    _block_c("Mixed_6c", "mixed_5", 160),
    _block_c("Mixed_6d", "mixed_6", 160),
    _block_c("Mixed_6e", "mixed_7", 192),
    _Block(
        "Mixed_7a",
        "mixed_8",
        (
            _row("branch3x3", "tower", (192, (1, 1)), (320, _SQUARE), last_stride=2),
            _row(
                "branch7x7x3",
                "tower_1",
                (192, (1, 1)),
                (192, _WIDE),
                (192, _TALL),
                (192, _SQUARE),
                last_stride=2,
            ),
            _Branch(pool="halve"),
        ),
    ),
    _block_e("Mixed_7b", "mixed_9", "average"),
    _block_e("Mixed_7c", "mixed_10", "maximum"),
)


class FidInception(nn.Module):
    """Features of the last pooling; weights and biases of all convolutions, batch normalisation folded in."""

    def __init__(self, folded: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """`folded` gives weight and bias of each convolution by its name in the `.pth` file."""
        super().__init__()
        for name, (weight, bias) in folded.items():
            key = name.replace(".", "/")
            self.register_buffer(f"{key}/weight", weight.contiguous(memory_format=torch.channels_last))
            self.register_buffer(f"{key}/bias", bias)

    def forward(self, images: Tensor) -> Tensor:
        """Features (n, 2048) of images (n, 3, 299, 299) scaled to about [-1, 1]."""
        x = images.contiguous(memory_format=torch.channels_last)
        for layer in _STEM:
            x = F.max_pool2d(x, 3, stride=2) if isinstance(layer, str) else self._convolve("", layer, x)
        for block in _BLOCKS:
            parts = [part for branch in block.branches for part in self._branch(f"{block.name}/", branch, x)]
            x = torch.cat(parts, dim=1)
        return x.mean(dim=(2, 3))

    def _branch(self, prefix: str, branch: _Branch, x: Tensor) -> list[Tensor]:
        x = _pool(branch.pool, x)
        for layer in branch.row:
            x = self._convolve(prefix, layer, x)
        return [self._convolve(prefix, layer, x) for layer in branch.split] or [x]

    def _convolve(self, prefix: str, layer: _Conv, x: Tensor) -> Tensor:
        weight = self.get_buffer(f"{prefix}{layer.name}/weight")
        bias = self.get_buffer(f"{prefix}{layer.name}/bias")
        return F.conv2d(x, weight, bias, stride=layer.stride, padding=layer.padding).relu_()


def _pool(kind: str, x: Tensor) -> Tensor:
    if kind == "average":
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    if kind == "maximum":
        return F.max_pool2d(x, 3, stride=1, padding=1)
    return F.max_pool2d(x, 3, stride=2) if kind == "halve" else x


def load_inception(path: Path) -> FidInception:
    """The network from `pt_inception-2015-12-05-6726825d.pth` or the TorchScript `inception-2015-12-05.pt`.

    The archive's own code is not run: only its tensors are taken.

    Raises:
        AssetError: the file is missing or damaged, or lacks, repeats or adds any weight.
    """
    if not path.is_file():
        raise AssetError(f"{path} is missing: the Inception weights")
    return build_inception(_read(path), path)


def build_inception(state: Mapping[str, Tensor], path: Path) -> FidInception:
    """The network with the tensors of either file; `path` is what an `AssetError` names."""
    script = any(key.startswith("layers.") for key in state)
    return FidInception(_folded(path, state, script)).eval()


def parameter_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the `.pth` file's tensors."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, _, layer, inputs in _layers():
        shapes[f"{name}.conv.weight"] = (layer.channels, inputs, *layer.kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = (layer.channels,)
    return {**shapes, "fc.weight": (_CLASSES, FEATURES), "fc.bias": (_CLASSES,)}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".pt":
            return torchscript_tensors(path)
        return dict(torch.load(plain(path), map_location="cpu", weights_only=True))
    except DAMAGED as error:
        reason = str(error).strip().partition("\n")[0]
        raise AssetError(f"{path}: not an Inception weight file ({reason})") from None


def _layers() -> Iterator[tuple[str, str, _Conv, int]]:
    """Every convolution with its names in the two files and its input channels."""
    channels = 3
    for layer in _STEM:
        if isinstance(layer, _Conv):
            yield layer.name, f"layers.{layer.script_name}", layer, channels
            channels = layer.channels
    for block in _BLOCKS:
        total = 0
        for branch in block.branches:
            width = channels
            for layer in branch.row:
                yield (
                    f"{block.name}.{layer.name}",
                    f"layers.{block.script_name}.{layer.script_name}",
                    layer,
                    width,
                )
                width = layer.channels
            for layer in branch.split:
                yield (
                    f"{block.name}.{layer.name}",
                    f"layers.{block.script_name}.{layer.script_name}",
                    layer,
                    width,
                )
            total += sum(layer.channels for layer in branch.split) or width
        channels = total


def _folded(path: Path, state: Mapping[str, Tensor], script: bool) -> dict[str, tuple[Tensor, Tensor]]:
    """Take every tensor of the file exactly once; raises `AssetError` for any that is left, missing or odd."""
    # Counters of seen batches change nothing, and older files have none.
    left = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}

    def take(key: str, shape: tuple[int, ...]) -> Tensor:
        tensor = left.pop(key, None)
        if tensor is None:
            raise AssetError(f"{path}: no weight {key!r}")
        if tuple(tensor.shape) != shape:
            raise AssetError(f"{path}: {key!r} has shape {tuple(tensor.shape)}, expected {shape}")
        return tensor.double()

    folded = {}
    for name, script_name, layer, inputs in _layers():
        each, n = (layer.channels,), layer.channels
        if script:
            weight = take(f"{script_name}.weight", (n, inputs, *layer.kernel))
            gain = torch.ones(n, dtype=torch.float64)
            shift, mean, variance = (take(f"{script_name}.{part}", each) for part in ("beta", "mean", "var"))
        else:
            weight = take(f"{name}.conv.weight", (n, inputs, *layer.kernel))
            parts = ("weight", "bias", "running_mean", "running_var")
            gain, shift, mean, variance = (take(f"{name}.bn.{part}", each) for part in parts)
        scale = gain / torch.sqrt(variance + _EPSILON)
        folded[name] = ((weight * scale[:, None, None, None]).float(), (shift - mean * scale).float())
    head = "output" if script else "fc"
    take(f"{head}.weight", (_CLASSES, FEATURES))
    take(f"{head}.bias", (_CLASSES,))
    if left:
        raise AssetError(f"{path}: weights of unknown layers: {', '.join(sorted(left)[:3])}")
    return folded
