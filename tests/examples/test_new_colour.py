"""The recipe of a new colour, typed as docs/training.md has it, from its images to the gate: smaller, and all of it.

What the whole training brings and costs is measured in docs/training.md.
"""

import csv
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from sana_bench.analysis.runs import Run, load_run
from sana_bench.cli.main import execute
from tests import ROOT

EXAMPLE = ROOT / "examples" / "new_colour"
CONFIG = Path("configs/train/sana_micro_teal.yaml")
TRAINED = Path("results/train/sana_micro_teal")
BEFORE, AFTER = (f"{name}[steps=4]" for name in ("sana-micro", "sana-micro-teal"))
#: What is typed behind a command of the page: fewer images, 4 solver steps in place of 20.
SMALLER = {
    "make_images.py": ("--teal", "100", "--known", "40"),
    "run": (
        *("--set", "variants.sana-micro.sampler.steps=4"),
        *("--set", "variants.sana-micro-teal.sampler.steps=4"),
    ),
}


def commands() -> list[list[str]]:
    """The commands of the page's section, in its order."""
    page = (ROOT / "docs/training.md").read_text()
    section = page.partition("## Fine-tune on a folder")[2].partition("\n## ")[0]
    return [shlex.split(line) for line in section.splitlines() if line.startswith("    ")]


def type_in(words: list[str]) -> int:
    if words[0] == "python":
        script = [sys.executable, *words[1:], *SMALLER["make_images.py"]]
        # The package may be here without being installed.
        places = os.pathsep.join(sys.path)
        return subprocess.run(script, check=False, env={**os.environ, "PYTHONPATH": places}).returncode
    assert words[0] == "sana-bench"
    return execute([*words[1:], *SMALLER.get(words[1], ())])


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone's folders, as far as the recipe needs them; of the training a fiftieth."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(EXAMPLE, folder / "examples/new_colour")
    config = yaml.safe_load((ROOT / CONFIG).read_text())
    config["training"] |= {"steps": 32, "checkpoint_every": 32}
    config["validation"] |= {"every": 16, "images": 24, "steps": 4}
    (folder / CONFIG).parent.mkdir(parents=True)
    (folder / CONFIG).write_text(yaml.safe_dump(config))
    return folder


def test_the_recipe_from_its_images_to_the_gate(clone, monkeypatch, capsys):
    """32 steps teach half of the colour and cost nothing that the suite could see; spoilt weights do not pass."""
    monkeypatch.chdir(clone)
    images, check, train, run, compare, baseline, gate = commands()
    assert type_in(images) == 0

    assert type_in(check) == 0
    told = capsys.readouterr().out
    assert "data/teal: 100 images, 100 captions" in told
    assert "data/known: 40 images, 40 captions" in told
    assert "100 captions have words that the tokenizer does not know" in told

    assert type_in(train) == 0
    rows = list(csv.DictReader((TRAINED / "curve.csv").open()))
    losses = [float(row["validation_loss"]) for row in rows if row["validation_loss"]]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert (TRAINED / "exports/best").resolve().name == "step-000032"
    assert (TRAINED / "samples/step-000032.png").is_file()

    assert type_in(run) == 0
    found = load_run()
    assert found.variants == [BEFORE, AFTER]
    assert found.complete
    page = found.report.read_text()
    assert BEFORE in page
    assert AFTER in page
    assert share_of_teal(found, BEFORE) < 0.01
    # 0.51 on an EPYC, with AVX2 and with AVX-512; a half of it is far from chance.
    assert share_of_teal(found, AFTER) > 0.25
    first, second = (images_of(found, name) for name in (BEFORE, AFTER))
    assert len(first) == len(second) == 32 + 144
    assert not first & second

    capsys.readouterr()
    assert type_in(compare) == 0
    verdicts = verdicts_of(capsys.readouterr().out)
    assert verdicts["teal/teal_share"] == "better"
    assert verdicts["geneval/geneval"] == verdicts["geneval/clip_score"] == "no evidence"

    assert type_in(baseline) == 0
    assert type_in(gate) == 0
    told = capsys.readouterr().out
    assert "gate: pass" in told
    assert {line.partition(":")[0] for line in told.splitlines()[1:-1]} == {
        "geneval/geneval",
        "geneval/clip_score",
    }

    weights = TRAINED / "exports/best/transformer/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["proj_out.weight"] = tensors["proj_out.weight"].flip(0)
    save_file(tensors, weights, metadata={"format": "pt"})
    assert type_in(run) == 0
    capsys.readouterr()
    assert type_in(gate) == 4
    assert "gate: regression: geneval/geneval, geneval/clip_score" in capsys.readouterr().out


def share_of_teal(run: Run, variant: str) -> float:
    table = run.table()
    (value,) = table[(table.variant == variant) & (table.metric == "teal_share")].value
    return float(value)


def images_of(run: Run, variant: str) -> set[str]:
    """SHA-256 of a variant's images."""
    samples = run.samples()
    return {sha256(Path(path).read_bytes()).hexdigest() for path in samples[samples.variant == variant].image}


def verdicts_of(table: str) -> dict[str, str]:
    """Verdict by metric, as far as its colon, in what `compare` prints."""
    lines = [re.split(r"  +", line) for line in table.splitlines()]
    return {words[0]: words[-1].partition(":")[0] for words in lines if "/" in words[0] and len(words) > 4}


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
