"""Floating-point operations of one image, counted once and kept in the store."""

from collections.abc import Mapping

from sana_bench.core.errors import SampleError
from sana_bench.generators.base import Generator, OutOfMemoryError, request_for
from sana_bench.results.store import Store
from sana_bench.suites.cells import Cell

__all__ = ["count_flops", "keep_flops", "known_flops", "lacks_flops"]


def count_flops(cell: Cell, generator: Generator) -> dict[str, int] | None:
    """Operations of one image of a cell by stage, counted from the configuration; of one candidate for best-of-N.

    Makes the cell's first image once more to see the shapes. None for what is not SANA, for quantised and tiled variants, and
    where the image cannot be made.
    """
    from sana_bench.profiling.work import count_image_work

    variant = cell.variant.variant
    if variant.best_of_n is not None:
        from sana_bench.generators.best_of_n.search import BestOfN, wrapped_variant

        if not isinstance(generator, BestOfN):
            return None
        generator, variant = generator.inner, wrapped_variant(variant)
    if variant.generator != "sana":
        return None
    try:
        work = count_image_work(generator, variant, request_for(cell, cell.samples[0]), anew=False)
    except (SampleError, OutOfMemoryError):  # the run itself will tell of it
        return None
    return {stage: found.flops for stage, found in work.stages.items()} if work is not None else None


def known_flops(store: Store, run_id: str) -> dict[str, Mapping[str, int]]:
    """What runs of this store counted before, by the fingerprint of the variant; the run `run_id` has the last word."""
    found: dict[str, Mapping[str, int]] = {}
    for name in (*(other for other in store.run_ids() if other != run_id), run_id):
        run = store.run(name) or {"provenance": {}}
        for facts in (run["provenance"].get("models") or {}).values():
            if facts.get("image_flops"):
                found[facts["fingerprint"]] = facts["image_flops"]
    return found


def lacks_flops(store: Store, run_id: str, cell: Cell) -> bool:
    """Whether neither this nor another run has counted the operations of an image of a cell."""
    if cell.benchmark.settings:  # such images are not what the variant's others are
        return False
    return cell.variant.fingerprint not in known_flops(store, run_id)


def keep_flops(store: Store, run_id: str, cell: Cell, flops: Mapping[str, int]) -> None:
    """Keep what `count_flops` found with the run."""
    provenance = (store.run(run_id) or {}).get("provenance", {})
    counted = {"fingerprint": cell.variant.fingerprint, "image_flops": dict(flops)}
    models = {**provenance.get("models", {}), cell.variant.name: counted}
    store.set_provenance(run_id, {**provenance, "models": models})
