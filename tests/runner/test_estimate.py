"""How long a plan says that it takes: from what was timed here, elsewhere, of another variant, or never."""

import json
import statistics
from dataclasses import replace

import pytest

from sana_bench.cli.main import execute
from sana_bench.core.fingerprint import FileHashes
from sana_bench.results.reader import batch_seconds
from sana_bench.results.store import Store
from sana_bench.runner import estimate as estimates
from sana_bench.runner.estimate import Effort, Estimator
from sana_bench.runner.resolve import resolve_suite
from sana_bench.suites.load import load_suite, load_variant
from sana_bench.suites.plan import plan_cell
from sana_bench.suites.tiers import choose_tier
from tests import ROOT
from tests.runner import fakes

VARIANTS = ROOT / "suites" / "variants"
A100 = 1.0  # seconds an image of Sana-1.6B at 1024 pixels: SANA's Table 7, images/s in batches of 16


def planned(world, capsys, *variants, **options):
    """What the dry run says of each variant."""
    world.run(dry_run=True, **options)
    lines = capsys.readouterr().out.splitlines()
    return [
        next(line for line in lines if line.startswith(f"shapes / {name}: ") and " done, " in line)
        for name in variants
    ]


def seconds(estimator, cell, folder):
    return estimator.estimate(plan_cell(cell, None, folder, folder / "run", None))


def test_a_search_takes_as_long_as_its_candidates(world, tmp_path):
    alone, search, pairs = (
        seconds(Estimator(None, "micro", "cpu"), fakes.single_cell(tmp_path / name, 4, *lines), tmp_path)
        for name, lines in (("1", ()), ("2", (fakes.search(8),)), ("3", (fakes.search(8, keep=2),)))
    )
    assert search.seconds == pytest.approx(8 * alone.seconds)
    assert pairs.seconds == pytest.approx(4 * alone.seconds)
    assert alone.seconds > 0
    assert (search.low, search.high) == pytest.approx((search.seconds / 4, search.seconds * 4))


@pytest.mark.parametrize(
    ("changed", "ratio"),
    [
        ({"sampler": {"steps": 40}}, 82 / 42),
        ({"sampler": {"guidance_scale": 1.0}}, 22 / 42),
        ({"sampler": {"guidance_interval": [0.2, 0.7]}}, 32 / 42),
        ({"sampler": {"perturbed_attention": {"scale": 2.0, "blocks": [1]}}}, 62 / 42),
        ({"model": {"height": 2048}}, 2.0),
        ({"parameters": 4_800_000_000}, 3.0),
        ({"parameters": None}, 1.0),
    ],
)
def test_effort_grows_with_what_costs(changed, ratio):
    """A pass for each step, two with guidance, three with perturbed attention too, and two for text and decoder."""
    given = json.loads(load_variant(VARIANTS / "sana-1.6b-1024.yaml").model_dump_json())
    base = estimates._stored_variant(given)
    parameters = changed.pop("parameters", 1_600_000_000)
    other = estimates._stored_variant({**given, **{key: {**given[key], **changed[key]} for key in changed}})
    assert Effort.of(other, parameters).over(Effort.of(base, 1_600_000_000)) == pytest.approx(ratio)


def test_times_of_the_variant_itself_come_first(world, capsys):
    world.run(limit=5, batch_size=1)
    (line,) = planned(world, capsys, "fake-4")
    assert line.startswith("shapes / fake-4: 24 images, 5 done, 19 to generate, about ")
    assert line.endswith("; measured here, median of 5 batches)")


def test_another_variant_is_scaled(world, capsys):
    world.run(limit=5, variants=("fake-4",), batch_size=1)
    (line,) = planned(world, capsys, "fake-2")
    assert line.endswith("; scaled from fake-4, measured here)")
    with Store.open_existing(world.output) as store:
        resolved = resolve_suite(load_suite(world.suite, "micro"), choose_tier("micro"), FileHashes())
        timed, cell = resolved.cells()
        found = seconds(Estimator(store, "micro", "cpu"), cell, world.folder)
        each = statistics.median(batch_seconds(store.images(timed.image_key).values())) * 6 / 10
    assert found.seconds == pytest.approx(24 * each)
    assert (found.low, found.high) == pytest.approx((12 * each, 48 * each))


