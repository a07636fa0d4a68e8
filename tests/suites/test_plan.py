"""What a run still has to do, of very many images: the plan knows each, and keeps a number for it."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sana_bench.core.errors import BenchError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.results.schema import ImageRow
from sana_bench.results.store import Store
from sana_bench.runner.resolve import resolve_suite
from sana_bench.runner.workshop import image_batches
from sana_bench.suites.cells import Cell
from sana_bench.suites.load import load_suite
from sana_bench.suites.plan import CellPlan, plan_cell
from sana_bench.suites.tiers import choose_tier
from tests.suite_files import write_suite, write_variant

N_PROMPTS, PER_PROMPT = 500, 4
N = N_PROMPTS * PER_PROMPT
# A number takes 8 bytes and a batch of eight images some 700; a row with its path and hashes takes more than 1,000.
MOST_BYTES = 200


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    write_variant(
        tmp_path,
        "mine",
        "sampler: {name: flow_euler, steps: 1, guidance_scale: 1.0}",
        tier="micro",
        weights="micro://sana-micro",
    )
    lines = (json.dumps({"id": f"{number:05d}", "prompt": f"prompt {number}"}) for number in range(N_PROMPTS))
    (tmp_path / "p.jsonl").write_text("\n".join(lines) + "\n")
    benchmark = f"{{name: mine, prompts: p.jsonl, images_per_prompt: {PER_PROMPT}, metrics: [clip_score]}}"
    suite = load_suite(write_suite(tmp_path, benchmark, ["mine"], tier="micro"), "micro")
    (found,) = resolve_suite(suite, choose_tier("micro"), FileHashes()).cells()
    return found


@contextmanager
def store_of(cell: Cell, output: Path, *, failed: int, of_another_prompt: int) -> Iterator[Store]:
    """A store that has every image, but that at one place failed, and that at another is of another prompt."""
    rows = [
        ImageRow(
            sample.prompt.id, sample.index, "0" * 64 if number == of_another_prompt else sample.prompt.sha256,
            "failed" if number == failed else "ok", str(sample.image_path), f"{number:064x}", number, 0.5, 8, "cpu",
            "not made" if number == failed else None,
        )
        for number, sample in enumerate(cell.samples)
    ]  # fmt: skip
    output.mkdir()
    with Store.open(output) as store:
        store.put_run("run", "suite", "micro", "f", "runs/run", "2026")
        store.put_images(cell.image_key, "run", rows, "2026", store.start_session("run", "2026", "test"))
        yield store


def bytes_an_image(work: Callable[[], object]) -> float:
    """What is kept of a piece of work, once whatever it needs only once is there."""
    work()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = work()
        held = tracemalloc.get_traced_memory()[0] - before
        assert kept
        return held / N
    finally:
        tracemalloc.stop()


def test_a_plan_keeps_numbers(cell, tmp_path) -> None:
    with store_of(cell, tmp_path / "results", failed=3, of_another_prompt=9) as store:

        def plan(limit: int | None = None) -> CellPlan:
            return plan_cell(cell, store, tmp_path / "results", Path("run"), limit, verify=False)

        assert bytes_an_image(plan) < MOST_BYTES
        found = plan()
        samples = list(cell.samples)
        assert [one.sample.place for one in found.done] == [
            sample.place for number, sample in enumerate(samples) if number not in (3, 9)
        ]
        assert list(found.missing) == [samples[3], samples[9]]
        assert found.errors == {samples[3].place: "not made"}
        assert (list(found.wanted), found.damaged, list(found.elsewhere)) == (samples, 0, [])
        last = found.done[-1]
        assert (last.image.length, last.image.sha256) == (N - 1, f"{N - 1:064x}")
        assert last.sample.image_path == Path("run") / samples[-1].image_path
        assert (list(plan(5).wanted), list(plan(5).missing)) == (samples[:5], [samples[3]])
        with store.transaction() as connection:
            connection.execute("DELETE FROM images")
        with pytest.raises(
            BenchError, match="mine / mine 00000/00000: its record left the store while it was used"
        ):
            found.done[0]


def test_batches_that_wait_keep_numbers(cell, tmp_path) -> None:
    plan = plan_cell(cell, None, tmp_path, tmp_path / "run", None)
    assert len(plan.missing) == N
    assert bytes_an_image(lambda: list(image_batches(plan, 8))) < MOST_BYTES
    batches = list(image_batches(plan, 8))
    assert [sample for batch in batches for sample in batch.samples] == list(cell.samples)
    assert all(all(batch.lacks) for batch in batches)


def test_batches_lack_what_is_missing(cell, tmp_path) -> None:
    with store_of(cell, tmp_path / "results", failed=3, of_another_prompt=9) as store:
        plan = plan_cell(cell, store, tmp_path / "results", Path("run"), None, verify=False)
        first, second = image_batches(plan, 8)
    assert [*first.samples, *second.samples] == list(cell.samples[:16])
    assert [place for place, lacks in enumerate(first.lacks + second.lacks) if lacks] == [3, 9]
