"""One colour for a variant, on whatever page it is shown."""

from collections.abc import Iterable
from zlib import crc32

__all__ = ["variant_colors"]

# The style sheet defines this many series colours, safe for colour-blind readers.
_N_COLORS = 8
# Start value of the checksum: with this one, the variants of each shipped suite have as many colours as there can be, and
# those of the demo blue, green and orange.
_SALT = 192495


def variant_colors(names: Iterable[str]) -> dict[str, int]:
    """The series colour of each variant of a page, in the order given: the one that its name calls for.

    Where two names call for one colour, the second by name takes one that is free. Beyond eight variants colours repeat.
    """
    wanted = {name: crc32(name.encode(), _SALT) % _N_COLORS for name in names}
    if len(wanted) > _N_COLORS:
        return wanted
    holders = {wanted[name]: name for name in sorted(wanted, reverse=True)}
    free = iter(color for color in range(_N_COLORS) if color not in holders)
    moved = {name: next(free) for name in sorted(wanted) if holders[wanted[name]] != name}
    return wanted | moved
