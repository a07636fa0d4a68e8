"""Memory that a training's tensors take in a process, from the shapes of its weights."""

import math
from collections.abc import Iterable

from sana_models.came import CAME8bit

__all__ = ["memory_per_process"]

_FP32 = 4


def memory_per_process(
    shapes: Iterable[tuple[int, ...]], optimizer: str, *, processes: int = 1, average: bool = True
) -> dict[str, int]:
    """Return bytes of `weights`, `gradients`, `average` and `optimizer` state in the first process, which holds most.

    `processes` is how many share a model sharded by FSDP2: 1 for whole copies, whatever their number. `optimizer` is as in a
    configuration. Activations, and the units whose weights are gathered at a moment, come on top.
    """
    found = {"weights": 0, "gradients": 0, "average": 0, "optimizer": 0}
    for shape in shapes:
        rows = -(-shape[0] // processes)
        local = _FP32 * rows * math.prod(shape[1:])
        found["weights"] += local
        found["gradients"] += local
        found["average"] += local if average else 0
        found["optimizer"] += _state(optimizer, shape, rows)
    return found


def _state(optimizer: str, shape: tuple[int, ...], rows: int) -> int:
    values, all_values = rows * math.prod(shape[1:]), math.prod(shape)
    factored = len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))
    if optimizer == "adamw":
        # Two moments, and the number of steps.
        return 2 * _FP32 * values + _FP32
    if not factored:
        return 2 * _FP32 * values
    # Means of rows and columns, of the squared gradient and of the residual; columns are those of the whole matrix.
    means = 2 * _FP32 * (rows + shape[1])
    if optimizer == "came" or all_values <= CAME8bit.MIN_SIZE:
        return _FP32 * values + means
    return values + 2 * _FP32 * -(-all_values // CAME8bit.BLOCK_SIZE) + means
