"""The time per image: one definition wherever it appears, and none where nothing was generated."""

import json

import numpy as np
import pytest

from sana_bench.analysis.compare import compare_variants
from sana_bench.analysis.leaderboard import collect_leaderboard
from sana_bench.analysis.report import build_report_data
from sana_bench.cli.main import execute
from sana_bench.core.errors import SuiteError
from sana_bench.results.reader import load_run
from sana_bench.results.store import Store
from sana_bench.runner.run import RunOptions, run_suite
from tests import suite_files
from tests.runner import fakes
from tests.stores import change

SIZE = {"height": fakes.SIZE, "width": fakes.SIZE}


@pytest.fixture
def existing(world):
    """A run of the same images under two names, one of them generated and one read from files."""
    folder, suites = world.folder / "mine", world.folder / "suites"
    prompts = fakes.Shapes().prompts("micro")
    pixels = np.random.default_rng(0).integers(0, 256, (len(prompts), fakes.SIZE, fakes.SIZE, 3), np.uint8)
    entries = [{"prompt": prompt.text, "file": f"{prompt.id}.png"} for prompt in prompts]
    suite_files.write_images(folder, zip(entries, pixels, strict=True))
    suite_files.write_variant(suites, "mine", "generator: images", tier="micro", weights=folder, **SIZE)
    return world


def write_suite(world, benchmark, variants):
    return suite_files.write_suite(
        world.folder / "suites", benchmark, variants, tier="micro", name="existing"
    )


BENCHMARK = "{name: shapes, images_per_prompt: 1, metrics: [redness]}"


def run(world, benchmark=BENCHMARK, variants=("fake-2", "mine")):
    suite = write_suite(world, benchmark, variants)
    assert run_suite(RunOptions(suite=suite, output=world.output, tier="micro", batch_size=2)) == 0
    (directory,) = (world.output / "runs").iterdir()
    return directory.name


def reported(world, stored):
    """The time of each variant in the report."""
    with Store.open(world.output) as store:
        data = build_report_data(store, stored)
    return {variant.name: variant.latency for variant in data.variants}


def as_earlier_versions_stored(world):
    """Give images of files the time that reading them took."""
    change(
        world.output,
        "UPDATE images SET seconds = 0.001, batch_size = 2, device = 'cpu' WHERE seconds IS NULL",
    )


@pytest.mark.parametrize("earlier", [False, True])
def test_images_that_existed_have_no_time_anywhere(existing, tmp_path, capsys, earlier):
    name = run(existing)
    if earlier:
        as_earlier_versions_stored(existing)
    stored = load_run(existing.output, name)
    assert {one.image.seconds for one in stored.variant("mine").samples} == {None}
    assert stored.variant("mine").batch_ms == []
    assert len(stored.variant("fake-2").batch_ms) == fakes.N_PROMPTS // 2

    assert reported(existing, stored)["mine"] is None
    board = collect_leaderboard(existing.output, link_from=tmp_path)
    entries = {entry.variant: entry for table in board.tables for entry in table.entries}
    assert entries["mine"].latency is None
    assert entries["fake-2"].latency is not None

    found = compare_variants(*((stored, stored.variant(variant)) for variant in ("mine", "fake-2")))
    row = next(row for row in found.metrics if row.metric == "latency")
    assert (row.verdict, row.reason) == ("not measured", "the images of mine existed already")
    assert row.value_a is None

    output = ["--output", str(existing.output)]
    assert execute(["export", name, "--format", "json", "--to", str(tmp_path / "out"), *output]) == 0
    timings = json.loads((tmp_path / "out" / "timings.json").read_text())
    assert {row["variant"] for row in timings} == {"fake-2"}


def test_the_report_and_a_comparison_give_the_same_median(existing):
    name = run(existing, variants=("fake-2", "fake-4"))
    # One slow batch of two images among three: by images the median would be another.
    change(
        existing.output,
        "UPDATE images SET seconds = 9 WHERE prompt_id IN ('00000', '00002')",
        "UPDATE images SET seconds = 2 WHERE prompt_id = '00004'",
        "UPDATE images SET seconds = 1 WHERE prompt_id IN ('00001', '00003', '00005')",
    )
    stored = load_run(existing.output, name)
    for variant in stored.variants.values():
        assert sorted(variant.batch_ms) == [1000, 2000, 9000]
    assert [latency.value_ms for latency in reported(existing, stored).values()] == [2000, 2000]
    found = compare_variants(*((stored, variant) for variant in stored.variants.values()))
    row = next(row for row in found.metrics if row.metric == "latency")
    assert (row.value_a, row.value_b) == (2000, 2000)


def test_timing_files_is_refused(existing):
    suite = write_suite(existing, "{name: latency, images_per_prompt: 1, metrics: [latency]}", ["mine"])
    with pytest.raises(SuiteError) as caught:
        run_suite(RunOptions(suite=suite, output=existing.output, tier="micro"))
    assert str(caught.value) == (
        "benchmark 'latency' measures how images are generated, which variant 'mine' does not do "
        "(generator images); give one of them a suite of its own"
    )
    assert not existing.output.exists()
