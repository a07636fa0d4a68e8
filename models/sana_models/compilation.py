"""A transformer's steps compiled by torch, with or without CUDA graphs: the same network in fewer, larger kernels.

Rounding differs from the network run operation by operation, so images differ in their last bits.
"""

import shutil
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sana_models.cuda_graphs import GraphedCalls
from sana_models.dc_ae import DCAE
from sana_models.transformer import SanaTransformer

__all__ = [
    "Compile",
    "CompiledTransformer",
    "compile_autoencoder",
    "compile_transformer",
    "refuse_compilation",
]

#: What `torch.compile` does: nothing, its default, or trying many kernels for each operation first, which takes minutes.
Compile = Literal["none", "default", "max-autotune"]

# torch.compile's words. CUDA graphs are ours with all of them: torch's way to record without compiling takes no Triton kernels.
_OPTIONS: dict[str, dict[str, Any]] = {"default": {}, "max-autotune": {"mode": "max-autotune-no-cudagraphs"}}
_COMPILERS = ("g++", "clang++", "c++")
# Batches of a sweep, with and without guidance; torch's own limit of 8 would fall back to plain operations in silence.
_MOST_SHAPES = 64


class CompiledTransformer(nn.Module):
    """Calls run compiled; everything else is that of the network inside.

    Every shape is compiled by itself, so that a batch gives the same image whatever batches came before it.
    """

    def __init__(self, network: SanaTransformer, compile: Compile, cuda_graphs: bool) -> None:
        super().__init__()
        self.network = network
        self.cuda_graphs = cuda_graphs
        self._run = network.forward if compile == "none" else _compiled(network.forward, compile)
        if cuda_graphs:
            self._run = GraphedCalls(self._run)

    def forward(self, *arguments: Any, **options: Any) -> Tensor:
        """As `SanaTransformer.forward`; raises RuntimeError where torch cannot compile it."""
        result: Tensor = self._run(*arguments, **options)
        # A graph writes its result to the same place each time, and solvers keep the one before.
        return result.clone() if self.cuda_graphs else result

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)


def _compiled(method: Any, compile: Compile) -> Callable[..., Tensor]:
    run = torch.compile(_of_its_own(method), dynamic=False, **_OPTIONS[compile])

    def call(*arguments: Any, **options: Any) -> Tensor:
        import torch._dynamo as dynamo

        with dynamo.config.patch(recompile_limit=_MOST_SHAPES, fail_on_recompile_limit_hit=True):
            return torch.as_tensor(run(*arguments, **options))

    return call


def _of_its_own(method: Any) -> Any:
    """The same method with a copy of its code: torch counts shapes by code, and other networks of a run have theirs."""
    function = method.__func__
    copy = FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    copy.__kwdefaults__ = function.__kwdefaults__
    return MethodType(copy, method.__self__)


def compile_transformer(
    network: SanaTransformer, compile: Compile = "none", *, cuda_graphs: bool = False
) -> Any:
    """Return the network with its calls compiled, or as it is; raises ValueError as `refuse_compilation`."""
    refuse_compilation(compile, cuda_graphs, network.proj_out.weight.device)
    if compile == "none" and not cuda_graphs:
        return network
    return CompiledTransformer(network, compile, cuda_graphs)


def refuse_compilation(compile: str, cuda_graphs: bool, device: str | torch.device) -> None:
    """Raise ValueError, one line, for what there is not, and for what a device cannot do."""
    device = torch.device(device)
    if compile not in get_args(Compile):
        raise ValueError(f"compile is {compile!r}; allowed: {', '.join(get_args(Compile))}")
    if cuda_graphs and device.type != "cuda":
        raise ValueError(f"cuda_graphs needs a CUDA device, and this one is {device.type}")
    if compile == "none":
        return
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major < 7:
            raise ValueError(
                f"compile {compile} needs a GPU of compute capability 7.0; this one has {major}.{minor}"
            )
    elif not any(map(shutil.which, _COMPILERS)):
        raise ValueError(
            f"compile {compile} needs a C++ compiler on a {device.type} ({', '.join(_COMPILERS)})"
        )


def compile_autoencoder(autoencoder: DCAE, compile: Compile, device: str | torch.device) -> DCAE:
    """Return the autoencoder, on a CUDA device with its decoder compiled, which is one graph, every shape by itself.

    On a processor the decoder stays as it is: its layers free memory, and keep to the cache, in ways that a graph does not know.
    """
    if compile == "none" or torch.device(device).type != "cuda":
        return autoencoder
    autoencoder.decoder.forward = _compiled(autoencoder.decoder.forward, compile)  # type: ignore[method-assign]
    return autoencoder
