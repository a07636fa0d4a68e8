"""A stored run is what its suite asks for, whatever else lies in the store."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sana_bench.analysis.report import build_report_data
from sana_bench.cli.main import execute
from sana_bench.core.errors import UsageError
from sana_bench.core.samples import OVERALL, Prompt
from sana_bench.profiling.hardware import Hardware
from sana_bench.results.reader import (
    RunResults,
    VariantResults,
    device_label,
    incomplete_reasons,
    load_run,
    read_run,
)
from sana_bench.results.run_folder import RunFiles, open_store
from sana_bench.results.schema import SummaryRecord
from sana_bench.results.stored_suite import StoredBenchmark, StoredSuite, StoredVariant
from sana_reports import ReportData
from tests.runner import fakes
from tests.runner import numbers_of_runs as numbers
from tests.stores import change

N_PROMPTS = fakes.N_PROMPTS


def images(count: int) -> tuple[str, ...]:
    return (f"benchmarks.0.images_per_prompt={count}",)


def newest(output: Path) -> str:
    with open_store(output) as store:
        return max(store.run_ids(), key=lambda run: store.sessions(run)[-1]["session_id"])


def report_of(output: Path, run: str) -> ReportData:
    with open_store(output) as store:
        return build_report_data(store, read_run(store, RunFiles(output / "runs" / run)))


def test_fewer_images_a_prompt_count_the_images_that_are_asked_for(world) -> None:
    """Two images a prompt, then one, into one output folder: the second run has half the images of the first."""
    assert world.run(overrides=images(2)) == 0
    assert world.run(overrides=images(1)) == 0
    run = newest(world.output)
    directory = world.output / "runs" / run
    loaded = load_run(world.output, run)
    assert loaded.complete
    for variant in loaded.variants.values():
        assert [sample.index for sample in variant.samples] == [0] * N_PROMPTS
    assert {(s.prompt_id, s.index) for s in report_of(world.output, run).samples} == {
        (f"{line:05d}", 0) for line in range(N_PROMPTS)
    }
    provenance = json.loads((directory / "provenance.json").read_text())
    assert provenance["n_images"] == provenance["n_expected"] == 2 * N_PROMPTS
    for row in numbers.summaries(world.output, run):
        assert row.n_samples == row.n_expected
    for variant in report_of(world.output, run).variants:
        assert variant.latency.n_images == N_PROMPTS
        assert variant.costs["shapes"].n_delivered == N_PROMPTS


def test_a_variant_that_was_changed_is_known_by_both_names(world) -> None:
    assert world.run(overrides=("variants.fake-4.sampler.steps=3",)) == 0
    loaded = load_run(world.output, "latest")
    assert list(loaded.variants) == ["fake-4[steps=3]", "fake-2"]
    changed = loaded.variants["fake-4[steps=3]"]
    assert changed.complete
    assert changed.described.description == "fake-4 with sampler.steps 3 instead of 4"
    assert loaded.variant("fake-4") is loaded.variant("fake-4[steps=3]") is changed
    with pytest.raises(UsageError, match=r"no variant 'fake-3' \(did you mean"):
        loaded.variant("fake-3")


def test_the_run_with_fewer_images_says_what_it_says_alone(world, tmp_path_factory) -> None:
    world.run(overrides=images(2))
    world.run(overrides=images(1))
    run = newest(world.output)
    beside = numbers.summaries(world.output, run)
    world.output = tmp_path_factory.mktemp("alone")
    world.run(overrides=images(1))
    assert numbers.summaries(world.output, run) == beside


def test_an_image_of_another_text_is_none_of_the_run(world, monkeypatch) -> None:
    """A later run with other texts takes over the places of an earlier one; their images do not become the earlier run's."""
    assert world.run() == 0
    first = newest(world.output)
    plain = fakes.Shapes.prompts

    def prompts(self, tier: str) -> list[Prompt]:
        found = plain(self, tier)
        return [replace(found[0], text="another text"), *found[1:]]

    monkeypatch.setattr(fakes.Shapes, "prompts", prompts)
    assert world.run() == 0
    assert newest(world.output) != first
    data = report_of(world.output, first)
    assert {sample.prompt_id for sample in data.samples} == {f"{line:05d}" for line in range(1, N_PROMPTS)}
    assert not load_run(world.output, first).complete
    assert data.incomplete_reasons[0] == "fake-4: shapes has 20/24 images"


