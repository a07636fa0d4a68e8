"""Imports of libraries that would themselves import what nobody asked for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_torchao"]


# What they import merely because it is there: torchao takes seconds and prints warnings; timm, whose towers nothing here has,
# takes open_clip a second.
_HIDDEN = ("torchao", "timm")


@contextmanager
def without_torchao() -> Iterator[None]:
    """Inside, transformers, diffusers and open_clip are imported as if torchao and timm were not installed.

    That there is no torchao is remembered for the process, and that open_clip has no timm; both can be imported afterwards, and
    stay if they were imported before.
    """
    hidden = [name for name in _HIDDEN if name not in sys.modules]
    # `importlib.util.find_spec`, which they ask, finds nothing under a name that stands for None.
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]
    try:
        yield
        if "transformers" in sys.modules:
            from transformers.utils import is_timm_available, is_torchao_available

            if "torchao" in hidden:
                # Keeps its answer, for modules that transformers imports on first use.
                is_torchao_available()
            # Judges of vision and language may have a tower of timm's.
            is_timm_available.cache_clear()
    finally:
        for name in hidden:
            del sys.modules[name]
