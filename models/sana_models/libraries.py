"""Imports of libraries that would themselves import what nobody asked for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_torchao"]


@contextmanager
def without_torchao() -> Iterator[None]:
    """Inside, transformers, diffusers and open_clip are imported as if torchao were not installed.

    They import it merely because it is there, which takes seconds and prints warnings. What they found is remembered for the
    process; torchao itself can be imported afterwards, and stays if it was imported before.
    """
    if "torchao" in sys.modules:
        yield
        return
    # `importlib.util.find_spec`, which they ask, finds nothing under a name that stands for None.
    sys.modules["torchao"] = None  # type: ignore[assignment]
    try:
        yield
        if "transformers" in sys.modules:
            from transformers.utils import is_torchao_available

            # Keeps its answer, for modules that transformers imports on first use.
            is_torchao_available()
    finally:
        del sys.modules["torchao"]
