"""From real runs of the small test world to the leaderboard."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sana_bench.analysis.leaderboard import (
    collect_leaderboard,
    count_parameters,
    paired_contrast,
    weights_sha256,
)
from sana_bench.analysis.report import build_report_data
from sana_bench.cli.main import execute
from sana_bench.core.errors import UsageError
from sana_bench.results.reader import read_run
from sana_bench.results.run_folder import RunFiles, open_store
from sana_reports.leaderboard_data import to_json
from tests import ROOT

SCRIPT = ROOT / "scripts" / "update_leaderboard.py"


def test_every_complete_variant_is_a_row_with_paired_differences(world) -> None:
    world.run()
    (table,) = collect_leaderboard(world.output).tables
    assert (table.tier, table.benchmark) == ("micro", "shapes")
    assert [entry.variant for entry in table.entries] == ["fake-2", "fake-4"]
    assert [column.protocol for column in table.columns] == ["redness/test@1", "spread/test@1"]
    (contrast,) = table.contrasts  # `spread` has no value per image, so only `redness` is paired
    assert contrast.metric == "redness"
    values = [entry.numbers["redness"].value for entry in table.entries]
    # The mean of the per-prompt differences is the difference of the means, up to float64 rounding.
    assert contrast.difference == pytest.approx(values[1] - values[0], abs=1e-9)
    assert contrast.low < contrast.difference < contrast.high


def test_a_variant_measured_twice_is_one_row_that_names_both_runs(world) -> None:
    world.run()
    world.run(overrides=("name=again", "variants.micro=[fake-4]"))
    (table,) = collect_leaderboard(world.output).tables
    assert [entry.variant for entry in table.entries] == ["fake-2", "fake-4"]
    assert sorted(len(entry.other_runs) for entry in table.entries) == [0, 1]
    assert {entry.run for entry in table.entries} | set(table.entries[1].other_runs) == {
        path.name for path in (world.output / "runs").iterdir()
    }


def test_incomplete_results_are_kept_out_and_say_why(world) -> None:
    world.run(limit=5)
    found = collect_leaderboard(world.output)
    assert found.tables == []
    assert [row.variant for row in found.incomplete] == ["fake-4", "fake-2"]
    assert [row.reasons for row in found.incomplete] == [["shapes has 5/24 images"]] * 2
    ((variants, _),) = found.not_ranked
    assert variants == ["fake-4", "fake-2"]


def test_a_run_whose_directory_is_gone_is_listed_with_the_reason(world, capsys) -> None:
    world.run()
    world.run(overrides=("name=again",))
    lost = next((world.output / "runs").glob("again-*"))
    shutil.rmtree(lost)
    found = collect_leaderboard(world.output)
    (table,) = found.tables
    assert {entry.run for entry in table.entries} == {path.name for path in (world.output / "runs").iterdir()}
    assert {(row.variant, row.benchmark, row.run) for row in found.incomplete} == {
        (variant, "shapes", lost.name) for variant in ("fake-2", "fake-4")
    }
    assert execute(["leaderboard", "-o", str(world.output), "--benchmark", "shapes"]) == 0
    assert f"({lost.name}): its run directory is missing from this output folder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("prompts/shapes.jsonl", '{"id": "00000", "te', "shapes.jsonl: damaged"),
        ("prompts/shapes.jsonl", None, "shapes.jsonl: damaged"),
        ("suite.resolved.yaml", "benchmarks: [", "suite.resolved.yaml: damaged"),
        ("suite.resolved.yaml", "just text", "suite.resolved.yaml: damaged"),
    ],
)
def test_a_damaged_run_is_listed_with_the_reason_and_the_others_are_ranked(
    world, file, text, reason, capsys
) -> None:
    world.run()
    world.run(overrides=("name=again",))
    damaged = next((world.output / "runs").glob("again-*"))
    (damaged / file).unlink() if text is None else (damaged / file).write_text(text)
    found = collect_leaderboard(world.output)
    (table,) = found.tables
    assert len(table.entries) == 2
    assert damaged.name not in {entry.run for entry in table.entries}
    assert {row.run for row in found.incomplete} == {damaged.name}
    assert execute(["leaderboard", "-o", str(world.output)]) == 0
    (told,) = [line for line in capsys.readouterr().out.splitlines() if reason in line]
    assert len(found.incomplete) == 2
    assert "damaged" in told
    # What a run says of both its variants is said once.
    assert all(row.variant in told for row in found.incomplete)
    assert execute(["history", str(world.output)]) == 0
    told = capsys.readouterr().err
    assert ("which prompts this run had is unknown" in told) == (
        file == "suite.resolved.yaml" and text is not None
    )
    assert world.run() == 0


def test_other_workloads_get_their_own_table(world) -> None:
    world.run()
    world.run(overrides=("benchmarks.0.images_per_prompt=2",))
    tables = collect_leaderboard(world.output).tables
    assert len(tables) == 2
    assert len({table.workload for table in tables}) == 2
    assert all(len(table.entries) == 2 for table in tables)


def test_command_writes_links_that_lead_to_the_reports(world, capsys) -> None:
    world.run()
    assert execute(["leaderboard", "-o", str(world.output)]) == 0
    assert "shapes, micro tier: 2 variants" in capsys.readouterr().out
    (table,) = collect_leaderboard(world.output, link_from=world.output / "leaderboard").tables
    for entry in table.entries:
        assert (world.output / "leaderboard" / str(entry.report)).resolve().is_file()
    assert execute(["leaderboard", "-o", str(world.output), "--tier", "huge"]) == 2
    assert execute(["leaderboard", "-o", str(world.output), "--benchmark", "shape"]) == 2
    assert "did you mean 'shapes'" in capsys.readouterr().err


def test_no_store_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no result store"):
        collect_leaderboard(tmp_path)


def test_paired_contrast_is_the_t_interval_of_one_stratum() -> None:
    from scipy.stats import ttest_1samp

    differences = list(np.random.default_rng(0).normal(0.1, 1, 30))
    expected = ttest_1samp(differences, 0).confidence_interval(0.95)
    mean, low, high = paired_contrast(differences, [""] * 30, level=0.95)
    # The same formula in float64: only rounding differs.
    assert (mean, low, high) == pytest.approx((np.mean(differences), expected.low, expected.high), rel=1e-9)
    assert paired_contrast([1.0, 2.0, 3.0], ["a", "a", "b"], level=0.95) is None
    assert paired_contrast([0.0] * 4, ["a", "a", "b", "b"], level=0.95) == (0.0, 0.0, 0.0)


def test_parameters_are_counted_only_for_the_weights_that_were_measured() -> None:
    from safetensors.numpy import load_file

    from sana_bench.assets.locate import micro_weights_root

    file = micro_weights_root() / "sana-micro" / "transformer" / "diffusion_pytorch_model.safetensors"
    count = sum(array.size for array in load_file(file).values())
    assert count_parameters("micro://sana-micro", weights_sha256("micro://sana-micro")) == count
    assert count_parameters("micro://sana-micro", "0" * 64) is None
    assert count_parameters("micro://no-such-weights", "0" * 64) is None


def test_the_committed_leaderboard_is_what_its_data_and_the_shipped_weights_give() -> None:
    checked = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_staleness_check_finds_a_changed_page(world, tmp_path: Path) -> None:
    world.run()
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "results.json").write_text(
        to_json(collect_leaderboard(world.output)), encoding="utf-8"
    )

    def update(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), "--to", str(tmp_path / "board"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert update("--check").returncode == 1
    assert update().returncode == 0
    assert update("--check").returncode == 0
    page = tmp_path / "board" / "leaderboard.md"
    page.write_text(page.read_text(encoding="utf-8").replace("Leaderboard", "leaderboard"), encoding="utf-8")
    stale = update("--check")
    assert stale.returncode == 1
    assert "leaderboard.md is stale" in stale.stderr
    shutil.rmtree(tmp_path / "board")
    assert update("--check").returncode == 1


def test_a_variant_has_one_colour_in_every_report_and_in_the_leaderboard(world) -> None:
    world.run()
    world.run(overrides=("name=other", "variants.micro=[fake-2]"))
    board = collect_leaderboard(world.output)
    assert board.colors == {"fake-2": 1, "fake-4": 0}  # in the order in which the first run had them
    with open_store(world.output) as store:
        for directory in (world.output / "runs").iterdir():
            data = build_report_data(store, read_run(store, RunFiles(directory)))
            assert data.colors == {variant.name: board.colors[variant.name] for variant in data.variants}
            page = (directory / "report" / "report.html").read_text(encoding="utf-8")
            assert f'"colors":{json.dumps(list(data.colors.values()), separators=(",", ":"))}' in page