def test_images_of_several_devices_have_no_common_latency(world) -> None:
    world.run()
    run = newest(world.output)
    here = report_of(world.output, run).variants[0].latency
    assert here is not None
    change(world.output, "UPDATE images SET device = 'cuda:0' WHERE sample_index = 0")
    assert [variant.latency for variant in report_of(world.output, run).variants] == [None, None]
    # All of them on another device than the run's own: its name is not theirs.
    change(world.output, "UPDATE images SET device = 'cuda:0'")
    there = report_of(world.output, run).variants[0].latency
    assert there is not None
    assert there.device == "cuda:0" != here.device


ASKED = StoredBenchmark("shapes", 2, ("redness", "spread"), 3, "p")


def summary(**changes: object) -> SummaryRecord:
    row = SummaryRecord(
        "v",
        "shapes",
        "redness",
        OVERALL,
        "m",
        "k",
        "redness/test@1",
        0.5,
        0.4,
        0.6,
        6,
        6,
        3,
        "",
        True,
        "",
        True,
    )
    return replace(row, **changes)


SPREAD = summary(metric="spread")


@pytest.mark.parametrize(
    ("made", "failed", "rows", "told", "reasons"),
    [
        (6, 0, [summary(), SPREAD], {}, []),
        (5, 0, [summary(), SPREAD], {}, ["c has 5/6 images"]),
        (5, 1, [summary(n_samples=5, complete=False), SPREAD], {}, ["c has 5/6 images, 1 failed"]),
        (7, 0, [summary(), SPREAD], {}, ["c has 7/6 images"]),
        (6, 0, [summary()], {}, ["c has no spread"]),
        (6, 0, [], {}, ["c has no redness, spread"]),
        (0, 0, [], {}, ["c has 0/6 images"]),
        (6, 0, [summary()], {"spread": "why"}, ["why"]),
        (6, 0, [], {"redness": "why", "spread": "why"}, ["why"]),
        (6, 0, [summary(key="circles"), SPREAD], {}, ["c has no redness"]),
        (6, 0, [summary(n_samples=4, complete=False), SPREAD], {}, ["c redness covers 4/6 images"]),
        (6, 0, [summary(n_samples=12), SPREAD], {}, ["c redness covers 12/6 images"]),
        (6, 0, [summary(complete=False), SPREAD], {}, ["c was given images that the suite does not ask for"]),
        (6, 0, [summary(value=float("inf")), SPREAD], {}, ["c redness has no value"]),
    ],
)  # fmt: skip
def test_completeness_is_decided_in_one_place(made, failed, rows, told, reasons) -> None:
    assert incomplete_reasons("c", ASKED, made, failed, rows, told) == reasons


def test_the_run_its_report_and_the_leaderboard_agree_on_completeness(world, capsys) -> None:
    assert world.run(limit=5, allow_incomplete=True) == 3
    run = newest(world.output)
    (session,) = numbers.sessions(world.output, run)
    loaded = load_run(world.output, run)
    data = report_of(world.output, run)
    assert session["state"] == "incomplete"
    assert not loaded.complete
    assert not data.complete
    assert data.incomplete_reasons == [f"{name}: shapes has 5/24 images" for name in ("fake-4", "fake-2")]
    capsys.readouterr()
    assert execute(["leaderboard", "-o", str(world.output)]) == 0
    out = capsys.readouterr().out
    assert all(f"{reason.partition(': ')[2]}" in out for reason in data.incomplete_reasons)


def timed(identity: dict[str, object] | None) -> str:
    """What the reader calls the device of a latency with this identity and an older note."""
    row = summary(metric="latency", note="median on Some CPU, 4 threads, batch 1, warm; spread 3 %")
    identities = {row.metric_key: identity} if identity is not None else {}
    described = StoredVariant("v", "f", {})
    return VariantResults(described, {}, [], [row], {}, identities).device(row)


def test_the_device_of_a_time_is_data() -> None:
    assert timed({"metric": "latency", "device": "Other CPU", "threads": 1}) == "Other CPU, 1 thread"
    assert timed({"metric": "latency", "device": "Other CPU", "threads": 2}) == "Other CPU, 2 threads"
    assert timed({"metric": "latency", "device": "NVIDIA H100"}) == "NVIDIA H100"


def test_a_store_that_lost_what_a_time_was_measured_with_still_shows_its_device() -> None:
    assert timed(None) == timed({}) == "Some CPU, 4 threads"


