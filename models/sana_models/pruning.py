"""Depth pruning by block importance (SANA-1.5, arXiv 2501.18427, section 2.3).

The importance of block i is 1 - E[cos(X_i, X_i+1)]: how much it turns the tokens that pass through it, X_i being its input
and X_i+1 its output, averaged over prompts and denoising steps. The least important blocks are deleted.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sana_models.growth import take_blocks
from sana_models.transformer import SanaTransformer

__all__ = ["ImportanceMeter", "most_important", "plot_importance", "prune_transformer"]


class ImportanceMeter:
    """Importance of every block over all the forward passes made inside `watching`.

    The cosine is taken per token over channels and averaged over tokens, the convention of the work that the paper builds
    on; `whole=True` takes it over a sample's flattened activation instead. Every row of a batch counts, so guided
    sampling measures the unconditional branch as well. Sums are float64.
    """

    def __init__(self, transformer: SanaTransformer, *, whole: bool = False) -> None:
        self._transformer = transformer
        self._whole = whole
        self._sums = [0.0] * len(transformer.transformer_blocks)
        self._counts = [0] * len(transformer.transformer_blocks)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measure the forward passes made inside."""
        handles = [
            block.register_forward_hook(self._hook(index))
            for index, block in enumerate(self._transformer.transformer_blocks)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def importance(self) -> list[float]:
        """1 - mean cosine of every block; raises ValueError before anything was measured."""
        if not all(self._counts):
            raise ValueError("no forward pass was measured")
        return [1 - total / count for total, count in zip(self._sums, self._counts, strict=True)]

    def _hook(self, index: int) -> Any:
        def measure(module: torch.nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            before, after = arguments[0].detach().float(), output.detach().float()
            if self._whole:
                before, after = before.flatten(1), after.flatten(1)
            cosine = F.cosine_similarity(before, after, dim=-1).double()
            self._sums[index] += float(cosine.sum())
            self._counts[index] += cosine.numel()

        return measure


def most_important(importance: Sequence[float], keep: int) -> list[int]:
    """Return the rising indices of the `keep` most important blocks; of equal ones, the earlier stay.

    Raises ValueError unless 1 <= keep <= number of blocks.
    """
    if not 1 <= keep <= len(importance):
        raise ValueError(f"keep is {keep}; the model has {len(importance)} blocks")
    ranked = sorted(range(len(importance)), key=lambda index: (-importance[index], index))
    return sorted(ranked[:keep])


def prune_transformer(source: SanaTransformer, importance: Sequence[float], keep: int) -> SanaTransformer:
    """Return a transformer of the `keep` most important blocks in their old order; raises ValueError."""
    if len(importance) != source.config.num_layers:
        raise ValueError(f"{len(importance)} importances for {source.config.num_layers} blocks")
    return take_blocks(source, most_important(importance, keep))


def plot_importance(importance: Sequence[float], kept: Sequence[int], path: Path, *, title: str) -> None:
    """Draw importance by depth as bars into a PNG, deleted blocks pale."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.0, 0.22 * len(importance)), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for label, color, wanted in (("kept", "#3566a8", True), ("deleted", "#d9b3a0", False)):
        indices = [index for index in range(len(importance)) if (index in kept) == wanted]
        axes.bar(indices, [importance[index] for index in indices], color=color, label=label)
    axes.set(xlabel="block", ylabel="importance (1 - cosine)", title=title)
    axes.legend(frameon=False)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=110)
