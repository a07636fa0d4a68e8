"""Existing images as a variant: both layouts, broken manifests, and real scenes that score as they should."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sana_bench.benchmarks.geneval import GenEval
from sana_bench.cli import execute
from sana_bench.errors import AssetError
from sana_bench.generators.image_folder import MANIFEST, read_folder
from sana_bench.micro.captions import scene_for
from sana_bench.micro.renderer import render
from sana_bench.results.store import Store

LIMIT = 24

SUITE = """\
schema_version: 1
name: existing
seed: 0
benchmarks:
  - name: geneval
    images_per_prompt: 1
    metrics: [geneval]
variants:
  micro: [mine]
"""
VARIANT = """\
schema_version: 1
name: mine
tier: micro
generator: images
model: {weights: ../../images, height: 64, width: 64}
"""


def write_manifest(folder: Path, count: int) -> None:
    """True scenes of the first prompts in the order of work."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    by_tag: dict[str, list] = {}
    for prompt in GenEval().prompts("micro"):
        by_tag.setdefault(prompt.tag, []).append(prompt)
    spread = [group[turn] for turn in range(count) for group in by_tag.values() if turn < len(group)]
    for i, prompt in enumerate(spread[:count]):
        Image.fromarray(render(scene_for(prompt.metadata, rng))).save(folder / f"{i}.png")
        lines.append(json.dumps({"prompt": prompt.text, "index": 0, "file": f"{i}.png"}))
    (folder / MANIFEST).write_text("\n".join(lines) + "\n")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suites" / "existing.yaml"
    (path.parent / "variants").mkdir(parents=True)
    path.write_text(SUITE)
    (path.parent / "variants" / "mine.yaml").write_text(VARIANT)
    return path


def run(suite: Path, *arguments: str) -> int:
    return execute(
        ["run", str(suite), "--tier", "micro", "--output", str(suite.parents[1] / "results"), *arguments]
    )


def test_true_scenes_score_one(suite, tmp_path):
    write_manifest(tmp_path / "images", LIMIT)
    assert run(suite, "--limit", str(LIMIT)) == 3
    with Store.open_existing(tmp_path / "results") as store:
        rows = store.summaries(next((tmp_path / "results" / "runs").iterdir()).name)
    overall = next(row for row in rows if row.key == "overall")
    # The micro evaluator is right on 98 % of true scenes or more; here on all.
    assert (overall.value, overall.n_samples) == (1.0, LIMIT)


def test_an_image_that_is_not_there_makes_the_run_incomplete(suite, tmp_path, capsys):
    write_manifest(tmp_path / "images", 2)
    assert run(suite, "--limit", "4") == 3
    assert "2 failed" in capsys.readouterr().out


def test_a_sampler_is_refused(suite, tmp_path, capsys):
    write_manifest(tmp_path / "images", 1)
    path = suite.parent / "variants" / "mine.yaml"
    path.write_text(VARIANT + "sampler: {steps: 2, guidance_scale: 1.0}\n")
    assert run(suite) == 2
    assert "generator images takes no sampler" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_genevals_own_layout(tmp_path):
    for name, prompt in (("00000", "a bench"), ("00001", "two cats")):
        samples = tmp_path / name / "samples"
        samples.mkdir(parents=True)
        (tmp_path / name / "metadata.jsonl").write_text(json.dumps({"tag": "x", "prompt": prompt}))
        for i in (1, 0):
            Image.new("RGB", (4, 4)).save(samples / f"{i:05d}.png")
        (samples / "notes.txt").write_text("not an image")
    found = read_folder(tmp_path)
    assert sorted(found) == [("a bench", 0), ("a bench", 1), ("two cats", 0), ("two cats", 1)]
    assert found[("two cats", 1)].name == "00001.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", ":1: not valid JSON"),
        ("[1]", ":1: expected an object"),
        ('\n{"prompt": "a"}', ":2: expected prompt and file as text"),
        ('{"prompt": "a", "file": "x.png", "index": true}', ":1: expected index as a whole number"),
        ('{"prompt": "a", "file": "../x.png"}', "lies outside the folder"),
        (
            '{"prompt": "a", "file": "x.png"}\n{"prompt": "a", "file": "y.png"}',
            ":2: image 0 of 'a' appears twice",
        ),
        ("", "no manifest.jsonl, and no"),
    ],
)
def test_broken_manifests(tmp_path, text, message):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(AssetError) as refused:
        read_folder(tmp_path)
    assert message in str(refused.value)


def test_a_folder_without_anything(tmp_path):
    with pytest.raises(AssetError, match=r"no manifest\.jsonl"):
        read_folder(tmp_path)
