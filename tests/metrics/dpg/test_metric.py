"""The DPG metric: rows, categories and intervals by each protocol, grids, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sana_bench.core.errors import AssetError, IncompleteError, SuiteError
from sana_bench.core.images import ImageError, load_image
from sana_bench.core.samples import Prompt, Sample
from sana_bench.judges.base import Answer
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.dpg.grid import Grid, SanaGrid, SingleImage, cut_cells, layout_of, sana_grid_jpeg
from sana_bench.metrics.dpg.metric import OFFICIAL, STRICT, DPGMetric, build_dpg
from sana_bench.suites.schema import MetricSpec

SEED = 5


class BrightnessJudge:
    """Says yes to the questions whose number is at most the picture's mean brightness over ten."""

    def identity(self):
        return {"network": "brightness"}

    def answers(self, image, questions):
        level = image.mean() / 10
        return [Answer("yes" if int(q.split()[-1]) <= level else "no") for q in questions]


def question(key, parents, category, **more):
    return {
        "proposition_id": key,
        "dependency": parents,
        "tuple": f"{category} (x)",
        "question": f"above {key}",
        **more,
    }


GRAPH = [
    question(1, [0], "entity - whole", first_row=True),
    question(3, [2], "attribute - color"),
    question(2, [0], "global -"),
]


@pytest.fixture
def make(tmp_path):
    """Samples of flat pictures: `make([(prompt id, brightness), ..])`."""

    def build(levels, questions=GRAPH, size=8):
        samples, seen = [], {}
        for prompt_id, level in levels:
            index = seen[prompt_id] = seen.get(prompt_id, -1) + 1
            path = tmp_path / f"{prompt_id}-{index}.png"
            Image.fromarray(np.full((size, size, 3), level, np.uint8)).save(path)
            prompt = Prompt(prompt_id, "text", "dense", {"questions": questions})
            samples.append(Sample("v", "dpg_bench", prompt, index, path))
        return samples

    return build


def metric(rules, layout=None):
    return DPGMetric("dpg/test@1", BrightnessJudge(), rules, layout)


def by_key(summaries):
    return {summary.key: summary for summary in summaries}


def test_strict_counts_all_questions_and_images(make):
    # Brightness 35 answers all with yes, 15 only the first; then 3 falls with its parent 2.
    samples = make([("a", 35), ("a", 15), ("b", 35), ("b", 35)])
    rows = metric(STRICT).score(samples)
    assert [row.value for row in rows] == pytest.approx([100, 100 / 3, 100, 100])
    found = by_key(metric(STRICT).summarise(rows, 4, SEED))
    assert found["overall"].value == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert found["entity"].value == 100
    assert found["attribute"].value == found["attribute - color"].value == 75
    assert found["global"].value == 75
    assert list(found) == ["overall", "attribute", "attribute - color", "entity", "entity - whole", "global"]
    assert found["overall"].n_prompts == 2


def test_official_skips_the_first_row_and_takes_categories_of_the_last_image(make):
    samples = make([("a", 35), ("a", 15), ("b", 15), ("b", 35)])
    rows = metric(OFFICIAL).score(samples)
    assert [[record["id"] for record in row.details["answers"]] for row in rows] == [[3, 2]] * 4
    assert [row.value for row in rows] == [100, 0, 0, 100]
    found = by_key(metric(OFFICIAL).summarise(rows, 4, SEED))
    assert "entity" not in found
    # Last images: a's is dark, b's bright.
    assert found["attribute"].value == 50
    assert found["attribute"].n_prompts == 2


def test_official_categories_ignore_dependencies(make):
    graph = [question(3, [0], "global -"), question(1, [3], "other - count")]
    rows = metric(OFFICIAL).score(make([("a", 15)], graph))
    assert [record["score"] for record in rows[0].details["answers"]] == [0, 0]
    assert by_key(metric(OFFICIAL).summarise(rows, 1, SEED))["other"].value == 100
    strict = metric(STRICT)
    assert by_key(strict.summarise(strict.score(make([("b", 15)], graph)), 1, SEED))["other"].value == 0


