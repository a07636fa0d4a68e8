"""Which images of which bucket a batch holds, so that every image is seen equally often."""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

__all__ = ["Bucket", "epoch_batches", "epoch_position", "merge_small_buckets"]

#: (height, width) in pixels.
Bucket = tuple[int, int]


def merge_small_buckets(
    members: Mapping[Bucket, Sequence[int]], size: int, fixed: Collection[int] = ()
) -> tuple[dict[Bucket, list[int]], list[str]]:
    """Return buckets of `size` records or more, and a line about every change.

    The smallest bucket goes first, to the one of the nearest aspect ratio; where that is equal, of the nearest area. Records
    in `fixed`, stored latents, keep their shape and are left out when their bucket cannot fill a batch. When too few
    records are left for one batch in all, the last bucket stays as it is and repeats them.
    """
    buckets = {bucket: list(group) for bucket, group in members.items()}
    lines = []
    while len(buckets) > 1:
        small = min(buckets, key=lambda bucket: (len(buckets[bucket]), bucket))
        if len(buckets[small]) >= size:
            break
        group = buckets.pop(small)
        nearest = min(buckets, key=lambda other: (*_distance(small, other), other))
        moved = [index for index in group if index not in fixed]
        buckets[nearest] = sorted(buckets[nearest] + moved)
        label = f"bucket {small[1]}x{small[0]} has {len(group)} of the {size} records of a batch"
        if moved:
            lines.append(f"{label}: its {len(moved)} images go to {nearest[1]}x{nearest[0]}")
        if len(moved) < len(group):
            lines.append(f"{label}: its {len(group) - len(moved)} stored latents are left out")
    for bucket, group in buckets.items():
        if len(group) < size:
            label = f"bucket {bucket[1]}x{bucket[0]}"
            lines.append(f"{label}, the only one, has {len(group)} records: a batch of {size} repeats them")
    return buckets, lines


def epoch_position(counts: Sequence[int], size: int, step: int) -> tuple[int, int]:
    """Return epoch and place in it of a batch, `counts` being the sizes of the buckets.

    Bucket b has made floor(e n_b / size) batches before epoch e: over the epochs exactly its share.
    """

    def before(epoch: int) -> int:
        return sum(count * epoch // size for count in counts)

    # Not beyond the epoch looked for: a sum of floors is at most the floor of the sum.
    epoch = step * size // sum(counts)
    while before(epoch + 1) <= step:
        epoch += 1
    return epoch, step - before(epoch)


def epoch_batches(
    members: Mapping[Bucket, Sequence[int]], size: int, seed: Sequence[int], epoch: int
) -> list[tuple[Bucket, list[int]]]:
    """Return the batches of an epoch, bucket and records, in an order of their own.

    A bucket is passed through again and again, each time in another order, and its batches are cut from the whole; one
    at the seam of two passes may show a record twice.
    """
    batches = []
    for number, (bucket, group) in enumerate(members.items()):
        count = len(group)
        orders: dict[int, list[int]] = {}

        def record(
            place: int, number: int = number, group: Sequence[int] = group, orders: dict = orders
        ) -> int:
            turn, position = divmod(place, len(group))
            if turn not in orders:
                orders[turn] = (
                    np.random.default_rng([*seed, turn, number, 1]).permutation(len(group)).tolist()
                )
            return group[orders[turn][position]]

        for batch in range(epoch * count // size, (epoch + 1) * count // size):
            batches.append((bucket, [record(place) for place in range(batch * size, (batch + 1) * size)]))
    shuffled = np.random.default_rng([*seed, epoch]).permutation(len(batches))
    return [batches[index] for index in shuffled]


def _distance(one: Bucket, other: Bucket) -> tuple[float, float]:
    ratio = math.log(one[0] * other[1] / (one[1] * other[0]))
    return round(abs(ratio), 9), abs(math.log(one[0] * one[1] / (other[0] * other[1])))
