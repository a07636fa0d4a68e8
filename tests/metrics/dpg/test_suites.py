"""DPG-Bench from a suite by each full-tier protocol, with random judges: grids, single images, another judge."""

import json
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from sana_bench import metrics
from sana_bench.cli.main import execute
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.images import load_image
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.dpg.grid import sana_grid_jpeg
from sana_bench.results.store import Store
from sana_bench.suites.schema import MetricSpec
from tests.judges.vlm_cases import write_vlm
from tests.metrics.dpg.two_prompts import TABLE, TEXTS, scenes, write_scenes
from tests.suite_files import write_images, write_suite, write_variant
from tests.tiny_weights import write_tiny_vqa

GRID = 2 * 64 + 6


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data root with two prompts, a random mPLUG and a random LLaVA."""
    root = tmp_path / "data"
    (root / "dpg_bench").mkdir(parents=True)
    (root / "dpg_bench/dpg_bench.csv").write_text(TABLE)
    write_tiny_vqa(root / "mplug")
    (root / "judges").mkdir()
    write_vlm(root / "judges/tiny-llava")
    monkeypatch.setenv("SANA_BENCH_DATA", str(root))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return root


def write_mine(folder, metric, size):
    """A suite of one variant with an image of each prompt: a grid of four scenes where `size` is that of grids."""
    images = folder / "variants/images"
    if size == GRID:
        entries = [{"prompt": text, "index": 0, "file": f"{place}.jpg"} for place, text in enumerate(TEXTS)]
        write_images(images, zip(entries, map(sana_grid_jpeg, scenes(4)), strict=True))
    else:
        write_scenes(images, 1)
    write_variant(folder, "mine", "generator: images", height=size, width=size)
    return str(write_suite(folder, f"{{name: dpg_bench, images_per_prompt: 1, metrics: [{metric}]}}"))


@pytest.mark.parametrize(
    ("metric", "size", "protocol", "questions", "cells"),
    [
        ("dpg", 64, "dpg/official@1", 3, 1),
        ("{name: dpg, protocol: dpg/strict@1}", 64, "dpg/strict@1", 4, 1),
        ("{name: dpg, protocol: dpg/sana-grid@1}", GRID, "dpg/sana-grid@1", 3, 4),
        ("{name: dpg, protocol: dpg/strict@1, parameters: {pic_num: 4}}", 64, "dpg/strict@1", 4, 4),
        (
            "{name: dpg, protocol: dpg/vlm-tiny-llava@1, parameters: {judge: ./judges/tiny-llava}}",
            64,
            "dpg/vlm-tiny-llava@1",
            4,
            1,
        ),
    ],
)
def test_a_suite_reaches_every_protocol(data, tmp_path, metric, size, protocol, questions, cells):
    suite = write_mine(tmp_path / "suites", metric, size)
    assert execute(["validate", suite]) == 0
    output = tmp_path / "results"
    assert execute(["run", suite, "--tier", "full", "--output", str(output)]) == 0
    with Store.open(output) as store:
        (run_id,) = store.run_ids()
        overall = [row for row in store.summaries(run_id) if row.metric == "dpg" and row.key == "overall"]
    assert [(row.protocol, row.n_samples, row.n_expected) for row in overall] == [(protocol, 2, 2)]
    answers = recorded(output)
    # The published script never asks the table's first question, and drops the image whose graph lacks it.
    asked = sum(len(details["answers"]) for details in answers)
    dropped = sum("left_out" in details for details in answers)
    assert (asked, dropped) == ((4 * cells, 0) if questions == 4 else (2 * cells, 1))
    if cells == 4:
        assert {record["cell"] for details in answers for record in details["answers"]} == {0, 1, 2, 3}


def recorded(output):
    with closing(sqlite3.connect(output / "store.sqlite")) as database:
        return [json.loads(row[0]) for row in database.execute("select details from scores")]


def test_a_single_image_is_no_grid(data, tmp_path, capsys):
    suite = write_mine(tmp_path / "suites", "{name: dpg, protocol: dpg/sana-grid@1}", 65)
    assert execute(["run", suite, "--tier", "full", "--output", str(tmp_path / "results")]) != 0


@pytest.mark.parametrize(
    ("protocol", "parameters", "error", "message"),
    [
        ("dpg/vlm-tiny-llava@1", {}, SuiteError, "needs the parameter judge"),
        (
            "dpg/vlm-other@1",
            {"judge": "./judges/tiny-llava"},
            SuiteError,
            r"no protocol 'dpg/vlm-other@1'.*dpg/vlm-tiny-llava@1",
        ),
        (
            "dpg/strict@1",
            {"judge": "./judges/tiny-llava"},
            SuiteError,
            r"no protocol 'dpg/strict@1'.*dpg/vlm-tiny-llava@1",
        ),
        (None, {"judge": "./judges/tiny-llava", "precision": "fp8"}, SuiteError, "precision is 'fp8'"),
        (None, {"judge": "./judges/tiny-llava", "beams": 3}, SuiteError, "no parameter 'beams'"),
        (None, {"judge": "./judges/none"}, AssetError, r"'\./judges/none' is neither a folder"),
        (None, {"judge": "owner/judge-1b"}, AssetError, "hf download owner/judge-1b"),
        (None, {"judge": "///"}, SuiteError, "names no model"),
        ("dpg/sana-grid@1", {"cells": 2}, SuiteError, "no parameter 'cells'"),
    ],
)
def test_bad_choices_are_one_line(data, tmp_path, protocol, parameters, error, message):
    assets = MetricAssets(tmp_path, tmp_path)
    with pytest.raises(error, match=message) as caught:
        metrics.build(MetricSpec(name="dpg", protocol=protocol, parameters=parameters), "full", assets)
    assert "\n" not in str(caught.value)


def test_a_judge_alone_gives_its_own_protocol(data, tmp_path):
    choice = MetricSpec(
        name="dpg", protocol=None, parameters={"judge": "./judges/tiny-llava", "precision": "bf16"}
    )
    metric = metrics.build(choice, "full", MetricAssets(tmp_path, tmp_path))
    assert metric.protocol == "dpg/vlm-tiny-llava@1"
    assert metric.identity()["judge"]["precision"] == "bf16"
    assert metric.identity()["rules"] == "strict"


def write_four(folder, size=64, protocol="dpg/strict@1", count=4):
    """A suite of one variant with four single images of each prompt."""
    write_scenes(folder / "variants/images", 4, seed=5, height=size)
    write_variant(folder, "mine", "generator: images", height=size)
    metric = f"{{name: dpg, protocol: {protocol}}}"
    return str(write_suite(folder, f"{{name: dpg_bench, images_per_prompt: {count}, metrics: [{metric}]}}"))


def run_four(tmp_path, size=64):
    output = tmp_path / "results"
    suite = write_four(tmp_path / "four", size)
    assert execute(["run", suite, "--tier", "full", "--output", str(output)]) == 0
    (run,) = (output / "runs").iterdir()
    return output, run.name


def test_grids_of_a_run_are_scored_as_sanas_are(data, tmp_path, capsys):
    output, run = run_four(tmp_path)
    export = ["export", run, "-o", str(output), "--dpg-grids"]
    suite = write_mine(tmp_path / "suites", "{name: dpg, protocol: dpg/sana-grid@1}", GRID)
    grids = tmp_path / "suites/variants/images"
    for path in grids.iterdir():
        path.unlink()
    grids.rmdir()
    assert execute([*export, str(tmp_path / "grids")]) == 0
    (tmp_path / "grids/mine").rename(grids)
    pictures = [
        np.asarray(Image.open(tmp_path / f"four/variants/images/1-{index}.png")) for index in range(4)
    ]
    assert (grids / "8.jpg").read_bytes() == sana_grid_jpeg(pictures)
    assert execute(["run", suite, "--tier", "full", "--output", str(tmp_path / "of_grids")]) == 0
    answers = recorded(tmp_path / "of_grids")
    assert {record["cell"] for details in answers for record in details["answers"]} == {0, 1, 2, 3}
    joined = write_four(tmp_path / "joined", protocol="dpg/sana-grid@1")
    assert execute(["run", joined, "--tier", "full", "--output", str(tmp_path / "in_one")]) == 0
    assert numbers(tmp_path / "in_one") == numbers(tmp_path / "of_grids")
    assert [len(details["answers"]) for details in recorded(tmp_path / "in_one")].count(2) == 4


def numbers(output):
    """Every number of the only run: value and interval by key."""
    with Store.open(output) as store:
        (run_id,) = store.run_ids()
        return {row.key: (row.value, row.low, row.high) for row in store.summaries(run_id)}


def test_joined_images_are_scored_together_or_not_at_all(data, tmp_path, capsys):
    folder, output = tmp_path / "suites", tmp_path / "results"
    run = ["run", write_four(folder, protocol="dpg/sana-grid@1"), "--tier", "full", "-o", str(output)]
    assert execute([*run, "--limit", "1"]) == 3
    # One image would be no grid: the limit takes the whole of it.
    assert "4/8 images" in capsys.readouterr().out
    assert execute(run) == 0
    assert "4 images to read, 4 already there" in capsys.readouterr().out
    assert len(recorded(output)) == 8
    images = folder / "variants/images"
    (images / "1-0.png").write_bytes((images / "0-0.png").read_bytes())
    assert execute(run) == 0
    # All four cells of the second prompt's grid are judged anew, and of the first none.
    assert len(recorded(output)) == 12


def test_a_grid_takes_four_images_a_prompt_or_a_file(data, tmp_path, capsys):
    suite = write_four(tmp_path / "suites", protocol="dpg/sana-grid@1", count=2)
    assert execute(["run", suite, "--tier", "full", "--output", str(tmp_path / "results")]) == 2
    assert "dpg/sana-grid@1 joins 4 images of a prompt, and images_per_prompt is 2; 4, or 1" in (
        capsys.readouterr().err
    )


def test_grids_of_prompts_with_one_text_find_their_way_back(data, tmp_path):
    table = data / "dpg_bench/dpg_bench.csv"
    table.write_text(TABLE.replace("A blue star", "A red ring"))
    folder = tmp_path / "suites"
    suite = write_four(folder)
    manifest = folder / "variants/images/manifest.jsonl"
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    entries = [entry | {"id": "78"[i // 4], "prompt": "A red ring"} for i, entry in enumerate(entries)]
    manifest.write_text("\n".join(map(json.dumps, entries)))
    assert execute(["run", suite, "--tier", "full", "--output", str(tmp_path / "first")]) == 0
    (run,) = (tmp_path / "first/runs").iterdir()
    assert execute(["export", str(run), "--dpg-grids", str(tmp_path / "grids")]) == 0
    grids = write_mine(tmp_path / "of_grids", "{name: dpg, protocol: dpg/sana-grid@1}", GRID)
    shutil.rmtree(tmp_path / "of_grids/variants/images")
    (tmp_path / "grids/mine").rename(tmp_path / "of_grids/variants/images")
    assert execute(["run", grids, "--tier", "full", "--output", str(tmp_path / "second")]) == 0
    (run,) = (tmp_path / "second/runs").iterdir()
    for item in "78":
        (stored,) = run.glob(f"images/*/dpg_bench/{item}/00000.png")
        grid = tmp_path / f"of_grids/variants/images/{item}.jpg"
        assert np.array_equal(load_image(stored), load_image(grid))
    assert not np.array_equal(load_image(stored), load_image(grid.with_name("7.jpg")))


def test_an_item_id_that_leads_out_of_the_run_is_refused(data, tmp_path, capsys):
    table = data / "dpg_bench/dpg_bench.csv"
    table.write_text(TABLE.replace("\n8,", "\n../../../../../esc,"))
    suite = write_mine(tmp_path / "suites", "dpg", 64)
    assert execute(["run", suite, "--tier", "full", "--output", str(tmp_path / "results")]) == 2
    error = capsys.readouterr().err
    assert "benchmark 'dpg_bench': the prompt id '../../../../../esc' cannot be the name of a folder" in error
    assert not list(tmp_path.rglob("esc"))


def test_grids_that_cannot_be_made_are_one_line(data, tmp_path, capsys):
    output, run = run_four(tmp_path)
    export = ["export", run, "-o", str(output), "--dpg-grids"]
    assert execute([*export[:1], *export[2:], str(tmp_path / "a")]) == 2
    assert "needs the name of one run" in capsys.readouterr().err
    gone = sorted(output.rglob("0000[13].png"))
    assert len(gone) == 4
    for path in gone:
        path.unlink()
    assert execute([*export, str(tmp_path / "b")]) == 3
    told = capsys.readouterr()
    assert "00001.png is missing, and 3 more; run the suite again" in told.err
    assert [line.removesuffix(" is missing").strip() for line in told.out.splitlines()[1:]] == list(
        map(str, gone)
    )
    # A failure leaves nothing behind.
    assert not (tmp_path / "b").exists()
    (tmp_path / "b/mine").mkdir(parents=True)
    assert execute([*export, str(tmp_path / "b")]) == 2
    assert "already exists" in capsys.readouterr().err


def test_grids_take_square_images_and_four_of_them(data, tmp_path, capsys):
    output, run = run_four(tmp_path, size=60)
    assert execute(["export", run, "-o", str(output), "--dpg-grids", str(tmp_path / "a")]) == 2
    assert "four square images" in capsys.readouterr().err
    single = write_mine(tmp_path / "suites", "dpg", 64)
    assert execute(["run", single, "--tier", "full", "--output", str(tmp_path / "one")]) == 0
    (run,) = (tmp_path / "one/runs").iterdir()
    assert execute(["export", run.name, "-o", str(tmp_path / "one"), "--dpg-grids", str(tmp_path / "b")]) == 2
    assert "a grid takes 4 images a prompt" in capsys.readouterr().err