def test_what_the_published_script_drops_is_said(make):
    graph = [question(1, [0], "entity - whole", first_row=True), question(2, [1], "attribute - color")]
    official = metric(OFFICIAL)
    rows = official.score(make([("a", 35)], graph) + make([("b", 35)]))
    assert rows[0].details["left_out"] == "question 2 depends on 1, which is not asked"
    overall = official.summarise(rows, 2, SEED)[0]
    assert (overall.value, overall.n_samples, overall.n_prompts) == (100, 2, 1)
    assert overall.note == "1 images left out, as the published script does"
    with pytest.raises(IncompleteError, match="leaves out every image"):
        official.summarise(rows[:1], 1, SEED)


def test_strict_names_the_prompt_of_a_broken_graph(make):
    with pytest.raises(AssetError, match="prompt 'a': question 2 depends on 7"):
        metric(STRICT).score(make([("a", 35)], [question(2, [7], "global -")]))


def test_prompts_without_questions_are_refused(make):
    (sample,) = make([("a", 35)])
    with pytest.raises(SuiteError, match=r"prompt 'a' of 'dpg_bench' has no questions"):
        metric(STRICT).score([replace(sample, prompt=Prompt("a", "text", "dense"))])


def test_order_of_rows_and_missing_samples(make):
    samples = make([("a", 35), ("a", 15), ("b", 25), ("b", 35)])
    for rules in (OFFICIAL, STRICT):
        rows = metric(rules).score(samples)
        assert metric(rules).summarise(rows[::-1], 4, SEED) == metric(rules).summarise(rows, 4, SEED)
        short = metric(rules).summarise(rows[:-1], 4, SEED)
        assert not any(summary.complete for summary in short)
        assert all(summary.complete for summary in metric(rules).summarise(rows, 4, SEED))
        assert all(s.low <= s.value <= s.high for s in short)


def grid_of(levels, size=8):
    tiles = [np.full((size, size, 3), level, np.uint8) for level in levels]
    return np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])


def test_a_grid_is_the_mean_of_its_cells(make, tmp_path):
    (sample,) = make([("a", 0)])
    path = tmp_path / "grid.png"
    Image.fromarray(grid_of([35, 15, 15, 35])).save(path)
    (row,) = metric(OFFICIAL, Grid()).score([replace(sample, image_path=path)])
    assert row.value == 50
    assert [record["cell"] for record in row.details["answers"]] == [0, 0, 1, 1, 2, 2, 3, 3]
    found = by_key(metric(OFFICIAL, Grid()).summarise([row], 1, SEED))
    assert found["attribute"].value == 100  # of the last cell only
    (first,) = metric(OFFICIAL, Grid(1)).score([replace(sample, image_path=path)])
    assert first.value == 100
    with pytest.raises(ImageError, match="not a 2x2 grid"):
        Grid().cells(np.zeros((8, 10, 3), np.uint8), path)


def test_cells_past_the_border_are_black():
    cells = cut_cells(np.full((10, 10, 3), 9, np.uint8), 8, 4)
    assert [int((cell == 9).all(axis=2).sum()) for cell in cells] == [64, 16, 16, 4]
    assert all(cell.shape == (8, 8, 3) for cell in cells)


