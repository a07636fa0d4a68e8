"""DPG-Bench from a suite by each full-tier protocol, with random judges: grids, single images, another judge."""

import json

import numpy as np
import pytest
from PIL import Image
from vlm_cases import write_vlm

from sana_bench import metrics
from sana_bench.cli import execute
from sana_bench.errors import AssetError, SuiteError
from sana_bench.metrics.assets import MetricAssets
from sana_bench.metrics.choice import MetricChoice
from sana_bench.metrics.dpg_grid import sana_grid_jpeg
from sana_bench.micro.renderer import render
from sana_bench.micro.vqa_data import sample_scene
from sana_bench.results.store import Store

TABLE = """\
item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language
7,A red ring,,1,0,entity,whole,"entity - whole (ring)",Is there a ring?
7,,,2,1,attribute,color,"attribute - color (ring, red)",Is the ring red?
8,A blue star,,1,0,entity,whole,"entity - whole (star)",Is there a star?
8,,,2,1,attribute,color,"attribute - color (star, blue)",Is the star blue?
"""
GRID = 2 * 64 + 6


@pytest.fixture
def data(tmp_path, monkeypatch, make_vqa):
    """A data root with two prompts, a random mPLUG and a random LLaVA."""
    root = tmp_path / "data"
    (root / "dpg_bench").mkdir(parents=True)
    (root / "dpg_bench/dpg_bench.csv").write_text(TABLE)
    make_vqa(root / "mplug", seed=0)
    (root / "judges").mkdir()
    write_vlm(root / "judges/tiny-llava")
    monkeypatch.setenv("SANA_BENCH_DATA", str(root))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return root


def write_images(folder, size):
    rng = np.random.default_rng(size)
    folder.mkdir()
    lines = []
    for place, text in enumerate(("A red ring", "A blue star")):
        pictures = [render(sample_scene(rng)) for _ in range(4)]
        name = f"{place}.jpg" if size == GRID else f"{place}.png"
        if size == GRID:
            (folder / name).write_bytes(sana_grid_jpeg(pictures))
        else:
            Image.fromarray(pictures[0]).save(folder / name)
        lines.append(json.dumps({"prompt": text, "index": 0, "file": name}))
    (folder / "manifest.jsonl").write_text("\n".join(lines))


def write_suite(folder, metric, size):
    (folder / "variants").mkdir(parents=True)
    write_images(folder / "variants/images", size)
    (folder / "variants/mine.yaml").write_text(
        "schema_version: 1\nname: mine\ntier: full\ngenerator: images\n"
        f"model: {{weights: ./images, height: {size}, width: {size}}}\n"
    )
    (folder / "s.yaml").write_text(
        "schema_version: 1\nname: s\nbenchmarks:\n"
        f"  - {{name: dpg_bench, images_per_prompt: 1, metrics: [{metric}]}}\n"
        "variants: {full: [mine]}\n"
    )
    return str(folder / "s.yaml")


@pytest.mark.parametrize(
    ("metric", "size", "protocol", "questions", "cells"),
    [
        ("dpg", 64, "dpg/official@1", 3, 1),
        ("{name: dpg, protocol: dpg/strict@1}", 64, "dpg/strict@1", 4, 1),
        ("{name: dpg, protocol: dpg/sana-grid@1}", GRID, "dpg/sana-grid@1", 3, 4),
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
    suite = write_suite(tmp_path / "suites", metric, size)
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
    assert (asked, dropped) == ((4, 0) if questions == 4 else (2 * cells, 1))
    if cells == 4:
        assert {record["cell"] for details in answers for record in details["answers"]} == {0, 1, 2, 3}


def recorded(output):
    import sqlite3

    with sqlite3.connect(next(output.glob("*.sqlite*"))) as database:
        return [json.loads(row[0]) for row in database.execute("select details from scores")]


def test_a_single_image_is_no_grid(data, tmp_path, capsys):
    suite = write_suite(tmp_path / "suites", "{name: dpg, protocol: dpg/sana-grid@1}", 65)
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
        metrics.build("dpg", "full", assets, MetricChoice("dpg", protocol, parameters))
    assert "\n" not in str(caught.value)


def test_a_judge_alone_gives_its_own_protocol(data, tmp_path):
    choice = MetricChoice("dpg", None, {"judge": "./judges/tiny-llava", "precision": "bf16"})
    metric = metrics.build("dpg", "full", MetricAssets(tmp_path, tmp_path), choice)
    assert metric.protocol == "dpg/vlm-tiny-llava@1"
    assert metric.identity()["judge"]["precision"] == "bf16"
    assert metric.identity()["rules"] == "strict"
