"""Questions about one image whose common beginning a network reads once: its key/value cache serves them all.

What a processor makes of a question begins with the same tokens for every question about an image, the image among them. They are
most of the work: a picture of 1024 pixels a side is more than a thousand tokens, a question about twenty.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

from sana_bench.core.preprocess import batches

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ImageQuestions", "can_share", "one_image"]

Row = Mapping[str, "Tensor"]

# Of the spread of logits: more is no rounding.
_NOISE = 0.1
# What a processor gives that has an entry for each token. With anything else of that kind a token looks at more than the keys and
# values of the tokens before it, and a cache of those is not enough.
_PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


class ImageQuestions:
    """What a network says after each of some texts about one image, `batch` at once."""

    def __init__(self, network: Any, rows: Sequence[Any], batch: int, *, share: bool = True) -> None:
        """`rows` are what a processor makes of each text and the image; what they `share` is read now.

        Nothing is shared where a cache of keys and values does not hold everything that the network looks at. Where the image
        looks at the text after it, it must not be: see `can_share`.
        """
        self._rows = rows
        self.ids: list[list[int]] = [row["input_ids"][0].tolist() for row in rows]
        self._network, self._batch = network, batch
        self._length = _common_length(rows, self.ids, _image_token(network.config)) if share else 0
        if self.shared:
            parts = {
                name: part[:, : self._length] if name in _PER_TOKEN else part
                for name, part in self.inputs(0).items()
            }
            # Copied for each batch, so that it stays as it is.
            self._cache = network(**parts, use_cache=True, **_logits_of(network, 1)).past_key_values

    @property
    def shared(self) -> bool:
        """Whether the texts share what the network made of the image."""
        return self._length > 0

    def inputs(self, row: int) -> Row:
        """What the network takes for one text and the image, on its device and in its precision."""
        placed: Row = self._rows[row].to(self._network.device, dtype=self._network.dtype)
        return placed

    def next_logits(self, which: Sequence[int], said: Sequence[Sequence[int]] | None = None) -> "Tensor":
        """Logits (n, vocabulary), float64, of the token after each of the rows `which`, where shared after the tokens `said` too.

        `said` has an entry for every row.
        """
        import torch

        if not self.shared:
            kept = _logits_of(self._network, 1)
            alone = [self._network(**self.inputs(row), **kept).logits[:, -1] for row in which]
            return torch.cat(alone).double()
        ends = [[*self.ids[row][self._length :], *(said[row] if said is not None else ())] for row in which]
        # Texts of a length together: less is filled up.
        order = sorted(range(len(ends)), key=lambda place: len(ends[place]))
        parts = [
            self._side_by_side([ends[place] for place in places]) for places in batches(order, self._batch)
        ]
        logits = torch.cat(parts)
        return logits[torch.tensor(order).argsort().to(logits.device)]

    def _side_by_side(self, ends: Sequence[Sequence[int]]) -> "Tensor":
        """Logits after each of `ends`, which go on from what is shared.

        They are filled up on the right, where none of their tokens looks: positions are those of each text alone.
        """
        import torch

        device, n = self._network.device, len(ends)
        longest = max(map(len, ends))
        filled = torch.tensor([[*end, *[end[-1]] * (longest - len(end))] for end in ends], device=device)
        last = torch.tensor([len(end) - 1 for end in ends], device=device)
        kept, column = last.unique(return_inverse=True)
        cache = copy.deepcopy(self._cache)
        cache.reorder_cache(torch.zeros(n, dtype=torch.long, device=device))
        found: Tensor = self._network(
            input_ids=filled, past_key_values=cache, **_logits_of(self._network, kept)
        ).logits
        if found.shape[1] == longest:
            column = last
        return found[torch.arange(n, device=device), column].double()


def can_share(network: Any, rows: Sequence[Any]) -> bool:
    """Whether a network says the same after texts that share what it made of the image as after each alone.

    Where it does, logits differ by rounding, in bfloat16 by a few hundredths of their spread; where the image looks at the text
    after it, as PaliGemma's does, by half of it.
    """
    import torch

    together = ImageQuestions(network, rows, len(rows))
    if not together.shared:
        return False
    places = range(len(rows))
    alone = ImageQuestions(network, rows, 1, share=False).next_logits(places)
    apart = (together.next_logits(places) - alone).square().mean().sqrt()
    return bool(apart < _NOISE * torch.std(alone))


@contextmanager
def one_image(processor: Any) -> Iterator[None]:
    """Let a processor prepare an image once for all texts that it is given inside the `with` block: all are about one image."""
    prepares = processor.image_processor
    processor.image_processor = _Once(prepares)
    try:
        yield
    finally:
        processor.image_processor = prepares


class _Once:
    """An image processor that remembers its first result."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._made: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self._made is None:
            self._made = self._inner(*arguments, **options)
        return copy.copy(self._made)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _common_length(rows: Sequence[Row], ids: Sequence[Sequence[int]], image_token: int | None) -> int:
    """How many tokens all rows begin with, one less than the shortest row has at most.

    0 where they do not hold the whole image, where a cache is not enough, and for a single row, which has nothing to share.
    """
    more = [name for name, part in rows[0].items() if _is_per_token(part, rows[0]) and name not in _PER_TOKEN]
    if len(rows) < 2 or more or image_token not in ids[0]:
        return 0
    columns = enumerate(zip(*ids, strict=False))
    shortest = min(map(len, ids))
    differs = next((place for place, tokens in columns if len(set(tokens)) > 1), shortest)
    common = min(differs, shortest - 1)
    after_image = max(place for place, token in enumerate(ids[0]) if token == image_token) + 1
    return common if common >= after_image else 0


def _is_per_token(part: "Tensor", row: Row) -> bool:
    return tuple(part.shape[:2]) == tuple(row["input_ids"].shape)


def _image_token(config: Any) -> int | None:
    """The id that stands for a piece of the image, by either name that configurations have for it."""
    return getattr(config, "image_token_id", getattr(config, "image_token_index", None))


def _logits_of(network: Any, kept: "int | Tensor") -> dict[str, Any]:
    """The option by which a network computes the logits of some positions only, where it has it."""
    return {"logits_to_keep": kept} if "logits_to_keep" in signature(network.forward).parameters else {}