def test_sana_grid_has_the_published_geometry(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    rng = np.random.default_rng(0)
    images = [np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(4)]
    tensors = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    expected = tmp_path / "sana.jpg"
    # What SANA's generation script does: four images in two columns, default padding, default quality.
    torchvision.utils.save_image(tensors, expected, nrow=2)
    path = tmp_path / "ours.jpg"
    path.write_bytes(sana_grid_jpeg(images))
    assert load_image(path).shape == (70, 70, 3)
    assert path.read_bytes() == expected.read_bytes()


def test_sana_cells_are_cut_as_if_there_were_no_separator():
    grid = np.zeros((70, 70, 3), np.uint8)
    for place in range(4):
        top, left = (2 + 34 * index for index in divmod(place, 2))
        grid[top : top + 32, left : left + 32] = 50 * (place + 1)
    cells = SanaGrid().cells(grid, None)
    assert [cell.shape for cell in cells] == [(32, 32, 3)] * 4
    assert (cells[0][:2] == 0).all()
    assert (cells[0][2:, 2:] == 50).all()
    # The last cell starts two pixels inside its neighbours, then comes the separator, then its own image.
    assert [int(cells[3][i, i, 0]) for i in (0, 1, 2, 3, 4)] == [50, 50, 0, 0, 200]
    with pytest.raises(ImageError, match="not a 2x2 grid with separators"):
        SanaGrid().cells(np.zeros((64, 65, 3), np.uint8), None)


def test_sanas_default_resolution_cuts_the_first_of_four_larger_images():
    """SANA's launcher passes 512 for 1024-pixel models too; here 16 for 32."""
    grid = np.zeros((70, 70, 3), np.uint8)
    grid[2:34, 2:34] = 9
    grid[36:, 36:] = 200
    cells = SanaGrid(16).cells(grid, None)
    assert [cell.shape for cell in cells] == [(16, 16, 3)] * 4
    assert (cells[3] == 9).all()
    assert (cells[0][2:, 2:] == 9).all()
    assert (cells[0][:2] == 0).all()


@pytest.mark.parametrize(
    ("protocol", "parameters", "expected"),
    [
        ("dpg/official@1", {}, SingleImage()),
        ("dpg/official@1", {"pic_num": 4}, Grid(4)),
        ("dpg/strict@1", {"pic_num": 2, "resolution": 512}, Grid(2, 512)),
        ("dpg/sana-grid@1", {}, SanaGrid()),
        ("dpg/sana-grid@1", {"resolution": 512}, SanaGrid(512)),
    ],
)
def test_the_published_scripts_options_are_parameters(protocol, parameters, expected):
    assert layout_of(protocol, MetricSpec(name="dpg", protocol=protocol, parameters=parameters)) == expected


@pytest.mark.parametrize(
    ("protocol", "parameters", "match"),
    [
        ("dpg/official@1", {"pic_num": 5}, "pic_num is 5; 1 to 4"),
        ("dpg/official@1", {"pic_num": -1}, "pic_num is -1; 1 to 4"),
        ("dpg/official@1", {"resolution": 512}, "and pic_num the number of cells"),
        ("dpg/official@1", {"pic_num": 4, "resolution": -2}, "resolution is -2"),
        ("dpg/sana-grid@1", {"pic_num": 2}, "no parameter 'pic_num'"),
    ],
)
def test_other_options_are_refused(protocol, parameters, match):
    with pytest.raises(SuiteError, match=match):
        layout_of(protocol, MetricSpec(name="dpg", protocol=protocol, parameters=parameters))


def test_identity_names_rules_layout_and_judge():
    one, other = metric(OFFICIAL).identity(), metric(OFFICIAL, SanaGrid()).identity()
    assert one["judge"] == {"network": "brightness"}
    assert one != other
    assert metric(STRICT).identity()["rules"] == "strict"


def test_missing_weights_and_unknown_protocols_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assets = MetricAssets(tmp_path / "weights", tmp_path / "cache")
    with pytest.raises(AssetError, match="hf download xingjianleng/mplug_visual"):
        build_dpg("full", assets)
    with pytest.raises(AssetError, match=r"vqa is missing"):
        build_dpg("micro", assets)
    with pytest.raises(SuiteError, match=r"dpg/strict@2.*did you mean 'dpg/strict@1'"):
        build_dpg("full", assets, MetricSpec(name="dpg", protocol="dpg/strict@2"))
