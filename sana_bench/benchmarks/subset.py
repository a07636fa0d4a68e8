"""A part of a prompt set that stands for it: spread over its tasks, and the same on every machine."""

from collections.abc import Sequence

from sana_bench.core.errors import SuiteError
from sana_bench.core.fingerprint import fingerprint
from sana_bench.core.samples import Prompt

__all__ = ["stratified"]


def stratified(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """`count` prompts in their order, each task with its share of them (largest remainders first, one at least where possible).

    Within a task prompts are taken by the hash of their id: a larger subset has what the smaller share of a task has, and the
    order of the file plays no part. Raises `SuiteError` where there are fewer.
    """
    if count > len(prompts):
        raise SuiteError(f"{count} prompts are asked for, and there are {len(prompts)}")
    by_tag: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_tag.setdefault(prompt.tag, []).append(prompt)
    shares = _shares({tag: len(group) for tag, group in by_tag.items()}, count)
    chosen = {
        prompt.id
        for tag, group in by_tag.items()
        for prompt in sorted(group, key=lambda prompt: fingerprint(prompt.id))[: shares[tag]]
    }
    return [prompt for prompt in prompts if prompt.id in chosen]


def _shares(sizes: dict[str, int], count: int) -> dict[str, int]:
    total = sum(sizes.values())
    least = 1 if count >= len(sizes) else 0
    shares = {tag: max(least, count * size // total) for tag, size in sizes.items()}
    # Whoever lies furthest below its share gets the next; where the smallest tasks were lifted, who lies furthest above gives.
    while (left := count - sum(shares.values())) != 0:
        step = 1 if left > 0 else -1
        able = [
            tag
            for tag in sizes
            if (step > 0 and shares[tag] < sizes[tag]) or (step < 0 and shares[tag] > least)
        ]
        lag = {tag: step * (count * sizes[tag] / total - shares[tag]) for tag in able}
        shares[max(able, key=lag.__getitem__)] += step
    return shares
