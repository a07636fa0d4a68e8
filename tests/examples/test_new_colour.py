"""The recipe of a new colour: its images, the check, a training of two steps, and a suite and a metric that fit what comes out.

What a whole training brings and costs is measured in docs/training.md.
"""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from sana_bench.cli.main import execute
from tests import ROOT

EXAMPLE = ROOT / "examples" / "new_colour"


def test_the_recipe_leads_from_images_to_a_variant_that_a_suite_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script = [sys.executable, str(EXAMPLE / "make_images.py"), "data", "--known", "40"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((ROOT / "configs/train/sana_micro_teal.yaml").read_text())
    config["training"] |= {"steps": 2, "batch_size": 4}
    config["validation"] |= {"every": 2, "images": 4, "steps": 2}
    Path("sana_micro_teal.yaml").write_text(yaml.safe_dump(config))
    assert execute(["train", "sana_micro_teal.yaml", "--check"]) == 0
    told = capsys.readouterr().out
    assert "data/teal: 200 images, 200 captions" in told
    assert "data/known: 40 images, 40 captions" in told
    assert "200 captions have words that the tokenizer does not know" in told
    assert execute(["train", "sana_micro_teal.yaml"]) == 0
    assert Path("results/train/sana_micro_teal/samples/step-000002.png").is_file()
    shutil.copytree(EXAMPLE / "suites", "examples/new_colour/suites")
    capsys.readouterr()
    suite = "examples/new_colour/suites/new_colour.yaml"
    assert execute(["run", suite, "--tier", "micro", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "sana-micro-teal" in told
    assert "not on this machine" not in told


def test_the_metric_knows_teal_from_all_that_the_model_knew(tmp_path):
    script = runpy.run_path(str(EXAMPLE / "make_images.py"))
    script["write_images"](tmp_path, 30, script["teal_pair"], 7)
    share = runpy.run_path(str(EXAMPLE / "suites/teal.py"))["teal_share"]
    alone, beside = [], []
    for path in tmp_path.glob("*.png"):
        text = path.with_suffix(".txt").read_text()
        assert "a teal " in text
        # "a photo of a teal SHAPE", or two shapes of which one is teal.
        kind = alone if len(text.split()) == 6 else beside
        kind.append(share(np.asarray(Image.open(path)), text))
    assert len(alone) >= 2
    # The edge of a shape is mixed with the background.
    assert min(alone) > 0.9
    assert all(0.1 < value < 0.9 for value in beside)
    grey = np.full((64, 64, 3), 190, np.uint8)
    blue = grey.copy()
    blue[20:40, 20:40] = (35, 85, 220)
    assert share(blue, "") == share(grey, "") == 0
