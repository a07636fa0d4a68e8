"""Calls of a network as CUDA graphs: one call replays all launches of a step, so that the host keeps up with the device."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sana_models.transformer import TextContext

__all__ = ["GraphedCalls"]

# Runs before a recording, in which libraries choose kernels and Triton compiles its own.
_WARM_UP = 2


class _Graph:
    """One recording: the memory that it reads its arguments from, and that it writes its result to."""

    def __init__(self, call: Callable[..., Tensor], leaves: list[Any], spec: Any, pool: Any) -> None:
        self.inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.shown: list[Any] = [None] * len(leaves)
        arguments, options = pytree.tree_unflatten(self.inputs, spec)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                call(*arguments, **options)
        torch.cuda.current_stream().wait_stream(stream)
        self.recording = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.recording, pool=pool):
            self.result = call(*arguments, **options)

    def replay(self, leaves: list[Any], kept: list[bool]) -> Tensor:
        """The result for other values; those that are `kept` are copied only when they are not the tensors of the call before."""
        changed = [
            (mine, theirs)
            for place, (mine, theirs) in enumerate(zip(self.inputs, leaves, strict=True))
            if isinstance(theirs, Tensor) and not (kept[place] and theirs is self.shown[place])
        ]
        if changed:
            torch._foreach_copy_([mine for mine, _ in changed], [theirs for _, theirs in changed])
        # Held, so that no other tensor can take the place of one that was copied.
        self.shown = [theirs if keep else None for theirs, keep in zip(leaves, kept, strict=True)]
        self.recording.replay()
        return self.result


class GraphedCalls:
    """Calls of `call`, one recording for each set of shapes; the result stays in place until the next call.

    All recordings share their memory. A text context does not change once it is made, and is copied when another one comes.
    """

    def __init__(self, call: Callable[..., Tensor]) -> None:
        self._call = call
        self._graphs: dict[Any, _Graph] = {}
        self._pool: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Tensor:
        """As `call`, whose tensors must all lie on one CUDA device; raises RuntimeError for what cannot be recorded."""
        leaves, spec = pytree.tree_flatten((arguments, options))
        kept = _of_contexts((arguments, options))
        key = (spec, *((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves))
        device = next(leaf.device for leaf in leaves if isinstance(leaf, Tensor))
        with torch.cuda.device(device):
            if key not in self._graphs:
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                self._graphs[key] = _Graph(self._call, leaves, spec, self._pool)
            return self._graphs[key].replay(leaves, kept)


def _of_contexts(arguments: Any) -> list[bool]:
    """Of each leaf, whether it is part of a text context."""
    outer = pytree.tree_leaves(arguments, is_leaf=lambda one: isinstance(one, TextContext))
    return [
        isinstance(one, TextContext)
        for one in outer
        for _ in (pytree.tree_leaves(one) if isinstance(one, TextContext) else [one])
    ]