@pytest.mark.parametrize(
    "hardware", [Hardware("cpu", "A CPU", 1, "A CPU"), Hardware("cpu", "A CPU", 8, "A CPU"),
                 Hardware("cuda:0", "A GPU", 8, "A CPU", "550")],
)  # fmt: skip
def test_hardware_is_called_as_its_stored_times_are(hardware: Hardware) -> None:
    assert hardware.label == device_label(hardware.identity)


def test_the_stored_suite_is_what_was_resolved(results: Path) -> None:
    run = newest(results)
    suite = StoredSuite.read(results / "runs" / run / "suite.resolved.yaml")
    assert (suite.name, suite.tier, suite.seed) == ("shapes", "micro", 1)
    (benchmark,) = suite.benchmarks
    assert (benchmark.metrics, benchmark.n_samples) == (("redness", "spread"), 24)
    assert [variant.name for variant in suite.variants] == ["fake-4", "fake-2"]
    assert suite.variants[0].settings["sampler"]["steps"] == 4
    assert (suite.variants[0].kind, suite.variants[0].derived_from) == ("full", "")
    assert suite.variants[0].winners_a_search is None


def spoil(path: Path, how: str) -> None:
    described = yaml.safe_load(path.read_text())
    if how in described:
        del described[how]
        path.write_text(yaml.safe_dump(described))
    elif how == "fingerprint":
        del described["variants"][0]["fingerprint"]
        path.write_text(yaml.safe_dump(described))
    else:
        path.write_text(how)


COMMANDS = (
    ["report", "RUN", "-o", "OUT"],
    ["compare", "fake-4", "fake-2", "--run", "RUN", "-o", "OUT"],
    ["export", "RUN", "--format", "csv", "--to", "OUT/x", "-o", "OUT"],
    ["export", "RUN", "--geneval", "OUT/x", "-o", "OUT"],
    ["export", "RUN", "--dpg-grids", "OUT/x", "-o", "OUT"],
    ["rescore", "RUN", "--threshold", "0.5", "-o", "OUT"],
)


@pytest.mark.parametrize("how", ["benchmarks", "seed", "fingerprint", "- a list", "a: {b: [", "\x00"])
def test_a_damaged_suite_file_is_one_line(results: Path, how: str) -> None:
    run = newest(results)
    path = results / "runs" / run / "suite.resolved.yaml"
    spoil(path, how)
    with pytest.raises(UsageError, match=r"suite\.resolved\.yaml: damaged suite file: ") as refused:
        load_run(results, run)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: f"{words[0]} {words[-3]}")
def test_every_command_tells_of_a_damaged_suite_file_alike(results: Path, command: list[str], capsys) -> None:
    run = newest(results)
    spoil(results / "runs" / run / "suite.resolved.yaml", "tier")
    assert execute([word.replace("OUT", str(results)).replace("RUN", run) for word in command]) == 2
    assert "suite.resolved.yaml: damaged suite file: 'tier' is missing" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: f"{words[0]} {words[-3]}")
def test_every_command_says_alike_that_there_is_no_store(results: Path, command: list[str], capsys) -> None:
    run = newest(results)
    (results / "store.sqlite").unlink()
    assert execute([word.replace("OUT", str(results)).replace("RUN", run) for word in command]) == 2
    assert "there is no result store; sana-bench run makes one" in capsys.readouterr().err


def test_damaged_prompts_are_one_line(results: Path, capsys) -> None:
    run = newest(results)
    path = results / "runs" / run / "prompts" / "shapes.jsonl"
    path.write_text(path.read_text()[:-20])
    assert execute(["report", run, "-o", str(results)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "shapes.jsonl: damaged prompts: " in line


def test_an_export_has_what_the_reader_has(results: Path, tmp_path: Path) -> None:
    to = tmp_path / "exported"
    assert execute(["export", "--all", "--format", "csv", "--to", str(to), "-o", str(results)]) == 0
    rows = list(csv.DictReader((to / "scores.csv").read_text(encoding="utf-8").splitlines()))
    with open_store(results) as store:
        runs: list[RunResults] = [
            read_run(store, RunFiles(results / "runs" / run)) for run in store.run_ids()
        ]
    expected = {
        (run.run_id, variant.name, *one.sample.place, metric): score.value
        for run in runs
        for variant in run.variants.values()
        for one in variant.samples
        for metric, score in one.scores.items()
    }
    assert {
        (row["run_id"], row["variant"], row["prompt_id"], int(row["sample_index"]), row["metric"]): float(
            row["value"]
        )
        for row in rows
    } == expected
