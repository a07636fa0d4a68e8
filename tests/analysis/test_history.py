"""`sana-bench history` over nightly stores of one fingerprint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sana_bench.analysis.history import collect_histories
from sana_bench.cli.main import execute
from sana_bench.results.schema import SummaryRecord
from sana_bench.results.store import Store
from tests.runner import fakes


def nightly(folder: Path, night: int, value: float, *, complete: bool = True, image_key: str = "k") -> Path:
    """A store with one run of the variant `v`."""
    output = folder / f"night-{night:02d}"
    output.mkdir(exist_ok=True)
    record = SummaryRecord(
        "v", "b", "geneval", "overall", "m", image_key, "geneval/x@1", value, value - 0.01, value + 0.01,
        96 if complete else 95, 96, 24, "share", True, "", complete,
    )  # fmt: skip
    with Store.open(output) as store:
        store.put_run(
            f"r-{image_key}", "s", "micro", "f", "runs/r", f"2026-01-{night + 1:02d}T00:00:00+00:00"
        )
        store.put_summaries(f"r-{image_key}", ["v"], [record])
    return output


@pytest.fixture
def nights(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    levels = [0.8] * 12 + [0.7] * 12
    return [nightly(tmp_path, night, level + 0.01 * rng.normal()) for night, level in enumerate(levels)]


def test_the_step_is_shown_at_its_run(nights, capsys) -> None:
    assert execute(["history", *map(str, reversed(nights))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "b/geneval of v (share), geneval/x@1"
    assert lines[-1] == "  24 runs, 1 step"
    assert ["step" in line for line in lines[1:-1]] == [night == 12 for night in range(24)]
    assert lines[13].startswith("  2026-01-13 00:00 UTC  r-k  0.")


def test_only_comparable_and_complete_numbers_are_of_one_history(nights, tmp_path) -> None:
    nightly(tmp_path, 3, 0.1, image_key="other-fingerprint")
    short = nightly(tmp_path, 30, 0.1, complete=False)
    found = collect_histories([*nights, short])
    assert sorted(len(history.points) for history in found) == [1, 24]


def test_numbers_of_other_prompts_are_of_another_history(world, monkeypatch) -> None:
    """As many prompts of other texts make other images under the same key; a step between the two would mean nothing."""
    stores = []
    for word in ("", " again", " again"):
        world.output = world.folder / f"results-{len(stores)}"
        with monkeypatch.context() as patch:
            plain = fakes.Shapes.prompts
            patch.setattr(
                fakes.Shapes,
                "prompts",
                lambda self, tier, word=word: [replace(p, text=p.text + word) for p in plain(self, tier)],
            )
            assert world.run(variants=("fake-4",)) == 0
        stores.append(world.output)
    found = collect_histories(stores, metric="redness")
    assert sorted(len(history.points) for history in found) == [1, 2]


def test_wrong_use_is_one_line(nights, tmp_path, capsys) -> None:
    for arguments, message in (
        ([str(tmp_path / "nowhere")], "there is no result store"),
        ([str(nights[0]), "--metric", "genevall"], "did you mean 'geneval'?"),
        ([str(nights[0]), "--variant", "w"], "--variant w: no complete run has it"),
        ([str(nights[0]), "--level", "2"], "--level 2: must lie between 0 and 1"),
    ):
        assert execute(["history", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_a_store_without_results(tmp_path, capsys) -> None:
    Store.open(tmp_path).close()
    assert execute(["history", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no complete results\n"