def test_times_of_another_machine_are_no_times_of_this_one(world, capsys, monkeypatch):
    world.run(limit=5)
    here = estimates.describe_machine("cpu")
    monkeypatch.setattr(
        estimates, "describe_machine", lambda _: {**here, "device_name": "Another CPU", "torch_threads": 1}
    )
    lines = planned(world, capsys, "fake-4", "fake-2")
    threads = here["torch_threads"]
    place = f"{here['device_name']}, {threads} thread{'' if threads == 1 else 's'}"
    for line, name in zip(lines, ("fake-4", "fake-2"), strict=True):
        assert line.endswith(f"; scaled from {name}, measured on {place})")


def test_images_that_exist_take_no_time(tmp_path, world):
    cell = fakes.single_cell(tmp_path / "other", 4)
    spec = cell.variant.spec
    there = replace(spec, variant=spec.variant.model_copy(update={"generator": "images"}))
    found = seconds(
        Estimator(None, "micro", "cpu"), replace(cell, variant=replace(cell.variant, spec=there)), tmp_path
    )
    assert (found.seconds, found.line) == (0, "its images exist")


@pytest.mark.parametrize(
    ("device_name", "ending"),
    [
        ("NVIDIA A100-SXM4-80GB", "on one A100"),
        ("NVIDIA L40S", "on one A100; none is published for NVIDIA L40S"),
    ],
)
@pytest.mark.parametrize(
    ("name", "parameters", "each", "source"),
    [
        ("sana-1.6b-1024", 1_600_000_000, A100, "Sana-1.6B"),
        ("sana-0.6b-1024", 600_000_000, 1 / 1.7, "Sana-0.6B"),
        # Table 14 has this size too: the first of two equals, Table 7, counts.
        ("sana-0.6b-512", 600_000_000, 1 / 6.7, "Sana-0.6B"),
        ("sana-1.6b-2k", 1_600_000_000, 1 / 0.25, "Sana-1.6B"),
        ("sana-1.5-4.8b-1024", 4_800_000_000, 1 / 0.26, "SANA-1.5 4.8B Pre"),
        ("sana-1.5-4.8b-1024-best-of-2048", 4_800_000_000, 512 / 0.26, "SANA-1.5 4.8B Pre"),
    ],
)
def test_the_full_tier_starts_from_published_speeds(
    monkeypatch, device_name, ending, name, parameters, each, source
):
    monkeypatch.setattr(
        estimates, "describe_machine", lambda _: {"device": "cuda", "device_name": device_name}
    )
    variant = load_variant(VARIANTS / f"{name}.yaml")
    estimator = Estimator(None, "full", "cuda")
    found = estimator.estimate_images(variant, Effort.of(variant, parameters), 10)
    assert found.seconds == pytest.approx(10 * each)
    assert found.basis == f"a guess from the published speed of {source} {ending}"


def test_measuring_times_images_and_writes_nothing(world, capsys):
    lines = planned(world, capsys, "fake-4", "fake-2", measure=True, batch_size=7)
    assert [line.partition("; ")[2] for line in lines] == ["timed just now, 7 at once)"] * 2
    assert fakes.FakeGenerator.batches == [1, 7, 1, 7]
    assert not world.output.exists()


def test_a_search_is_measured_by_single_candidates(world, tmp_path):
    """Two images a prompt of one search, whose noise is the same, are two candidates all the same."""
    cell = fakes.single_cell(tmp_path / "own", 30, fakes.search(8, keep=2))
    plan = plan_cell(cell, None, tmp_path, tmp_path / "run", None)
    estimator = Estimator(None, "micro", "cpu")
    estimator.measure(plan, 12)
    assert fakes.FakeGenerator.batches == [1] * 13
    found = estimator.estimate(plan)
    assert found.basis == "timed just now, 12 at once"
    # 12 images of a quarter of a search of 8 candidates; a sleep takes at least its time.
    assert found.seconds >= 12 * 4 * 0.030
    estimator.measure(plan, 12)
    assert len(fakes.FakeGenerator.batches) == 13, "each variant is timed once"


@pytest.mark.parametrize(("largest", "at_once"), [(2, "one image timed just now"), (0, "a guess")])
def test_what_does_not_fit_is_measured_alone_or_guessed(world, capsys, monkeypatch, largest, at_once):
    monkeypatch.setattr(fakes.FakeGenerator, "largest_batch", largest)
    (line,) = planned(world, capsys, "fake-4", measure=True)
    assert at_once in line


def test_measuring_belongs_to_a_dry_run(capsys):
    assert execute(["run", "demo", "--measure"]) == 2
    assert "--measure goes with --dry-run" in capsys.readouterr().err
