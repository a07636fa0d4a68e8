"""A grown, a pruned and an inference-scaled variant through a whole run: sizes, costs and gains, from the run to its copies."""

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sana_bench.analysis.leaderboard import collect_leaderboard
from sana_bench.cli.main import execute
from sana_bench.core.fingerprint import sha256_bytes
from sana_bench.results.store import Store
from sana_reports import ImageCost
from tests.runner import fakes
from tests.suite_files import FEW_STEPS, write_suite, write_variant

N_PROMPTS, N_IMAGES, CANDIDATES, KEEP = fakes.N_PROMPTS, 2, 4, 2
VARIANTS = ("small", "small-grown", "small-half", "small-best")
# Our count and torch's hold products and convolutions only; the rest is what one of them leaves out: rotary embeddings, the
# normaliser of linear attention, interpolation.
TOLERANCE = 0.02


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory, tiny_weights_root: Path) -> Path:
    """The tiny pipeline, grown to four blocks and pruned to two; tests must not change it."""
    folder = tmp_path_factory.mktemp("family")
    (folder / "prompts.txt").write_text("a red circle\na blue square\n")
    small = str(tiny_weights_root / "sana-micro")
    grown, half = str(folder / "grown"), str(folder / "half")
    assert execute(["grow", small, "--depth", "4", "--keep", "1", "-o", grown]) == 0
    prompts = ("--prompts", str(folder / "prompts.txt"), "--steps", "2")
    assert execute(["prune", grown, "--keep", "2", *prompts, "-o", half]) == 0
    return folder


def write_story(folder: Path, small: Path, family: Path) -> Path:
    search = f"best_of_n: {{candidates: {CANDIDATES}, keep: {KEEP}, judge: {{name: clip_score}}}}"
    for name, weights, *more in (
        ("small", small),
        ("small-grown", family / "grown", "kind: grown", "derived_from: small"),
        ("small-half", family / "half", "kind: pruned", "derived_from: small-grown"),
        (
            "small-best",
            small,
            "kind: inference_scaled",
            "derived_from: small",
            "generator: best_of_n",
            search,
        ),
    ):
        write_variant(folder, name, FEW_STEPS, *more, tier="micro", weights=weights)
    benchmark = f"{{name: shapes, images_per_prompt: {N_IMAGES}, metrics: [redness, spread]}}"
    return write_suite(folder, benchmark, VARIANTS, tier="micro", name="story")


@dataclass(frozen=True)
class Story:
    """A results folder, and the suite that was run into it; `limited` is what the first, limited command recorded and said."""

    suite: Path
    output: Path
    limited: dict[tuple[str, int], dict[str, float] | None]
    said: str

    def run(self, *more: str) -> int:
        return execute(["run", str(self.suite), "--tier", "micro", "-o", str(self.output), *more])


@contextlib.contextmanager
def small_world(weights: Path) -> Iterator[None]:
    """The fake benchmark and its metrics, and the tiny weights, while inside."""
    with fakes.installed(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(weights))
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_weights_root: Path, family: Path) -> Story:
    """A limited run, and the same to its end; tests must not change it."""
    folder = tmp_path_factory.mktemp("story")
    suite = write_story(folder, tiny_weights_root / "sana-micro", family)
    said = io.StringIO()
    story = Story(suite, folder / "results", {}, "")
    with small_world(tiny_weights_root):
        with contextlib.redirect_stdout(said):
            assert story.run("--limit", "3") == 3
        limited = searches(story.output)
        assert story.run() == 0
    return replace(story, limited=limited, said=said.getvalue())


@pytest.fixture
def story(finished: Story, tmp_path: Path, tiny_weights_root: Path) -> Iterator[Story]:
    """A copy that a test may run again."""
    with small_world(tiny_weights_root):
        yield replace(finished, output=Path(shutil.copytree(finished.output, tmp_path / "results")))


def models(output: Path) -> dict[str, Any]:
    (path,) = (output / "runs").glob("*/provenance.json")
    return dict(json.loads(path.read_text(encoding="utf-8"))["models"])


def searches(output: Path) -> dict[tuple[str, int], dict[str, float] | None]:
    """What the store knows of the searches, by prompt and sample."""
    store = Store.open_existing(output)
    assert store is not None
    with store:
        rows = store.rows("SELECT prompt_id, sample_index, path, search FROM images")
    return {
        (row["prompt_id"], row["sample_index"]): json.loads(row["search"]) if row["search"] else None
        for row in rows
        if row["path"] is None or "small-best" in row["path"]
    }


