"""The latency benchmark end to end: two variants of a random pipeline, in this process."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import pytest

from sana_bench.analysis.compare import compare_variants
from sana_bench.analysis.leaderboard import collect_leaderboard
from sana_bench.cli.main import execute
from sana_bench.core.fingerprint import sealed, unsealed
from sana_bench.profiling import ProfileOptions
from sana_bench.profiling.identity import comparable
from sana_bench.profiling.record import read_profiles
from sana_bench.profiling.subject import Subject
from sana_bench.results.reader import load_run
from sana_bench.results.store import Store
from sana_bench.runner.run import RunOptions, run_suite
from tests.suite_files import write_suite, write_variant

STEPS = {"fast": 1, "slow": 6}
N_PROMPTS = 6
# Our count and torch's hold products and convolutions only; the rest is what one of them leaves out: rotary embeddings, the
# normaliser of linear attention, interpolation.
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_pipeline_dir):
    """A run that was first limited, and then finished with a trace of each variant."""
    folder = tmp_path_factory.mktemp("latency")
    for name, steps in STEPS.items():
        sampler = f"sampler: {{name: flow_euler, steps: {steps}, guidance_scale: 4.5}}"
        write_variant(folder, name, "generator: sana", sampler, tier="micro", weights=tiny_pipeline_dir)
    suite = write_suite(folder, "{name: latency, images_per_prompt: 2}", STEPS, tier="micro", name="speed")
    output = folder / "results"
    options = RunOptions(suite=suite, output=output, tier="micro", profile=ProfileOptions(largest_batch=2))
    codes = [run_suite(replace(options, limit=4))]
    (run,) = (output / "runs").iterdir()
    early = times_of(output, run.name)
    traced = replace(options, profile=ProfileOptions(trace=folder / "traces", largest_batch=2))
    codes.append(run_suite(traced))
    return SimpleNamespace(folder=folder, output=output, run=run, options=options, codes=codes, early=early)


def times_of(output: Path, run: str) -> dict[tuple[str, str, int], float]:
    return {
        (name, *sample.sample.place): sample.scores["latency"].value
        for name, variant in load_run(output, run).variants.items()
        for sample in variant.samples
        if "latency" in sample.scores
    }


def test_a_limited_run_is_incomplete_and_its_times_are_kept(world):
    assert world.codes == [3, 0]
    assert len(world.early) == 2 * 4
    finished = times_of(world.output, world.run.name)
    assert len(finished) == 2 * 2 * N_PROMPTS
    assert {key: finished[key] for key in world.early} == world.early


def test_the_same_command_again_measures_nothing(world):
    before = times_of(world.output, world.run.name)
    profiles = {path: path.read_bytes() for path in (world.run / "profile").iterdir()}
    assert run_suite(world.options) == 0
    assert times_of(world.output, world.run.name) == before
    assert {path: path.read_bytes() for path in (world.run / "profile").iterdir()} == profiles


def test_variants_were_measured_in_turns(world):
    with Store.open_existing(world.output) as store:
        rows = store.rows(
            "SELECT m.identity AS identity, s.details AS details FROM scores s JOIN metrics m USING (metric_key) "
            "WHERE m.name = 'latency'"
        )
    rounds: dict[tuple[int, int], set[str]] = {}
    for row in rows:
        details = json.loads(row["details"])
        key = (details["session"], details["round"])
        rounds.setdefault(key, set()).add(json.loads(row["identity"])["variant"])
    assert len(rounds) == 2 * N_PROMPTS
    assert all(len(variants) == 2 for variants in rounds.values())


def test_every_step_and_stage_was_seen(world):
    for name, variant in load_run(world.output, world.run.name).variants.items():
        for sample in variant.samples:
            score = sample.scores["latency"]
            assert len(score.details["steps"]) == STEPS[name]
            inside = sum(score.details["steps"]) + sum(score.details["stages"].values())
            assert set(score.details["stages"]) == {"text encoder", "text projection", "decoder"}
            # Stages lie inside the image and do not overlap; both are read off one clock.
            assert 0 < inside <= score.value
            assert score.details["joules"] is None


def test_the_profile_holds_what_was_measured(world):
    profiles = {profile.variant: profile for profile in read_profiles(world.run)}
    assert set(profiles) == set(STEPS)
    for profile in profiles.values():
        assert [batch.size for batch in profile.batches] == [1, 2]
        assert all(len(batch.seconds) == profile.repeats for batch in profile.batches)
        assert all(batch.peak_bytes > 0 for batch in profile.batches)
        assert profile.cold_ms > 0
        counted = sum(work["flops"] for work in profile.work.values())
        assert counted == pytest.approx(profile.torch_flops, rel=TOLERANCE)
    one, six = (profiles[name].work["transformer step"]["flops"] for name in ("fast", "slow"))
    # Guidance acts on every step, flow-Euler's first at noise level 1 included: six steps are six times one.
    assert six == 6 * one


def test_summaries_name_device_and_noise(world):
    run = load_run(world.output, world.run.name)
    found = {(row.variant, row.metric): row for variant in run.variants.values() for row in variant.summaries}
    for name in STEPS:
        latency = found[name, "latency"]
        assert latency.complete
        assert latency.low <= latency.value <= latency.high
        assert "thread" in latency.note
        assert "spread" in latency.note
        assert found[name, "throughput"].value > 0


def test_times_are_compared_on_one_device_only(world):
    run = load_run(world.output, world.run.name)
    a, b = (run, run.variants["fast"]), (run, run.variants["slow"])
    (row,) = [row for row in compare_variants(a, b).metrics if row.metric == "latency"]
    assert row.effect is not None
    assert row.benchmark == "latency"
    identities = {
        key: {**value, "threads": 99} if value.get("metric") == "latency" else value
        for key, value in run.variants["slow"].identities.items()
    }
    other = replace(run.variants["slow"], identities=identities)
    (row,) = [row for row in compare_variants(a, (run, other)).metrics if row.metric == "latency"]
    assert row.verdict == "not comparable"
    assert row.effect is None
    assert "threads" in row.reason


def test_variants_differ_in_identity_and_share_what_is_comparable(world):
    run = load_run(world.output, world.run.name)
    fast, slow = (
        next(i for i in run.variants[name].identities.values() if i["metric"] == "latency") for name in STEPS
    )
    assert fast != slow
    assert comparable(fast) == comparable(slow)


def test_the_report_shows_speed_everywhere(world):
    for name in ("report.html", "report.md"):
        text = (world.run / "report" / name).read_text()
        for part in (
            "Where the time goes",
            "one transformer step",
            "Throughput",
            "energy per image",
            "rooflines",
        ):
            assert part in text, (name, part)
        assert "not measured (not measured on a CPU)" in text.replace("\\", "")
        assert "Published times" not in text


def test_the_leaderboard_ranks_latency_of_one_device(world):
    (table,) = collect_leaderboard(world.output).tables
    assert {column.metric for column in table.columns} == {"latency", "throughput"}
    assert len(table.entries) == 2
    assert all("one image at a time" in entry.latency.note for entry in table.entries)


@pytest.fixture
def again(world, tmp_path, monkeypatch):
    """Runs into a copy of the finished output; `measured` lists the images and batches that were made under the clock."""
    output = Path(shutil.copytree(world.output, tmp_path / "results"))
    measured: list[str] = []
    for name in ("image", "batch"):
        plain = getattr(Subject, name)

        def noted(self, *arguments, _name=name, _plain=plain):
            measured.append(f"{_name} of {self.name}")
            return _plain(self, *arguments)

        monkeypatch.setattr(Subject, name, noted)

    def run(output: Path = output, largest: int = 2, **changes: object) -> tuple[int, str]:
        measured.clear()
        profile = ProfileOptions(largest_batch=largest)
        code = run_suite(replace(world.options, output=output, profile=profile, **changes))
        with Store.open_existing(output) as store:
            return code, max(store.run_ids(), key=lambda run: store.sessions(run)[-1]["session_id"])

    return SimpleNamespace(output=output, run=run, measured=measured, elsewhere=tmp_path / "elsewhere")


def rows_of(output: Path, run: str):
    return {(row.variant, row.metric): row for row in load_run(output, run).summaries}


def test_fewer_images_a_prompt_have_the_times_of_these_images(world, again):
    """Times of images that another run asked for do not count; those that are asked for are not measured again."""
    code, run = again.run(overrides=("benchmarks.0.images_per_prompt=1",))
    assert (code, again.measured) == (0, [])
    first, found = times_of(world.output, world.run.name), times_of(again.output, run)
    assert found == {key: value for key, value in first.items() if key[2] == 0}
    for name in STEPS:
        row = rows_of(again.output, run)[name, "latency"]
        assert (row.n_samples, row.n_expected, row.complete) == (N_PROMPTS, N_PROMPTS, True)
        own = [value for key, value in found.items() if key[0] == name]
        assert min(own) <= row.low <= row.value <= row.high <= max(own)
        assert row.value == pytest.approx(median(own), rel=1e-12)  # of the same float64 numbers
    report = (again.output / "runs" / run / "report" / "report.md").read_text()
    assert f"| timed images | {N_PROMPTS} | {N_PROMPTS} |" in report


def test_latency_alone_measures_no_batches(again):
    only = ("benchmarks.0.metrics=[latency]",)
    code, run = again.run(again.elsewhere, overrides=only)
    assert code == 0
    assert len(again.measured) == 2 * 2 * N_PROMPTS
    assert not any(made.startswith("batch") for made in again.measured)
    directory = again.elsewhere / "runs" / run
    assert {(p.variant, len(p.batches), p.stopped) for p in read_profiles(directory)} == {
        (name, 0, "") for name in STEPS
    }
    assert {metric for _, metric in rows_of(again.elsewhere, run)} == {"latency"}
    report = (directory / "report" / "report.md").read_text()
    assert "Where the time goes" in report
    assert "energy per image" in report
    assert "Throughput" not in report
    # Neither the same run again nor another one with the same images measures anything.
    for name in ("speed", "other"):
        assert again.run(again.elsewhere, overrides=(*only, f"name={name}"))[0] == 0
        assert again.measured == []


def test_throughput_alone_measures_no_single_images(again):
    only = ("benchmarks.0.metrics=[throughput]",)
    code, run = again.run(again.elsewhere, overrides=only)
    assert code == 0
    assert again.measured
    assert not any(made.startswith("image") for made in again.measured)
    assert {metric for _, metric in rows_of(again.elsewhere, run)} == {"throughput"}
    report = (again.elsewhere / "runs" / run / "report" / "report.md").read_text()
    assert "Throughput on" in report
    assert "Where the time goes" not in report
    for name in ("speed", "other"):
        assert again.run(again.elsewhere, overrides=(*only, f"name={name}"))[0] == 0
        assert again.measured == []


def test_what_is_not_asked_for_is_not_taken_from_another_run(again):
    _, run = again.run(overrides=("benchmarks.0.metrics=[latency]",))
    assert again.measured == []
    assert all(profile.batches == [] for profile in read_profiles(again.output / "runs" / run))
    assert "Throughput" not in (again.output / "runs" / run / "report" / "report.md").read_text()


def test_throughput_knows_no_larger_batch_than_is_asked_for(again):
    code, run = again.run(largest=1)
    assert (code, again.measured) == (0, [])
    profiles = {profile.variant: profile for profile in read_profiles(again.output / "runs" / run)}
    for name in STEPS:
        row = rows_of(again.output, run)[name, "throughput"]
        assert row.value == pytest.approx(1 / median(profiles[name].batches[0].seconds), rel=1e-12)
        assert row.note.startswith("batches of 1 on ")
        assert row.note.endswith("the largest batch asked for, 1")
        # What was measured is kept: the larger batches are there when they are asked for again.
        assert [batch.size for batch in profiles[name].batches] == [1, 2]


def test_a_sweep_that_a_memory_limit_ended_counts_for_this_limit_alone(again, world):
    for path in (again.output / "runs" / world.run.name / "profile").iterdir():
        found = unsealed(path.read_text(), path.stem)
        changes = {"batches": found["batches"][:1], "stopped": "memory limit: too much", "memory_limit": 5}
        path.write_text(sealed({**found, **changes}, path.stem))
    assert again.run()[0] == 0
    assert {made for made in again.measured if made.startswith("batch")}


def test_times_of_two_devices_stay_apart(again, world):
    """A profile shows the times of its own device, not those of the device that measured last."""
    (path, *_) = sorted((again.output / "runs" / world.run.name / "profile").glob("fast-*"))
    other = unsealed(path.read_text(), path.stem) | {
        "label": "Another CPU",
        "latency_key": "0" * 64,
        "batches": [],
    }
    path.with_name("fast-000000000000.json").write_text(sealed(other, "fast-000000000000"))
    assert execute(["report", world.run.name, "-o", str(again.output)]) == 0
    report = (again.output / "runs" / world.run.name / "report" / "report.md").read_text()
    assert "Latency on Another CPU" not in report
    assert report.count("Latency on ") == 1


@pytest.mark.parametrize("name", list(STEPS))
def test_the_trace_opens_in_perfetto(world, name):
    trace = json.loads((world.folder / "traces" / f"{name}.json").read_text())
    complete = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    assert any(event["name"].startswith("aten::") for event in complete)
    assert all(event["dur"] >= 0 and "ts" in event for event in complete)
