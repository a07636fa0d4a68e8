"""Calls of a network as CUDA graphs: one call replays all launches of a step, so that the host keeps up with the device."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sana_models.transformer import TextContext

__all__ = ["GraphedCalls"]

# Runs before a recording, in which libraries choose kernels and Triton compiles its own.
_WARM_UP = 2


# An argument of a call: a tensor, a text context, or a number, which is part of the recording.
_Argument = Any


class _Graph:
    """One recording: the memory that it reads its arguments from, and that it writes its result to."""

    def __init__(
        self, call: Callable[..., Tensor], arguments: tuple[_Argument, ...], names: tuple[str, ...], pool: Any
    ) -> None:
        self.inputs = [pytree.tree_map_only(Tensor, Tensor.clone, one) for one in arguments]
        self.contexts: list[TextContext | None] = [None] * len(arguments)
        first = len(arguments) - len(names)
        run = partial(call, *self.inputs[:first], **dict(zip(names, self.inputs[first:], strict=True)))
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        self.recording = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.recording, pool=pool):
            self.result = run()

    def replay(self, arguments: tuple[_Argument, ...]) -> Tensor:
        """The result for other values."""
        for place, (mine, theirs) in enumerate(zip(self.inputs, arguments, strict=True)):
            if isinstance(theirs, Tensor):
                mine.copy_(theirs)
            elif isinstance(theirs, TextContext) and theirs is not self.contexts[place]:
                torch._foreach_copy_(pytree.tree_leaves(mine), pytree.tree_leaves(theirs))
                # Held, so that no other context can have its identity.
                self.contexts[place] = theirs
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

    def __call__(self, *arguments: _Argument, **options: _Argument) -> Tensor:
        """As `call`, whose tensors must all lie on one CUDA device; raises RuntimeError for what cannot be recorded."""
        values, names = (*arguments, *options.values()), tuple(options)
        key = (names, *map(_shape, values))
        device = next(one.device for one in values if isinstance(one, Tensor))
        with torch.cuda.device(device):
            if key not in self._graphs:
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                self._graphs[key] = _Graph(self._call, values, names, self._pool)
            return self._graphs[key].replay(values)


def _shape(argument: _Argument) -> Any:
    """What a recording is told apart by; keys and values of one text have one shape in all blocks."""
    if isinstance(argument, TextContext):
        return *map(_shape, (*argument.keys_values[0], argument.bias)), len(argument.keys_values)
    return (argument.shape, argument.dtype) if isinstance(argument, Tensor) else argument
