"""Where the time of an image goes: marks around the methods that a generator names as its stages."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sana_bench.generators.base import Stage
from sana_bench.profiling.timers import Timer

__all__ = ["StageClock"]


class StageClock:
    """Times each call of a generator's stages within `watching`."""

    def __init__(self, stages: Sequence[Stage], timer: Timer) -> None:
        self._stages, self._timer = stages, timer
        self._marks: list[tuple[str, Any, Any]] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Put marks around the stages' methods, and take them away again."""
        self._marks.clear()
        # What `torch.compile` makes of a network has its methods on the object.
        before = [(stage, vars(stage.owner).get(stage.method)) for stage in self._stages]
        for stage in self._stages:
            # On the object and not its class: other pipelines in this process stay as they are.
            object.__setattr__(stage.owner, stage.method, self._marked(stage))
        try:
            yield
        finally:
            for stage, own in before:
                if own is None:
                    object.__delattr__(stage.owner, stage.method)
                else:
                    object.__setattr__(stage.owner, stage.method, own)

    def milliseconds(self) -> dict[str, list[float]]:
        """The time of every call by stage, in order; call it after the timer's `finish`."""
        found: dict[str, list[float]] = {}
        for name, start, end in self._marks:
            found.setdefault(name, []).append(self._timer.milliseconds(start, end))
        return found

    def _marked(self, stage: Stage) -> Callable[..., Any]:
        original = getattr(stage.owner, stage.method)

        def call(*arguments: Any, **options: Any) -> Any:
            start = self._timer.mark()
            result = original(*arguments, **options)
            self._marks.append((stage.name, start, self._timer.mark()))
            return result

        return call
