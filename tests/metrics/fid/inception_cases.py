"""Random Inception weights in both public layouts, as the published loaders read them."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def random_state(seed: int = 0) -> dict[str, Tensor]:
    """Weights under the names of the `.pth` file, scaled so that features stay of order one."""
    import torchvision

    from sana_bench.metrics.fid.inception import _layers

    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, _, layer, inputs in _layers():
        shape = (layer.channels, inputs, *layer.kernel)
        fan_in = inputs * layer.kernel[0] * layer.kernel[1]
        state[f"{name}.conv.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        # Both files come from one graph without a gain: one stands for it in the `.pth`.
        state[f"{name}.bn.weight"] = torch.ones(layer.channels)
        state[f"{name}.bn.bias"] = 0.1 * torch.randn(layer.channels, generator=generator)
        state[f"{name}.bn.running_mean"] = 0.1 * torch.randn(layer.channels, generator=generator)
        state[f"{name}.bn.running_var"] = 0.6 + 0.8 * torch.rand(layer.channels, generator=generator)
    state["fc.weight"] = torch.randn(1008, 2048, generator=generator)
    state["fc.bias"] = torch.randn(1008, generator=generator)
    # The names are torchvision's: its own module says which there are.
    with torch.device("meta"):
        expected = torchvision.models.inception_v3(
            weights=None, num_classes=1008, aux_logits=False, init_weights=False
        ).state_dict()
    assert {key for key in expected if not key.endswith("num_batches_tracked")} == set(state)
    return state


class _Conv(nn.Module):
    def __init__(
        self, weight: Tensor, beta: Tensor, mean: Tensor, var: Tensor, stride: int, padding: list[int]
    ):
        super().__init__()
        self.weight, self.beta = nn.Parameter(weight), nn.Parameter(beta)
        self.register_buffer("mean", mean)
        self.register_buffer("var", var)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, stride=self.stride, padding=self.padding)
        return F.relu(F.batch_norm(x, self.mean, self.var, bias=self.beta, eps=1e-3))


def torchscript_file(path: Path, state: dict[str, Tensor]) -> Path:
    """Write the TorchScript archive of the same weights, with the public file's module names.

    A traced `layers` computes the features, so that clean-fid's loader can run it.
    """
    torch.jit.trace(_Script(state).eval(), torch.zeros(1, 3, 299, 299), check_trace=False).save(str(path))
    return path


class _Layers(nn.Module):
    """The graph under the archive's names, walked by name."""

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        from sana_bench.metrics.fid.inception import _layers

        for name, script_name, layer, _ in _layers():
            part = _Conv(
                state[f"{name}.conv.weight"],
                state[f"{name}.bn.bias"],
                state[f"{name}.bn.running_mean"],
                state[f"{name}.bn.running_var"],
                layer.stride,
                list(layer.padding),
            )
            parent: nn.Module = self
            *folders, last = script_name.split(".")[1:]
            for folder in folders:
                if folder not in dict(parent.named_children()):
                    parent.add_module(folder, nn.Module())
                parent = parent.get_submodule(folder)
            parent.add_module(last, part)

    def forward(self, x: Tensor) -> Tensor:
        at = self.get_submodule
        for name in ("conv", "conv_1", "conv_2"):
            x = at(name)(x)
        x = F.max_pool2d(x, 3, 2)
        x = F.max_pool2d(at("conv_4")(at("conv_3")(x)), 3, 2)
        for name in ("mixed", "mixed_1", "mixed_2"):
            x = self._abc(name, x, 2, 3)
        x = self._halving("mixed_3", x, ("conv",), ("tower.conv", "tower.conv_1", "tower.conv_2"))
        for name in ("mixed_4", "mixed_5", "mixed_6", "mixed_7"):
            x = self._abc(name, x, 3, 5)
        long = ("tower_1.conv", "tower_1.conv_1", "tower_1.conv_2", "tower_1.conv_3")
        x = self._halving("mixed_8", x, ("tower.conv", "tower.conv_1"), long)
        x = self._last("mixed_9", x, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
        x = self._last("mixed_10", x, F.max_pool2d(x, 3, 1, 1))
        return F.avg_pool2d(x, 8)

    def _row(self, block: str, names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            x = self.get_submodule(f"{block}.{name}")(x)
        return x

    def _tower(self, tower: str, length: int) -> tuple[str, ...]:
        return tuple(f"{tower}.conv" + (f"_{place}" if place else "") for place in range(length))

    def _abc(self, block: str, x: Tensor, first: int, second: int) -> Tensor:
        pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat(
            [
                self._row(block, ("conv",), x),
                self._row(block, self._tower("tower", first), x),
                self._row(block, self._tower("tower_1", second), x),
                self._row(block, ("tower_2.conv",), pooled),
            ],
            1,
        )

    def _halving(self, block: str, x: Tensor, first: tuple[str, ...], second: tuple[str, ...]) -> Tensor:
        return torch.cat([self._row(block, first, x), self._row(block, second, x), F.max_pool2d(x, 3, 2)], 1)

    def _last(self, block: str, x: Tensor, pooled: Tensor) -> Tensor:
        one = self._row(block, ("tower_conv",), x)
        two = self._row(block, ("tower_1_conv", "tower_1_conv_1"), x)
        return torch.cat(
            [
                self._row(block, ("conv",), x),
                self._row(block, ("tower_mixed_conv",), one),
                self._row(block, ("tower_mixed_conv_1",), one),
                self._row(block, ("tower_1_mixed_conv",), two),
                self._row(block, ("tower_1_mixed_conv_1",), two),
                self._row(block, ("tower_2_conv",), pooled),
            ],
            1,
        )


class _Script(nn.Module):
    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        self.layers = _Layers(state)
        self.output = nn.Linear(2048, 1008)
        self.output.load_state_dict({"weight": state["fc.weight"], "bias": state["fc.bias"]})

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layers(x).flatten(1))
