"""One colour for a variant, on whatever page it is shown."""

from collections.abc import Iterable

__all__ = ["variant_colors"]

# The style sheet defines this many series colours, safe for colour-blind readers.
_N_COLORS = 8


def variant_colors(names: Iterable[str], order: Iterable[str] = ()) -> dict[str, int]:
    """The series colour of each variant of a page, in the order given: that of its place in `order`.

    Pages that share an `order` to which variants are only appended agree; variants that it lacks come after it. After the eighth,
    colours repeat: where two variants of a page would share one, the later takes one that is free, if there is any.
    """
    shown = list(dict.fromkeys(names))
    places = {name: place for place, name in enumerate(dict.fromkeys([*order, *shown]))}
    wanted = {name: places[name] % _N_COLORS for name in shown}
    holders: dict[int, str] = {}
    for name in sorted(shown, key=places.__getitem__):
        holders.setdefault(wanted[name], name)
    free = (color for color in range(_N_COLORS) if color not in holders)
    return {name: color if holders[color] == name else next(free, color) for name, color in wanted.items()}