def costs(output: Path) -> dict[str, ImageCost | None]:
    (table,) = collect_leaderboard(output).tables
    return {entry.variant: entry.cost for entry in table.entries}


def report_rows(output: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The overall numbers of the report as it lies in the run's folder."""
    (path,) = (output / "runs").glob("*/report/report.csv")
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return {(row["variant"], row["metric"]): row for row in rows if row["key"] == "overall"}


def test_a_limited_run_shows_the_cost_so_far(finished: Story) -> None:
    assert len(finished.limited) == 3
    assert {index for _, index in finished.limited} == {0}
    assert all(search is not None and search["images"] == CANDIDATES for search in finished.limited.values())
    # The second winner of each search is not delivered yet.
    assert "small-best: 12 images generated for 3 delivered" in finished.said
    line = next(line for line in finished.said.splitlines() if line.startswith("small-best  small "))
    assert line.split()[2:5] == ["incomplete", "incomplete", "4.00"]


def test_sizes_costs_and_gains_of_a_whole_run(finished: Story, tiny_weights_root: Path, family: Path) -> None:
    from sana_models import load_pipeline

    found = models(finished.output)
    folders = {
        "small": tiny_weights_root / "sana-micro",
        "small-grown": family / "grown",
        "small-half": family / "half",
    }
    for name, folder in folders.items():
        transformer = load_pipeline(folder).transformer
        assert found[name]["parameters"] == sum(parameter.numel() for parameter in transformer.parameters())
        assert found[name]["depth"] == len(transformer.transformer_blocks)
    assert [found[name]["depth"] for name in VARIANTS] == [1, 4, 2, 1]
    assert found["small-best"]["parameters"] == found["small"]["parameters"]
    assert (found["small-half"]["cut_from"], found["small-half"]["cut_from_depth"]) == ("small-grown", 4)
    assert "cut_from" not in found["small-grown"]
    check_flops(found)
    check_costs(costs(finished.output), found["small"]["image_flops"])
    check_gain(finished.output)


def check_flops(found: dict[str, Any]) -> None:
    """The wrapped generator does the same work, and each block of a depth adds the same to each step."""
    flops = {name: facts["image_flops"] for name, facts in found.items()}
    assert flops["small-best"] == flops["small"]
    assert set(flops["small"]) == {"text encoder", "text projection", "transformer step", "decoder"}
    assert all(count > 0 for count in flops["small"].values())
    steps = {found[name]["depth"]: flops[name]["transformer step"] for name in VARIANTS}
    assert steps[4] - steps[2] == 2 * (steps[2] - steps[1])
    assert flops["small-grown"]["decoder"] == flops["small"]["decoder"]


def check_costs(spent: dict[str, ImageCost | None], flops: dict[str, int]) -> None:
    plain, best = spent["small"], spent["small-best"]
    assert plain is not None
    assert best is not None
    n = N_PROMPTS * N_IMAGES
    assert (plain.n_images, plain.generated, plain.generation_flops) == (n, 1.0, sum(flops.values()))
    assert (best.n_images, best.n_delivered, best.generated) == (n, n, CANDIDATES / KEEP)
    # A search encodes its prompt once and delivers two images.
    text = flops["text encoder"]
    assert best.generation_flops == (text + CANDIDATES * (sum(flops.values()) - text)) / KEEP
    assert best.judge_flops is not None
    assert best.judge_flops > 0
    assert best.generation_s is not None
    assert best.generation_s > 0
    assert best.judge_s > 0


def check_gain(output: Path) -> None:
    (table,) = collect_leaderboard(output).tables
    entries = {entry.variant: entry for entry in table.entries}
    for variant, base in (("small-best", "small"), ("small-half", "small-grown")):
        numbers = entries[variant].numbers
        gain = numbers["redness"].gain
        assert gain is not None
        assert gain.over == base
        # Both are means of the same 12 scores in float64.
        difference = numbers["redness"].value - entries[base].numbers["redness"].value
        assert gain.difference == pytest.approx(difference, abs=1e-9)
        assert gain.low <= gain.difference <= gain.high
        row = report_rows(output)[variant, "redness"]
        assert [float(row[name]) for name in ("gain", "gain_low", "gain_high")] == [
            gain.difference,
            gain.low,
            gain.high,
        ]
        # The spread of a set has no value per image to pair.
        spread = numbers["spread"].gain
        assert spread is not None
        assert np.isnan(spread.low)


def test_torch_counts_the_recorded_candidates_alike(finished: Story) -> None:
    flops = models(finished.output)["small-best"]["image_flops"]
    # The prompts were encoded before, so torch saw all but the text encoder.
    ours = sum(count for stage, count in flops.items() if stage != "text encoder")
    for search in (found for found in searches(finished.output).values() if found is not None):
        assert search["generation_flops"] / search["images"] == pytest.approx(ours, rel=TOLERANCE)


def test_a_resumed_run_neither_loses_nor_doubles_its_cost(story: Story) -> None:
    found = searches(story.output)
    assert {key: found[key] for key in story.limited} == story.limited
    heads = [search for (_, index), search in found.items() if index % KEEP == 0]
    assert len(found) == N_PROMPTS * N_IMAGES
    assert [search["images"] if search else 0 for search in heads] == [CANDIDATES] * N_PROMPTS
    assert all(search is None for (_, index), search in found.items() if index % KEEP)
    before = costs(story.output)["small-best"]
    # Without the cache, and with an image to be made again: it is searched for anew, and costs as much as any.
    shutil.rmtree(story.output / "cache" / "search")
    next((story.output / "runs").glob("*/images/small-best-*/shapes/00000/00000.png")).unlink()
    assert story.run("--variants", "small-best") == 0
    again = searches(story.output)
    assert {key for key in found if again[key] != found[key]} == {("00000", 0)}
    after = costs(story.output)["small-best"]
    assert before is not None
    assert after is not None
    assert (after.n_images, after.generated, after.generation_flops) == (
        before.n_images, before.generated, before.generation_flops,
    )  # fmt: skip


def test_another_run_with_the_same_images_has_their_cost(story: Story) -> None:
    (first,) = collect_leaderboard(story.output).tables
    assert story.run("--set", "name=again") == 0
    paths = sorted((story.output / "runs").glob("*/provenance.json"))
    both = [json.loads(path.read_text(encoding="utf-8"))["models"] for path in paths]
    assert len(both) == 2
    assert both[0] == both[1]
    (again,) = collect_leaderboard(story.output).tables
    assert [entry.run for entry in again.entries] != [entry.run for entry in first.entries]
    assert [entry.cost for entry in again.entries] == [entry.cost for entry in first.entries]


@pytest.mark.parametrize("format_", ["folder", "parquet", "csv", "json"])
def test_an_imported_run_makes_the_same_report(finished: Story, tmp_path: Path, format_: str) -> None:
    output, new = finished.output, tmp_path / "new"
    source = output if format_ == "folder" else export(output, tmp_path / "exported", format_)
    assert execute(["import", str(source), "-o", str(new)]) == 0
    (directory,) = (new / "runs").iterdir()
    assert execute(["report", directory.name, "-o", str(new)]) == 0
    assert report_rows(new) == report_rows(output)
    assert costs(new) == costs(output)
    assert searches(new) == searches(output)


def export(output: Path, to: Path, format_: str) -> Path:
    assert execute(["export", "--all", "--format", format_, "--to", str(to), "-o", str(output)]) == 0
    return to


def test_an_export_of_before_there_were_searches_can_be_read(finished: Story, tmp_path: Path) -> None:
    """A column that came later is empty, not an error."""
    exported = export(finished.output, tmp_path / "exported", "json")
    rows = json.loads((exported / "timings.json").read_text(encoding="utf-8"))
    content = json.dumps([{name: row[name] for name in row if name != "search"} for row in rows]).encode()
    (exported / "timings.json").write_bytes(content)
    manifest = json.loads((exported / "manifest.json").read_text(encoding="utf-8"))
    manifest["tables"]["timings"]["sha256"] = sha256_bytes(content)
    (exported / "manifest.json").write_text(json.dumps(manifest))
    new = tmp_path / "new"
    assert execute(["import", str(exported), "-o", str(new)]) == 0
    assert all(search is None for search in searches(new).values())
    (cost,) = (cost for name, cost in costs(new).items() if name == "small-best")
    assert cost is None
